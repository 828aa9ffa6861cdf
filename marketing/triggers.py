"""What lets a contact enter an automation?"""

import re
from typing import Annotated, Any, Literal, get_args

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, Field, WithJsonSchema

from marketing.accounts import LocalTime, Timezone
from marketing.contacts import LONGEST_TAG, normal_text
from marketing.kinds import EventWhere, part, told_apart
from marketing.segment_fields import PATH
from marketing.segment_names import EventName
from marketing.segment_nodes import Node, kept_by
from marketing.segment_operands import matching, whole
from marketing.spans import FIRST
from marketing.steps import SegmentId
from marketing.text import Printable


class OnEvent(Node):
    """Something happened to the contact."""

    type: Literal["event"]
    event: EventName
    where: EventWhere | None = part(description="What holds of the event.")


class OnSegmentEntered(Node):
    """The contact has entered a segment."""

    type: Literal["segment_entered"]
    segment: SegmentId


class OnSegmentLeft(Node):
    """The contact has left a segment."""

    type: Literal["segment_left"]
    segment: SegmentId


def _tag(text: str) -> str:
    if not (tag := normal_text(text)):
        raise ValueError("is empty")
    return tag


class OnTagAdded(Node):
    """The contact got a tag."""

    type: Literal["tag_added"]
    tag: Annotated[Printable, Field(max_length=LONGEST_TAG, json_schema_extra={"minLength": 1}), AfterValidator(_tag)]


CHANGING = ("email", "phone", "external_id", "first_name", "last_name", "country", "locale", "timezone")
_FIELD = matching(
    f"one of {', '.join(CHANGING)}, or an attribute such as attributes.plan",
    "names of fields",
    rf"^({'|'.join(CHANGING)}|attributes\.[^.\x00-\x1f\x7f]{{1,100}})$",
)


class OnFieldChanged(Node):
    """What is known of the contact has changed."""

    type: Literal["field_changed"]
    field: Annotated[str, kept_by(_FIELD), WithJsonSchema(_FIELD.schema)]


_DATE = matching(
    "created_at, or an attribute such as attributes.birthday", "names", rf"^(created_at|attributes\.{PATH})$"
)
_OFFSET = matching("a time such as -3 days or 2 weeks", "times", r"^(0|[+-]?[1-9][0-9]{0,2}) (day|week)s?$")


class OnDate(Node):
    """A day of the contact's own comes: a birthday, an anniversary, the end of a contract."""

    type: Literal["date"]
    field: Annotated[str, kept_by(_DATE), WithJsonSchema(_DATE.schema)]
    repeat: Literal["yearly", "once"] = part("yearly")
    offset: Annotated[str, kept_by(_OFFSET), WithJsonSchema(_OFFSET.schema)] = part(
        "0 days", description="So long before (-) or after it."
    )
    at: LocalTime = Field("09:00", validate_default=True, description="In the contact's own zone.")

    @property
    def days(self) -> int:
        """How many days after the day itself; before it, less than none."""
        number, unit = self.offset.split()
        return int(number) * (7 if unit.startswith("week") else 1)


_DAYS = whole(1, 3650)


class OnInactivity(Node):
    """For so many days the contact has not done anything."""

    type: Literal["inactivity"]
    days: Annotated[int, kept_by(_DAYS), WithJsonSchema(_DAYS.schema)]
    event: EventName | None = part(description="What was not done. Left out: opened, clicked or bought anything.")


def _cron(written: str) -> str:
    """Five fields, as Temporal understands them too."""
    fields = written.split()
    if len(fields) != 5:
        raise ValueError("takes five fields: minute, hour, day of the month, month, day of the week; such as 0 9 * * 1")
    expression = " ".join(fields)
    if not re.fullmatch(r"[0-9*/, -]+", expression):
        raise ValueError("takes numbers, and * , - and / between them; such as 0 9 * * 1")
    try:
        next(CronSim(expression, FIRST))
    except (CronSimError, StopIteration):
        raise ValueError(f"{expression!r} is no time that ever comes; write it such as 0 9 * * 1") from None
    if "*" not in (fields[2][:1], fields[4][:1]):
        raise ValueError("give the day of the month or that of the week, and * for the other")
    return expression


class OnSchedule(Node):
    """The clock says so, for everybody in a segment."""

    type: Literal["schedule"]
    cron: Annotated[str, Field(max_length=200), AfterValidator(_cron)] = Field(examples=["0 9 * * 1"])
    timezone: Timezone = "UTC"
    segment: SegmentId


class OnRequest(Node):
    """Only the API lets contacts in: `POST /api/automations/{id}/execute`."""

    type: Literal["api"]


Trigger = Annotated[
    OnEvent
    | OnSegmentEntered
    | OnSegmentLeft
    | OnTagAdded
    | OnFieldChanged
    | OnDate
    | OnInactivity
    | OnSchedule
    | OnRequest,
    Field(discriminator="type"),
    told_apart,
]
TRIGGERS: tuple[Any, ...] = get_args(get_args(Trigger)[0])
