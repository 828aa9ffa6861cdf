"""Months of events come and go, and no event is lost or seen twice on the way."""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import text
from temporalio.testing import ActivityEnvironment

from activities.events import Events
from activities.inputs import Forgotten
from database import partitions
from database.engine import Database
from database.migrate import migrate
from database.partitions import uuidv7_floor
from local_stack import EmbeddedPostgres
from tests.conftest import TestAccount, new_account
from tests.delivering import change_account, execute


@pytest.fixture(scope="module")
async def owner() -> AsyncIterator[psycopg.AsyncConnection]:
    """The role that owns the tables of a database where nobody else is at work."""
    async with EmbeddedPostgres(durable=False) as postgres:
        migrate(postgres.url)
        async with await psycopg.AsyncConnection.connect(postgres.url, autocommit=True) as connection:
            yield connection


@pytest.fixture(scope="module")
async def alone(owner: psycopg.AsyncConnection) -> AsyncIterator[Database]:
    database = Database(f"postgresql://{owner.info.user}@/{owner.info.dbname}?host={owner.info.host}")
    yield database
    await database.close()


@pytest.fixture
async def account(alone: Database) -> TestAccount:
    return await new_account(alone)


def month_of(moment: datetime) -> str:
    return f"events_{moment:%Y_%m}"


def months_from(moment: datetime, count: int) -> list[str]:
    first = moment.year * 12 + moment.month - 1
    return [f"events_{each // 12}_{each % 12 + 1:02}" for each in range(first, first + count)]


async def add(account: TestAccount, *ages: timedelta, name: str = "purchase") -> None:
    """Events that were received so long ago."""
    await execute(
        account,
        "INSERT INTO events (id, account_id, name, occurred_at)"
        " SELECT uuidv7(-age), :a, :name, now() - age FROM unnest(CAST(:ages AS interval[])) AS age",
        a=account.id,
        name=name,
        ages=list(ages),
    )


async def where(account: TestAccount) -> list[str]:
    """The partition of each of an account's events."""
    async with account.transaction() as tx:
        rows = await tx.execute(text("SELECT tableoid::regclass::text FROM events ORDER BY id"))
        return list(rows.scalars())


async def forget(database: Database, batch: int = 10_000) -> Forgotten:
    return await ActivityEnvironment().run(Events(database, batch).forget_old_events)


async def test_this_month_and_the_three_to_come_are_there_from_the_start(
    alone: Database, owner: psycopg.AsyncConnection
) -> None:
    rows = await owner.execute("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'events'::regclass")
    found = {name for (name,) in await rows.fetchall()}
    assert found >= {"events_default", *months_from(datetime.now(UTC), 4)}
    assert await partitions.make(alone) == 0


async def test_nothing_is_lost_while_a_month_is_missing_and_while_it_is_made(
    account: TestAccount, alone: Database, owner: psycopg.AsyncConnection
) -> None:
    other = await new_account(alone)
    month = sql.Identifier(month_of(datetime.now(UTC)))
    await owner.execute(sql.SQL("DROP TABLE {}").format(month))
    await add(account, *[timedelta(0)] * 20)
    await add(other, timedelta(0))
    assert set(await where(account)) == {"events_default"}
    await execute(account, "UPDATE events SET machine = true WHERE id = (SELECT id FROM events LIMIT 1)")
    first, second = partitions.make(alone), partitions.make(alone)
    made: list[Any] = await asyncio.gather(first, second, *(add(account, timedelta(0)) for _ in range(30)))
    assert made[0] + made[1] == 1
    assert await where(account) == [month_of(datetime.now(UTC))] * 50
    assert await where(other) == [month_of(datetime.now(UTC))]
    async with account.transaction() as tx:
        assert (await tx.execute(text("SELECT count(*) FROM events WHERE machine"))).scalar_one() == 1


async def test_months_gone_by_are_made_of_what_the_default_partition_holds(
    account: TestAccount, alone: Database
) -> None:
    ages = [timedelta(days=100), timedelta(days=101), timedelta(days=200)]
    await add(account, *ages)
    assert set(await where(account)) == {"events_default"}
    await partitions.make(alone)
    now = datetime.now(UTC)
    assert await where(account) == [month_of(now - age) for age in reversed(ages)]


