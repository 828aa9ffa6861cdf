"""What has happened to whom, as others tell us?"""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Annotated, Any, NamedTuple, Self
from uuid import UUID

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic.config import JsonDict

from marketing.contacts import LONGEST_TEXT, CheckedAttributes, normal_email, normal_text
from marketing.moments import Moment
from marketing.text import Printable

MOST_EVENTS = 1_000
LONGEST_KEY = 255
BEYOND_VALUES = 10**15  # and below its negative
# The clocks of those who tell us may be a little ahead of ours. Nothing else has happened before it happens.
FURTHEST_AHEAD = timedelta(minutes=10)
# What we tell ourselves: nobody else makes a message sent, or somebody a member.
OURS = ("message", "contact", "segment", "campaign")

EVENT_NAME = r"[A-Za-z]([A-Za-z0-9 _.:/-]{0,98}[A-Za-z0-9_])?"
_VALUE = r"-?[0-9]{1,15}(\.[0-9]{1,6})?"
# As many digits as come through every program that takes a number in JSON for a binary fraction, ours included.
MOST_DIGITS = 15


def checked_name(name: str) -> str:
    """The name itself, if it may be somebody else's.

    Raises:
        ValueError: it has another form, or is one of ours.
    """
    if not re.fullmatch(EVENT_NAME, name):
        raise ValueError(_TAKES["name"])
    if name.startswith(tuple(f"{prefix}." for prefix in OURS)):
        prefix = name.partition(".")[0]
        raise ValueError(f"'{prefix}.…' are events that Carillon itself tells of. Give yours another name")
    return name


def _present(text: str) -> str:
    if not (text := normal_text(text)):
        raise ValueError("is empty")
    return text


def _exact(value: object) -> object:
    """As it was written: 49.9 is no binary fraction. And neither true nor a moment is a number."""
    if isinstance(value, str) and re.fullmatch(_VALUE, value):
        return Decimal(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < BEYOND_VALUES:
        number = Decimal(str(value))
        if re.fullmatch(_VALUE, f"{number:f}") and len(number.normalize().as_tuple().digits) <= MOST_DIGITS:
            return number
        raise ValueError(
            f"has more digits than a number may have: {MOST_DIGITS}, up to 6 of them after the point. "
            "Round it, or write it as text, such as '49.90'"
        )
    raise ValueError(
        "is no number of up to 15 digits before the point and 6 after it. Write it such as 49.9 or '49.90'"
    )


Name = Annotated[
    str,
    AfterValidator(checked_name),
    WithJsonSchema({"type": "string", "pattern": rf"^(?!({'|'.join(OURS)})\.){EVENT_NAME}$"}),
]
Value = Annotated[
    Decimal,
    BeforeValidator(_exact),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "exclusiveMinimum": -BEYOND_VALUES, "exclusiveMaximum": BEYOND_VALUES},
                {"type": "string", "pattern": f"^{_VALUE}$"},
            ]
        }
    ),
]

_REFERENCES: dict[str, JsonDict] = {
    "id": {"type": "string"},
    "email": {"type": "string", "pattern": r"\S"},
    "external_id": {"type": "string", "pattern": r"\S"},
}


class ContactReference(BaseModel):
    """Whom it happened to: exactly one of the three."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "oneOf": [
                {
                    "required": [given],
                    "properties": {name: how if name == given else {"type": "null"} for name in _REFERENCES},
                }
                for given, how in _REFERENCES.items()
            ]
        },
    )

    id: UUID | None = None
    email: Annotated[str, AfterValidator(normal_email)] | None = None
    external_id: Annotated[Printable, Field(max_length=LONGEST_TEXT), AfterValidator(_present)] | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.id, self.email, self.external_id).count(None) != 2:
            raise ValueError("give exactly one of id, email and external_id")
        return self


class Happening(BaseModel):
    """Something that happened to a contact, of which it is known what it was."""

    model_config = ConfigDict(extra="forbid")

    contact: ContactReference
    occurred_at: Moment | None = Field(None, description="At most ten minutes ahead. Left out: now.")
    properties: CheckedAttributes = {}
    value: Value | None = Field(
        None, description="What it is worth: a number, or one written as text, such as '49.90'."
    )
    currency: str | None = Field(None, pattern="^[A-Z]{3}$", description="ISO 4217, such as `EUR`.")
    idempotency_key: str | None = Field(
        None,
        min_length=1,
        max_length=LONGEST_KEY,
        pattern=r"^[^\x00-\x1f\x7f]*$",
        description="A line of any text. However often an event with this key is sent, it is stored once.",
    )


class NewEvent(Happening):
    """Something that happened to a contact."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "contact": {"email": "zoe@example.com"},
                "name": "purchase",
                "occurred_at": "2026-11-02T09:30:00Z",
                "properties": {"order": "A-1001", "items": 2},
                "value": 49.9,
                "currency": "EUR",
                "idempotency_key": "order-A-1001",
            }
        },
    )

    name: Name


