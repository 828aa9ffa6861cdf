"""An audience frozen, as its workflow sees it, beside the bare statement that writes such rows."""

from collections.abc import AsyncIterator
from time import monotonic
from uuid import uuid4

import psycopg

from bench import campaigns
from bench.bench import Bench
from bench.table import Aim, Row


async def measure(bench: Bench) -> AsyncIterator[Row]:
    size = bench.sizes.million
    if run := bench.runs.get(size):
        seconds = run.kept.freeze_seconds
    else:
        group = await bench.people(size)
        with bench.bar(f"freeze {size:,} contacts, then cancel", size) as show:
            seconds = await campaigns.freeze(bench.stack, group, size, show)
    with bench.bar("a bare INSERT … SELECT", size):
        bare = await inserted_in_seconds(bench.stack.database_url, await bench.people(size), size)
    yield Row(
        f"{size:,} contacts frozen as an audience",
        seconds,
        "a bare INSERT … SELECT",
        bare,
        "s",
        bench.aims(Aim("at most", 5)),
    )


async def inserted_in_seconds(database_url: str, group: str, size: int) -> float:
    """One row per contact, with its commit, into an empty table with the columns and indexes of `deliveries`.

    Raises:
        AssertionError: not everybody has a row; the figure would mean nothing.
    """
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute(
            "CREATE TABLE bench_rows (LIKE deliveries INCLUDING ALL) WITH (fillfactor = 70, autovacuum_enabled = off)"
        )
        began = monotonic()
        done = await connection.execute(
            """
            INSERT INTO bench_rows (id, account_id, campaign_id, contact_id, channel, shard, not_before)
            SELECT id, account_id, %(campaign)s, id, 'email', row_number() OVER () / 2000, now() FROM contacts
            WHERE tags @> ARRAY[%(group)s]
            """,
            {"campaign": uuid4(), "group": group},
        )
        seconds = monotonic() - began
        await connection.execute("DROP TABLE bench_rows")
    assert done.rowcount == size, f"{size:,} rows were to be written, not {done.rowcount:,}"
    return seconds
