"""How are things of several types told apart, and how do they say what is wrong with them?"""

from collections.abc import Mapping
from typing import Any

from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from marketing.segment_nodes import refuse


def part(default: Any = None, **more: Any) -> Any:
    """A part that may be left out; then it is not written either."""
    return Field(default, exclude_if=lambda value: value == default, **more)


def told(error: Mapping[str, Any]) -> str:
    """Pydantic's own words in ours."""
    words = _TOLD.get(error["type"])
    if words:
        return words.format(**error.get("ctx", {}))
    return f"{str(error['msg']).removeprefix('Value error, ').rstrip('.')}."


_TOLD = {
    "union_tag_not_found": "is missing. Say it.",
    "union_tag_invalid": "takes one of {expected_tags}.",
    "model_attributes_type": "takes an object.",
    "model_type": "takes an object.",
    "dict_type": "takes an object.",
    "extra_forbidden": "is not understood here. Take it out.",
    "missing": "is missing. Say it.",
    "too_short": "needs at least {min_length}.",
    "too_long": "takes at most {max_length}.",
    "tuple_type": "takes a list.",
    "list_type": "takes a list.",
    "string_type": "takes a text.",
    "string_too_short": "is empty.",
    "string_too_long": "is longer than {max_length:,} characters.",
    "int_type": "takes a whole number.",
    "int_from_float": "takes a whole number.",
    "bool_type": "takes true or false.",
    "literal_error": "takes {expected}.",
}


def in_our_words(written: object, read: ValidatorFunctionWrapHandler) -> Any:
    """What is wrong, each in its place."""
    try:
        return read(written)
    except ValidationError as error:
        refuse(*((each["loc"], told(each)) for each in error.errors(include_url=False, include_input=False)))


def _read(written: object, read: ValidatorFunctionWrapHandler) -> Any:
    try:
        return read(written)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        refuse(*((each["loc"][1:] or _at_type(each["type"]), told(each)) for each in found))


def _at_type(kind: str) -> tuple[str, ...]:
    return ("type",) if kind.startswith("union_tag") else ()


# Of a union: without the tag in the places of what is wrong, for it is no part of what was written.
told_apart = WrapValidator(_read)
