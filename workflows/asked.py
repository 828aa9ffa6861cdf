"""What a step hands to its activity, as it travels: JSON that all on its way can carry."""

import re
from functools import lru_cache
from typing import Any

import orjson
from pydantic_core import from_json, to_jsonable_python

LARGEST = 1_000_000  # bytes: Temporal takes twice as many, callers included
_OPTIONS = orjson.OPT_NON_STR_KEYS | orjson.OPT_PASSTHROUGH_DATETIME
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")  # which no database keeps


def written(args: dict[str, Any]) -> bytes:
    """As it is sent.

    Raises:
        ValueError: it can't be.
    """
    try:
        text = orjson.dumps(args, default=to_jsonable_python, option=_OPTIONS)
        if len(text) > LARGEST:
            raise ValueError(f"it has {len(text):,} bytes, and {LARGEST:,} are the most")
        if b"\\u0000" in text and _NUL.search(text):
            raise ValueError("it has characters in it that no database keeps")
        read(text)
    except (TypeError, ValueError) as error:
        raise ValueError(f"A step can't take this along: {error}") from error
    return text


@lru_cache(maxsize=16)  # many contacts ask the same, one after the other
def read(text: bytes) -> dict[str, Any]:
    """The same again. On its way it is within something else, which counts where there is a depth that is too much."""
    found: dict[str, Any] = from_json(b"[[%b]]" % text)[0][0]
    return found
