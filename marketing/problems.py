"""What is wrong with this content, all at once, before anyone receives it?"""

import re
from collections.abc import Collection, Iterator, Mapping
from enum import StrEnum
from html import unescape
from typing import Any
from uuid import UUID

from email_validator import EmailNotValidError, validate_email
from liquid.exceptions import LiquidInterrupt, ResourceLimitError
from pydantic import BaseModel

from marketing.content import MOST_MARKUP, EmailBody, EmailContent, Prepared, merged, parsed, prepare, sources
from marketing.links import LEFT_ALONE
from marketing.markup import OUTPUT, TAG, ContentError, Token, line_of, liquid_pieces, masked, tokens
from marketing.plaintext import text_from
from marketing.rendering import Rendered, Renderer, RenderError
from marketing.variables import CONTACT_FIELDS, Variable, variables

# A whole address, or one that starts with Liquid and so may become one.
ADDRESS = re.compile(rf"https?://[^/\s]|[{OUTPUT}{TAG}]", re.IGNORECASE)
# Gmail cuts a message there and hides the rest, the way to unsubscribe included.
GMAIL_CLIPS_AT = 102 * 1024
# What is known of everybody who gets an e-mail.
STRANGER = {"id": str(UUID(int=0)), "email": "someone@example.com", "tags": [], "attributes": {}}
WAY_OUT = "https://unsubscribe.invalid"


class Severity(StrEnum):
    ERROR = "error"  # can't be launched
    WARNING = "warning"  # can, but look at it


class Problem(BaseModel, frozen=True):
    """`code` is for programs, `message` for people. `part` and `line` say where, `variable` which, `count` how many."""

    code: str
    message: str
    severity: Severity = Severity.ERROR
    part: str | None = None
    line: int | None = None
    variable: str | None = None
    count: int | None = None

    def within(self, place: str) -> "Problem":
        """The same of something that stands at a place, such as `messages.1`."""
        return self.model_copy(update={"part": f"{place}.{self.part}" if self.part else place})


def problems(content: EmailContent, attributes: Collection[str] | None = None) -> list[Problem]:
    """Everything that the content alone tells; `attributes` are the names that the account's contacts have.

    How many contacts lack a variable that has no fallback, and whose the sender's domain is, others know.
    """
    templates, errors = parsed(content)
    written = sources(content)
    readable = {part: written[part] for part in templates}
    bodies = [part for part in ("html", "mjml") if part in written]
    found = [*_of_the_envelope(content), *map(_unusable, errors)]
    found += _of_variables(merged(variables(template) for template in templates.values()), attributes)
    for part in bodies:
        if part in readable and written[part].count("<") <= MOST_MARKUP:
            found += _of_markup(part, written[part])
    if len(bodies) == 1 and content.template_id is None:  # else nobody knows what would be sent
        found += _of_the_message(written, readable)
    return found


def _unusable(error: ContentError) -> Problem:
    message = f"{error.message[:1].upper()}{error.message[1:]}."
    return Problem(code="unusable_content", message=message, part=error.part, line=error.line)


def _warning(code: str, message: str, **where: Any) -> Problem:
    return Problem(code=code, message=message, severity=Severity.WARNING, **where)


def _of_the_envelope(content: EmailContent) -> Iterator[Problem]:
    if not content.subject.strip():
        yield Problem(code="no_subject", message="The subject is empty.", part="subject")
    bodies = [name for name in ("html", "mjml", "template_id") if getattr(content, name) is not None]
    if len(bodies) > 1:
        yield Problem(code="two_bodies", message=f"Give one of {' and '.join(bodies)}, not both.", part=bodies[0])
    elif content.template_id is not None:  # would be filled in, if it were there
        yield Problem(code="no_template", message=f"There is no e-mail template {content.template_id}.")
    elif not bodies:
        yield Problem(code="no_body", message="There is nothing to read: give html or mjml.", part="html")
    for part, address in (("from_email", content.from_email), ("reply_to", content.reply_to)):
        try:
            if address:
                validate_email(address, check_deliverability=False, test_environment=True)
        except EmailNotValidError as error:
            yield Problem(code="invalid_address", message=f"“{address}” is no e-mail address: {error}", part=part)


