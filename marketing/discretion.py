"""What must not go into a log, a trace or a history: whom a message was for."""

import re

ADDRESS = "[address]"
# What an address is made of on either side of its @: anything that does not end a word in a sentence, a URL, a tuple.
_WORD = r"""[^\s@<>()\[\]{},;:"'\\/=&?|]"""
# Begins where a word begins and never goes back in it: so a long word costs one look, not one for each of its letters.
_ADDRESSES = re.compile(rf'(?:"[^"@\n]{{1,64}}"|(?<!{_WORD}){_WORD}++)@\[?{_WORD}*\]?')
_ENCODED = re.compile(rf"(?<!{_WORD}){_WORD}*?%40\[?{_WORD}*\]?")


def mask(text: str) -> str:
    """The same text with everything taken out that looks like an e-mail address, percent-encoded or not."""
    if "@" in text:
        text = _ADDRESSES.sub(ADDRESS, text)
    return _ENCODED.sub(ADDRESS, text) if "%40" in text else text
