"""How does a file of any size become records, a window of bytes at a time?

The records are exactly those of `csv.reader` over the whole file, wherever a window begins and ends (a property test
says so). Windows start and end between records; only a record too long to be held is walked over in pieces.
"""

import codecs
import csv
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from enum import StrEnum

from pydantic import BaseModel

# No field of a record this long can pass csv's own limit of 131,072 characters.
LONGEST_RECORD = 128 * 1024
DELIMITERS = ",;\t|"

TOO_LONG = "is longer than 128 KiB; perhaps a quotation mark before it is never closed"
OPEN_QUOTE = "has a quotation mark that is never closed"


class Inside(StrEnum):
    """Where in an overlong record a window begins; the states of csv's own parser."""

    NOTHING = ""
    CELL_START = "cell-start"
    CELL = "cell"
    QUOTES = "quotes"
    QUOTE_IN_QUOTES = "quote-in-quotes"


class Position(BaseModel):
    """How far we have read: the byte and the line (from 1) that come next."""

    offset: int = 0
    line: int = 1
    inside: Inside = Inside.NOTHING


class FileForm(BaseModel):
    """How the file is written. Every encoding here keeps ASCII as it is, so that bytes can be cut at line ends."""

    encoding: str = "utf-8"
    delimiter: str = ","


@dataclass(frozen=True, slots=True)
class Record:
    """One record: its first line, its text as it stands in the file, its cells, and why it can't be used, if so."""

    line: int
    text: str
    cells: list[str]
    problem: str = ""


class _TooLong(Exception):
    """The record at hand passes the limit."""


def read_records(
    window: bytes, form: FileForm, start: Position, *, final: bool, longest: int = LONGEST_RECORD
) -> tuple[list[Record], Position]:
    """The records that end in this window, and where the next window begins. Bytes that can't be decoded become lone
    surrogates.

    Args:
        window: the bytes from `start.offset` on; more than `longest` of them, unless `final`.
        final: nothing comes after this window.
        longest: bytes of the longest record that is read; of a longer one, only that it was there.
    """
    if not final and window.endswith(b"\r"):
        window = window[:-1]  # its line feed may come next
    lines = window.splitlines(keepends=True)
    whole = len(lines) - (bool(lines) and not final and not lines[-1].endswith((b"\r", b"\n")))
    found: list[Record] = []
    inside = start.inside
    done = taken = size = 0  # lines of finished records, lines given to csv, bytes of the record at hand
    open_ended = False

    def text_lines() -> Iterator[str]:
        nonlocal taken, size, open_ended
        while taken < len(lines):
            size += len(lines[taken])
            if size > longest:
                raise _TooLong
            if taken == whole:
                break
            taken += 1
            yield lines[taken - 1].decode(form.encoding, "surrogateescape")
        open_ended = True

    while True:
        while inside and taken < len(lines):
            inside = _walk(lines[taken], inside, form.delimiter)
            taken += 1
        done, size = taken, 0
        try:
            for cells in csv.reader(text_lines(), delimiter=form.delimiter):
                if open_ended and not final:
                    break  # its end is not in this window
                text = b"".join(lines[done:taken]).decode(form.encoding, "surrogateescape")
                found.append(Record(start.line + done, text, cells, OPEN_QUOTE if open_ended else ""))
                done, size = taken, 0
            break
        except _TooLong:
            glimpse = lines[done][:200].decode(form.encoding, "replace")
            found.append(Record(start.line + done, glimpse, [glimpse], TOO_LONG))
            # csv asks for a second line of a record only from within quotes.
            inside = Inside.QUOTES if taken > done else Inside.CELL_START
    offset = start.offset + sum(map(len, lines[:done]))
    return found, Position(offset=offset, line=start.line + min(done, whole), inside=inside)


def _walk(line: bytes, inside: Inside, delimiter: str) -> Inside:
    """Where a record stands at the end of this line of it."""
    special = re.escape(delimiter)
    for token in re.findall(rf'"|[\r\n]|{special}|[^"\r\n{special}]+'.encode(), line):
        match inside, token:
            case Inside.QUOTES, b'"':
                inside = Inside.QUOTE_IN_QUOTES
            case Inside.QUOTES, _:
                pass
            case ((Inside.QUOTE_IN_QUOTES | Inside.CELL_START), b'"'):
                inside = Inside.QUOTES
            case _, b"\r" | b"\n":
                return Inside.NOTHING
            case _ if token == delimiter.encode():
                inside = Inside.CELL_START
            case _:
                inside = Inside.CELL
    return inside


