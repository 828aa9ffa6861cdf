"""Drips over the API: written, checked, previewed, launched."""

from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from tests.audience import EMAIL, people
from tests.conftest import TestAccount

MESSAGES: list[dict[str, Any]] = [
    {"content": EMAIL},
    {"content": {**EMAIL, "subject": "Two days later"}, "after": "2 days"},
]


def drip(**parts: Any) -> dict[str, Any]:
    return {"name": "Course", "kind": "drip", "messages": MESSAGES, "audience": {"everyone": True}, **parts}


async def created(api: httpx.AsyncClient, **parts: Any) -> str:
    answer = await api.post("/api/campaigns", json=drip(**parts))
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def test_a_drip_is_read_back_as_it_was_written_and_found_by_its_kind(api: httpx.AsyncClient) -> None:
    calendar = {"every": "week", "on": ["mon", "thu"], "at": "09:00:00", "timezone": "recipient", "until": "2126-12-24"}
    messages: list[dict[str, Any]] = [{"content": EMAIL}, {"template": str(uuid4())}]
    exit_on = [{"event": "purchase"}, {"if": {"field": "tags", "contains": "staff"}}]
    made = await created(api, messages=messages, calendar=calendar, exit_on=exit_on, enroll="continuous")
    read = (await api.get(f"/api/campaigns/{made}")).json()
    assert (read["kind"], read["enroll"], read["exit_on"]) == ("drip", "continuous", exit_on)
    assert read["calendar"] == calendar
    assert [each["template"] for each in read["messages"]] == [None, messages[1]["template"]]
    listed = (await api.get("/api/campaigns", params={"kind": "drip"})).json()["items"]
    assert [each["id"] for each in listed] == [made]


@pytest.mark.parametrize(
    ("calendar", "told"),
    [
        ({"every": "week"}, "body.calendar.on: is missing. Say it."),
        ({"every": "hour"}, "body.calendar.every: takes one of 'day', 'week', 'month'."),
        ({"on": ["mon"]}, "body.calendar.every: is missing. Say it."),
        ({"every": "month", "on": []}, "body.calendar.on: needs at least 1."),
        ({"every": "day", "at": "noon"}, "body.calendar.at: takes a time of the day such as 09:00."),
    ],
)
async def test_what_is_wrong_with_a_calendar_is_told_in_our_words_with_its_place(
    api: httpx.AsyncClient, calendar: dict[str, Any], told: str
) -> None:
    answer = await api.post("/api/campaigns", json=drip(calendar=calendar))
    assert (answer.status_code, answer.json()["detail"]) == (422, told)


async def test_what_is_wrong_with_any_message_is_told_with_its_place(api: httpx.AsyncClient) -> None:
    unwritten = {"after": "1 day"}
    foreign = {"content": {**EMAIL, "from_email": "news@elsewhere.example.org"}}
    gone = {"template": str(uuid4())}
    made = await created(api, messages=[{"content": EMAIL}, unwritten, foreign, gone], schedule=None)
    found = (await api.post(f"/api/campaigns/{made}/validate")).json()
    assert not found["launchable"]
    errors = {(each["part"], each["code"]) for each in found["problems"] if each["severity"] == "error"}
    assert {("messages.1", "no_content"), ("messages.2.from_email", "foreign_sender")} <= errors
    assert ("messages.3", "no_template") in errors
    refused = await api.post(f"/api/campaigns/{made}/launch")
    assert refused.status_code == 409 and len(refused.json()["problems"]) == len(errors)


async def test_segments_that_exit_criteria_name_must_be_there(api: httpx.AsyncClient) -> None:
    made = await created(api, exit_on=[{"if": {"segment": str(uuid4())}}])
    found = (await api.post(f"/api/campaigns/{made}/validate")).json()
    assert [each["code"] for each in found["problems"] if each["part"] == "exit_on"] == ["unknown_segment"]


async def test_a_segment_that_decides_who_stops_cannot_be_deleted_meanwhile(api: httpx.AsyncClient) -> None:
    segment = (await api.post("/api/segments", json={"name": "Staff", "kind": "static"})).json()["id"]
    made = await created(api, exit_on=[{"if": {"segment": segment}}])
    assert (await api.post(f"/api/campaigns/{made}/launch")).status_code == 202
    refused = await api.delete(f"/api/segments/{segment}")
    assert refused.status_code == 409
    assert [each["id"] for each in refused.json()["used_by"]] == [made]


async def test_any_message_can_be_previewed(api: httpx.AsyncClient, account: TestAccount) -> None:
    await people(account, 1)
    made = await created(api)

    async def previewed(**wanted: int) -> httpx.Response:
        return await api.post(f"/api/campaigns/{made}/preview", json=wanted)

    assert (await previewed()).json()["previews"][0]["subject"] == "Hello Person 1"
    assert (await previewed(message=2)).json()["previews"][0]["subject"] == "Two days later"
    assert (await previewed(message=3)).status_code == 409


async def test_a_launch_freezes_what_is_said_and_looks_at_who_leaves(
    api: httpx.AsyncClient, account: TestAccount
) -> None:
    template = {"name": "House", "html": EMAIL["html"], "subject": "As it was", "from_email": EMAIL["from_email"]}
    stored = (await api.post("/api/templates", json=template)).json()["id"]
    made = await created(api, messages=[{"template": stored}, *MESSAGES[1:]], goals=[{"event": "purchase"}])
    launched = await api.post(f"/api/campaigns/{made}/launch")
    assert launched.status_code == 202 and launched.json()["status"] == "running"
    await api.put(f"/api/templates/{stored}", json={**template, "subject": "As it is"})
    shown = (await api.post(f"/api/campaigns/{made}/preview", json={"message": 1})).json()["previews"][0]
    assert shown["subject"] == "As it was"
    async with account.transaction() as tx:
        looked = await tx.execute(
            text("SELECT subject, role FROM automation_subjects WHERE source_id = :id"), {"id": made}
        )
        plan = (await tx.execute(text("SELECT plan FROM campaigns WHERE id = :id"), {"id": made})).scalar_one()
    assert set(map(tuple, looked)) == {
        ("event:purchase", "goal"),
        ("unsubscribed", "exit"),
        ("contact.deleted", "exit"),
    }
    assert [each["id"] for each in plan["automation"]["steps"]] == ["message-1", "wait-2", "message-2"]
    assert set(plan["messages"]) == {"message-1", "message-2"}
    assert (await api.put(f"/api/campaigns/{made}", json=drip())).status_code == 409


@pytest.mark.parametrize("move", ["launch", "schedule"])
async def test_a_drip_has_no_moment_of_its_own(move: str, api: httpx.AsyncClient) -> None:
    made = await created(api)
    moment = {"send_at": "2126-11-27T09:00"}
    if move == "launch":
        assert (await api.put(f"/api/campaigns/{made}", json=drip(schedule=moment))).status_code == 200
    refused = await api.post(f"/api/campaigns/{made}/{move}", json=moment if move == "schedule" else None)
    assert refused.status_code == 409 and "calendar" in refused.json()["detail"]
