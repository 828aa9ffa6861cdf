"""A drip from its launch to its last message: waits are skipped, what comes between is not."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import httpx
import pytest
from sqlalchemy import text
from temporalio.client import Client
from temporalio.service import RPCError
from temporalio.testing import TimeSkipper

from channels.sink import Sink
from tests.api.test_drips import created
from tests.audience import people
from tests.automating import routed, sweep
from tests.broadcast import arrived, come
from tests.conftest import PATIENCE, TestAccount
from tests.dripping import Dripping, dripping, message
from workflows.cohorts import CohortWorkflow

MESSAGES = [message(1), message(2, after="2 days"), message(3, after={"from_entry": "10 days"})]


@pytest.fixture
async def follower(account: TestAccount, temporal: Client, worker: None) -> AsyncIterator[None]:
    """What happens is told."""
    async with routed(account, temporal):
        yield


async def seen(what: Callable[[], Awaitable[bool]]) -> None:
    """Look again and again."""
    async with asyncio.timeout(PATIENCE):
        while not await what():
            pass


async def begun(drip: Dripping, count: int, step: str = "%") -> None:
    """So many have taken a step, and are at one like this."""

    async def have_begun() -> bool:
        async with drip.account.transaction() as tx:
            query = text("SELECT count(*) FROM enrollments WHERE source_id = :id AND step <> '' AND step LIKE :step")
            return bool((await tx.execute(query, {"id": drip.id, "step": step})).scalar_one() == count)

    await seen(have_begun)


async def became(drip: Dripping, **states: int) -> None:
    """So it stands with all of them."""

    async def stands() -> bool:
        return await drip.enrollments() == states

    await seen(stands)


async def skip(temporal: Client, drip: str | UUID, cohort: int = 1, **time: float) -> None:
    """Let time pass for a cohort, as far as it has anything to wait for."""
    handle = temporal.get_workflow_handle(f"campaign-{drip}/cohort-{cohort}")
    await TimeSkipper(temporal).fast_forward(handle, timedelta(**time))


async def launched(api: httpx.AsyncClient, account: TestAccount, **parts: Any) -> Dripping:
    drip = await created(api, **parts)
    assert (await api.post(f"/api/campaigns/{drip}/launch")).status_code == 202
    return Dripping(UUID(drip), account)


async def finished(temporal: Client, drip: Dripping) -> None:
    async with asyncio.timeout(PATIENCE):
        await temporal.get_workflow_handle(f"campaign-{drip.id}").result()


async def got(drip: Dripping) -> dict[str, list[str]]:
    """What each has got, in order, by the first word of the address."""
    async with drip.account.transaction() as tx:
        rows = await tx.execute(
            text("""
                SELECT split_part(email, '-', 1) AS who, array_agg(step ORDER BY finished_at) AS steps
                FROM deliveries JOIN contacts ON contacts.id = contact_id
                WHERE campaign_id = :id AND state = 'sent' GROUP BY 1
            """),
            {"id": drip.id},
        )
        return {row.who: row.steps for row in rows}


async def test_messages_follow_each_other_and_whoever_leaves_in_between_gets_no_more(
    api: httpx.AsyncClient, temporal: Client, follower: None, sink: Sink, account: TestAccount
) -> None:
    await people(account, 1, name="stays")
    (leaver,) = await people(account, 1, name="leaves")
    (buyer,) = await people(account, 1, name="buys")
    (staff,) = await people(account, 1, name="hired")
    await people(account, 1, name="silent", subscribed=False)
    drip = await launched(
        api,
        account,
        messages=MESSAGES,
        goals=[{"event": "purchase"}],
        exit_on=[{"if": {"field": "tags", "contains": "staff"}}],
    )
    await begun(drip, 5, "wait-2")
    stats = await drip.stats()
    assert stats.reconciles
    unsubscribing = {"subscriptions": [{"channel": "email", "status": "unsubscribed"}]}
    assert (await api.patch(f"/api/contacts/{leaver}", json=unsubscribing)).is_success
    bought = {"name": "purchase", "contact": {"id": str(buyer)}}
    assert (await api.post("/api/events", json=bought)).is_success
    assert (await api.patch(f"/api/contacts/{staff}", json={"tags": ["staff"]})).is_success

    async def have_left() -> bool:
        return (await drip.enrollments()).get("active", 0) <= 2

    await seen(have_left)
    await skip(temporal, drip.id, days=11)
    await finished(temporal, drip)
    assert await got(drip) == {
        "stays": ["message-1", "message-2", "message-3"],
        "leaves": ["message-1"],
        "buys": ["message-1"],
        "hired": ["message-1"],
    }
    assert len(arrived(sink, account)) == 6
    left = await drip.enrollments()
    assert left.pop("completed") == 2  # whoever never agreed is skipped, and goes on
    assert left == {"exited:unsubscribed": 1, "exited:goal": 1, "exited:exit": 1}
    stats = await drip.stats()
    assert (stats.planned, stats.pending, stats.sent) == (9, 0, 6)
    assert stats.skipped_by_reason == {"no_consent": 3}
    assert {name: each.sent for name, each in stats.per_message.items()} == {
        "message-1": 4,
        "message-2": 1,
        "message-3": 1,
    }
    figures = (await api.get(f"/api/campaigns/{drip.id}/stats")).json()["contacts"]
    assert {name: n for name, n in figures.items() if not name.startswith("refused")} == {
        "enrolled": 5,
        "inside": 0,
        "completed": 2,
        "converted": 1,
        "exited:unsubscribed": 1,
        "exited:goal": 1,
        "exited:exit": 1,
    }
    found = await api.get(f"/api/campaigns/{drip.id}/enrollments", params={"contact_id": str(buyer)})
    (inside,) = found.json()["items"]
    assert (inside["state"], inside["reason"], inside["step"]) == ("exited", "goal", "wait-2")
    told = (await api.get(f"/api/campaigns/{drip.id}")).json()
    assert told["status"] == "completed" and told["finished_at"]
    names = [each["name"] for each in (await api.get(f"/api/campaigns/{drip.id}/events")).json()["items"]]
    assert [each for each in names if each.startswith("campaign.")] == [
        *("campaign.completed", "campaign.audience_frozen", "campaign.launched")
    ]


async def test_a_calendar_keeps_the_local_time_over_months_zones_and_clocks_that_change(
    api: httpx.AsyncClient, temporal: Client, follower: None, sink: Sink, account: TestAccount
) -> None:
    zones = ("Pacific/Auckland", "Europe/Paris", "America/New_York")
    for number, zone in enumerate(zones):
        await people(account, 1, name=f"zone{number}", timezone=zone)
    monthly = {"every": "month", "on": [31], "at": "09:00", "timezone": "recipient"}
    drip = await launched(api, account, messages=[message(n) for n in range(1, 6)], calendar=monthly)

    await begun(drip, 3)
    await skip(temporal, drip.id, days=190)
    await finished(temporal, drip)
    async with account.transaction() as tx:
        rows = await tx.execute(
            text("""
                SELECT timezone, step, finished_at FROM deliveries JOIN contacts ON contacts.id = contact_id
                WHERE campaign_id = :id ORDER BY finished_at
            """),
            {"id": drip.id},
        )
        left = [(row.timezone, row.step, row.finished_at.astimezone(ZoneInfo(row.timezone))) for row in rows]
    assert {at.strftime("%H:%M") for _, _, at in left} == {"09:00"}
    assert all((at + timedelta(days=1)).day == 1 for _, _, at in left)
    for zone in zones:
        steps = [step for each, step, _ in left if each == zone]
        months = [at.month for each, _, at in left if each == zone]
        assert steps == [f"message-{n}" for n in range(1, 6)]
        assert all((later - earlier) % 12 == 1 for earlier, later in pairwise(months))


async def test_after_the_last_day_of_the_calendar_whoever_is_inside_is_through(
    api: httpx.AsyncClient, temporal: Client, follower: None, sink: Sink, account: TestAccount
) -> None:
    await people(account, 2)
    last = (datetime.now(UTC) + timedelta(days=3)).date()
    daily = {"every": "day", "at": "09:00", "until": last.isoformat()}
    drip = await launched(api, account, messages=[message(n) for n in range(1, 10)], calendar=daily)

    await begun(drip, 2)
    await skip(temporal, drip.id, days=10)
    await finished(temporal, drip)
    assert await drip.enrollments() == {"completed": 2}
    assert len(arrived(sink, account)) in (6, 8)  # it is past nine today, or not


async def test_whoever_enters_the_segment_later_joins_with_the_first_message(
    api: httpx.AsyncClient, temporal: Client, follower: None, sink: Sink, account: TestAccount
) -> None:
    async def segment(name: str) -> str:
        made = await api.post("/api/segments", json={"name": name, "kind": "static"})
        return str(made.json()["id"])

    async def add(segment_id: str, contact: UUID) -> None:
        added = await api.post(f"/api/segments/{segment_id}/members", json={"contacts": [{"id": str(contact)}]})
        assert added.is_success

    vips, barred = await segment("VIPs"), await segment("Barred")
    (early,), (late,), (kept_out,) = [await people(account, 1, name=name) for name in ("early", "late", "barred")]
    await add(vips, early)
    await add(barred, kept_out)
    drip = await launched(
        api,
        account,
        audience={"segments": [vips], "exclude_segments": [barred]},
        enroll="continuous",
        messages=MESSAGES[:2],
    )
    await begun(drip, 1, "wait-2")
    await add(vips, kept_out)
    await add(vips, late)
    await begun(drip, 2, "wait-2")
    assert set(await got(drip)) == {"early", "late"}
    await skip(temporal, drip.id, days=3)
    await became(drip, completed=2)
    assert len(arrived(sink, account)) == 4
    assert (await api.get(f"/api/campaigns/{drip.id}")).json()["status"] == "running"  # others may join
    cancelled = await api.post(f"/api/campaigns/{drip.id}/cancel")
    assert cancelled.json()["status"] == "cancelled"
    await finished(temporal, drip)
    assert await drip.enrollments() == {"completed": 2}


async def test_a_pause_holds_everybody_and_a_cancellation_ends_all(
    api: httpx.AsyncClient, temporal: Client, follower: None, sink: Sink, account: TestAccount
) -> None:
    await people(account, 5)
    drip = await launched(api, account, messages=MESSAGES)
    await begun(drip, 5, "wait-2")
    assert (await api.post(f"/api/campaigns/{drip.id}/pause")).json()["status"] == "paused"
    await skip(temporal, drip.id, days=3)
    assert len(arrived(sink, account)) == 5
    assert (await api.post(f"/api/campaigns/{drip.id}/resume")).json()["status"] == "running"
    await come(sink, account, 10)
    cancelled = await api.post(f"/api/campaigns/{drip.id}/cancel", json={"reason": "enough"})
    assert (cancelled.json()["status"], cancelled.json()["status_reason"]) == ("cancelled", "enough")
    await finished(temporal, drip)
    left = await drip.enrollments()
    assert sum(left.values()) == 5 and all(each.startswith("cancelled") for each in left)
    stats = await drip.stats()
    assert stats.reconciles and (stats.planned, stats.sent, stats.pending) == (10, 10, 0)
    assert (await api.get(f"/api/campaigns/{drip.id}")).json()["finished_at"]


async def test_a_drip_that_pauses_itself_has_its_cohorts_hear_of_it(
    api: httpx.AsyncClient, temporal: Client, follower: None, sink: Sink, account: TestAccount
) -> None:
    those = f"{str(account.id)[-12:]}@example.org"
    sink.policy = lambda moment: "550 5.1.1 Unknown" if moment.recipient.endswith(those) else None
    try:
        await people(account, 120)
        drip = await launched(api, account, messages=[message(1)])
        cohort = temporal.get_workflow_handle(f"campaign-{drip.id}/cohort-1")

        async def is_paused() -> bool:
            with suppress(RPCError):  # it has not begun
                return (await cohort.query(CohortWorkflow.progress)).state == "paused"
            return False

        await seen(is_paused)
    finally:
        sink.policy = None
    assert (await api.post(f"/api/campaigns/{drip.id}/resume")).json()["status"] == "running"
    await finished(temporal, drip)
    stats = await drip.stats()
    assert (stats.sent + stats.failed, stats.failed >= 100) == (120, True)


async def test_a_launch_that_temporal_never_heard_of_is_swept_up(
    temporal: Client, follower: None, sink: Sink, account: TestAccount
) -> None:
    await people(account, 2)
    drip = await dripping(account, messages=MESSAGES[:1])
    await sweep(temporal)
    await come(sink, account, 2)
    await finished(temporal, drip)
    assert await drip.enrollments() == {"completed": 2}
