"""Which text do we keep?"""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

# Control characters but tab and line breaks, and halves of surrogate pairs, which is what broken UTF-8 decodes to.
UNPRINTABLE = re.compile(r"[\x00-\x08\x0e-\x1f\x7f\ud800-\udfff]")


def printable(text: str) -> str:
    """The text itself, if the database can hold it."""
    if UNPRINTABLE.search(text):
        raise ValueError("has control characters in it")
    return text


def legible(text: str) -> str:
    """As much of a text as the database can hold."""
    return text if text.isprintable() else UNPRINTABLE.sub("?", text)


# Documents have no word for halves of surrogate pairs: UTF-8 can't write them either.
PRINTABLE = r"^[^\x00-\x08\x0e-\x1f\x7f]*$"
Printable = Annotated[str, AfterValidator(printable), Field(json_schema_extra={"pattern": PRINTABLE})]
