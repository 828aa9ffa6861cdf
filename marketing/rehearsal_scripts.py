"""What do contacts do in a rehearsal, and when? As JSON, or in a sentence: “clicks welcome on day 2”."""

import re
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    WithJsonSchema,
    model_validator,
)

from marketing.contacts import normal_email
from marketing.events import EVENT_NAME, OURS, Value
from marketing.segment_names import Duration
from marketing.spans import UNITS, said
from marketing.text import Printable

MOST_ACTS = 100

OPENED, CLICKED, UNSUBSCRIBED = "message.opened", "message.clicked", "contact.unsubscribed"
_OURS = (OPENED, CLICKED, UNSUBSCRIBED)

HOW = (
    "write it such as 'clicks welcome on day 2', 'opens welcome after 3 hours', 'purchases 50 EUR on day 10', "
    "'unsubscribes on day 1' or 'does cart.filled after 2 days'; 'day 2: …' and 'after 3 hours: …' may come first, and "
    "the address of one contact before what it does. Days and hours are counted from the entry"
)


def id_or_email(text: str) -> str:
    """Who is meant, in the one way in which each is spelled."""
    try:
        return str(UUID(text))
    except ValueError:
        return normal_email(text)


# An id or an address, which is checked as that of a contact is.
WHO: dict[str, Any] = {"anyOf": [{"type": "string", "format": "uuid"}, {"type": "string", "format": "email"}]}
Who = Annotated[str, AfterValidator(id_or_email), WithJsonSchema(WHO)]


def _known_event(name: str) -> str:
    if name in _OURS or (re.fullmatch(EVENT_NAME, name) and not name.startswith(tuple(f"{each}." for each in OURS))):
        return name
    raise ValueError(f"{name[:50]!r} can't be acted. Take an event of your own, or {', '.join(_OURS)}")


_EVENT: dict[str, Any] = {
    "anyOf": [
        {"enum": list(_OURS)},
        {"type": "string", "pattern": rf"^(?!({'|'.join(OURS)})\.){EVENT_NAME}$"},
    ]
}


class Act(BaseModel):
    """Something that contacts do, so long after they entered."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {"at": "2 days", "event": CLICKED},
            "anyOf": [
                {"properties": {"message": {"type": "null"}}},
                {"properties": {"event": {"enum": [OPENED, CLICKED]}}},
            ],
        },
    )

    at: Duration | None = Field(None, description="Counted from the entry. Left out: at once.")
    event: Annotated[str, AfterValidator(_known_event), WithJsonSchema(_EVENT)]
    message: Printable | None = Field(
        None, description="Which one is opened or clicked: its template or its step. Left out: the last one."
    )
    contact: Who | None = Field(None, description="Who does it, by id or e-mail address. Left out: everybody.")
    properties: dict[str, JsonValue] = {}
    value: Value | None = None
    currency: str | None = Field(None, pattern="^[A-Z]{3}$")

    @model_validator(mode="after")
    def _about_a_message(self) -> Self:
        if self.message is not None and not self.touches:
            raise ValueError(f"message goes with {OPENED} and {CLICKED} only")
        return self

    @property
    def touches(self) -> bool:
        """Whether it is about a message that the contact got."""
        return self.event in (OPENED, CLICKED)

    @property
    def words(self) -> str:
        """In a sentence: “clicks welcome”."""
        worth = f" ({self.value.normalize():f}{f' {self.currency}' if self.currency else ''})" if self.value else ""
        match self.event:
            case "message.opened" | "message.clicked":
                return f"{'opens' if self.event == OPENED else 'clicks'} {self.message or 'the last message'}"
            case "contact.unsubscribed":
                return "unsubscribes"
        return f"does {self.event}{worth}"

    @property
    def when(self) -> str:
        return f"{said(self.at)} after the entry" if self.at else "at the entry"


_SPAN = rf"(?P<span>[1-9][0-9]{{0,3}} (?:{'|'.join(UNITS)})s?)"
_WHEN = rf"(?:on )?day (?P<day>[0-9]{{1,4}})|after {_SPAN}|at once"
_WHAT = r"""
    (?:(?P<who>\S+@\S+|[0-9a-fA-F-]{36})\ )?
    (?:(?P<touch>opens|clicks)(?:\ (?P<message>.+?))?
    |(?P<leaves>unsubscribes)
    |purchases(?:\ (?P<amount>[0-9]+(?:\.[0-9]+)?)(?:\ (?P<currency>[A-Z]{3}))?)?
    |does\ (?P<event>\S+))
"""
_FIRST = re.compile(rf"(?:{_WHEN}):\s*(?P<rest>.+)")
_LAST = re.compile(rf"(?P<rest>.+?) (?:{_WHEN})")
_ACT = re.compile(_WHAT, re.VERBOSE)


# The shape of one, for the API's document.
SENTENCE = r"(^|[ :])(opens|clicks|unsubscribes|purchases|does)( |$)"


def act(sentence: str) -> Act:
    """What a sentence says.

    Raises:
        ValueError: it can't be understood.
    """
    plain = " ".join(sentence.split())
    told = _FIRST.fullmatch(plain) or _LAST.fullmatch(plain)
    done = _ACT.fullmatch(told["rest"] if told else plain)
    if done is None:
        raise ValueError(f"{plain[:80]!r} is not understood: {HOW}")
    if told and told["day"] and int(told["day"]):
        at: str | None = said(f"{int(told['day'])} days")
    else:
        at = told["span"] if told else None
    event = done["event"] or "purchase"
    if done["touch"]:
        event = OPENED if done["touch"] == "opens" else CLICKED
    if done["leaves"]:
        event = UNSUBSCRIBED
    return Act(
        at=at,
        event=event,
        message=done["message"],
        contact=done["who"],
        value=done["amount"],
        currency=done["currency"],
    )


def _read(given: Any) -> Any:
    return act(given) if isinstance(given, str) else given


# JSON, or a sentence.
ScriptedAct = Annotated[
    Act,
    BeforeValidator(_read, json_schema_input_type=Annotated[str, Field(pattern=SENTENCE)] | Act),
]
