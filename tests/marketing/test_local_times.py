"""Is it so late where somebody lives, when we say so?"""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketing.local_times import WEEKDAYS, moment, next_moment

# Half an hour of summer time, midnights that are skipped, a whole day that was, and those without any of it.
ZONES = [
    *("Europe/Paris", "America/New_York", "Australia/Lord_Howe", "America/Sao_Paulo", "Africa/Cairo"),
    *("Asia/Beirut", "Pacific/Apia", "Asia/Kolkata", "UTC", "Pacific/Kiritimati", "America/St_Johns"),
]
moments = st.integers(1_100_000_000, 2_400_000_000).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
times = st.times().map(lambda at: at.replace(microsecond=0))


@given(moments, st.sampled_from(ZONES), times, st.none() | st.sampled_from(WEEKDAYS))
def test_the_next_moment_is_the_first_after_now_that_it_is_so_late_there(
    now: datetime, zone: str, at: time, weekday: str | None
) -> None:
    there = ZoneInfo(zone)
    found = next_moment(now, there, at=at, weekday=weekday)
    assert found > now
    asked = [now.astimezone(there).date() + timedelta(days=each) for each in range(-2, 10)]
    every = [datetime.combine(day, at, there).astimezone(UTC) for day in asked if weekday in (None, _name(day))]
    assert found == min(each for each in every if each > now)
    local = found.astimezone(there)
    if local.replace(tzinfo=None).time() != at:  # clocks were put past it
        assert not _exists(local.date(), at, there) or not _exists(local.date() - timedelta(days=1), at, there)


@given(st.dates(date(2005, 1, 1), date(2045, 1, 1)), st.sampled_from(ZONES), times)
def test_a_time_that_is_skipped_is_when_it_would_have_been_and_one_that_comes_twice_is_the_first(
    day: date, zone: str, at: time
) -> None:
    there = ZoneInfo(zone)
    found = moment(day, at, there)
    local = found.astimezone(there)
    if _exists(day, at, there):
        assert (local.date(), local.time()) == (day, at)
        assert local.fold == 0
    else:
        before = (found - timedelta(days=2)).astimezone(there).utcoffset()
        assert found == datetime.combine(day, at, UTC) - (before or timedelta())


def _name(day: date) -> str:
    return WEEKDAYS[day.weekday()]


def _exists(day: date, at: time, zone: ZoneInfo) -> bool:
    local = datetime.combine(day, at, zone)
    return local.astimezone(UTC).astimezone(zone).replace(tzinfo=None) == local.replace(tzinfo=None)


def test_summer_time_by_hand() -> None:
    paris = ZoneInfo("Europe/Paris")
    assert moment(date(2026, 3, 29), time(2, 30), paris) == datetime(2026, 3, 29, 1, 30, tzinfo=UTC)  # 03:30 there
    assert moment(date(2026, 10, 25), time(2, 30), paris) == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)  # the first
    at_nine = datetime(2026, 3, 28, 8, tzinfo=UTC)
    assert next_moment(at_nine, paris, at=time(9)) == datetime(2026, 3, 29, 7, tzinfo=UTC)


def test_a_date_is_not_waited_for_once_it_has_passed() -> None:
    now = datetime(2026, 11, 21, 12, tzinfo=UTC)
    assert next_moment(now, ZoneInfo("UTC"), day=date(2026, 11, 20)) < now
    assert next_moment(now, ZoneInfo("UTC"), day=date(2026, 12, 24), at=time(8)) == datetime(
        2026, 12, 24, 8, tzinfo=UTC
    )


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({}, "say until when"),
        ({"weekday": "Caturday"}, "is no weekday"),
        ({"weekday": "monday", "day": date(2026, 1, 1)}, "not both"),
    ],
)
def test_what_is_not_said_is_refused(asked: dict[str, str], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        next_moment(datetime(2026, 1, 1, tzinfo=UTC), ZoneInfo("UTC"), **asked)  # type: ignore[arg-type]  # wrong on purpose
