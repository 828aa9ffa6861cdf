"""Events sent one by one over the API, each at its moment, and how many seconds later what follows can be seen."""

import asyncio
from collections.abc import Callable, Sequence
from statistics import quantiles
from time import monotonic
from typing import Any, LiteralString
from uuid import UUID

import psycopg

from bench.stack import Running

SENDERS = 20
LOOK_EVERY = 0.02  # seconds between two looks at what has followed


async def followed(
    stack: Running,
    event: dict[str, Any],
    contacts: Sequence[UUID],
    due: Sequence[float],
    seen_by: LiteralString,
    source: UUID,
    show: Callable[[int], None] = lambda _: None,
) -> list[float]:
    """For each contact how many seconds after its event was sent off `seen_by` had it.

    Args:
        due: when the event of each contact is sent, in seconds from now.
        seen_by: SQL that finds the contacts for whom it has followed, of a source and some contacts.
    """
    sent: dict[UUID, float] = {}
    seen: dict[UUID, float] = {}

    began = monotonic()

    async def send(first: int) -> None:
        for number in range(first, len(contacts), SENDERS):
            await asyncio.sleep(began + due[number] - monotonic())
            sent[contacts[number]] = monotonic()
            told = event | {"contact": {"id": str(contacts[number])}}
            (await stack.api.post("/api/events", json=told)).raise_for_status()

    async with (
        asyncio.TaskGroup() as sending,
        await psycopg.AsyncConnection.connect(stack.database_url, autocommit=True) as connection,
    ):
        for first in range(SENDERS):
            sending.create_task(send(first))
        while missing := [contact for contact in contacts if contact not in seen]:
            asked = [contact for contact in missing if contact in sent]
            found = await (await connection.execute(seen_by, [source, asked])).fetchall()
            seen |= dict.fromkeys((row[0] for row in found), monotonic())
            show(len(seen))
            await asyncio.sleep(LOOK_EVERY)
    return [seen[contact] - sent[contact] for contact in contacts]


def evenly(count: int, rate: float) -> list[float]:
    """Moments for so many events, `rate` of them per second."""
    return [number / rate for number in range(count)]


def p50_and_p99(seconds: Sequence[float]) -> tuple[float, float]:
    cuts = quantiles(seconds, n=100, method="inclusive")
    return cuts[49], cuts[98]