def likely_delimiter(header: str) -> str:
    """The separator that makes the most cells of a header; a comma if none makes two."""
    return max(DELIMITERS, key=lambda delimiter: len(next(csv.reader([header], delimiter=delimiter), [])))


@dataclass
class EncodingVotes:
    """Is the file UTF-8 with a few bad lines, or Windows-1252 (what old spreadsheets write)? Its lines vote.

    Text in another encoding is hardly ever valid UTF-8 by chance, so the majority of lines that are not plain ASCII is
    right.
    """

    utf8: int = 0
    other: int = 0
    rest: bytes = b""

    def add(self, block: bytes) -> None:
        block = self.rest + block
        whole = max(block.rfind(b"\n"), block.rfind(b"\r")) + 1
        self._count(block[:whole])
        self.rest = block[whole:]
        if len(self.rest) > LONGEST_RECORD:
            self._count(self.rest)
            self.rest = b""

    def _count(self, text: bytes) -> None:
        if text.isascii():
            return
        for line in text.splitlines():
            if not line.isascii():
                try:
                    line.decode()
                    self.utf8 += 1
                except UnicodeDecodeError:
                    self.other += 1

    def result(self) -> str:
        self._count(self.rest)
        self.rest = b""
        return "cp1252" if self.other > self.utf8 else "utf-8"


BOM = b"\xef\xbb\xbf"
_BLANK = f' \t\r\n"{DELIMITERS}'  # of this alone no header is made
_SEPARATOR_LINE = re.compile(rb"sep=([^\w\s])\s*", re.IGNORECASE)  # how spreadsheets are told about it


class NoHeader(ValueError):
    """The file has no header row."""


def read_header(window: bytes, encoding: str, *, final: bool) -> tuple[list[str], FileForm, Position]:
    """The cells of the header row, how the file is written, and where its first row begins.

    Args:
        window: the first bytes of the file.

    Raises:
        NoHeader: there is none.
    """
    start = Position(offset=len(BOM) if window.startswith(BOM) else 0)
    lines = window[start.offset :].splitlines(keepends=True)
    first = next((line for line in lines if line.strip(_BLANK.encode())), b"")[:1000]
    if told := _SEPARATOR_LINE.fullmatch(first):
        form = FileForm(encoding=encoding, delimiter=told[1].decode())
        before = lines.index(first) + 1
        start = Position(offset=start.offset + sum(map(len, lines[:before])), line=start.line + before)
    else:
        form = FileForm(encoding=encoding, delimiter=likely_delimiter(first.decode(encoding, "replace")))
    records, _ = read_records(window[start.offset :], form, start, final=final)
    header = next((record for record in records if any(cell.strip(_BLANK) for cell in record.cells)), None)
    if header is None or header.problem:
        raise NoHeader("The file has no header row: its first line must name the columns.")
    until = header.line + len(header.text.encode(encoding, "surrogateescape").splitlines())
    taken = window[start.offset :].splitlines(keepends=True)[: until - start.line]
    return header.cells, form, Position(offset=start.offset + sum(map(len, taken)), line=until)


class Utf8Stream:
    """Turns UTF-16, which spreadsheets save as "Unicode text", into UTF-8; all else goes through as it is."""

    def __init__(self) -> None:
        self._decoder: codecs.IncrementalDecoder | None = None
        self._first = b""
        self._known = False

    async def convert(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for piece in pieces:
            yield self.feed(piece)
        yield self.end()

    def feed(self, piece: bytes) -> bytes:
        if not self._known:
            self._first += piece
            if len(self._first) < len(codecs.BOM_UTF16):
                return b""
            piece, self._known = self._first, True
            if piece.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                self._decoder = codecs.getincrementaldecoder("utf-16")("surrogatepass")
        return self._decoder.decode(piece).encode("utf-8", "surrogatepass") if self._decoder else piece

    def end(self) -> bytes:
        if self._decoder is None:
            return b"" if self._known else self._first
        try:
            self._decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return b"\xff"  # half a character: its row is no text
        return b""


async def in_blocks(pieces: AsyncIterator[bytes], size: int) -> AsyncIterator[bytes]:
    """The same bytes in blocks of this size, but for the last."""
    waiting = bytearray()
    async for piece in pieces:
        waiting += piece
        while len(waiting) >= size:
            yield bytes(waiting[:size])
            del waiting[:size]
    if waiting:
        yield bytes(waiting)
