"""Where, to the character, are the tags, the attributes and the Liquid in what an author wrote?

Nothing here rebuilds a document: callers get positions and splice, so all that they don't touch stays as it was.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

# Liquid is masked by Unicode noncharacters, one for one, so that positions in the mask are positions in the source.
OUTPUT, TAG = "\ufdd0", "\ufdd1"
NONCHARACTERS = re.compile("[\x00\ufdd0-\ufdef]")

LONGEST_PIECE = 5_000
# The Liquid lexer's patterns are cubic in runs of white space inside a tag: 200 blanks took 1 ms.
LONGEST_BLANK = 50

VOID = frozenset(
    ("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr")
)
RAW_TEXT = frozenset(["iframe", "noembed", "noframes", "plaintext", "script", "style", "textarea", "title", "xmp"])

_OPENING = re.compile(r"\{[{%]")
_BLANKS = re.compile(rf"\s{{{LONGEST_BLANK},}}")
_VERBATIM = re.compile(r"\{%-?\s*(raw|doc)\s*-?%\}")
_END = {name: re.compile(rf"\{{%-?\s*end{name}\s*-?%\}}") for name in ("raw", "doc")}

# A lonely `<` is text.
_MARKUP = re.compile(r"<(?=[a-zA-Z!?]|/[a-zA-Z])")
_NAME = re.compile(r"</?([a-zA-Z][^\s/>]*+)")
_BETWEEN = re.compile(r"[\s/]*+")
_ATTRIBUTE = re.compile(r"(=?[^\s/>=]*+)(?:\s*+=\s*+(\"[^\"]*+\"|'[^']*+'|[^\s>\"'][^\s>]*+))?+")
# `<!--[if mso]>` hides what follows from everyone but Outlook; `<!--[if !mso]><!-->` is an ordinary comment.
_HIDING = re.compile(r"<!--\s*+\[if[^\]>]*+\]>(?!\s*+<?!?-->|\s*+<!--)", re.IGNORECASE)
_SHOWING = "<![endif]-->"


class ContentError(ValueError):
    """What the author wrote can't be used: `part` is subject, html, mjml, text or preheader; `line` counts from 1."""

    def __init__(self, message: str, *, part: str = "html", line: int | None = None) -> None:
        where = f"{part}, line {line}" if line else part
        super().__init__(f"{message} ({where})")
        self.message = message
        self.part = part
        self.line = line


@dataclass(frozen=True, slots=True)
class Piece:
    """`source[start:end]` is `{{ … }}`, `{% … %}` or a whole raw block."""

    start: int
    end: int
    mask: str


@dataclass(frozen=True, slots=True)
class Attribute:
    """`value` is masked and without quotes, `source[start:end]` is the same with its quotes."""

    value: str
    start: int
    end: int

    @property
    def inner_start(self) -> int:
        return self.start + (self.end - self.start - len(self.value)) // 2

    def of(self, source: str) -> str:
        """What the author wrote, without quotes."""
        return source[self.inner_start : self.inner_start + len(self.value)]


@dataclass(frozen=True, slots=True)
class Token:
    """`source[start:end]`. `hidden`: inside a conditional comment, so only Outlook sees it."""

    kind: Literal["text", "start", "end", "raw", "other"]
    start: int
    end: int
    name: str = ""
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    hidden: bool = False


def line_of(source: str, position: int) -> int:
    return source.count("\n", 0, position) + 1


def liquid_pieces(source: str, part: str = "html") -> list[Piece]:
    """Every piece of Liquid in order.

    Raises:
        ContentError: a piece isn't closed, or is longer than anyone writes by hand.
    """
    pieces = []
    end = 0
    while opening := _OPENING.search(source, end):
        start = opening.start()
        closing = "}}" if opening.group() == "{{" else "%}"
        end = source.find(closing, start + 2) + 2
        if end == 1:
            message = f"“{opening.group()}” is never closed by “{closing}”"
            raise ContentError(message, part=part, line=line_of(source, start))
        if end - start > LONGEST_PIECE or _BLANKS.search(source, start, end):
            message = f"a Liquid tag may have {LONGEST_PIECE} characters and no {LONGEST_BLANK} blanks in a row"
            raise ContentError(message, part=part, line=line_of(source, start))
        if verbatim := _VERBATIM.match(source, start, end):
            last = _END[verbatim.group(1)].search(source, end)
            if last is None:
                message = f"“{{% {verbatim.group(1)} %}}” is never closed by “{{% end{verbatim.group(1)} %}}”"
                raise ContentError(message, part=part, line=line_of(source, start))
            end = last.end()
        pieces.append(Piece(start, end, OUTPUT if closing == "}}" else TAG))
    return pieces


def masked(source: str, pieces: list[Piece]) -> str:
    """The source with each character of Liquid replaced by `OUTPUT` or `TAG`: same length, nothing left to trip on."""
    parts = []
    end = 0
    for piece in pieces:
        parts += [source[end : piece.start], piece.mask * (piece.end - piece.start)]
        end = piece.end
    return "".join([*parts, source[end:]])


def has_liquid(mask: str) -> bool:
    return OUTPUT in mask or TAG in mask


def tokens(mask: str) -> Iterator[Token]:
    """The HTML in a masked source, as a browser's tokenizer sees it. Linear in the length, whatever is in there."""
    at = 0
    hidden = False
    while found := _MARKUP.search(mask, at):
        start = found.start()
        if start > at:
            yield Token("text", at, start, hidden=hidden)
        if opening := _HIDING.match(mask, start):
            hidden, at = True, opening.end()
        elif hidden and mask.startswith(_SHOWING, start):
            hidden, at = False, start + len(_SHOWING)
        elif mask.startswith("<!--", start):
            hidden, at = False, _after(mask, "-->", start + 2)
        elif mask.startswith(("<!", "<?"), start):
            at = _after(mask, ">", start)
        else:
            tag = _tag(mask, start, hidden)
            if tag is None:  # never closed: browsers drop the rest too
                return
            yield tag
            at = tag.end
            if tag.kind == "start" and tag.name in RAW_TEXT:
                close = re.compile(rf"</{tag.name}(?=[\s/>])", re.IGNORECASE).search(mask, at)
                end = close.start() if close else len(mask)
                yield Token("raw", at, end, tag.name, hidden=hidden)
                at = end
            continue
        yield Token("other", start, at, hidden=hidden)
    if at < len(mask):
        yield Token("text", at, len(mask), hidden=hidden)


def _after(mask: str, end: str, start: int) -> int:
    found = mask.find(end, start)
    return len(mask) if found == -1 else found + len(end)


def _tag(mask: str, start: int, hidden: bool) -> Token | None:
    name = _NAME.match(mask, start)
    if name is None:
        return None
    attributes: dict[str, Attribute] = {}
    at = name.end()
    while (between := _BETWEEN.match(mask, at)) and (at := between.end()) < len(mask):
        if mask[at] == ">":
            kind: Literal["start", "end"] = "end" if mask[start + 1] == "/" else "start"
            return Token(kind, start, at + 1, name.group(1).lower(), attributes, hidden)
        found = _ATTRIBUTE.match(mask, at)
        if found is None or found.end() == at:
            return None
        at = found.end()
        value = found.group(2) or ""
        attribute = Attribute(value[1:-1] if value[:1] in ("'", '"') else value, at - len(value), at)
        attributes.setdefault(found.group(1).lower(), attribute)
    return None
