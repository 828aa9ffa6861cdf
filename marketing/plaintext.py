"""What does this HTML say in plain text?"""

import re
from collections.abc import Callable
from html import unescape

from marketing.markup import TAG, VOID, Piece, Token, liquid_pieces, masked, tokens

_PARAGRAPHS = frozenset(("p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "dl", "table", "blockquote", "pre"))
_LINES = frozenset(("div", "tr", "dt", "dd", "section", "article", "header", "footer", "main", "center", "address"))
# Between what should stand apart: a new line, or an empty one too. Neighbours share them.
_LINE, _GAP = "\v", "\f"
_BREAKS = dict.fromkeys(_PARAGRAPHS, _GAP) | dict.fromkeys(_LINES, _LINE)
_INSTEAD = {"br": "\n", "hr": f"{_GAP}---{_GAP}", "li": f"{_LINE}- ", "td": "\t", "th": "\t"}
_HIDDEN = re.compile(r"display\s*:\s*none", re.IGNORECASE)
# Liquid goes through the tidying of white space as `\ufdd2number\ufdd3`.
_KEPT = re.compile("\ufdd2(\\d+)\ufdd3")
_BLANKS = re.compile(r"\s+")
_SPACES = re.compile(r"[ \t]+")
_APART = re.compile(r" *[\n\v\f][ \n\v\f]*")


def text_from(source: str, address: Callable[[Token], str | None]) -> str:
    """What a reader sees of an HTML source, its Liquid included, with links as `text (address)`.

    `address` gives a link's address as Liquid, or None if it leads nowhere. Every `{% … %}` stays, also those in
    attributes, styles and comments: so what was balanced stays balanced.
    """
    return _Writer(source, address).text()


class _Writer:
    def __init__(self, source: str, address: Callable[[Token], str | None]) -> None:
        self.source = source
        self.address = address
        self.pieces = liquid_pieces(source)
        self.written = 0  # pieces
        self.parts: list[str] = []
        self.kept: list[str] = []
        self.links: list[tuple[int, str, str]] = []
        self.hiding: list[str] = []

    def text(self) -> str:
        for token in tokens(masked(self.source, self.pieces)):
            if token.kind == "text" and not token.hidden and not self.hiding:
                self._read(token.start, token.end)
            elif token.kind == "start" and not token.hidden:
                self._open(token)
            elif token.kind == "end" and not token.hidden:
                self._close(token)
            self._pass_over(token.end)
        self._pass_over(len(self.source))
        return self._tidied()

    def _open(self, token: Token) -> None:
        style = token.attributes.get("style")
        if self.hiding or (style and _HIDDEN.search(style.value)):
            if token.name not in VOID and self.hiding[:1] in ([], [token.name]):
                self.hiding.append(token.name)
            return
        if token.name in ("a", "area"):
            self._open_link(token)
        elif token.name == "img" and (alt := token.attributes.get("alt")):
            self._pass_over(alt.start)
            self._read(alt.inner_start, alt.inner_start + len(alt.value))
        else:
            self.parts.append(_INSTEAD.get(token.name) or _BREAKS.get(token.name, ""))

    def _open_link(self, token: Token) -> None:
        found = self.address(token)
        if found is None:
            return
        href = token.attributes["href"]
        self._pass_over(href.start)
        self._skip(href.end)
        self.links.append((len(self.parts), unescape(href.value), found))
        if token.name == "area":
            self._close_link()

    def _close(self, token: Token) -> None:
        if self.hiding:
            if token.name == self.hiding[0]:
                self.hiding.pop()
        elif token.name == "a" and self.links:
            self._close_link()
        else:
            self.parts.append(_BREAKS.get(token.name, ""))

    def _close_link(self) -> None:
        start, href, found = self.links.pop()
        label = "".join(self.parts[start:]).strip()
        if label in (href.removeprefix("mailto:"), href.removeprefix("tel:")):
            self.parts[start:] = [self._keep(found) if label == href else label]
        else:
            self.parts.append(f" ({self._keep(found)})" if label else self._keep(found))

    def _read(self, start: int, end: int) -> None:
        """Everything in this stretch is for the reader's eyes."""
        while (piece := self._next(end)) is not None:
            self._literal(start, piece.start)
            self.parts.append(self._keep(self.source[piece.start : piece.end]))
            start = piece.end
        self._literal(start, end)

    def _pass_over(self, end: int) -> None:
        """Nothing in this stretch is, but what its Liquid does may matter later."""
        while (piece := self._next(end)) is not None:
            if piece.mask == TAG:
                self.parts.append(self._keep(self.source[piece.start : piece.end]))

    def _skip(self, end: int) -> None:
        while self._next(end) is not None:
            pass

    def _next(self, end: int) -> Piece | None:
        if self.written == len(self.pieces) or self.pieces[self.written].start >= end:
            return None
        self.written += 1
        return self.pieces[self.written - 1]

    def _literal(self, start: int, end: int) -> None:
        # Entities may spell what would be Liquid: &#123;&#123;.
        text = unescape(self.source[start:end]).replace("{{", "{ {").replace("{%", "{ %")
        self.parts.append(_BLANKS.sub(" ", text))

    def _keep(self, liquid: str) -> str:
        self.kept.append(liquid)
        return f"\ufdd2{len(self.kept) - 1}\ufdd3"

    def _tidied(self) -> str:
        text = _APART.sub(_break, _SPACES.sub(" ", "".join(self.parts))).strip()
        return _KEPT.sub(lambda found: self.kept[int(found[1])], text)


def _break(apart: re.Match[str]) -> str:
    return "\n\n" if _GAP in apart[0] or apart[0].count("\n") > 1 else "\n"