async def test_an_id_that_tells_no_time_or_one_to_come_stays_in_the_default_partition(
    account: TestAccount, alone: Database
) -> None:
    await execute(account, "INSERT INTO events (id, account_id, name) VALUES (:id, :a, 'n')", id=uuid4(), a=account.id)
    await add(account, -timedelta(days=1000))
    await partitions.make(alone)
    assert await where(account) == ["events_default"] * 2


async def test_who_asks_since_when_looks_into_the_months_that_can_tell(account: TestAccount, alone: Database) -> None:
    await add(account, timedelta(days=70), timedelta(days=40), timedelta(0))
    await partitions.make(alone)
    since = datetime.now(UTC)
    async with account.transaction() as tx:
        query = text("""
            EXPLAIN SELECT count(*) FROM events
            WHERE occurred_at >= :since AND id >= uuidv7_floor(:since - interval '1 hour')
        """)
        plan = "\n".join((await tx.execute(query, {"since": since})).scalars())
    looked_into = set(re.findall(r" on (events_\w+) ", plan))
    assert looked_into == {"events_default", *months_from(since - timedelta(hours=1), 4)} | {
        month_of(since - timedelta(hours=1))
    }


async def test_a_month_goes_when_the_account_that_keeps_events_longest_lets_go_of_it(
    account: TestAccount, alone: Database, owner: psycopg.AsyncConnection
) -> None:
    await owner.execute("UPDATE accounts SET event_retention_days = 60")
    await change_account(account, event_retention_days=365)
    await add(account, timedelta(days=500), timedelta(days=300))
    await partitions.make(alone)
    assert (await forget(alone)).months == 1
    assert await where(account) == [month_of(datetime.now(UTC) - timedelta(days=300))]
    await change_account(account, event_retention_days=60)
    assert (await forget(alone)).months >= 1
    assert await where(account) == []
    assert await forget(alone) == Forgotten()


async def test_an_account_that_keeps_less_than_others_loses_its_own_old_events_and_their_keys(
    account: TestAccount, alone: Database
) -> None:
    other = await new_account(alone)  # keeps them for two years
    await change_account(account, event_retention_days=45)
    ages = [*[timedelta(days=50)] * 25, timedelta(days=44), timedelta(0)]
    for each in (account, other):
        await add(each, *ages)
        # A fact of long ago that was imported just now is kept.
        await execute(
            each,
            "INSERT INTO events (account_id, name, occurred_at) VALUES (:a, 'old', now() - interval '9 years')",
            a=each.id,
        )
        keys = "INSERT INTO event_keys SELECT account_id, row_number() OVER (), id, '' FROM events"
        await execute(each, keys)
    forgotten = await forget(alone, batch=10)
    assert (forgotten.events, forgotten.keys) == (25, 25)
    assert len(await where(account)) == 3
    assert len(await where(other)) == 28
    for each, left in ((account, 3), (other, 28)):
        async with each.transaction() as tx:
            query = "SELECT count(*) FROM event_keys JOIN events ON id = event_id"
            assert (await tx.execute(text(query))).scalar_one() == left


async def test_dropping_gives_up_soon_while_somebody_reads_for_long(account: TestAccount, alone: Database) -> None:
    await add(account, timedelta(days=4000))
    await partitions.make(alone)
    async with account.transaction() as tx:
        await tx.execute(text("SELECT count(*) FROM events"))
        with pytest.raises(Exception, match="lock timeout"):
            await partitions.drop(alone)
    assert await partitions.drop(alone) == 1


async def test_the_least_id_of_a_moment_is_the_same_in_the_database_and_here(account: TestAccount) -> None:
    moments = [datetime(1970, 1, 1, tzinfo=UTC), datetime(2026, 2, 28, 23, 59, 59, 999_999, UTC), datetime.now(UTC)]
    query = text("""
        SELECT uuidv7_floor(moment), uuid_extract_version(uuidv7_floor(moment)),
               uuid_extract_timestamp(uuidv7_floor(moment)) = date_trunc('ms', moment)
        FROM unnest(CAST(:moments AS timestamptz[])) AS moment
    """)
    async with account.transaction() as tx:
        found = [tuple(row) for row in await tx.execute(query, {"moments": moments})]
    assert found == [(uuidv7_floor(each), 7, True) for each in moments]
