"""What does one contact receive?"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from liquid import BoundTemplate, Environment
from liquid.builtin.content import ContentNode
from liquid.builtin.output import OutputNode
from liquid.exceptions import LiquidError
from liquid.stringify import to_liquid_string
from markupsafe import Markup, escape

from marketing.content import Prepared
from marketing.links import FOLLOWED, HTML, LEFT_ALONE, PLAIN, Link, Linker
from marketing.sandbox import Context, below, parse

LONGEST_OUTPUT = 2_000_000  # bytes


class RenderError(Exception):
    """This content can't be rendered for this contact; the message says which part and why."""


@dataclass(frozen=True, slots=True)
class Rendered:
    subject: str
    html: str
    text: str


class Renderer:
    """Content, parsed once, then rendered for each contact. Safe to share: a render changes nothing in it."""

    def __init__(self, prepared: Prepared) -> None:
        self._subject = _Part("subject", prepared.subject, PLAIN)
        self._html = _Part("html", prepared.html, HTML)
        self._text = _Part("text", prepared.text, PLAIN)
        fixed = self._html.links | self._text.links
        self._targets = [target if number in fixed else None for number, target in enumerate(prepared.links)]

    def render(
        self,
        contact: Mapping[str, Any],
        *,
        account: Mapping[str, object],
        links: Linker,
        unsubscribe_url: str,
        preferences_url: str,
        open_pixel_url: str | None,
        campaign: Mapping[str, object] | None = None,
        event: Mapping[str, object] | None = None,
        now: datetime | None = None,
    ) -> Rendered:
        """Render for one contact, of plain data. `now` is what `{{ now }}` says; `event` has the properties of what a
        journey began with.

        Raises:
            RenderError: the template fails with this contact's data, or does too much work.
        """
        variables = {
            "contact": {**(contact.get("attributes") or {}), **contact},
            "account": account,
            "campaign": campaign,
            "event": event,
            "unsubscribe_url": unsubscribe_url,
            "preferences_url": preferences_url,
            "open_pixel": PIXEL % escape(open_pixel_url) if open_pixel_url else "",
            "now": now,
        }
        urls = ["" if target is None else links(number, target) for number, target in enumerate(self._targets)]

        def follow(number: int, url: str) -> str:
            if url in (unsubscribe_url, preferences_url) or LEFT_ALONE.match(url):
                return url
            return links(number, url) if FOLLOWED.match(url) else "#"

        return Rendered(
            subject=" ".join(self._subject.render(variables, urls, follow).split()),
            html=self._html.render(variables, [str(escape(url)) for url in urls], follow),
            text=GAPS.sub("\n\n", self._text.render(variables, urls, follow)).strip(),
        )


def rendered_line(source: str, variables: Mapping[str, object]) -> str:
    """A text that is no message, such as what a notification says, on one line.

    Raises:
        ContentError: it isn't the Liquid that authors may use.
        RenderError: it fails with these variables, or does too much work.
    """
    return " ".join(_line(source).render(variables, [], lambda _, url: url).split())


@lru_cache(100)
def _line(source: str) -> "_Part":
    return _Part("text", source, PLAIN)


PIXEL = Markup('<img src="%s" width="1" height="1" alt="" style="display:block;border:0">')
# Liquid tags on lines of their own leave empty lines behind.
GAPS = re.compile(r"\n[ \t]*\n(?:[ \t]*\n)+")


class _Part:
    """Subject, HTML or text: fixed pieces with slots between, so that the engine runs only where something varies."""

    def __init__(self, name: str, source: str, language: Environment) -> None:
        self._name = name
        self._template = parse(source, language, name)
        nodes = list(enumerate(self._template.nodes))
        self._pieces = [node.text if isinstance(node, ContentNode) else "" for _, node in nodes]
        # Told apart once: isinstance() on python-liquid's abstract classes took a quarter of the time.
        self._links = [(at, node.number) for at, node in nodes if isinstance(node, Link)]
        self._slots = [
            (at, node.expression if isinstance(node, OutputNode) else None, node)
            for at, node in nodes
            if not isinstance(node, (ContentNode, Link))
        ]
        self.links = {found.number for found in below(self._template) if isinstance(found, Link)}

    def render(self, variables: Mapping[str, object], urls: list[str], follow: Linker) -> str:
        try:
            return self._filled(_Message(self._template, variables, urls, follow))
        except LiquidError as error:
            where = error.context()
            raise RenderError(f"{self._name}{f', line {where[0]}' if where else ''}: {error.message}") from error
        except RenderError:
            raise
        # Filters let Python's own errors through: OverflowError, UnicodeDecodeError, RecursionError, ...
        except Exception as error:
            raise RenderError(f"{self._name}: {error}") from error

    def _filled(self, message: "_Message") -> str:
        pieces = self._pieces.copy()
        for at, number in self._links:
            pieces[at] = message.urls[number]
        # In the order of the source: a block may assign what an output reads.
        for at, expression, block in self._slots:
            if expression is not None:
                pieces[at] = to_liquid_string(expression.evaluate(message), message.autoescape)
            else:
                buffer = message.get_buffer()
                block.render(message, buffer)
                pieces[at] = buffer.getvalue()
        rendered = "".join(pieces)
        if len(rendered) > LONGEST_OUTPUT / 4 and len(rendered.encode(errors="replace")) > LONGEST_OUTPUT:
            raise RenderError(f"{self._name}: the result has more than {LONGEST_OUTPUT:,} bytes")
        return rendered


class _Message(Context):
    """The render of one part for one contact, which also knows where links lead."""

    __slots__ = ("follow", "urls")

    def __init__(
        self, template: BoundTemplate, variables: Mapping[str, object], urls: list[str], follow: Linker
    ) -> None:
        super().__init__(template, variables)
        self.urls = urls
        self.follow = follow
