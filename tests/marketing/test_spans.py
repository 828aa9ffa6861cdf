"""Times that somebody wrote down: what they reach."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketing.spans import UNITS, Span, ago, ahead, days_in, span, when

NOON = datetime(2028, 2, 29, 12, tzinfo=UTC)
BIT = timedelta(microseconds=1)
durations = st.builds(lambda number, unit: f"{number} {unit}s", st.integers(1, 9999), st.sampled_from(UNITS))
moments = st.timedeltas(timedelta(0), timedelta(days=365 * 298)).map(
    lambda since: datetime(1901, 1, 1, tzinfo=UTC) + since
)


def day(year: int, month: int, number: int) -> datetime:
    return datetime(year, month, number, tzinfo=UTC)


@pytest.mark.parametrize(
    ("now", "duration", "moment"),
    [
        (NOON, "90 minutes", NOON - timedelta(minutes=90)),
        (NOON, "1 day", datetime(2028, 2, 28, 12, tzinfo=UTC)),
        (NOON, "2 weeks", datetime(2028, 2, 15, 12, tzinfo=UTC)),
        (NOON, "1 year", datetime(2027, 2, 28, 12, tzinfo=UTC)),
        (NOON, "4 years", datetime(2024, 2, 29, 12, tzinfo=UTC)),
        (day(2027, 3, 31), "1 month", day(2027, 2, 28)),
        (day(2027, 1, 15), "13 months", day(2025, 12, 15)),
        (datetime.fromisoformat("2027-03-01T01:00+02:00"), "1 month", datetime(2027, 1, 28, 23, tzinfo=UTC)),
        (NOON, "9999 years", day(1900, 1, 1)),
        (NOON, "9999 weeks", day(1900, 1, 1)),
    ],
)
def test_so_long_ago_is_told_by_the_calendar(now: datetime, duration: str, moment: datetime) -> None:
    assert ago(now, duration) == moment


@given(moments, durations)
def test_any_time_ago_and_ahead_is_a_moment_that_we_keep(now: datetime, duration: str) -> None:
    assert day(1900, 1, 1) <= ago(now, duration) < now < ahead(now, duration) <= day(2200, 1, 1)


@pytest.mark.parametrize(
    ("operator", "operand", "reached"),
    [
        ("within", "1 day", Span(NOON - timedelta(days=1), NOON + BIT)),
        ("within_next", "1 day", Span(NOON, NOON + timedelta(days=1) + BIT)),
        ("older_than", "1 day", Span(None, NOON - timedelta(days=1))),
        ("on", date(2026, 11, 2), Span(day(2026, 11, 2), day(2026, 11, 3))),
        ("before", date(2026, 11, 2), Span(None, day(2026, 11, 2))),
        ("before", NOON, Span(None, NOON)),
        ("after", date(2026, 11, 2), Span(day(2026, 11, 3), None)),
        ("after", NOON, Span(NOON + BIT, None)),
        ("between", (date(2026, 11, 2), date(2026, 11, 2)), Span(day(2026, 11, 2), day(2026, 11, 3))),
        ("between", (NOON, NOON), Span(NOON, NOON + BIT)),
    ],
)
def test_each_operator_reaches_from_a_moment_to_another(operator: str, operand: Any, reached: Span) -> None:
    assert span(operator, operand, NOON) == reached


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2026-11-02", date(2026, 11, 2)),
        ("2026-11-02T09:30", datetime(2026, 11, 2, 9, 30, tzinfo=UTC)),
        ("2026-11-02 09:30:01.5Z", datetime(2026, 11, 2, 9, 30, 1, 500_000, tzinfo=UTC)),
        ("2026-11-02T00:30:00+01:00", datetime(2026, 11, 1, 23, 30, tzinfo=UTC)),
    ],
)
def test_a_day_or_a_moment_is_read(written: str, read: date) -> None:
    assert when(written) == read and type(when(written)) is type(read)


@pytest.mark.parametrize(
    "written",
    [
        *("", "now", "2026", "20261102", "2026-11", "2026-02-30", "1899-12-31", "2200-01-01", "1793611800"),
        *("2026-11-02T24:00", "2026-11-02T9:30", "2026-11-02T09:30+15:00", "2026-11-02T09:30:00.1234567"),
        *("2026-11-02\n", "２０２６-11-02", "2026-W45-1"),
    ],
)
def test_whatever_else_is_neither(written: str) -> None:
    with pytest.raises(ValueError, match=r"is no day and no moment|is not in the calendar"):
        when(written)


def test_weeks_have_seven_days() -> None:
    assert (days_in("0 days"), days_in("1 day"), days_in("2 weeks")) == (0, 1, 14)
