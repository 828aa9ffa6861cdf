"""Events over the API, each on record before it is answered, beside a bare COPY of the same rows."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from time import monotonic
from typing import Any

import psycopg

from bench.bench import Bench
from bench.stack import Running
from bench.table import Row
from bench.visitors import visit
from marketing.events import MOST_EVENTS

SENDERS = 8  # of lists, each with one on its way
LONERS = 64  # of single events
SHARE = 10  # one in ten events is sent by itself as well
NAME = "purchase"


async def measure(bench: Bench) -> AsyncIterator[Row]:
    count, people = bench.sizes.events, bench.sizes.many
    await bench.people(people)
    told = [_event(n, people) for n in range(count)]
    lists = [told[first : first + MOST_EVENTS] for first in range(0, count, MOST_EVENTS)]
    loners = [event | {"idempotency_key": f"alone-{n}"} for n, event in enumerate(told[::SHARE])]
    listed, listing = await _tell(bench, f"{count:,} events in lists", lists, SENDERS)
    single, singling = await _tell(bench, f"{len(loners):,} events one by one", loners, LONERS)
    with bench.bar("a bare COPY", count):
        copied = await copied_per_second(bench.stack, count, people)
    stored = await _on_record(bench.stack)
    assert stored == count + len(loners), f"{count + len(loners):,} events were answered, {stored:,} are on record"
    in_lists, alone = f"{count:,} events, in lists of {MOST_EVENTS:,}", f"{len(loners):,} events, one per request"
    per_second = listed * count / len(lists)
    yield Row(f"{in_lists}, on record when answered", per_second, "a bare COPY", copied, "events/s")
    yield Row(f"{alone}, on record when answered", single, "in lists", per_second, "events/s")
    yield Row(
        "CPU per event, one per request",
        1000 * singling / len(loners),
        "in lists",
        1000 * listing / count,
        "ms, all programs",
    )


def _event(n: int, people: int) -> dict[str, Any]:
    """Of one of the contacts, in no order."""
    return {
        "contact": {"email": f"person-{n * 7_919 % people + 1}-of-{people}@example.org"},
        "name": NAME,
        "occurred_at": f"2026-11-{n % 20 + 1:02}T09:30:00Z",
        "properties": {"order": f"A-{n}", "items": n % 5 + 1, "category": "garden"},
        "value": n % 10_000 / 100,
        "currency": "EUR",
        "idempotency_key": f"order-{n}",
    }


async def _tell(bench: Bench, what: str, bodies: Sequence[object], connections: int) -> tuple[float, float]:
    """Requests that were answered per second, and the CPU seconds that our programs took for all of them.

    Raises:
        AssertionError: not everything was stored.
    """
    port = bench.stack.api.base_url.port
    assert port
    requests = [_request(bench.stack, body) for body in bodies]
    before = sum(bench.stack.cpu_seconds().values())
    with bench.bar(what, len(requests)):
        seen = await asyncio.to_thread(visit, port, requests, connections=connections)
    assert set(seen.statuses) == {201}, f"{what}: {seen.statuses}"
    return seen.per_second, sum(bench.stack.cpu_seconds().values()) - before


def _request(stack: Running, body: object) -> bytes:
    content = json.dumps(body).encode()
    return (
        f"POST /api/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {stack.api.headers['Authorization']}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    ).encode() + content


async def _on_record(stack: Running) -> int:
    async with await psycopg.AsyncConnection.connect(stack.database_url) as connection:
        found = await connection.execute("SELECT count(*) FROM events WHERE name = %s", [NAME])
        row = await found.fetchone()
    assert row
    return int(row[0])


async def copied_per_second(stack: Running, count: int, people: int) -> float:
    """Rows per second of one COPY, with its commit, into an empty table with the columns and indexes of `events`."""
    async with await psycopg.AsyncConnection.connect(stack.database_url, autocommit=True) as connection:
        found = await connection.execute("SELECT id FROM contacts WHERE tags = %s", [[f"group of {people}"]])
        ids = [row[0] for row in await found.fetchall()]
        lines = "".join(
            f"{stack.account_id}\t{each['name']}\t{ids[n * 7_919 % people]}\t{each['occurred_at']}\t"
            f"{json.dumps(each['properties'])}\t{each['value']}\t{each['currency']}\n"
            for n, each in ((n, _event(n, people)) for n in range(count))
        ).encode()
        await connection.execute("CREATE TABLE bench_copy (LIKE events INCLUDING ALL)")
        began = monotonic()
        target = "bench_copy (account_id, name, contact_id, occurred_at, properties, value, currency)"
        async with connection.cursor() as cursor, cursor.copy(f"COPY {target} FROM STDIN") as copy:
            await copy.write(lines)
        seconds = monotonic() - began
        await connection.execute("DROP TABLE bench_copy")
    return count / seconds
