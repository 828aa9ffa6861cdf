"""All that a rehearsal does to the record happens in one transaction that is rolled back: none of it was ever there."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
import psycopg
from sqlalchemy import insert, text

from database.engine import Connection, Database, settle_in
from database.journey_touches import Touch
from database.schema import events

# Shorter than PostgreSQL's `deadlock_timeout`: of two that wait for each other, it is never somebody real who is ended.
_LOCK_TIMEOUT = "500ms"


class OneTransaction(Database):
    """Hands out savepoints of one transaction, one after the other; what should happen after a commit never does."""

    def __init__(self, connection: Connection, process: int) -> None:  # without a pool of its own
        self.process = process  # PostgreSQL's own, which holds the locks
        self._connection = connection
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def transaction(self, account_id: UUID | None, *, bulk: bool | None = None) -> AsyncIterator[Connection]:
        async with self._turn, self._connection.begin_nested():
            await settle_in(self._connection, account_id, bulk)
            yield self._connection

    @asynccontextmanager
    async def pipeline(self, account_id: UUID, *, bulk: bool | None = None) -> AsyncIterator[psycopg.AsyncConnection]:
        async with self.transaction(account_id, bulk=bulk) as tx:
            driver = (await tx.get_raw_connection()).driver_connection
            assert isinstance(driver, psycopg.AsyncConnection)
            async with driver.pipeline():
                yield driver

    async def close(self) -> None:
        """It is not ours to close."""


@asynccontextmanager
async def unrecorded(database: Database, seconds: float) -> AsyncIterator[OneTransaction]:
    """A database in which everything can be done, and of which nothing stays.

    PostgreSQL itself ends it after so many seconds, so that nobody waits longer for what it has locked.
    """
    async with database.engine.connect() as connection:
        bounds = {"most": f"{int(seconds * 1000)}ms", "lock": _LOCK_TIMEOUT}
        query = """
            SELECT pg_backend_pid() AS process, set_config('transaction_timeout', :most, true),
                   set_config('lock_timeout', :lock, true)
        """
        process = (await connection.execute(text(query), bounds)).one().process
        yield OneTransaction(connection, process)
        # Whatever happened, closing the connection rolls back.


# Other rehearsals give up after `_LOCK_TIMEOUT`: they are nobody real.
_WAITED_FOR = text("""
    SELECT EXISTS (
        SELECT FROM pg_locks WHERE NOT granted AND waitstart < clock_timestamp() - interval '600ms'
        AND :process = ANY (pg_blocking_pids(pid))
    )
""")


async def is_waited_for(database: Database, rehearsal: OneTransaction) -> bool:
    """Whether somebody real waits for what a rehearsal has locked."""
    async with database.transaction(None) as tx:
        return bool((await tx.execute(_WAITED_FOR, {"process": rehearsal.process})).scalar_one())


# -- who takes part --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Player:
    """A contact that takes part."""

    id: UUID
    email: str | None
    zone: str


_PLAYERS = """
    SELECT contacts.id, email, coalesce(timezone, default_timezone) FROM contacts
    JOIN accounts ON accounts.id = contacts.account_id
    WHERE contacts.deleted_at IS NULL AND {those}
"""
_NAMED = text(_PLAYERS.format(those="(contacts.id = ANY (CAST(:ids AS uuid[])) OR email_key = ANY (:emails))"))


async def named(tx: Connection, ids: Sequence[UUID], emails: Sequence[str]) -> list[Player]:
    """The contacts with these ids or addresses, as far as there are any."""
    return [Player(*row) for row in await tx.execute(_NAMED, {"ids": list(ids), "emails": list(emails)})]


async def some(tx: Connection, limit: int, belongs: str, parameters: Mapping[str, Any]) -> list[Player]:
    """Some of whom a condition holds: as if by chance, but the same ones whenever it is asked again."""
    query = text(f"{_PLAYERS.format(those=f'({belongs})')} ORDER BY md5(CAST(contacts.id AS text)) LIMIT :limit")
    return [Player(*row) for row in await tx.execute(query, {**parameters, "limit": limit})]


# -- what happens to them --------------------------------------------------------------------------------------------

_LATEST = text("SELECT coalesce(max(id), 0) FROM journey_touches")
_NEWS = text("""
    SELECT id, contact_id, subject, event_id, touched_at FROM journey_touches
    WHERE id > :after AND contact_id = ANY (:contacts) ORDER BY id
