"""From an event to `segment.entered`, with hundreds of events per second, beside one event at a time."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from statistics import quantiles
from time import monotonic
from typing import Any
from uuid import UUID

import psycopg

from bench.bench import Bench
from bench.stack import Running
from bench.table import Aim, Row

RATE = 300  # events per second, each of another contact
SENDERS = 20
LOOK_EVERY = 0.02  # seconds between two looks at who has entered
NAME = "bench.visit"
# Each event lets its contact enter the first three, and has the other two looked at.
CRITERIA: list[dict[str, Any]] = [
    {"event": NAME},
    {"all": [{"event": NAME, "within": "30 days"}, {"field": "timezone", "is": "Europe/Paris"}]},
    {"total": f"{NAME}.value", "at_least": 1},
    {"event": NAME, "count": {"at_least": 2}},
    {"all": [{"event": NAME}, {"not": {"field": "attributes.plan", "is": "yearly"}}]},
]


async def measure(bench: Bench) -> AsyncIterator[Row]:
    await bench.people(bench.sizes.many)
    events = bench.sizes.visits // 10
    few = min(20, events // 20)
    contacts = await _contacts(bench.stack, few + events)
    segment, *_ = [await _segment(bench.stack, criteria) for criteria in CRITERIA]
    with bench.bar("events one at a time, each until its contact has entered", few):
        alone = []
        for contact in contacts[:few]:
            alone += await _entering(bench.stack, segment, [contact], RATE)
    with bench.bar(f"{events:,} events, {RATE} per second, until all have entered", events) as show:
        busy = await _entering(bench.stack, segment, contacts[few:], RATE, show)
    what, against = f"from an event to `segment.entered`, {RATE} events/s", "one event at a time"
    p50, p99 = _p50_and_p99(busy)
    beside = _p50_and_p99(alone)
    yield Row(f"{what}, p50", p50, against, beside[0], "s")
    yield Row(f"{what}, p99", p99, against, beside[1], "s", bench.aims(Aim("at most", 5)))


async def _contacts(stack: Running, count: int) -> list[UUID]:
    async with await psycopg.AsyncConnection.connect(stack.database_url) as connection:
        sql = "SELECT id FROM contacts WHERE account_id = %s AND deleted_at IS NULL ORDER BY id LIMIT %s"
        return [row[0] for row in await (await connection.execute(sql, [stack.account_id, count])).fetchall()]


async def _segment(stack: Running, criteria: dict[str, Any]) -> UUID:
    """A segment whose members are known."""
    made = (await stack.api.post("/api/segments", json={"name": "bench", "criteria": criteria})).raise_for_status()
    segment = made.json()
    while segment["state"] != "ready":
        await asyncio.sleep(0.1)
        segment = (await stack.api.get(f"/api/segments/{segment['id']}")).raise_for_status().json()
    return UUID(segment["id"])


async def _entering(
    stack: Running, segment: UUID, contacts: Sequence[UUID], rate: float, show: Callable[[int], None] = lambda _: None
) -> list[float]:
    """For each contact how many seconds after its event was sent off it could be seen among the members."""
    sent: dict[UUID, float] = {}
    seen: dict[UUID, float] = {}

    began = monotonic()

    async def send(first: int) -> None:
        for number in range(first, len(contacts), SENDERS):
            await asyncio.sleep(began + number / rate - monotonic())
            sent[contacts[number]] = monotonic()
            event = {"contact": {"id": str(contacts[number])}, "name": NAME, "value": 1, "currency": "EUR"}
            (await stack.api.post("/api/events", json=event)).raise_for_status()

    async with (
        asyncio.TaskGroup() as sending,
        await psycopg.AsyncConnection.connect(stack.database_url, autocommit=True) as connection,
    ):
        for first in range(SENDERS):
            sending.create_task(send(first))
        sql = "SELECT contact_id FROM segment_members WHERE segment_id = %s AND contact_id = ANY (%s)"
        while missing := [contact for contact in contacts if contact not in seen]:
            asked = [contact for contact in missing if contact in sent]
            entered = await (await connection.execute(sql, [segment, asked])).fetchall()
            seen |= dict.fromkeys((row[0] for row in entered), monotonic())
            show(len(seen))
            await asyncio.sleep(LOOK_EVERY)
    return [seen[contact] - sent[contact] for contact in contacts]


def _p50_and_p99(seconds: Sequence[float]) -> tuple[float, float]:
    cuts = quantiles(seconds, n=100, method="inclusive")
    return cuts[49], cuts[98]