def _of_variables(used: list[Variable], attributes: Collection[str] | None) -> Iterator[Problem]:
    for variable in used:
        path = variable.path
        missing = variable.attribute is not None and attributes is not None and variable.attribute not in attributes
        if missing or not (variable.is_known or variable.attribute):
            severity = Severity.WARNING if variable.has_fallback else Severity.ERROR
            hint = f" Did you mean contact.{path}?" if path in CONTACT_FIELDS else ""
            message = f"No contact has the attribute “{variable.attribute}”." if missing else f"There is no “{path}”."
            yield Problem(code="unknown_variable", message=message + hint, severity=severity, variable=path)


def _of_markup(part: str, source: str) -> Iterator[Problem]:
    for tag in tokens(masked(source, liquid_pieces(source, part))):
        href = tag.attributes.get("href")
        if href is not None and tag.name not in ("link", "base", "mj-font"):
            address = unescape(href.value).strip()
            if not address:
                yield _warning("empty_link", "A link leads nowhere.", part=part, line=line_of(source, tag.start))
            elif not (ADDRESS.match(address) or LEFT_ALONE.match(address)):
                message = f"“{href.of(source)}” can't be opened from a message: give the whole address, with https://."
                yield Problem(code="invalid_link", message=message, part=part, line=line_of(source, tag.start))
        if tag.kind == "start" and tag.name in ("img", "mj-image") and "alt" not in tag.attributes:
            message = 'An image has no alt text. If it says nothing, say so: alt="".'
            yield _warning("image_without_alt", message, part=part, line=line_of(source, tag.start))


def _of_the_message(written: Mapping[str, str], readable: Mapping[str, str]) -> Iterator[Problem]:
    rendered = None
    if "html" in readable or "mjml" in readable:
        try:
            prepared = prepare(EmailBody(**readable))
            yield from _of_size(prepared)
            rendered = Renderer(prepared).render(
                STRANGER,
                account={},
                links=lambda _, url: url,
                unsubscribe_url=WAY_OUT,
                preferences_url="#",
                open_pixel_url=None,
            )
        except ContentError as error:
            yield _unusable(error)
        except RenderError as error:
            yield _of_rendering(error)
    for part, source in written.items():
        if part in ("html", "mjml", "text"):
            yield from _of_leaving(part, source, rendered if part in readable else None)


def _of_size(prepared: Prepared) -> Iterator[Problem]:
    size = len(prepared.html.encode())
    if size > GMAIL_CLIPS_AT:
        message = f"The HTML has {size // 1024} KB. Gmail cuts at {GMAIL_CLIPS_AT // 1024} KB and hides the rest."
        yield _warning("too_large", message, part="html")


def _of_rendering(error: RenderError) -> Problem:
    # Too much work, or a `break` outside of any loop: not for want of data.
    always = isinstance(error.__cause__, (ResourceLimitError, LiquidInterrupt))
    severity = Severity.ERROR if always else Severity.WARNING
    message = f"Rendering fails for a contact of whom only the address is known: {error}."
    return Problem(code="rendering_fails", message=message, severity=severity)


def _of_leaving(part: str, source: str, rendered: Rendered | None) -> Iterator[Problem]:
    line = None
    if "unsubscribe_url" not in source:
        message = "There is no way out."
    elif rendered and not (WAY_OUT in rendered.text if part == "text" else _shows_the_way_out(rendered.html)):
        line = line_of(source, source.index("unsubscribe_url"))
        message = (
            "A contact of whom only the address is known sees no link to unsubscribe_url: it is no link, or stands "
            "under a condition, in a comment or in what is hidden."
        )
    else:
        return
    severity = Severity.WARNING if part == "text" else Severity.ERROR
    advice = 'Put <a href="{{ unsubscribe_url }}">Unsubscribe</a> where all readers find it.'
    yield Problem(code="no_unsubscribe_link", message=f"{message} {advice}", severity=severity, part=part, line=line)


def _shows_the_way_out(html: str) -> bool:
    addresses: list[str] = []

    def see(link: Token) -> None:
        if href := link.attributes.get("href"):
            addresses.append(unescape(href.value).strip())

    text_from(html.replace("{", " "), see)  # it asks for the links that a reader sees; none of it is Liquid any more
    return any(re.split("[?#]", address)[0] == WAY_OUT for address in addresses)
