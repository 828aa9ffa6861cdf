"""What is wrong with this content, all at once, before anyone receives it?"""

import re
from collections.abc import Collection, Iterator
from enum import StrEnum
from html import unescape
from typing import Any

from email_validator import EmailNotValidError, validate_email
from liquid.exceptions import LiquidInterrupt, ResourceLimitError
from pydantic import BaseModel

from marketing.content import EmailContent, Prepared, prepare, read, sources
from marketing.links import LEFT_ALONE
from marketing.markup import OUTPUT, TAG, ContentError, line_of, liquid_pieces, masked, tokens
from marketing.rendering import Renderer, RenderError
from marketing.variables import CONTACT_FIELDS, Variable, variables

# A whole address, or one that starts with Liquid and so may become one.
ADDRESS = re.compile(rf"https?://[^/\s]|[{OUTPUT}{TAG}]", re.IGNORECASE)
# Gmail cuts a message there and hides the rest, the way to unsubscribe included.
GMAIL_CLIPS_AT = 102 * 1024


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


def problems(content: EmailContent, attributes: Collection[str] | None = None) -> list[Problem]:
    """Everything that the content alone tells; `attributes` are the names that the account's contacts have.

    How many contacts lack a variable that has no fallback, and whose the sender's domain is, others know.
    """
    found = list(_of_the_envelope(content))
    unusable = [_unusable(error) for part, source in sources(content).items() for error in _errors(part, source)]
    if unusable or content.template_id is not None or (content.html is None) == (content.mjml is None):
        return found + unusable
    part, source = ("html", content.html) if content.html is not None else ("mjml", content.mjml or "")
    try:
        prepared = prepare(content)
    except ContentError as error:
        return [*found, _unusable(error)]
    return [
        *found,
        *_of_variables(prepared.variables, attributes),
        *_of_markup(part, source),
        *_of_leaving(content),
        *_of_rendering(prepared),
    ]


def _errors(part: str, source: str) -> Iterator[ContentError]:
    try:
        read(part, source)
    except ContentError as error:
        yield error


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


def _of_leaving(content: EmailContent) -> Iterator[Problem]:
    advice = 'Put <a href="{{ unsubscribe_url }}">Unsubscribe</a> where readers find it.'
    for part, source in sources(content).items():
        if part not in ("html", "mjml", "text"):
            continue
        if all(variable.path != "unsubscribe_url" for variable in variables(read(part, source))):
            severity = Severity.WARNING if part == "text" else Severity.ERROR
            yield Problem(
                code="no_unsubscribe_link", message=f"There is no way out. {advice}", severity=severity, part=part
            )


def _of_rendering(prepared: Prepared) -> Iterator[Problem]:
    size = len(prepared.html.encode())
    if size > GMAIL_CLIPS_AT:
        message = f"The HTML has {size // 1024} KB. Gmail cuts at {GMAIL_CLIPS_AT // 1024} KB and hides the rest."
        yield _warning("too_large", message, part="html")
    try:
        Renderer(prepared).render(
            {}, account={}, links=lambda _, url: url, unsubscribe_url="#", preferences_url="#", open_pixel_url=None
        )
    except RenderError as error:
        # Too much work, or a `break` outside of any loop: not for want of data.
        always = isinstance(error.__cause__, (ResourceLimitError, LiquidInterrupt))
        severity = Severity.ERROR if always else Severity.WARNING
        message = f"Rendering fails for a contact of whom nothing is known: {error}."
        yield Problem(code="rendering_fails", message=message, severity=severity)
