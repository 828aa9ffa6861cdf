"""How does what an author wrote become what can be rendered a million times?"""

from collections.abc import Iterable
from itertools import chain
from uuid import UUID

from liquid import BoundTemplate, Environment
from markupsafe import escape
from pydantic import BaseModel, ConfigDict, Field

from marketing.html import inline_css, mjml_to_html
from marketing.links import HTML, PLAIN, Links
from marketing.markup import ContentError, liquid_pieces, masked, tokens
from marketing.plaintext import text_from
from marketing.sandbox import environment, parse
from marketing.text import Printable
from marketing.variables import Variable, variables

__all__ = ["ContentError", "EmailBody", "EmailContent", "Prepared", "Variable", "prepare"]

LONGEST_SOURCE = 500_000
# Parsing a Liquid tag takes 30 µs and a filter 10 µs, reading an HTML tag 8 µs.
MOST_TAGS = 5_000
MOST_LIQUID = 100_000
MOST_MARKUP = 20_000


class EmailBody(BaseModel):
    """What an author writes in an e-mail. A draft may lack anything: `marketing.problems` tells what."""

    model_config = ConfigDict(extra="forbid")

    subject: Printable = Field("", max_length=2_000)
    html: Printable | None = Field(None, max_length=LONGEST_SOURCE)
    mjml: Printable | None = Field(None, max_length=LONGEST_SOURCE)
    text: Printable | None = Field(None, max_length=LONGEST_SOURCE, description="Made from the HTML when not given.")
    preheader: Printable | None = Field(None, max_length=2_000, description="What inboxes show after the subject.")
    from_name: Printable = Field("", max_length=200)
    from_email: Printable = Field("", max_length=320)
    reply_to: Printable | None = Field(None, max_length=320)


class EmailContent(EmailBody):
    """A campaign's e-mail: written here, or taken from a stored template wherever nothing is written here."""

    template_id: UUID | None = None

    def filled_in(self, template: EmailBody) -> "EmailContent":
        """With what the template gives. A body of one's own beside a template is left for `problems` to tell."""
        if self.html is not None or self.mjml is not None:
            return self
        return EmailContent(**{name: getattr(self, name) or getattr(template, name) for name in EmailBody.model_fields})


class Prepared(BaseModel, frozen=True):
    """Content ready for `Renderer`: Liquid sources with numbered links. Stored once per campaign version."""

    subject: str
    html: str
    text: str
    preheader: str
    links: list[str] = Field(description="Where links 0, 1, 2, … lead; Liquid where that differs between contacts.")
    variables: list[Variable]


def sources(content: EmailBody) -> dict[str, str]:
    """The parts that an author wrote, by name."""
    parts = ("subject", "html", "mjml", "text", "preheader")
    return {part: source for part in parts if (source := getattr(content, part)) is not None}


def read(part: str, source: str) -> BoundTemplate:
    """Parse what an author wrote.

    Raises:
        ContentError: it isn't the Liquid that authors may use, or there is too much of it.
    """
    pieces = liquid_pieces(source, part)
    if len(pieces) > MOST_TAGS or sum(piece.end - piece.start for piece in pieces) > MOST_LIQUID:
        message = f"a part may have {MOST_TAGS:,} Liquid tags of {MOST_LIQUID:,} characters together"
        raise ContentError(message, part=part)
    return parse(source, AUTHOR, part)


def parsed(content: EmailBody) -> tuple[dict[str, BoundTemplate], list[ContentError]]:
    """The parts that can be read, by name, and what is wrong with the others."""
    templates: dict[str, BoundTemplate] = {}
    errors: list[ContentError] = []
    for part, source in sources(content).items():
        try:
            templates[part] = read(part, source)
        except ContentError as error:
            errors.append(error)
    return templates, errors


def prepare(content: EmailBody) -> Prepared:
    """Compile MJML, inline CSS, number links, derive the text part, and find the variables.

    A stored template must have been filled in before.

    Raises:
        ContentError: what is wrong in which part and line.
    """
    templates = [read(part, source) for part, source in sources(content).items()]
    if isinstance(content, EmailContent) and content.template_id is not None:
        raise ContentError(f"the template {content.template_id} was not filled in")
    if content.html is None and content.mjml is None:
        raise ContentError("there is nothing to read: give html or mjml")
    body = mjml_to_html(content.mjml) if content.mjml is not None else content.html or ""
    if body.count("<") > MOST_MARKUP:
        raise ContentError(f"the HTML may have {MOST_MARKUP:,} tags")
    links = Links()
    body = inline_css(body)
    html = _completed(body, content.preheader or "", links)
    _check(html, HTML, "html", "a Liquid block begins inside an address and ends outside")
    text = content.text
    if text is None:
        text = text_from(body, lambda tag: links.in_text(body, tag))
        _check(text, PLAIN, "text", "no text part can be made from this HTML, please write one")
    return Prepared(
        subject=content.subject,
        html=html,
        text=text,
        preheader=content.preheader or "",
        links=links.targets,
        variables=merged(variables(template) for template in templates),
    )


def merged(lists: Iterable[list[Variable]]) -> list[Variable]:
    """Each variable once; it has a fallback if it has one everywhere."""
    found: dict[str, bool] = {}
    for variable in chain.from_iterable(lists):
        found[variable.path] = found.get(variable.path, True) and variable.has_fallback
    return [Variable(path=path, has_fallback=has_fallback) for path, has_fallback in found.items()]


AUTHOR = environment()


def _check(source: str, language: Environment, part: str, explanation: str) -> None:
    try:
        parse(source, language, part)
    except ContentError as error:
        raise ContentError(f"{explanation}: {error.message}", part=part) from error


def _completed(body: str, preheader: str, links: Links) -> str:
    """The body with its links numbered, the preheader first and the place of the open pixel last."""
    edits: list[tuple[int, int, str]] = []
    top, bottom = 0, len(body)
    for token in tokens(masked(body, liquid_pieces(body))):
        if token.kind == "start" and (address := links.in_html(body, token)) is not None:
            href = token.attributes["href"]
            edits.append((href.start, href.end, f'"{address}"'))
        elif not token.hidden and (token.kind, token.name) in _BEFORE_THE_BODY:
            top = token.end
        elif not token.hidden and (token.kind, token.name) == ("end", "body"):
            bottom = token.start
    if preheader:
        edits.append((top, top, PREHEADER.format(_escaped(preheader))))
    edits.append((bottom, bottom, "{{ open_pixel }}"))
    parts = []
    end = 0
    for start, stop, written in sorted(edits):
        parts += [body[end:start], written]
        end = stop
    return "".join([*parts, body[end:]])


_BEFORE_THE_BODY = frozenset((("start", "html"), ("end", "head"), ("start", "body")))
PREHEADER = (
    '<div style="display:none;font-size:1px;line-height:1px;max-height:0;max-width:0;opacity:0;overflow:hidden;'
    'mso-hide:all">{}</div>'
)


def _escaped(source: str) -> str:
    """Text with Liquid as HTML with Liquid."""
    parts = []
    end = 0
    for piece in liquid_pieces(source, "preheader"):
        parts += [str(escape(source[end : piece.start])), source[piece.start : piece.end]]
        end = piece.end
    return "".join([*parts, str(escape(source[end:]))])
