"""When do the messages of a drip leave, and what does it come to?"""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from marketing.campaigns import CampaignDefinition
from marketing.drip_journeys import as_automation, drip_problems, subjects
from marketing.drips import Calendar, Drip, is_over, next_turn, steps, turn

PARIS = ZoneInfo("Europe/Paris")
SEGMENT, OTHER = UUID(int=1), UUID(int=2)
NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)


def calendar(**parts: Any) -> Calendar:
    made = Drip.model_validate({"calendar": parts}).calendar
    assert made
    return made


def turns(made: Calendar, start: datetime, count: int, zone: str = "Europe/Paris") -> list[str]:
    """The next so many, in local time."""
    found: list[str] = []
    while len(found) < count and (moment := next_turn(made, start, zone)):
        found.append(f"{moment.astimezone(ZoneInfo(zone)):%a %Y-%m-%d %H:%M}")
        start = moment
    return found


# -- calendars -------------------------------------------------------------------------------------------------------


def test_a_day_of_the_month_that_a_month_does_not_have_is_its_last() -> None:
    monthly = calendar(every="month", on=[31], at="09:00")
    start = datetime(2027, 1, 31, 10, tzinfo=PARIS)
    assert turns(monthly, start, 4) == [
        *("Sun 2027-02-28 09:00", "Wed 2027-03-31 09:00", "Fri 2027-04-30 09:00", "Mon 2027-05-31 09:00")
    ]
    assert turns(monthly, datetime(2028, 2, 1, tzinfo=PARIS), 1) == ["Tue 2028-02-29 09:00"]
    both = calendar(every="month", on=[30, 31], at="09:00")
    assert turns(both, start, 3) == ["Sun 2027-02-28 09:00", "Tue 2027-03-30 09:00", "Wed 2027-03-31 09:00"]


def test_days_of_the_week_come_in_the_order_of_the_week() -> None:
    weekly = calendar(every="week", on=["thu", "mon"], at="18:30")
    start = datetime(2026, 11, 26, 18, 30, tzinfo=PARIS)  # a Thursday, at that very moment
    assert turns(weekly, start, 3) == ["Mon 2026-11-30 18:30", "Thu 2026-12-03 18:30", "Mon 2026-12-07 18:30"]


def test_clocks_that_change_keep_the_local_time() -> None:
    daily = calendar(every="day", at="02:30")
    spring = turns(daily, datetime(2027, 3, 27, tzinfo=PARIS), 3)  # on 28 March there is no 02:30
    assert spring == ["Sat 2027-03-27 02:30", "Sun 2027-03-28 03:30", "Mon 2027-03-29 02:30"]
    autumn = datetime(2027, 10, 30, 12, tzinfo=PARIS)  # on 31 October it comes twice
    first = next_turn(daily, autumn, "Europe/Paris")
    assert first == datetime(2027, 10, 31, 0, 30, tzinfo=UTC)
    assert next_turn(daily, first, "Europe/Paris") == datetime(2027, 11, 1, 1, 30, tzinfo=UTC)


def test_each_has_their_own_zone_or_all_the_same() -> None:
    own, same = calendar(every="day", at="09:00"), calendar(every="day", at="09:00", timezone="Asia/Tokyo")
    assert next_turn(own, NOW, "America/New_York") == datetime(2026, 11, 27, 14, tzinfo=UTC)
    assert next_turn(own, NOW, "Europe/Paris") == datetime(2026, 11, 28, 8, tzinfo=UTC)
    assert next_turn(same, NOW, "America/New_York") == datetime(2026, 11, 28, 0, tzinfo=UTC)


def test_after_the_last_day_there_is_no_turn() -> None:
    until = calendar(every="day", at="09:00", until="2026-11-28")
    assert turns(until, NOW, 5) == ["Sat 2026-11-28 09:00"]
    assert not is_over(
        until, datetime(2026, 11, 29, 11, 59, tzinfo=UTC)
    )  # it is the 28th yet at the last place on Earth
    assert is_over(until, datetime(2026, 11, 29, 12, tzinfo=UTC))
    assert not is_over(None, NOW)


@given(
    st.sampled_from(["Europe/Paris", "America/Santiago", "Africa/Cairo", "Pacific/Apia", "Asia/Kolkata"]),
    st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1)),  # noqa: DTZ001 - Hypothesis wants them so
    st.one_of(
        st.just({"every": "day"}),
        st.lists(st.sampled_from(["mon", "wed", "sun"]), min_size=1, unique=True).map(
            lambda on: {"every": "week", "on": on}
        ),
        st.lists(st.integers(1, 31), min_size=1, unique=True).map(lambda on: {"every": "month", "on": on}),
    ),
    st.times().map(lambda at: at.replace(second=0, microsecond=0).isoformat()),
)
def test_turns_go_forward_and_none_is_left_out(zone: str, start: datetime, days: dict[str, Any], at: str) -> None:
    made = calendar(**days, at=at)
    now = start.replace(tzinfo=UTC)
    found = next_turn(made, now, zone)
    assert found and found > now
    # Whoever looked a moment before it finds it too: none lies between.
    between = now + (found - now) / 2
    assert next_turn(made, between, zone) == found
    assert next_turn(made, found - timedelta(microseconds=1), zone) == found
    assert turn(made.model_dump(mode="json"), now, zone) == found


# -- what it comes to ------------------------------------------------------------------------------------------------


def definition(**parts: Any) -> CampaignDefinition:
    return CampaignDefinition.model_validate({"name": "Course", "kind": "drip", **parts})


MESSAGES: list[dict[str, Any]] = [
    {"template": str(SEGMENT)},
    {"content": {"subject": "Two"}, "after": "2 days"},
    {"template": str(OTHER), "after": {"from_entry": "10 days"}},
]


