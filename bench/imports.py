"""Contacts imported from a file, beside a bare COPY of the same rows into a table of the same shape."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from time import monotonic

import psycopg

from bench.bench import Bench
from bench.stack import Running
from bench.table import Row

LOOK_SECONDS = 0.1


async def measure(bench: Bench) -> AsyncIterator[Row]:
    rows = bench.sizes.rows
    with bench.bar(f"import {rows:,} contacts", rows) as show:
        imported = await imported_per_second(bench.stack, rows, show)
    with bench.bar("a bare COPY", rows):
        copied = await copied_per_second(bench.stack, rows)
    yield Row(f"{rows:,} contacts from CSV, with consent", imported, "a bare COPY", copied, "contacts/s")


def contacts_file(rows: int) -> bytes:
    """As Mailchimp exports people."""
    header = "Email Address,First Name,Last Name,OPTIN_TIME,Plan,City\n"
    lines = (
        f"imported-{n}@example.org,Person {n},Example,2026-11-02 09:30:00,gold,Town {n % 100}\n" for n in range(rows)
    )
    return (header + "".join(lines)).encode()


async def imported_per_second(stack: Running, rows: int, show: Callable[[int], None]) -> float:
    """Contacts per second, from the beginning of the upload over the API to the end of the import.

    Raises:
        AssertionError: not every row became a contact; the figure would mean nothing.
    """
    file = contacts_file(rows)
    began = monotonic()
    async with asyncio.timeout(60 + rows / 500):
        headers = {"Content-Type": "text/csv"}
        answer = await stack.api.post("/api/contacts/import", content=file, headers=headers)
        path = f"/api/contacts/import/{answer.raise_for_status().json()['id']}"
        while True:
            found = (await stack.api.get(path)).raise_for_status().json()
            show(int(found["progress"] * rows))
            if found["status"] in ("completed", "failed"):
                break
            await asyncio.sleep(LOOK_SECONDS)
    seconds = monotonic() - began
    assert found["counts"]["added"] == rows, f"{rows:,} contacts were to be added: {found}"
    return rows / seconds


async def copied_per_second(stack: Running, rows: int) -> float:
    """Rows per second of one COPY, with its commit, into an empty table with the columns and indexes of `contacts`."""
    lines = "".join(
        f"{stack.account_id}\timported-{n}@example.org\tPerson {n}\tExample\t"
        f"{json.dumps({'Plan': 'gold', 'City': f'Town {n % 100}'})}\n"
        for n in range(rows)
    ).encode()
    async with await psycopg.AsyncConnection.connect(stack.database_url, autocommit=True) as connection:
        await connection.execute("CREATE TABLE bench_copy (LIKE contacts INCLUDING ALL)")
        began = monotonic()
        async with connection.cursor() as cursor:
            target = "bench_copy (account_id, email, first_name, last_name, attributes)"
            async with cursor.copy(f"COPY {target} FROM STDIN") as copy:
                await copy.write(lines)
        seconds = monotonic() - began
        await connection.execute("DROP TABLE bench_copy")
    return rows / seconds
