"""Where did the splits of an automation lead contacts, and what did each way bring?"""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
from sqlalchemy import text
from temporalio.client import Client

from channels.sink import Sink
from database import step_counters
from tests.audience import people
from tests.automating import Automating, routed
from tests.conftest import TestAccount

AGO = datetime.now(UTC) - timedelta(days=3)
WAIT = {"type": "wait", "duration": "30 days"}


def split(**weights: int) -> dict[str, Any]:
    return {"type": "split", "id": "which", "variants": {name: {"weight": each} for name, each in weights.items()}}


async def drafted(api: httpx.AsyncClient, *steps: Any, **terms: Any) -> str:
    definition = {"name": "Welcome", "trigger": {"type": "api"}, "steps": list(steps), **terms}
    answer = await api.post("/api/automations", json=definition)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def led(account: TestAccount, automation: str, variant: str, contacts: list[UUID]) -> None:
    async with account.transaction() as tx:
        await tx.execute(
            text("""
                INSERT INTO exposures (account_id, source_id, step, contact_id, variant, exposed_at)
                SELECT :account, :source, 'which', id, :variant, :at FROM unnest(CAST(:contacts AS uuid[])) AS id
            """),
            {"account": account.id, "source": automation, "contacts": contacts, "variant": variant, "at": AGO},
        )


async def entered(account: TestAccount, automation: str, *versions: int) -> None:
    async with account.transaction() as tx:
        for each in versions:
            one = {("", "enrolled"): step_counters.Amount(1)}
            await step_counters.add(tx, account.id, UUID(automation), each, one, now=AGO)


async def buy(api: httpx.AsyncClient, contacts: list[UUID], *, after: timedelta, **parts: Any) -> None:
    events = [
        {"contact": {"id": str(each)}, "name": "purchase", "occurred_at": (AGO + after).isoformat(), **parts}
        for each in contacts
    ]
    assert (await api.post("/api/events", json=events)).status_code == 201


async def test_each_way_says_how_many_went_it_and_reached_the_goal_in_time(
    account: TestAccount, api: httpx.AsyncClient
) -> None:
    large = {"event": "purchase", "where": {"field": "value", "at_least": 10}}
    automation = await drafted(api, split(a=1, b=1), goal=large)
    contacts = await people(account, 200)
    await led(account, automation, "a", contacts[:100])
    await led(account, automation, "b", contacts[100:])
    await buy(api, contacts[:20], after=timedelta(hours=2), value=20)
    await buy(api, contacts[90:140], after=timedelta(hours=2), value=20)
    await buy(api, contacts[100:110], after=timedelta(hours=3), value=20)  # once more
    await buy(api, contacts[140:150], after=timedelta(hours=2), value=5)  # too little
    await buy(api, contacts[150:160], after=timedelta(hours=-2), value=20)  # too early
    await buy(api, contacts[160:170], after=timedelta(days=2), value=20)  # too late for a day
    answer = await api.get(f"/api/automations/{automation}/splits?within=1 day")
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert told["goal"]["event"] == "purchase"
    (report,) = told["splits"]
    ways = [(each["name"], each["weight"], each["contacts"], each["converted"]) for each in report["variants"]]
    assert ways == [("a", 1, 100, 30), ("b", 1, 100, 40)]
    results = report["results"]
    assert (results["metric"], results["leader"]) == ("conversion_rate", "b")
    assert results["sample_ratio"]["mismatch"] is False
    within_a_week = (await api.get(f"/api/automations/{automation}/splits")).json()["splits"][0]
    assert [each["converted"] for each in within_a_week["variants"]] == [30, 50]