def test_a_drip_comes_to_steps_of_a_journey() -> None:
    def send(number: int) -> dict[str, str]:
        name = f"message-{number}"
        return {"type": "send", "id": name, "channel": "email", "template": name}

    assert steps(definition(messages=MESSAGES)) == [
        send(1),
        {"type": "wait", "id": "wait-2", "duration": "2 days"},
        send(2),
        {"type": "since_entry", "id": "wait-3", "duration": "10 days"},
        send(3),
    ]
    weekly = {"every": "week", "on": ["mon"], "at": "09:00"}
    first, second = steps(definition(messages=MESSAGES[:1], calendar=weekly))
    assert (first["type"], first["id"], second) == ("turn", "wait-1", send(1))
    assert turn(first["calendar"], NOW, "Europe/Paris") == datetime(2026, 11, 30, 8, tzinfo=UTC)


def test_whoever_joins_later_meets_what_the_audience_asks_for() -> None:
    audience = {
        "segments": [str(SEGMENT), str(OTHER)],
        "exclude_segments": [str(UUID(int=3))],
        "filter": {"field": "country", "is": "FR"},
    }
    drip = definition(
        messages=MESSAGES,
        audience=audience,
        enroll="continuous",
        goals=[{"event": "purchase"}],
        exit_on=[{"event": "complained"}, {"if": {"field": "tags", "contains": "staff"}}],
    )
    made = as_automation(drip)
    assert made["goals"] == [{"event": "purchase"}] and made["reentry"] == "once"
    assert made["exit_on"] == [{"event": "complained"}, {"if": {"field": "tags", "contains": "staff"}}]
    assert made["entry"] == {"all": [{"not": {"segment": str(UUID(int=3))}}, {"field": "country", "is": "FR"}]}
    assert subjects(drip) == {
        (f"segment.entered:{SEGMENT}", "trigger"),
        (f"segment.entered:{OTHER}", "trigger"),
        ("event:purchase", "goal"),
        ("event:complained", "exit"),
        ("contact.tags", "exit"),
        ("unsubscribed", "exit"),
        ("contact.deleted", "exit"),
    }
    snapshot = drip.model_copy(update={"enroll": "snapshot"})
    assert not any(role == "trigger" for _, role in subjects(snapshot))


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ({}, "no_messages"),
        ({"messages": MESSAGES, "content": {"email": {"subject": "x"}}}, "two_contents"),
        ({"messages": MESSAGES, "schedule": {"send_at": "2126-11-27T09:00"}}, "no_schedule"),
        ({"messages": [{**MESSAGES[0], "content": {"subject": "x"}}]}, "two_contents"),
        ({"messages": MESSAGES, "calendar": {"every": "day"}}, "after_and_calendar"),
        ({"messages": MESSAGES[:1], "calendar": {"every": "day", "until": "2026-11-01"}}, "calendar_over"),
        ({"messages": MESSAGES, "enroll": "continuous", "audience": {"everyone": True}}, "nothing_to_enter"),
        ({"messages": MESSAGES, "on_uncertain": "resend"}, "no_resending"),
        ({"kind": "broadcast", "messages": MESSAGES}, "only_drips"),
        ({"kind": "broadcast", "enroll": "continuous"}, "only_drips"),
        ({"messages": MESSAGES, "enroll": "continuous", "audience": {"segments": [str(SEGMENT)]}}, None),
        ({"messages": MESSAGES, "calendar": None}, None),
        ({"kind": "broadcast"}, None),
    ],
)
def test_what_no_drip_can_be_is_told_before_the_launch(parts: dict[str, Any], code: str | None) -> None:
    assert {each.code for each in drip_problems(definition(**parts), NOW)} == ({code} if code else set())


@pytest.mark.parametrize(
    "wrong",
    [
        {"calendar": {"every": "week"}},
        {"calendar": {"every": "week", "on": [1]}},
        {"calendar": {"every": "month", "on": [32]}},
        {"calendar": {"every": "month", "on": [1.5]}},
        {"calendar": {"every": "month", "on": ["mon"]}},
        {"calendar": {"every": "day", "on": ["mon"]}},
        {"calendar": {"every": "day", "until": "soon"}},
        {"messages": [{"after": "0 days"}]},
        {"messages": [{"after": {"from_entry": "soon"}}]},
        {"messages": [{}] * 101},
        {"enroll": "sometimes"},
    ],
)
def test_what_means_nothing_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        definition(**wrong)


def test_days_are_written_back_as_they_were_given() -> None:
    assert calendar(every="month", on=[28.0]) == calendar(every="month", on=[28])  # whole, as JSON Schema has it
    drip = definition(calendar={"every": "day", "until": "2026-12-24", "at": "09:00"}, messages=MESSAGES)
    again = CampaignDefinition.model_validate(drip.model_dump(mode="json", exclude_none=True))
    assert again == drip and again.calendar and again.calendar.until == date(2026, 12, 24)


@pytest.mark.parametrize(
    ("after", "place", "told"),
    [
        (5, (), "takes a time such as 30 days, a minute at the least."),
        ("tomorrow", (), "takes a time such as 30 days, a minute at the least."),
        ({"from_entry": "tomorrow"}, ("from_entry",), "takes a time such as 30 days, a minute at the least."),
        ({"from_start": "1 day", "from_entry": "1 day"}, ("from_start",), "is not understood here. Take it out."),
    ],
)
def test_a_delay_that_is_none_is_refused_where_it_was_written(after: Any, place: tuple[str, ...], told: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Drip.model_validate({"messages": [{"after": after}]})
    assert [(each["loc"], each["msg"]) for each in refused.value.errors()] == [(("messages", 0, "after", *place), told)]
