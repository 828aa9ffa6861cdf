"""What is a drip: which messages follow each other, when, and who stops getting them?"""

from abc import ABC, abstractmethod
from calendar import monthrange
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any, Literal
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    WithJsonSchema,
)

from marketing.accounts import LocalTime, checked_zone
from marketing.content import EmailContent
from marketing.exits import Exit
from marketing.kinds import told_apart, told_apart_by
from marketing.local_times import moment
from marketing.segment_names import Duration
from marketing.segment_nodes import kept_by
from marketing.segment_operands import DAY, whole

RECIPIENT = "recipient"  # for a zone: each in their own
MOST_MESSAGES = 100


def _zone_or_recipient(name: str) -> str:
    return name if name == RECIPIENT else checked_zone(name)


ZoneOrRecipient = Annotated[
    str,
    AfterValidator(_zone_or_recipient),
    Field(description="`recipient`: each in their own.", examples=["Europe/Paris", RECIPIENT]),
]
Day = Annotated[date, kept_by(DAY), WithJsonSchema(DAY.schema)]
_DAY_OF_MONTH = whole(1, 31)
DayOfMonth = Annotated[int, kept_by(_DAY_OF_MONTH), WithJsonSchema(_DAY_OF_MONTH.schema)]
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEKDAYS: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
Step = dict[str, Any]


class SinceEntry(BaseModel):
    """So long after the contact entered, however long the messages before took."""

    model_config = ConfigDict(extra="forbid")

    from_entry: Duration


_After = Annotated[
    Annotated[Duration, Tag("time")] | Annotated[SinceEntry, Tag("since")],
    Discriminator(lambda written: "since" if isinstance(written, dict | SinceEntry) else "time"),
    told_apart,
]


class DripMessage(BaseModel):
    """One message of a drip: a stored template, or what is written here."""

    model_config = ConfigDict(extra="forbid")

    template: UUID | None = Field(None, description="The id of a stored template.")
    content: EmailContent | None = None
    after: _After | None = Field(
        None, description="So long after the message before, or after the entry. Left out: at once."
    )

    @property
    def written(self) -> EmailContent | None:
        """The content; None if there is none, or too much of it."""
        if self.template is not None and self.content is None:
            return EmailContent(template_id=self.template)
        return self.content if self.template is None else None


class _Calendar(BaseModel, ABC):
    """Days on which messages leave, one after the other, at a local time."""

    model_config = ConfigDict(extra="forbid")

    at: LocalTime = Field("09:00", validate_default=True)
    timezone: ZoneOrRecipient = RECIPIENT
    until: Day | None = Field(None, description="The last day on which a message may leave.")

    @abstractmethod
    def falls_on(self, day: date) -> bool:
        """Whether messages leave on this day."""


class Daily(_Calendar):
    """Every day."""

    every: Literal["day"]

    def falls_on(self, _day: date) -> bool:
        return True


class Weekly(_Calendar):
    """On days of the week."""

    every: Literal["week"]
    on: list[Weekday] = Field(min_length=1, max_length=7)

    def falls_on(self, day: date) -> bool:
        return WEEKDAYS[day.weekday()] in self.on


class Monthly(_Calendar):
    """On days of the month; one that a month does not have is its last."""

    every: Literal["month"]
    on: list[DayOfMonth] = Field(min_length=1, max_length=31)

    def falls_on(self, day: date) -> bool:
        last = monthrange(day.year, day.month)[1]
        return day.day in self.on or (day.day == last and max(self.on) > last)


Calendar = Annotated[Daily | Weekly | Monthly, Field(discriminator="every"), told_apart_by("every")]
_CALENDAR: TypeAdapter[Calendar] = TypeAdapter(Calendar)


class Drip(BaseModel):
    """What campaigns of kind `drip` have, and others do not."""

    messages: list[DripMessage] = Field([], max_length=MOST_MESSAGES, description="Of a drip, in their order.")
    calendar: Calendar | None = Field(None, description="Of a drip: when its messages leave, instead of `after`.")
    enroll: Literal["snapshot", "continuous"] = Field(
        "snapshot", description="Of a drip: `continuous` has whoever enters one of its segments later join."
    )
    exit_on: tuple[Exit, ...] = Field((), max_length=20, description="Of a drip: who stops getting it.")


# -- when ------------------------------------------------------------------------------------------------------------


def next_turn(calendar: Calendar, now: datetime, zone: str) -> datetime | None:
    """The calendar's first moment after `now` for a contact in this zone, in UTC; None if its last day has passed."""
    local = ZoneInfo(zone if calendar.timezone == RECIPIENT else calendar.timezone)
    # From the day before: where clocks are put past midnight, what would have been yesterday may be yet to come.
    day = now.astimezone(local).date() - timedelta(days=1)
    while calendar.until is None or day <= calendar.until:
        if calendar.falls_on(day) and (turn := moment(day, calendar.at, local)) > now:
            return turn
        day += timedelta(days=1)
    return None


def turn(calendar: Mapping[str, Any], now: datetime, zone: str) -> datetime | None:
    """The same, of a calendar as `steps` writes it."""
    return next_turn(_CALENDAR.validate_python(calendar), now, zone)


def is_over(calendar: Calendar | None, now: datetime) -> bool:
    """Whether nobody who joins now would get anything: the last day has passed everywhere on Earth."""
    if calendar is None or calendar.until is None:
        return False
    return datetime.combine(calendar.until, time(), UTC) + timedelta(days=1, hours=12) <= now


# -- as steps of a journey -------------------------------------------------------------------------------------------


def message_id(number: int) -> str:
    """What figures and timelines call a message, from 1 on; its step's id, and the name of its frozen content."""
    return f"message-{number}"


def steps(drip: Drip) -> list[Step]:
    """The drip as steps of a journey (`workflows/interpreter.py`): before each message a wait, if it has one."""
    found: list[Step] = []
    calendar = drip.calendar.model_dump(mode="json") if drip.calendar else None
    for number, message in enumerate(drip.messages, start=1):
        wait = {"id": f"wait-{number}"}
        if calendar:
            found.append({**wait, "type": "turn", "calendar": calendar})
        elif isinstance(message.after, SinceEntry):
            found.append({**wait, "type": "since_entry", "duration": message.after.from_entry})
        elif message.after:
            found.append({**wait, "type": "wait", "duration": message.after})
        found.append({"type": "send", "id": message_id(number), "channel": "email", "template": message_id(number)})
    return found
