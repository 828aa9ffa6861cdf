"""How does one message become the bytes that SMTP carries?"""

import re
from base64 import b64encode
from binascii import b2a_qp
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache

import idna

from channels.base import Message, Rejected, Sender

# No content has "=_": what has is encoded, and quoted-printable writes "=" before hex digits or a line end only, base64
# at the very end only. So whatever is in the parts, this line can't be, and one boundary serves every message.
_BOUNDARY = "=_alternative"
_PART = f"--{_BOUNDARY}\r\n".encode()
_END = f"--{_BOUNDARY}--\r\n".encode()

_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]"
_PLAIN_ADDRESS = re.compile(rf"{_ATOM}+(?:\.{_ATOM}+)*@{_LABEL}(?:\.{_LABEL})*")
_DOT_ATOM = re.compile(rf"(?:{_ATOM}|[^\x00-\x7f])+(?:\.(?:{_ATOM}|[^\x00-\x7f])+)*")

# Whatever any reader might take for the end of a line, other controls, halves of characters, and runs of blanks.
_BLANKS = re.compile(r"[\x00-\x20\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_HEADER_NAME = re.compile(r"[!-9;-~]{1,76}")
_OURS = frozenset({"from", "to", "cc", "bcc", "sender", "reply-to", "subject", "date", "message-id", "mime-version"})


@dataclass(frozen=True, slots=True)
class Letter:
    """A message as SMTP wants it: two bare addresses, and content with CRLF line ends, not yet dot-stuffed."""

    mail_from: str
    rcpt_to: str
    message_id: str
    content: bytes

    @property
    def needs_smtputf8(self) -> bool:
        """Has an address that ASCII can't carry (RFC 6531)? Content is otherwise always 7-bit."""
        return not self.content.isascii()


def write(message: Message, at: int) -> Letter:
    """The message as bytes, dated `at` in Unix seconds.

    Raises:
        Rejected: an address or the name of a header is one that mail can't have.
    """
    return _skeleton(message.sender, message.reply_to).letter(message, _date(at))


class Skeleton:
    """What all messages from one sender have in common, prepared once; `letter` splices in the rest.

    Raises:
        Rejected: no mail can come from this sender, or be answered to this `reply_to`.
    """

    def __init__(self, sender: Sender, reply_to: str | None = None) -> None:
        self.address = address(sender.address)
        self._domain = self.address.rpartition("@")[2]
        common = f"From: {_named(sender.name, self.address)}\r\n"
        if reply_to is not None:
            common += f"Reply-To: {address(reply_to)}\r\n"
        common += "MIME-Version: 1.0\r\n"
        self._plain = common.encode()
        self._alternative = f'{common}Content-Type: multipart/alternative; boundary="{_BOUNDARY}"\r\n\r\n'.encode()

    def letter(self, message: Message, date: str) -> Letter:
        """One message of this sender's. `date` as RFC 5322 writes it."""
        to = address(message.to)
        message_id = f"<{message.delivery_id.hex}@{self._domain}>"
        own = (
            f"Date: {date}\r\nMessage-ID: {message_id}\r\nTo: {to}\r\n"
            f"{_header('Subject', message.subject)}{_headers(message.headers)}"
        ).encode()
        if message.html is None:
            content = b"".join((own, self._plain, *_body("plain", message.text)))
        else:
            text, html = _body("plain", message.text), _body("html", message.html)
            content = b"".join((own, self._alternative, _PART, *text, _PART, *html, _END))
        return Letter(self.address, to, message_id, content)


# Thousands of messages share a sender, and a date.
_skeleton = lru_cache(256)(Skeleton)


@lru_cache(2)
def _date(at: int) -> str:
    return formatdate(at)


def address(text: str) -> str:
    """The address as it goes on the wire: its domain in ASCII (IDNA 2008), its local part as it is.

    Quoted local parts and address literals are legal, but nobody's: they are refused with the rest.

    Raises:
        Rejected: not an address that mail can carry. Doesn't repeat it: replies end up in logs.
    """
    if len(text) > 254:
        raise Rejected("Longer than an e-mail address can be.")
    found = text if _PLAIN_ADDRESS.fullmatch(text) else _international(text)
    # RFC 5321 4.5.3.1: 64 octets before the @, 256 in all with the angle brackets.
    wire = found.encode()
    if wire.find(b"@") > 64 or len(wire) > 254:
        raise Rejected("Longer than an e-mail address can be.")
    return found


def _international(text: str) -> str:
    local, at, domain = text.rpartition("@")
    # `isprintable` is false for every control, separator, surrogate and direction mark.
    if not (at and text.isprintable() and _DOT_ATOM.fullmatch(local)):
        raise Rejected("Not an e-mail address.")
    try:
        ascii_domain = idna.encode(domain, uts46=True).decode()
    except UnicodeError as error:  # idna's own errors are of this kind too
        raise Rejected("The domain of the e-mail address can't exist.") from error
    if not _PLAIN_ADDRESS.fullmatch(f"x@{ascii_domain}"):
        raise Rejected("The domain of the e-mail address can't exist.")
    return f"{local}@{ascii_domain}"


def one_line(text: str) -> str:
    """The text without what could end a header's line: each run of blanks and controls becomes one space."""
    if text.isprintable() and "  " not in text:  # of all blanks and controls, only the space is printable
        return text.strip(" ")
    return _BLANKS.sub(" ", text).strip(" ")


def _headers(headers: Mapping[str, str]) -> str:
    return "".join([_header(_header_name(name), value) for name, value in headers.items()])


@lru_cache(256)
def _header_name(name: str) -> str:
    if not _HEADER_NAME.fullmatch(name) or name.lower() in _OURS or name.lower().startswith("content-"):
        raise Rejected(f"A message can't be given the header {name[:80]!r}.")
    return name


def _header(name: str, value: str) -> str:
    """One header for any text, with its line end: as it is, folded at spaces, or in encoded words (RFC 2047)."""
    value = one_line(value)
    line = f"{name}: {value}\r\n"
    readable = value.isascii() and not ("=?" in value and "?=" in value)
    if readable and len(line) <= 80:
        return line
    words = value.split(" ")
    # Only a blank can be folded at. A longer word, such as a link, stays whole as far as the limit of 998 allows.
    if not readable or max(map(len, words)) > 900:
        return f"{name}: {_encoded(value)}\r\n"
    return "\r\n ".join(_lines(f"{name}:", words)) + "\r\n"


def _lines(first: str, words: Iterable[str]) -> Iterable[str]:
    line = first
    for word in words:
        # The first word stays behind the colon: a line with nothing but the name confuses some readers.
        if len(line) + len(word) > 76 and line is not first:
            yield line
            line = word
        else:
            line = f"{line} {word}"
    yield line


def _encoded(text: str) -> str:
    """The text as encoded words of 39 bytes each: with `Subject: ` or a fold before, under 76 characters a line."""
    data = text.encode()
    words = []
    start = 0
    while start < len(data):
        end = start + 39
        while end < len(data) and data[end] & 0xC0 == 0x80:  # never cut inside a character
            end -= 1
        words.append(f"=?utf-8?b?{b64encode(data[start:end]).decode()}?=")
        start = end
    return "\r\n ".join(words)


def _named(name: str, bare: str) -> str:
    """`"Name" <address>`."""
    name = one_line(name)
    if not name:
        return bare
    if name.isascii() and len(name) <= 64 and "=?" not in name:
        escaped = name.replace("\\", "\\\\").replace('"', '\\"')
        quoted = f'"{escaped}"'
    else:
        quoted = _encoded(name)
    fold = " " if len(quoted) + len(bare) < 66 else "\r\n "
    return f"{quoted}{fold}<{bare}>"


def _body(kind: str, text: str) -> tuple[bytes, bytes]:
    """A part's own headers and its content: as it is if that is safe, else encoded.

    In base64 where a sixth or more is beyond ASCII, as in Greek.
    """
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    lines = (text if text.endswith("\n") else text + "\n").replace("\n", "\r\n")
    data = lines.encode(errors="replace")
    if _needs_no_encoding(data):
        return _PART_HEADERS[kind, "7bit"], data
    if (len(data) - len(lines)) * 6 > len(data):
        encoded = b64encode(data)
        rows = [encoded[start : start + 76] for start in range(0, len(encoded), 76)]
        return _PART_HEADERS[kind, "base64"], b"\r\n".join((*rows, b""))
    return _PART_HEADERS[kind, "quoted-printable"], b2a_qp(data)


def _needs_no_encoding(data: bytes) -> bool:
    """Only ASCII without controls, in lines that SMTP can carry, none of which anybody could take for something else.

    To look takes 8 µs for 4 KB, quoted-printable 25.
    """
    return (
        data.isascii()
        and not any(each in data for each in _MISREAD)
        and not data.startswith((b"From ", b".\r\n"))
        and len(data.translate(None, _CONTROLS)) == len(data)
        and max(map(len, data.split(b"\r\n"))) <= _LONGEST_LINE
    )


_LONGEST_LINE = 900  # RFC 5322 allows 998
_CONTROLS = bytes({*range(32), 127} - set(b"\t\r\n"))
# A boundary of ours, what mailbox files mark a new message with, and a dot alone, which has ended many a message early.
_MISREAD = (b"=_", b"\nFrom ", b"\n.\r")
_PART_HEADERS = {
    (kind, encoding): (
        f'Content-Type: text/{kind}; charset="utf-8"\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n'
    ).encode()
    for kind in ("plain", "html")
    for encoding in ("7bit", "quoted-printable", "base64")
}