class Fault(NamedTuple):
    """What is wrong, and where in the event."""

    path: str
    detail: str


class Refusal(NamedTuple):
    """An event that can't be stored, and why."""

    faults: tuple[Fault, ...]


NOBODY = "There is no such contact."
ANOTHER = "stands for another event, which was told before: what differs from that one needs a key of its own"


def nobody(contact: ContactReference) -> Refusal:
    """Nobody is known by what was given."""
    given = next(name for name in _REFERENCES if getattr(contact, name) is not None)
    return Refusal((Fault(f"contact.{given}", NOBODY),))


def another() -> Refusal:
    """What is told is not what was told with this key before."""
    return Refusal((Fault("idempotency_key", ANOTHER),))


def digest(event: NewEvent) -> bytes:
    """What is told, without its key: the same for a repetition, however it is spelled."""
    who = event.contact
    worth = None if event.value is None else str(event.value.normalize())
    told = [who.id, who.email, who.external_id, event.name, event.occurred_at, event.properties, worth, event.currency]
    return sha256(orjson.dumps(told, option=orjson.OPT_SORT_KEYS)).digest()


def read(given: object, now: datetime) -> NewEvent | Refusal:
    """The event that is told of, or what is wrong with it."""
    try:
        event = NewEvent.model_validate(given)
    except ValidationError as error:
        return Refusal(tuple(map(_fault, error.errors(include_url=False, include_input=False, include_context=False))))
    return in_time(event, now)


def in_time(event: NewEvent, now: datetime) -> NewEvent | Refusal:
    """The event, unless it has not come yet."""
    if event.occurred_at and event.occurred_at > now + FURTHEST_AHEAD:
        minutes = FURTHEST_AHEAD // timedelta(minutes=1)
        return Refusal((Fault("occurred_at", f"has not come yet: it is more than {minutes} minutes ahead"),))
    return event


def _fault(error: Mapping[str, Any]) -> Fault:
    """Pydantic's own words in ours."""
    path, message = ".".join(map(str, error["loc"])), str(error["msg"])
    if error["type"] == "value_error":  # these are ours
        return Fault(path, message.removeprefix("Value error, "))
    return Fault(path, _TOLD.get(error["type"]) or _TAKES.get(path, message))


_TOLD = {"extra_forbidden": "is not understood here. Take it out", "missing": "is missing. Say it"}
_EXAMPLE = '{"email": "zoe@example.com"}'
_TAKES = {
    "": f'is no event. One is an object such as {{"contact": {_EXAMPLE}, "name": "purchase"}}',
    "contact": f"takes an object with one of id, email and external_id, such as {_EXAMPLE}",
    "contact.id": "takes the id of a contact, such as 01998d5e-7c1e-7000-8000-5a1f0c9e2b47",
    "contact.email": "takes an e-mail address as text",
    "contact.external_id": f"takes text of up to {LONGEST_TEXT} characters",
    "name": "has 1 to 100 letters, digits, spaces and _ . : / -, and begins with a letter",
    "occurred_at": "takes a moment that is in the calendar, with its offset, such as '2026-11-02T09:30:00Z'",
    "properties": 'takes an object, such as {"order": "A-1001"}',
    "currency": "takes three capital letters, such as EUR",
    "idempotency_key": f"takes a line of text of 1 to {LONGEST_KEY} characters",
}
