"""From when until when does a time that somebody wrote down reach?"""

import re
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import NamedTuple

from marketing.moments import FIRST_YEAR, LAST_YEAR

FIRST, LAST = datetime(FIRST_YEAR, 1, 1, tzinfo=UTC), datetime(LAST_YEAR, 1, 1, tzinfo=UTC)

UNITS = ("minute", "hour", "day", "week", "month", "year")
DURATION = rf"^[1-9][0-9]{{0,3}} ({'|'.join(UNITS)})s?$"
# Until an anniversary, in whole days; 0 days is today.
DAYS = r"^([0-9]|[1-9][0-9]|[12][0-9]{2}|3[0-5][0-9]|36[0-5]) days?$|^([1-9]|[1-4][0-9]|5[0-2]) weeks?$"
_FINEST = timedelta(microseconds=1)  # of Python and of PostgreSQL

# A day or a moment as JSON has them: ISO 8601, in UTC if no offset is told. It means the same as a regular expression
# of Python, of PostgreSQL and of JSON Schema. The 30th of February looks like one and is none.
A_DAY = r"(19|2[01])[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
_HOUR = r"([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,6})?)?"
_OFFSET = r"(Z|[+-](0[0-9]|1[0-4]):[0-5][0-9])"
WHEN = rf"^{A_DAY}([T ]{_HOUR}{_OFFSET}?)?$"


class Span(NamedTuple):
    """From `start` (inclusive) to `end` (exclusive); None is for ever."""

    start: datetime | None = None
    end: datetime | None = None

    def __and__(self, other: "Span") -> "Span":
        """What lies in both."""
        starts, ends = [each for each in (self.start, other.start) if each], [e for e in (self.end, other.end) if e]
        return Span(max(starts, default=None), min(ends, default=None))


def when(text: str) -> date | datetime:
    """A day, or a moment in UTC, from ISO 8601.

    Raises:
        ValueError: it is neither.
    """
    if not re.fullmatch(WHEN.strip("^$"), text):
        raise ValueError(f"{text[:50]!r} is no day and no moment: write it such as 2026-11-02 or 2026-11-02T09:30:00Z")
    try:
        if len(text) == 10:
            return date.fromisoformat(text)
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is not in the calendar") from None
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


@lru_cache(maxsize=1024)
def _parts(duration: str) -> tuple[int, str]:
    number, unit = duration.split()
    return int(number), unit.removesuffix("s")


def days_in(duration: str) -> int:
    """How many days a duration of days or weeks has."""
    number, unit = _parts(duration)
    return number * 7 if unit == "week" else number


def said(duration: str) -> str:
    """A duration in English: `1 minute` and `2 days`, also if `1 minutes` and `2 day` were written."""
    number, unit = _parts(duration)
    return f"{number} {unit}{'' if number == 1 else 's'}"


def ago(now: datetime, duration: str) -> datetime:
    """The moment so long before now."""
    number, unit = _parts(duration)
    return _moved(now, -number, unit)


def ahead(now: datetime, duration: str) -> datetime:
    """The moment so long after now."""
    number, unit = _parts(duration)
    return _moved(now, number, unit)


def _moved(now: datetime, number: int, unit: str) -> datetime:
    """Within the years that we keep. A month before 31 March is the last day of February, in UTC."""
    now = now.astimezone(UTC)
    if unit in ("month", "year"):
        year, month = divmod(now.year * 12 + now.month - 1 + number * (12 if unit == "year" else 1), 12)
        if not FIRST_YEAR <= year < LAST_YEAR:
            return FIRST if number < 0 else LAST
        first = now.replace(year=year, month=month + 1, day=1)
        following = (first + timedelta(days=31)).replace(day=1)
        return min(first + timedelta(days=now.day - 1), following - timedelta(days=1))
    return min(max(now + timedelta(**{f"{unit}s": number}), FIRST), LAST)


def span(operator: str, operand: object, now: datetime) -> Span:
    """What an operator that asks for a time reaches, such as `("within", "30 days")` or `("on", date(2026, 11, 2))`."""
    match operator, operand:
        case "within", str():
            return Span(ago(now, operand), now + _FINEST)
        case "within_next", str():
            return Span(now, ahead(now, operand) + _FINEST)
        case "older_than", str():
            return Span(end=ago(now, operand))
        case "on", date():
            return Span(first_moment(operand), first_moment_after(operand))
        case "before", date():
            return Span(end=first_moment(operand))
        case "after", date():
            return Span(first_moment_after(operand))
        case "between", (date() as first, date() as last):
            return Span(first_moment(first), first_moment_after(last))
    raise ValueError(f"{operator} does not ask for a time")


def first_moment(operand: date) -> datetime:
    return operand if isinstance(operand, datetime) else datetime.combine(operand, time(), UTC)


def first_moment_after(operand: date) -> datetime:
    return operand + _FINEST if isinstance(operand, datetime) else first_moment(operand) + timedelta(days=1)
