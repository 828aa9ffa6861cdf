"""From an event to `segment.entered`, with hundreds of events per second, beside one event at a time."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any
from uuid import UUID

from bench import campaigns
from bench.arrivals import evenly, followed, p50_and_p99
from bench.bench import Bench
from bench.stack import Running
from bench.table import Aim, Row

RATE = 300  # events per second, each of another contact
NAME = "bench.visit"
ENTERED = "SELECT contact_id FROM segment_members WHERE segment_id = %s AND contact_id = ANY (%s)"
# Each event lets its contact enter the first three, and has the other two looked at.
CRITERIA: list[dict[str, Any]] = [
    {"event": NAME},
    {"all": [{"event": NAME, "within": "30 days"}, {"field": "timezone", "is": "Europe/Paris"}]},
    {"total": f"{NAME}.value", "at_least": 1},
    {"event": NAME, "count": {"at_least": 2}},
    {"all": [{"event": NAME}, {"not": {"field": "attributes.plan", "is": "yearly"}}]},
]


async def measure(bench: Bench) -> AsyncIterator[Row]:
    group = await bench.people(bench.sizes.many)
    events = bench.sizes.visits // 10
    few = min(20, events // 20)
    contacts = await campaigns.contacts(bench.stack, group, few + events)
    segment, *_ = [await _segment(bench.stack, criteria) for criteria in CRITERIA]
    entering = partial(followed, bench.stack, {"name": NAME, "value": 1, "currency": "EUR"}, seen_by=ENTERED)
    with bench.bar("events one at a time, each until its contact has entered", few):
        alone = []
        for contact in contacts[:few]:
            alone += await entering([contact], [0.0], source=segment)
    with bench.bar(f"{events:,} events, {RATE} per second, until all have entered", events) as show:
        busy = await entering(contacts[few:], evenly(events, RATE), source=segment, show=show)
    what, against = f"from an event to `segment.entered`, {RATE} events/s", "one event at a time"
    p50, p99 = p50_and_p99(busy)
    beside = p50_and_p99(alone)
    yield Row(f"{what}, p50", p50, against, beside[0], "s")
    yield Row(f"{what}, p99", p99, against, beside[1], "s", bench.aims(Aim("at most", 5)))


async def _segment(stack: Running, criteria: dict[str, Any]) -> UUID:
    """A segment whose members are known."""
    made = (await stack.api.post("/api/segments", json={"name": "bench", "criteria": criteria})).raise_for_status()
    segment = made.json()
    while segment["state"] != "ready":
        await asyncio.sleep(0.1)
        segment = (await stack.api.get(f"/api/segments/{segment['id']}")).raise_for_status().json()
    return UUID(segment["id"])