async def test_where_shares_have_changed_nobody_pretends_to_know_who_should_have_got_which(
    account: TestAccount, api: httpx.AsyncClient
) -> None:
    automation = await drafted(api, split(a=1, b=1), goal={"event": "purchase"})
    assert (await api.post(f"/api/automations/{automation}/activate")).is_success
    changed = {"name": "Welcome", "trigger": {"type": "api"}, "goal": {"event": "purchase"}, "steps": [split(b=9, c=1)]}
    assert (await api.put(f"/api/automations/{automation}", json=changed)).is_success
    contacts = await people(account, 20)
    await entered(account, automation, 1, 2)
    await led(account, automation, "a", contacts[:2])
    await led(account, automation, "b", contacts[2:])
    (report,) = (await api.get(f"/api/automations/{automation}/splits")).json()["splits"]
    ways = [(each["name"], each["weight"], each["contacts"]) for each in report["variants"]]
    assert ways == [("b", 9, 18), ("c", 1, 0), ("a", None, 2)]
    assert report["results"]["sample_ratio"] is None
    assert report["results"]["warnings"][0]["code"] == "shares_changed"


async def test_shares_that_were_changed_before_anybody_came_are_those_of_all(
    account: TestAccount, api: httpx.AsyncClient
) -> None:
    automation = await drafted(api, split(a=9, b=1), goal={"event": "purchase"})
    assert (await api.post(f"/api/automations/{automation}/activate")).is_success
    assert (await api.post(f"/api/automations/{automation}/deactivate")).is_success
    even = {"name": "Welcome", "trigger": {"type": "api"}, "goal": {"event": "purchase"}, "steps": [split(a=1, b=1)]}
    assert (await api.put(f"/api/automations/{automation}", json=even)).is_success
    assert (await api.post(f"/api/automations/{automation}/activate")).is_success
    contacts = await people(account, 20)
    await entered(account, automation, 2)
    await led(account, automation, "a", contacts[:10])
    await led(account, automation, "b", contacts[10:])
    (report,) = (await api.get(f"/api/automations/{automation}/splits")).json()["splits"]
    assert report["results"]["sample_ratio"]["expected"] == {"a": 0.5, "b": 0.5}
    assert {each["code"] for each in report["results"]["warnings"]} == {"small_sample"}


async def test_shares_that_nobody_would_get_by_chance_are_told(account: TestAccount, api: httpx.AsyncClient) -> None:
    automation = await drafted(api, split(a=1, b=1), goal={"event": "purchase"})
    contacts = await people(account, 100)
    await led(account, automation, "a", contacts[:20])
    await led(account, automation, "b", contacts[20:])
    (report,) = (await api.get(f"/api/automations/{automation}/splits")).json()["splits"]
    assert report["results"]["sample_ratio"]["mismatch"] is True
    assert report["results"]["winner_if_planned"] is None


async def test_without_a_goal_there_is_nothing_to_compare(account: TestAccount, api: httpx.AsyncClient) -> None:
    automation = await drafted(api, split(a=1, b=1))
    assert (await api.get(f"/api/automations/{automation}/splits")).json() == {
        "goal": None,
        "within": "7 days",
        "splits": [
            {
                "step": "which",
                "variants": [
                    {"name": name, "weight": 1, "contacts": 0, "converted": None, "first_at": None, "last_at": None}
                    for name in ("a", "b")
                ],
                "results": None,
            }
        ],
    }


async def test_contacts_who_pass_are_told_of_and_what_they_do_after_they_have_left(
    account: TestAccount, api: httpx.AsyncClient, temporal: Client, worker: None, sink: Sink
) -> None:
    async with routed(account, temporal):
        automating = Automating(account, api, temporal, sink)
        automation = await automating.activated(split(a=1, b=2), goal={"event": "purchase"})
        contacts = await people(account, 12)
        await automating.happens("order.placed", *contacts)
        for each in contacts:
            await automating.until_passes(automation, each, ("completed", None))
        await automating.happens("purchase", contacts[0])
    (report,) = (await api.get(f"/api/automations/{automation}/splits")).json()["splits"]
    assert sum(each["contacts"] for each in report["variants"]) == 12
    assert sum(each["converted"] for each in report["variants"]) == 1
