"""Which text do we keep?"""

import re
from typing import Annotated

from pydantic import AfterValidator

# Control characters but tab and line breaks, and halves of surrogate pairs, which is what broken UTF-8 decodes to.
UNPRINTABLE = re.compile(r"[\x00-\x08\x0e-\x1f\x7f\ud800-\udfff]")


def printable(text: str) -> str:
    """The text itself, if the database can hold it."""
    if UNPRINTABLE.search(text):
        raise ValueError("has control characters in it")
    return text


Printable = Annotated[str, AfterValidator(printable)]
