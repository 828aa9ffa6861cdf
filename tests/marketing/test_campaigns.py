"""What may a campaign be, and what may happen to it next?"""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from marketing.campaigns import (
    ENDED,
    Audience,
    CampaignDefinition,
    CampaignState,
    Move,
    WrongMove,
    check_move,
    states_that_allow,
)
from marketing.schedules import Schedule

LOCAL = st.datetimes(datetime.fromisoformat("2025-01-01"), datetime.fromisoformat("2035-01-01"))
ZONES = st.sampled_from(sorted(available_timezones()))


@given(LOCAL, ZONES, LOCAL)
def test_a_moment_that_has_passed_comes_again_when_the_clock_shows_it_next(
    local: datetime, zone: str, now: datetime
) -> None:
    now = now.replace(tzinfo=UTC)
    schedule = Schedule(send_at=local, timezone=zone)
    again = schedule.next_in(zone, now)
    assert again > now
    if schedule.moment_in(zone) > now:
        assert again == schedule.moment_in(zone)
    else:
        assert again - now <= timedelta(days=2, hours=1)  # where a day was left out, or clocks are put back
        shown = again.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
        assert abs((shown - datetime.combine(shown, local.time())) / timedelta(hours=1)) <= 1


@given(LOCAL, ZONES)
def test_a_local_moment_shows_that_local_time(local: datetime, zone: str) -> None:
    moment = Schedule(send_at=local, timezone=zone).moment_in(zone)
    shown = moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None, fold=0)
    # Equal, but for the hour (or day) that the clocks skip, where it is later by what was skipped.
    assert shown >= local.replace(fold=0)
    assert shown - local <= timedelta(hours=24)


@given(LOCAL, ZONES)
def test_nobody_is_due_before_a_recipients_schedule_starts_or_after_it_has_passed(local: datetime, zone: str) -> None:
    schedule = Schedule(send_at=local, timezone="recipient")
    moment = schedule.moment_in(zone)
    assert schedule.starts_at() <= moment
    assert schedule.has_passed(moment + timedelta(hours=26))


@pytest.mark.parametrize(
    ("local", "zone", "moment"),
    [
        ("2026-03-29T02:30", "Europe/Paris", "2026-03-29T01:30Z"),  # does not exist: what would have been 02:30
        ("2026-10-25T02:30", "Europe/Paris", "2026-10-25T00:30Z"),  # comes twice: the first
        ("2026-11-27T09:00", "Europe/Paris", "2026-11-27T08:00Z"),
        ("2026-11-27T09:00", "Asia/Kathmandu", "2026-11-27T03:15Z"),
    ],
)
def test_clock_changes(local: str, zone: str, moment: str) -> None:
    schedule = Schedule(send_at=datetime.fromisoformat(local), timezone=zone)
    assert schedule.starts_at() == datetime.fromisoformat(moment)


@pytest.mark.parametrize("local", ["0001-01-01T00:00", "1899-12-31T23:59", "2201-01-01T00:00", "9999-12-31T23:59"])
@pytest.mark.parametrize("zone", ["recipient", "Pacific/Kiritimati", "Etc/GMT+12"])
def test_moments_at_the_ends_of_time_are_refused(local: str, zone: str) -> None:
    with pytest.raises(ValidationError, match="1900 to 2200"):
        Schedule.model_validate({"send_at": local, "timezone": zone})


@pytest.mark.parametrize("local", ["1900-01-01T00:00", "2200-12-31T23:59"])
@pytest.mark.parametrize("zone", ["recipient", "Pacific/Kiritimati", "Etc/GMT+12"])
def test_moments_just_before_them_can_be_told_everywhere(local: str, zone: str) -> None:
    schedule = Schedule.model_validate({"send_at": local, "timezone": zone})
    assert schedule.has_passed(datetime(2026, 11, 27, tzinfo=UTC)) == local.startswith("1900")


def test_a_moment_that_has_passed_is_known() -> None:
    schedule = Schedule.model_validate({"send_at": "2026-11-27T09:00", "timezone": "Europe/Paris"})
    assert schedule.has_passed(datetime(2026, 11, 27, 8, 0, tzinfo=UTC))
    assert not schedule.has_passed(datetime(2026, 11, 27, 7, 59, tzinfo=UTC))


def test_a_moment_with_an_offset_is_refused_with_a_hint() -> None:
    with pytest.raises(ValidationError, match="without an offset"):
        Schedule.model_validate({"send_at": "2026-11-27T09:00Z", "timezone": "Europe/Paris"})


@pytest.mark.parametrize("state", sorted(ENDED))
def test_what_has_ended_can_only_be_deleted(state: CampaignState) -> None:
    for move in Move:
        if move is Move.DELETE:
            check_move(move, state)
        else:
            with pytest.raises(WrongMove, match="Allowed now: delete"):
                check_move(move, state)


def test_only_a_draft_can_be_launched() -> None:
    assert states_that_allow(Move.LAUNCH) == [CampaignState.DRAFT]


@pytest.mark.parametrize(
    "audience", [{}, {"everyone": True, "tags": {"any": ["a"]}}, {"tags": {}}, {"everyone": False}]
)
def test_an_audience_is_exactly_one_of_three(audience: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Audience.model_validate(audience)


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(ValidationError, match="rate_limit_per_minute"):
        CampaignDefinition.model_validate({"name": "x", "rate_limit_per_minute": 3})


@pytest.mark.parametrize(
    "field",
    [
        {"name": "a\0b"},
        {"topic": "a\0b"},
        {"audience": {"tags": {"any": ["a\0"]}}},
        {"goals": [{"event": "a\ud800"}]},
        {"budget": {"max_messages": 10**30}},
        {"schedule": {"send_at": "9999-12-31T23:59", "timezone": "America/New_York"}},
        {"schedule": {"send_at": "0001-01-01T00:00", "timezone": "Asia/Tokyo"}},
        {"rate_limit_per_second": 1e-300},
        {"rate_limit_per_second": float("nan")},
    ],
)
def test_what_can_not_be_kept_or_carried_out_is_refused(field: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        CampaignDefinition.model_validate({"name": "x", **field})


def test_an_empty_topic_is_none() -> None:
    assert CampaignDefinition(name="Autumn", topic="").topic is None
