"""Can people see who passes through an automation and how it goes, and let contacts in themselves?"""

import asyncio
from typing import Any
from uuid import UUID

import httpx
from temporalio.client import Client

from channels.sink import Sink
from tests.api.test_automations import WAIT, activated, created, inside
from tests.audience import EMAIL, people
from tests.automating import routed
from tests.broadcast import come
from tests.conftest import PATIENCE, TestAccount

BY_API: Any = {"trigger": {"type": "api"}}
LETTER: Any = {"type": "send", "content": EMAIL}
ASK: Any = {"type": "wait_for", "event": "reply", "within": "1 day", "id": "ask"}


async def execute(api: httpx.AsyncClient, path: str, *contacts: UUID, **more: Any) -> list[str]:
    """What became of each."""
    named = [{"id": str(each)} for each in contacts]
    answer = await api.post(f"{path}/execute", json={"contacts": named, **more})
    assert answer.status_code == 202, answer.text
    return [each["result"] for each in answer.json()["results"]]


async def enrolled(api: httpx.AsyncClient, path: str, **wanted: Any) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await api.get(f"{path}/enrollments", params=wanted)).json()["items"]
    return items


async def at_step(api: httpx.AsyncClient, path: str, step: str, version: int = 1) -> None:
    """Once somebody is noted to be there."""
    async with asyncio.timeout(PATIENCE):
        while version not in [each["version"] for each in await enrolled(api, path, step=step)]:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def over(temporal: Client, path: str) -> None:
    """Once the first cohort has ended."""
    await temporal.get_workflow_handle(f"automation-{path.rpartition('/')[2]}/cohort-1").result()


# -- all the way -----------------------------------------------------------------------------------------------------


async def test_those_let_in_by_the_api_go_all_the_way_and_every_step_is_told(
    api: httpx.AsyncClient, account: TestAccount, temporal: Client, worker: None, sink: Sink
) -> None:
    letter = {**LETTER, "content": {**EMAIL, "subject": "Your order {{ event.order }}"}}
    path = await activated(api, **BY_API, steps=[{"type": "tag", "add": ["seen"]}, letter])
    zoe, max_ = await people(account, 2)
    named = [{"id": str(zoe)}, {"id": str(max_)}, {"email": "nobody@example.org"}, {"id": str(zoe)}]
    answer = await api.post(f"{path}/execute", json={"contacts": named, "properties": {"order": "A-1"}})
    entered = answer.json()
    assert (answer.status_code, entered["enrolled"]) == (202, 2)
    assert [each["result"] for each in entered["results"]] == ["enrolled", "enrolled", "unknown", "enrolled"]
    await come(sink, account, 2)
    await over(temporal, path)
    assert any("Subject: Your order A-1" in content.decode() for content in sink.contents)

    (newest, other) = (await api.get(f"{path}/executions")).json()["items"]
    assert {newest["id"], other["id"]} == {each["enrollment_id"] for each in entered["results"]} - {None}
    assert [(step["step"], step["type"], step["outcome"]) for step in newest["steps"]] == [
        ("tag-1", "tag", ""),
        ("send-1", "send", "sent"),
    ]
    assert newest["trigger"]["cause"].startswith("api:") and newest["trigger"]["properties"] == {"order": "A-1"}
    took = sum(step["seconds"] for step in newest["steps"])
    assert 0 < took <= newest["seconds"] and newest["state"] == "completed"
    stats = (await api.get(f"{path}/stats")).json()
    assert (stats["enrolled"], stats["completed"], stats["success_rate"], stats["messages"]["sent"]) == (2, 2, 1.0, 2)
    assert [(each["step"], each["done"]) for each in stats["steps"]] == [("tag-1", 2), ("send-1", 2)]
    assert stats["steps"][0]["messages"] is None and stats["steps"][1]["messages"]["sent"] == 2
    (own,) = (await api.get(f"/api/contacts/{zoe}/enrollments")).json()["items"]
    assert own["source_id"] == path.rpartition("/")[2]


async def test_those_inside_go_on_in_a_new_version_from_the_step_at_which_they_are(
    api: httpx.AsyncClient, account: TestAccount, temporal: Client, worker: None, sink: Sink
) -> None:
    def steps(reason: str) -> Any:
        return [LETTER, {**ASK, "then": [{"type": "exit", "reason": reason}]}]

    path = await activated(api, **BY_API, steps=steps("old"))
    (zoe,) = await people(account, 1)
    assert await execute(api, path, zoe) == ["enrolled"]
    await come(sink, account)
    await at_step(api, path, "ask")
    body = {"name": "Welcome", **BY_API, "steps": steps("new")}
    changed = (await api.put(path, json=body, params={"inside": "migrate"})).json()
    assert changed["inside"] == [{"version": 1, "step": "ask", "contacts": 1, "goes_on_in": 2}]
    await at_step(api, path, "ask", version=2)
    reply = {"contact": {"id": str(zoe)}, "name": "reply"}
    assert (await api.post("/api/events", json=reply)).is_success
    async with routed(account, temporal):
        await over(temporal, path)
    (left,) = await enrolled(api, path)
    assert (left["state"], left["reason"], left["version"]) == ("exited", "new", 2)


