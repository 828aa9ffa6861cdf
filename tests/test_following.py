"""Who belongs is kept on a running stack: by a call, by an event, by time passing; within five seconds, and once."""

import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from time import monotonic
from typing import Any

import httpx
import pytest

from tests.stopwatch import Stopwatch
from tests.up import Up, folder

PROMISED = 5.0  # seconds
numbers = count()


@pytest.fixture(scope="module")
def up() -> Iterator[Up]:
    with folder() as data_dir, Up(data_dir, "--workers", "1", CARILLON_SEGMENT_SWEEP_SECONDS="1") as up:
        yield up


@pytest.fixture(scope="module")
def api(up: Up) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {up.key}"}
    with httpx.Client(base_url=up.state["api_url"], headers=headers, timeout=60) as client:
        yield client


def ask(api: httpx.Client, method: str, path: str, **asked: Any) -> Any:
    answer = api.request(method, path, **asked)
    assert answer.is_success, answer.text
    return answer.json()


def person(api: httpx.Client, **fields: Any) -> str:
    """The id of somebody new."""
    made = ask(api, "POST", "/api/contacts", json={"email": f"person-{next(numbers)}@example.org", **fields})
    return str(made["id"])


def segment(api: httpx.Client, criteria: dict[str, Any]) -> str:
    """The id of a segment whose members are known."""
    made = ask(api, "POST", "/api/segments", json={"name": "Some", "criteria": criteria})
    while made["state"] != "ready":
        made = ask(api, "GET", f"/api/segments/{made['id']}")
    return str(made["id"])


def told(api: httpx.Client, name: str, contact: str, segment: str) -> list[datetime]:
    """When the contact entered or left, as its timeline tells."""
    items = ask(api, "GET", f"/api/contacts/{contact}/timeline", params={"limit": 500})["items"]
    return [
        datetime.fromisoformat(item["at"])
        for item in items
        if item["name"] == name and item["properties"]["segment_id"] == segment
    ]


def wait_until_told(api: httpx.Client, name: str, contact: str, segment: str, times: int = 1) -> None:
    while len(told(api, name, contact, segment)) < times:
        pass


def test_a_call_lets_a_contact_enter_and_leave(api: httpx.Client) -> None:
    french, contact = segment(api, {"field": "country", "is": "FR"}), person(api, country="DE")
    for country, name in (("FR", "segment.entered"), ("DE", "segment.left")):
        ask(api, "PATCH", f"/api/contacts/{contact}", json={"country": country})
        since = Stopwatch()
        wait_until_told(api, name, contact, french)
        assert since.read() < PROMISED


def test_an_event_lets_a_contact_enter(api: httpx.Client) -> None:
    criteria = {"event": "purchase", "count": {"at_least": 2}, "where": {"field": "value", "at_least": 50}}
    loyal, contact = segment(api, criteria), person(api)
    purchase = {"contact": {"id": contact}, "name": "purchase", "value": 60, "currency": "EUR"}
    ask(api, "POST", "/api/events", json=[purchase, {**purchase, "value": 10}])
    assert not told(api, "segment.entered", contact, loyal)
    ask(api, "POST", "/api/events", json=purchase)
    since = Stopwatch()
    wait_until_told(api, "segment.entered", contact, loyal)
    assert since.read() < PROMISED


def test_time_lets_a_contact_enter_when_nothing_happens(api: httpx.Client) -> None:
    idle, began = segment(api, {"not": {"event": "visit", "within": "1 minute"}}), monotonic()
    contact = person(api)
    wait_until_told(api, "segment.entered", contact, idle)
    enough = max(3, 5 * (monotonic() - began))  # to be told of another change, on a machine as busy as this one
    since, over = Stopwatch(), datetime.now(UTC) + timedelta(seconds=enough)
    visit = {"contact": {"id": contact}, "name": "visit", "occurred_at": (over - timedelta(minutes=1)).isoformat()}
    ask(api, "POST", "/api/events", json=visit)
    wait_until_told(api, "segment.left", contact, idle)
    wait_until_told(api, "segment.entered", contact, idle, times=2)
    assert since.read() - enough < PROMISED


def test_a_worker_that_is_killed_loses_nobody_and_tells_of_nobody_twice(up: Up, api: httpx.Client) -> None:
    buyers, contacts = segment(api, {"event": "order"}), [person(api) for _ in range(20)]
    for number, contact in enumerate(contacts):
        ask(api, "POST", "/api/events", json={"contact": {"id": contact}, "name": "order"})
        if number == len(contacts) // 2:
            os.kill(up.state["programs"]["worker 1"], signal.SIGKILL)
    for contact in contacts:
        wait_until_told(api, "segment.entered", contact, buyers)
    assert ask(api, "GET", f"/api/segments/{buyers}")["size"] == len(contacts)
    assert [len(told(api, "segment.entered", contact, buyers)) for contact in contacts] == [1] * len(contacts)
