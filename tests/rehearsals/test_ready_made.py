"""The automations that come with Carillon, rehearsed in both of their forms: who gets what, and when."""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from automations.abandoned_cart import abandoned_cart
from automations.birthday import birthday
from automations.milestone import milestone
from automations.welcome import welcome
from automations.winback import winback
from marketing.rehearsals import ContactTimeline, Timeline
from pytest_carillon import Rehearse

ANNA, BORIS, CARLA = (f"{name}@example.com" for name in ("anna", "boris", "carla"))

EXAMPLES = Path(__file__).parents[2] / "examples"
Form = Callable[..., Any] | Mapping[str, Any]


def both(function: Callable[..., Any], file: str) -> pytest.MarkDecorator:
    """As Python, and as JSON."""
    written = json.loads((EXAMPLES / file).read_text())
    return pytest.mark.parametrize("form", [pytest.param(function, id="python"), pytest.param(written, id="json")])


def gone(timeline: Timeline, contact: ContactTimeline) -> list[tuple[str, timedelta]]:
    """The messages that left, each so long after the entry. Waits of an hour and more end on the full minute, and our
    own clock goes on while messages are written."""
    minute = timedelta(minutes=1)
    sent = (each for each in contact.happenings if each.kind == "send" and each.outcome == "sent")
    return [(each.name, (each.at - timeline.starts_at) // minute * minute) for each in sent]


def about(first: list[tuple[str, timedelta]], second: list[tuple[str, timedelta]]) -> bool:
    """Whether these are the same messages, at moments that are no more than some minutes apart."""
    near = timedelta(minutes=5)
    names = [name for name, _ in first] == [name for name, _ in second]
    return names and all(abs(one - other) <= near for (_, one), (_, other) in zip(first, second, strict=True))


@both(welcome, "welcome.json")
async def test_the_welcome_series_asks_again_only_those_who_have_not_looked(rehearse: Rehearse, form: Form) -> None:
    contacts = [{"email": ANNA}, {"email": BORIS}, {"email": CARLA}]
    script = [f"{ANNA} clicks showcase on day 3", f"{BORIS} unsubscribes on day 2"]
    timeline = await rehearse(form, contacts=contacts, script=script)
    at_first = [("welcome", timedelta(minutes=5)), ("showcase", timedelta(days=1, minutes=5))]
    again = ("re-engagement", timedelta(days=4, minutes=6))
    assert about(gone(timeline, timeline[ANNA]), at_first)
    assert about(gone(timeline, timeline[BORIS]), at_first)
    assert about(gone(timeline, timeline[CARLA]), [*at_first, again])
    assert (timeline[ANNA].state, timeline[BORIS].state, timeline[BORIS].reason) == (
        *("completed", "exited", "unsubscribed"),
    )
    assert timeline.summary.sent == {"welcome": 3, "showcase": 3, "re-engagement": 1}
    assert timeline.summary.ended == {"completed": 2, "exited: unsubscribed": 1}


@both(winback, "winback.json")
async def test_a_win_back_takes_good_customers_only_and_marks_who_stays_away(rehearse: Rehearse, form: Form) -> None:
    bought: Any = [{"event": "purchase", "value": 60, "currency": "EUR", "ago": "20 days"}]
    contacts = [{"email": ANNA, "events": bought}, {"email": BORIS, "events": bought}, {"email": CARLA}]
    timeline = await rehearse(form, contacts=contacts, script=[f"{ANNA} purchases 10 EUR on day 3"])
    assert timeline[ANNA].sent == timeline[BORIS].sent == ["win-back"]
    assert [each.outcome for each in timeline[ANNA].happenings if each.kind == "branch"] == ["yes"]
    assert [each.what for each in timeline[BORIS].happenings if each.kind == "add_to"] == [
        "Add to the segment “At risk”"
    ]
    assert timeline[CARLA].entered is False
    assert timeline[CARLA].reason.startswith("the entry criteria do not hold: Contacts whose subscription to email is")


@both(birthday, "birthday.json")
@pytest.mark.parametrize("zone", ["Europe/Paris", "America/New_York"])
async def test_a_birthday_reminder_comes_at_six_in_the_evening_where_the_contact_lives(
    rehearse: Rehearse, form: Form, zone: str
) -> None:
    contacts = [{"email": ANNA, "timezone": zone}, {"email": BORIS, "timezone": zone}]
    timeline = await rehearse(form, contacts=contacts, script=[f"{BORIS} purchases on day 2"])
    assert timeline[ANNA].sent == ["birthday-offer", "birthday-reminder"]
    assert timeline[BORIS].sent == ["birthday-offer"]
    reminder = next(each for each in timeline[ANNA].happenings if each.name == "birthday-reminder")
    assert f"{reminder.at.astimezone(ZoneInfo(zone)):%H:%M}" == "18:00"


@both(milestone, "milestone.json")
async def test_a_milestone_is_celebrated_once_there_are_ten_purchases(rehearse: Rehearse, form: Form) -> None:
    ten: Any = [{"event": "purchase", "ago": f"{day} days"} for day in range(1, 11)]
    contacts = [{"email": ANNA, "events": ten}, {"email": BORIS, "events": ten[1:]}]
    timeline = await rehearse(form, contacts=contacts)
    assert about(gone(timeline, timeline[ANNA]), [("milestone", timedelta(hours=1))])
    assert [each.what for each in timeline[ANNA].happenings if each.kind == "tag"] == ["Tag “loyal”"]
    assert timeline[BORIS].entered is False


@both(abandoned_cart, "abandoned-cart.json")
async def test_whoever_buys_hears_no_more_of_the_cart(rehearse: Rehearse, form: Form) -> None:
    contacts = [{"email": ANNA}, {"email": BORIS}]
    timeline = await rehearse(form, contacts=contacts, script=[f"{ANNA} purchases 80 EUR after 3 hours"])
    assert about(
        gone(timeline, timeline[BORIS]),
        [("cart-reminder", timedelta(hours=1)), ("cart-offer", timedelta(days=1, hours=1))],
    )
    assert timeline[ANNA].sent == ["cart-reminder"]
    assert (timeline[ANNA].state, timeline[ANNA].reason, timeline[ANNA].converted) == ("exited", "goal", True)


# -- clocks that are put forward and back ----------------------------------------------------------------------------

AT_NINE = {
    "trigger": {"type": "api"},
    "steps": [
        {"type": "wait_until", "at": "09:00"},
        {"type": "send", "template": "first", "id": "first"},
        {"type": "wait_until", "at": "09:00"},
        {"type": "send", "template": "second", "id": "second"},
    ],
}


def change(zone: str, month: int) -> datetime:
    """The next noon before clocks are changed there in this month."""
    day = datetime.now(ZoneInfo(zone)).replace(hour=12, minute=0, second=0, microsecond=0) + timedelta(days=1)
    while day.month != month or day.utcoffset() == (day + timedelta(days=1)).utcoffset():
        day += timedelta(days=1)
    return day.astimezone(UTC)


@pytest.mark.parametrize(
    ("zone", "month", "hours"),
    [("Europe/Paris", 3, 23), ("Europe/Paris", 10, 25), ("America/New_York", 3, 23), ("America/New_York", 11, 25)],
)
async def test_nine_in_the_morning_is_nine_when_clocks_are_changed(
    rehearse: Rehearse, zone: str, month: int, hours: int
) -> None:
    before = change(zone, month) - timedelta(days=1)  # so that one nine o'clock is before the change, the next after it
    timeline = await rehearse(AT_NINE, contacts=[{"email": ANNA, "timezone": zone}], starts_at=before)
    first, second = (each.at for each in timeline[ANNA].happenings if each.kind == "send")
    assert [f"{each.astimezone(ZoneInfo(zone)):%H:%M}" for each in (first, second)] == ["09:00", "09:00"]
    assert round((second - first) / timedelta(hours=1)) == hours
