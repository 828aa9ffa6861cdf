"""When is it so late, where somebody lives?"""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


def moment(day: date, at: time, zone: ZoneInfo) -> datetime:
    """A local time in UTC. One that clocks are put past is when it would have been, without that: 02:30 is shown as
    03:30 then. One that comes twice is the first."""
    return datetime.combine(day, at, zone).astimezone(UTC)


def next_moment(
    now: datetime, zone: ZoneInfo, *, at: time | None = None, weekday: str | None = None, day: date | None = None
) -> datetime:
    """The first moment after `now` that it is so late there, on such a day of the week; or on a day, also if that has
    passed. Without a time: when the day begins.

    Raises:
        ValueError: nothing is asked for, or two days, or no day of the week.
    """
    if at is None and weekday is None and day is None:
        raise ValueError("say until when: a time, a weekday or a date")
    if weekday is not None and day is not None:
        raise ValueError("give a weekday or a date, not both")
    if weekday is not None and weekday not in WEEKDAYS:
        raise ValueError(f"{weekday!r} is no weekday: it is one of {', '.join(WEEKDAYS)}")
    at = at or time()
    if day is not None:
        return moment(day, at, zone)
    # From the day before: where clocks are put past midnight, what would have been yesterday may be yet to come.
    candidate = now.astimezone(zone).date() - timedelta(days=1)
    while True:
        found = moment(candidate, at, zone)
        if found > now and weekday in (None, WEEKDAYS[candidate.weekday()]):
            return found
        candidate += timedelta(days=1)