""")


async def latest_touch(tx: Connection) -> int:
    number: int = (await tx.execute(_LATEST)).scalar_one()
    return number


async def touches(tx: Connection, after: int, contacts: Sequence[UUID]) -> list[Touch]:
    """What has happened to these contacts since. It stays in the queue: others wait for whoever deletes from there."""
    return [Touch(*row) for row in await tx.execute(_NEWS, {"after": after, "contacts": list(contacts)})]


@dataclass(frozen=True)
class Planned:
    """A message of a rehearsal, whatever became of it."""

    id: UUID
    enrollment_id: UUID
    call: int
    step: str
    channel: str
    state: str
    reason: str | None
    reply: str | None


_PLANNED = text("""
    SELECT id, enrollment_id, call, step, channel, state, reason, reply FROM deliveries
    WHERE campaign_id = :source_id ORDER BY id
""")


async def planned(tx: Connection, source_id: UUID) -> list[Planned]:
    """In the order in which they were planned."""
    return [Planned(*row) for row in await tx.execute(_PLANNED, {"source_id": source_id})]


async def happen(tx: Connection, account_id: UUID, contact_id: UUID, event: str, *, at: datetime, **about: Any) -> None:
    """Put on record that a contact did something; `about` has its properties, value and currency."""
    row = {"account_id": account_id, "contact_id": contact_id, "name": event, "occurred_at": at, **about}
    await tx.execute(insert(events).values(row))


_NAMES = text(
    "SELECT id, name FROM segments WHERE deleted_at IS NULL UNION ALL SELECT id, name FROM campaigns LIMIT 10000"
)


async def names(tx: Connection) -> dict[UUID, str]:
    """Of what criteria may ask about."""
    return {row.id: row.name for row in await tx.execute(_NAMES)}


async def template_names(tx: Connection) -> dict[str, str]:
    """By id."""
    rows = await tx.execute(text("SELECT CAST(id AS text) AS id, name FROM templates WHERE deleted_at IS NULL"))
    return {row.id: row.name for row in rows}


# -- what they go through --------------------------------------------------------------------------------------------

_COPY = text("""
    WITH copied AS (
        INSERT INTO automations (account_id, name, state, version, code, topic, activated_at)
        VALUES (:account_id, :name || ' (rehearsal ' || gen_random_uuid() || ')', 'active', :version, :code, :topic,
            now())
        RETURNING account_id, id, version
    )
    INSERT INTO automation_versions (account_id, automation_id, version, definition)
    SELECT account_id, id, version, CAST(:definition AS jsonb) FROM copied RETURNING automation_id
""")

_PLACES = text(
    "SELECT member, id, contact_id FROM enrollments WHERE source_id = :source_id AND cohort = :cohort ORDER BY member"
)


async def copy(
    tx: Connection,
    account_id: UUID,
    *,
    name: str,
    version: int,
    code: str | None,
    topic: str | None,
    definition: Mapping[str, Any],
) -> UUID:
    """An active automation beside the real one, so that nothing of that is locked or counted; its name is nobody's."""
    about = {"name": name, "version": version, "code": code, "topic": topic}
    given = {**about, "account_id": account_id, "definition": orjson.dumps(definition).decode()}
    source_id: UUID = (await tx.execute(_COPY, given)).scalar_one()
    return source_id


@dataclass(frozen=True)
class Place:
    """Of a contact in the cohort."""

    member: int
    enrollment_id: UUID
    contact_id: UUID


async def places(tx: Connection, source_id: UUID, cohort: int) -> list[Place]:
    """In the order of members."""
    return [Place(*row) for row in await tx.execute(_PLACES, {"source_id": source_id, "cohort": cohort})]
