"""What must not go into a log, a trace or a history: whom a message was for."""

import re
from typing import Annotated

from pydantic import AfterValidator

ADDRESS = "[address]"
# Ends where no address without quotes goes on (RFC 5322, RFC 6531). Quotes, slashes and = do not end one.
_WORD = r"""[^\s@<>()\[\],;:"\\]"""
# As it is, as URLs have it (encoded once or again), as HTML, and as quoted-printable, where `limit=40` is none.
_AT = r"(?:@|%(?:25)*40|&#(?:0*64|x0*40);|=40(?=[\w.-]*\.[^\W\d]))"
# Begins where a word begins and never goes back in it: so a long word costs one look, not one for each of its letters.
# Takes all that follows without a gap: an address that begins in there does not begin a word, and would be left.
_ADDRESSES = re.compile(
    rf'(?:"(?:[^"\\\n]|\\.){{1,64}}"|(?<!{_WORD}){_WORD}+?){_AT}(?:\[[^\]\s]*\]?)?(?:{_WORD}|[@;])*', re.IGNORECASE
)


def mask(text: str) -> str:
    """The same text with everything taken out that looks like an e-mail address, encoded or not."""
    return _ADDRESSES.sub(ADDRESS, text)


Discreet = Annotated[str, AfterValidator(mask)]
