"""What has a contact done, how often, when, and what does it come to?"""

import re
from datetime import date, datetime
from typing import Annotated, ClassVar, Literal, Self

from pydantic import WithJsonSchema, model_validator

from marketing.segment_conditions import Where
from marketing.segment_fields import AMOUNTS, COUNTS, MOMENTS, PATH, Operators
from marketing.segment_names import Duration, EventName
from marketing.segment_nodes import Asking, Node, kept_by, optional
from marketing.segment_operands import MOMENT, TRUE, matching
from marketing.spans import Span, ago, first_moment, first_moment_after, span

When = Annotated[date | datetime, kept_by(MOMENT), WithJsonSchema(MOMENT.schema)]


True_ = Annotated[Literal[True], kept_by(TRUE)]


class Count(Asking):
    """How many there are: `{"at_least": 2}`."""

    OPERATORS: ClassVar[Operators] = COUNTS

    @property
    def range(self) -> tuple[int, int | None]:
        """The lowest and the highest number that it may be, both inclusive."""
        match self.operator, self.operand:
            case "exactly", int(number):
                return number, number
            case "at_least", int(number):
                return number, None
            case "more_than", int(number):
                return number + 1, None
            case "at_most", int(number):
                return 0, number
            case "less_than", int(number):
                return 0, number - 1
            case "between", (int(low), int(high)):
                return low, high
        raise AssertionError(self)


class Timing(Asking):
    """When the first or the last of them was: `{"within": "14 days"}`. There must be one."""

    OPERATORS: ClassVar[Operators] = MOMENTS

    def span(self, now: datetime) -> Span:
        reached = span(self.operator, self.operand, now)
        # What happened is not ahead of us but where clocks differ.
        return Span(reached.start) if self.operator == "within" else reached


class Event(Node):
    """`{"event": "purchase", "count": {"at_least": 2}, "within": "30 days"}`: what a contact did, at least once unless
    `count` or `never` says otherwise."""

    event: EventName
    count: Count | None = optional("How many of them.")
    within: Duration | None = optional("How far back.")
    after: When | None = optional()
    before: When | None = optional()
    where: Where | None = optional("What holds of each event.")
    first: Timing | None = optional("When the first of them was.")
    last: Timing | None = optional("When the last of them was.")
    never: True_ | None = optional("There is none of them.")
    machines: True_ | None = optional("Count what machines caused too, such as a scanner's clicks.")

    def span(self, now: datetime) -> Span:
        """When the events happened."""
        return _window(self, now)

    @model_validator(mode="after")
    def _does_not_contradict_itself(self) -> Self:
        _refuse_an_empty_window(self)
        if self.never and (self.count or self.first or self.last):
            raise ValueError("`never` goes with none of count, first and last. Leave it out, or them")
        if self.count and self.count.range[1] == 0 and (self.first or self.last):
            raise ValueError("of no events there is no first and no last. Leave out `count`, or them")
        return self


# As short a name as possible: of purchase.properties.value, the event is purchase.
_TOTAL = re.compile(rf"([A-Za-z][A-Za-z0-9 _.:/-]{{0,98}}?)\.(value|properties\.{PATH})")
_THE_TOTAL = matching(
    "a number of an event, such as purchase.value or purchase.properties.items",
    "numbers of events",
    f"^{_TOTAL.pattern}$",
)


class Total(Asking):
    """`{"total": "purchase.value", "at_least": 100}`: what a number of such events comes to; 0 if there is none."""

    OPERATORS: ClassVar[Operators] = AMOUNTS

    total: Annotated[str, kept_by(_THE_TOTAL), WithJsonSchema(_THE_TOTAL.schema)]
    within: Duration | None = optional("How far back.")
    after: When | None = optional()
    before: When | None = optional()
    where: Where | None = optional("What holds of each event.")
    machines: True_ | None = optional("Count what machines caused too, such as a scanner's clicks.")

    @model_validator(mode="after")
    def _does_not_contradict_itself(self) -> Self:
        _refuse_an_empty_window(self)
        return self

    def span(self, now: datetime) -> Span:
        """When the events happened."""
        return _window(self, now)

    @property
    def event(self) -> str:
        return self._parts[0]

    @property
    def path(self) -> tuple[str, ...]:
        """The names on the way into the properties; none for the value."""
        return tuple(self._parts[1].split(".")[1:])

    @property
    def _parts(self) -> tuple[str, str]:
        found = _TOTAL.fullmatch(self.total)
        assert found is not None
        return found[1], found[2]


def _refuse_an_empty_window(asked: Event | Total) -> None:
    if asked.after and asked.before and first_moment_after(asked.after) >= first_moment(asked.before):
        raise ValueError("nothing lies after `after` and before `before`. Say an earlier `after`, or a later `before`")


def _window(asked: Event | Total, now: datetime) -> Span:
    starts = [ago(now, asked.within)] if asked.within else []
    starts += [first_moment_after(asked.after)] if asked.after else []
    return Span(max(starts, default=None), first_moment(asked.before) if asked.before else None)
