"""What must not go into a log, a trace or a history: whom a message was for."""

import re
from typing import Annotated

from pydantic import AfterValidator

ADDRESS, PHONE = "[address]", "[phone]"
# Ends where no address without quotes goes on (RFC 5322, RFC 6531). Quotes, slashes and = do not end one.
_WORD = r"""[^\s@<>()\[\],;:"\\]"""
# As it is, as URLs have it (encoded once or again), as HTML, and as quoted-printable, where `limit=40` is none.
_AT = r"(?:@|%(?:25)*40|&#(?:0*64|x0*40);|=40(?=[\w.-]*\.[^\W\d]))"
# Begins where a word begins and never goes back in it: so a long word costs one look, not one for each of its letters.
# Takes all that follows without a gap: an address that begins in there does not begin a word, and would be left.
_ADDRESSES = re.compile(
    rf'(?:"(?:[^"\\\n]|\\.){{1,64}}"|(?<!{_WORD}){_WORD}+?){_AT}(?:\[[^\]\s]*\]?)?(?:{_WORD}|[@;])*', re.IGNORECASE
)
# International, as contacts have them: without its + a number is an id, an amount or a moment just as well. In one run
# of 7 to 15 digits (E.164), or in groups. A day that follows is none of them.
_PLUS = r"(?<![\w+])(?:\+|%(?:25)*2B|&#(?:0*43|x0*2b);)"
_GAP = r"[ \u00a0\u202f./()-]{1,2}(?!\d{4}-\d\d-\d\d)"
_GROUPS = rf"(?=(?:{_GAP})?(?:\d(?:{_GAP})?){{7}})\(?\d{{1,4}}(?:{_GAP}\d{{1,8}}){{1,6}}"
_PHONES = re.compile(rf"{_PLUS}(?:[1-9]\d{{6,14}}|{_GROUPS})(?!\d)", re.IGNORECASE)


def mask(text: str) -> str:
    """The same text with everything taken out that looks like an e-mail address or an international phone number,
    encoded or not."""
    return _PHONES.sub(PHONE, _ADDRESSES.sub(ADDRESS, text))


Discreet = Annotated[str, AfterValidator(mask)]