async def test_those_inside_leave_as_cancelled_when_it_is_cancelled_or_deleted(
    api: httpx.AsyncClient, account: TestAccount, temporal: Client, worker: None, sink: Sink
) -> None:
    zoe, max_ = await people(account, 2)
    ends = []
    for number, contact in enumerate((zoe, max_)):
        path = await activated(api, **BY_API, name=f"A{number}", steps=[LETTER, WAIT])
        await execute(api, path, contact)
        ends.append(path)
    await come(sink, account, 2)
    cancelled, deleted = ends
    answer = await api.post(f"{cancelled}/cancel", json={"reason": "a mistake"})
    assert (answer.json()["status"], answer.json()["status_reason"]) == ("draft", "a mistake")
    await api.post(f"{deleted}/deactivate")
    assert (await api.delete(deleted, params={"inside": "cancel"})).status_code == 204
    for path in ends:
        await over(temporal, path)
    for contact in (zoe, max_):
        (left,) = (await api.get(f"/api/contacts/{contact}/enrollments")).json()["items"]
        assert left["state"] == "cancelled"
    stats = (await api.get(f"{cancelled}/stats")).json()
    assert (stats["enrolled"], stats["cancelled"], stats["success_rate"]) == (1, 1, 0.0)


# -- let in ----------------------------------------------------------------------------------------------------------


async def test_everybody_who_is_not_let_in_is_told_why(api: httpx.AsyncClient, account: TestAccount) -> None:
    french = {"field": "country", "is": "FR"}
    path = await activated(api, **BY_API, entry=french, steps=[WAIT])
    in_it, been_there, abroad, fits = await people(account, 4)
    await inside(account, path, in_it)
    await inside(account, path, been_there, state="completed", left_at="2026-11-20T00:00:00Z")
    for each in (in_it, been_there, fits):
        assert (await api.patch(f"/api/contacts/{each}", json={"country": "FR"})).is_success
    asked = (in_it, been_there, abroad, fits, UUID(int=7))
    assert await execute(api, path, *asked) == ["inside", "once", "entry", "enrolled", "unknown"]
    stats = (await api.get(f"{path}/stats")).json()
    assert stats["refused_by_reason"] == {"entry": 1, "inside": 1, "once": 1}


async def test_nobody_is_let_into_what_is_not_active(api: httpx.AsyncClient, account: TestAccount) -> None:
    path = await created(api, **BY_API, steps=[WAIT])
    (zoe,) = await people(account, 1)
    body = {"contacts": [{"id": str(zoe)}]}
    assert "draft" in (await api.post(f"{path}/execute", json=body)).json()["detail"]
    await api.post(f"{path}/activate")
    await api.post(f"{path}/pause")
    refused = await api.post(f"{path}/execute", json=body)
    assert refused.status_code == 409 and "paused" in refused.json()["detail"]


async def test_a_request_that_is_repeated_lets_nobody_in_twice(api: httpx.AsyncClient, account: TestAccount) -> None:
    path = await activated(api, **BY_API, reentry="always", steps=[WAIT])
    (zoe,) = await people(account, 1)
    body, key = {"contacts": [{"id": str(zoe)}]}, {"Idempotency-Key": "once"}
    first = await api.post(f"{path}/execute", json=body, headers=key)
    again = await api.post(f"{path}/execute", json=body, headers=key)
    assert first.json() == again.json() and again.headers["Idempotency-Replayed"] == "true"
    assert len(await enrolled(api, path)) == 1


# -- looked at -------------------------------------------------------------------------------------------------------


async def test_passes_are_found_by_state_step_and_contact_in_pages(
    api: httpx.AsyncClient, account: TestAccount
) -> None:
    path = await created(api)
    one, two, three = await people(account, 3)
    await inside(account, path, one, step="wait-1", due_at="2026-12-01T09:00:00Z")
    await inside(account, path, two, step="send-1")
    await inside(account, path, three, state="failed", left_at="2026-11-20T00:00:00Z", problem="No such template.")

    async def found(what: str = "enrollments", **wanted: Any) -> list[str]:
        items = (await api.get(f"{path}/{what}", params=wanted)).json()["items"]
        return [each["contact_id"] for each in items]

    for what in ("enrollments", "executions"):
        assert await found(what) == [str(three), str(two), str(one)]
        assert await found(what, state="failed") == [str(three)]
        assert await found(what, state="active", step="wait-1") == [str(one)]
        assert await found(what, contact_id=str(two)) == [str(two)]
        page = (await api.get(f"{path}/{what}", params={"limit": 2})).json()
        assert await found(what, cursor=page["next_cursor"]) == [str(one)]
    (waiting,) = await enrolled(api, path, step="wait-1")
    assert (waiting["due_at"], waiting["number"], waiting["trigger"]["properties"]) == ("2026-12-01T09:00:00Z", 1, {})
    assert (await api.get(f"/api/contacts/{UUID(int=7)}/enrollments")).status_code == 404
