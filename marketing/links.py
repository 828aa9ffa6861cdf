"""Which addresses in a message are ours to follow, and how do they get there?

In prepared sources a followed address is a Liquid tag: `{% link 3 %}` if it is the same for everybody, and
`{% written_link 3 %}…{% endwritten_link %}` if it is written for each contact. Authors can't use either.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from html import unescape
from typing import Any, TextIO

from liquid import Node, RenderContext, Token, TokenStream
from liquid.ast import BlockNode
from liquid.parser import get_parser
from liquid.tag import Tag
from liquid.token import TOKEN_EXPRESSION, TOKEN_TAG
from markupsafe import Markup, escape

from marketing import markup
from marketing.sandbox import environment

Linker = Callable[[int, str], str]
"""Gives the address to put in the place of link `number`, which leads to `url`."""

MOST_LINKS = 1_000

FOLLOWED = re.compile("https?://", re.IGNORECASE)
LEFT_ALONE = re.compile("mailto:|tel:|sms:|#|$", re.IGNORECASE)
_OURS = re.compile(r"\{\{-?\s*(?:unsubscribe_url|preferences_url)\s*-?\}\}")
_INERT = str.maketrans({"{": "%7B", "}": "%7D"})


@dataclass
class Links:
    """Numbers the addresses of one message. The same address has the same number, in the HTML and in the text."""

    targets: list[str] = field(default_factory=list)

    def in_html(self, source: str, tag: markup.Token) -> str | None:
        """What to write in the place of the tag's address; None to leave it."""
        href = _address(tag)
        if href is None or not self._is_followed(href.value, source, tag):
            return None
        written = href.of(source)
        if markup.has_liquid(href.value):
            return f"{{% written_link {self._number(_without_entities(written))} %}}{written}{{% endwritten_link %}}"
        return f"{{% link {self._number(unescape(written).strip())} %}}"

    def in_text(self, source: str, tag: markup.Token) -> str | None:
        """The address as Liquid for plain text; None if it leads nowhere."""
        href = _address(tag)
        if href is None or href.value.lstrip().startswith("#"):
            return None
        written = href.of(source)
        plain = _without_entities(written)
        if not self._is_followed(href.value, source, tag):
            return plain
        if markup.has_liquid(href.value):
            return f"{{% written_link {self._number(plain)} %}}{plain}{{% endwritten_link %}}"
        return f"{{% link {self._number(unescape(written).strip())} %}}"

    def _is_followed(self, value: str, source: str, tag: markup.Token) -> bool:
        off = tag.attributes.get("data-track")
        if (off and off.value.lower() == "off") or LEFT_ALONE.match(value.strip()):
            return False
        href = tag.attributes["href"].of(source)
        if markup.has_liquid(value):
            return not _OURS.fullmatch(href.strip())
        return bool(FOLLOWED.match(unescape(href).strip()))

    def _number(self, target: str) -> int:
        if target not in self.targets:
            self.targets.append(target)
        if len(self.targets) > MOST_LINKS:
            raise markup.ContentError(f"a message may have {MOST_LINKS:,} different links")
        return self.targets.index(target)


def _address(tag: markup.Token) -> markup.Attribute | None:
    href = tag.attributes.get("href")
    return href if tag.name in ("a", "area") and href and href.value.strip() else None


def _without_entities(source: str) -> str:
    """`?a=1&amp;b={{ x }}` as `?a=1&b={{ x }}`; braces that entities spell do not become Liquid."""
    parts = []
    end = 0
    for piece in markup.liquid_pieces(source):
        parts += [unescape(source[end : piece.start]).translate(_INERT), source[piece.start : piece.end]]
        end = piece.end
    return "".join([*parts, unescape(source[end:]).translate(_INERT)]).strip()


class Link(Node):
    """`{% link 3 %}`: a tracked address that is the same for everybody but for its token."""

    __slots__ = ("number",)

    def __init__(self, token: Token, number: int) -> None:
        super().__init__(token)
        self.number = number
        self.blank = False

    def render_to_output(self, context: Any, buffer: TextIO) -> int:
        return buffer.write(context.urls[self.number])


class WrittenLink(Node):
    """`{% written_link 3 %}https://example.com/{{ contact.id }}{% endwritten_link %}`: written for each contact."""

    __slots__ = ("block", "number")

    def __init__(self, token: Token, number: int, block: BlockNode) -> None:
        super().__init__(token)
        self.number = number
        self.block = block
        self.blank = False

    def children(self, static_context: RenderContext, *, include_partials: bool = True) -> list[Node]:  # noqa: ARG002
        return [self.block]

    def render_to_output(self, context: Any, buffer: TextIO) -> int:
        inner = context.get_buffer()
        self.block.render(context, inner)
        written = inner.getvalue().strip()
        if not context.autoescape:
            return buffer.write(context.follow(self.number, written))
        return buffer.write(escape(context.follow(self.number, Markup(written).unescape())))


class LinkTag(Tag):
    name = "link"
    block = False

    def parse(self, stream: TokenStream) -> Node:
        token = stream.eat(TOKEN_TAG)
        return Link(token, int(stream.expect(TOKEN_EXPRESSION).value))


class WrittenLinkTag(Tag):
    name = "written_link"
    end = "endwritten_link"

    def parse(self, stream: TokenStream) -> Node:
        token = stream.eat(TOKEN_TAG)
        number = int(stream.eat(TOKEN_EXPRESSION).value)
        block = get_parser(self.env).parse_block(stream, (self.end,))
        stream.expect(TOKEN_TAG, value=self.end)
        return WrittenLink(token, number, block)


HTML = environment(autoescape=True, tags=(LinkTag, WrittenLinkTag))
PLAIN = environment(tags=(LinkTag, WrittenLinkTag))
