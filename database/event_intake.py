"""How does what others tell us get on record? A set of events by COPY, and what becomes of each in one statement."""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast
from uuid import UUID

import orjson
from psycopg import AsyncConnection, AsyncCursor
from psycopg.rows import namedtuple_row

from database.engine import Connection, after_commit
from marketing.events import NewEvent, Refusal, another, digest, nobody
from telemetry import metrics


class OnRecord(NamedTuple):
    """An event and its id; `repeated`: there was one with this key already, whose id it is."""

    id: UUID
    repeated: bool


Outcome = OnRecord | Refusal

# COPY refuses tables with row-level security, so it fills one of this connection alone, which is empty again after each
# transaction. Ids are drawn in the order of the events.
_TOLD = """
    CREATE TEMPORARY TABLE IF NOT EXISTS told (
        n int, id uuid DEFAULT uuidv7(), contact_id uuid, email text, external_id text, name text,
        occurred_at timestamptz, properties jsonb, value numeric, currency text, key text, told bytea
    ) ON COMMIT DELETE ROWS
"""
_MADE = "has a table for what it is told"
# Delimited and quoted by characters that are in neither JSON nor names, keys and addresses: all goes through as it is.
_COPY = """
    COPY told (n, contact_id, email, external_id, name, occurred_at, properties, value, currency, key, told)
    FROM STDIN (FORMAT csv, DELIMITER E'\\x1f', QUOTE E'\\x1e')
"""

# Keys are claimed in their order, so that two sets never wait for each other, and, for the same reason, not before all
# contacts are there. Whoever claims a key at the same moment as another waits, and is told whose it is.
_STORE = """
    WITH asked AS MATERIALIZED (
        SELECT told.*, CASE WHEN key IS NOT NULL THEN (
            SELECT k FROM event_keys AS k WHERE k.account_id = %(account_id)s AND k.key = told.key)
        END AS earlier, CASE
            WHEN contact_id IS NOT NULL THEN (
                SELECT c.id FROM contacts AS c
                WHERE c.account_id = %(account_id)s AND c.id = told.contact_id AND c.deleted_at IS NULL)
            WHEN email IS NOT NULL THEN (
                SELECT c.id FROM contacts AS c
                WHERE c.account_id = %(account_id)s AND c.email_key = told.email AND c.deleted_at IS NULL)
            ELSE (
                SELECT c.id FROM contacts AS c
                WHERE c.account_id = %(account_id)s AND c.external_id = told.external_id AND c.deleted_at IS NULL)
        END AS found
        FROM told
    ), creatable AS MATERIALIZED (
        -- A key stands for the first that can be stored; who is told of in the others is not made for nothing.
        SELECT n FROM (
            SELECT *, row_number() OVER (PARTITION BY key ORDER BY found IS NULL AND contact_id IS NOT NULL, n) AS place
            FROM asked WHERE earlier IS NULL
        ) AS new WHERE found IS NULL AND contact_id IS NULL AND (key IS NULL OR place = 1)
    ), taken AS MATERIALIZED (
        SELECT * FROM asked WHERE found IS NOT NULL AND earlier IS NULL
        AND (%(all_created)s OR NOT EXISTS (SELECT FROM creatable))
    ), claimed AS (
        INSERT INTO event_keys AS known (account_id, key, event_id, told)
        SELECT DISTINCT ON (key) CAST(%(account_id)s AS uuid), key, id, told
        FROM taken WHERE key IS NOT NULL ORDER BY key, n
        ON CONFLICT (account_id, key) DO UPDATE SET key = known.key
        RETURNING key, event_id, told
    ), stored AS (
        INSERT INTO events (id, account_id, name, contact_id, occurred_at, properties, value, currency)
        SELECT id, %(account_id)s, name, found, coalesce(occurred_at, now()), properties, value, currency FROM taken
        WHERE key IS NULL OR id IN (SELECT event_id FROM claimed) ORDER BY n
    )
    SELECT asked.n, asked.id, asked.n IN (SELECT n FROM creatable) AS creatable,
           coalesce((earlier).event_id, claimed.event_id,
                    CASE WHEN asked.key IS NULL AND found IS NOT NULL THEN asked.id END) AS event_id,
           asked.told <> coalesce((earlier).told, claimed.told) AS another
    FROM asked LEFT JOIN claimed USING (key) ORDER BY n
"""

_CREATE = """
    WITH created AS (
        INSERT INTO contacts (account_id, email, external_id)
        SELECT DISTINCT CAST(%(account_id)s AS uuid), email, external_id FROM told WHERE n = ANY (%(numbers)s)
        AND (SELECT create_unknown_contacts FROM accounts WHERE accounts.id = %(account_id)s)
        ORDER BY email, external_id
        ON CONFLICT DO NOTHING RETURNING id
    )
    -- Before what they did, which may occur now and has its id already.
    INSERT INTO events (account_id, name, contact_id, properties, occurred_at)
    SELECT CAST(%(account_id)s AS uuid), 'contact.created', id, '{"how": "event"}', now() - interval '1 microsecond'
    FROM created
"""

# While the planner knows nothing of many contacts, it takes any of their indexes for as good as the right one, and each
# event would cost a walk through all of the account: 1 s for 1,000 of them instead of 20 ms.
_OUTGROWN = "SELECT pg_relation_size(oid) > 2 * 8192 * relpages FROM pg_class WHERE oid = 'contacts'::regclass"
_ANALYZE = "ANALYZE (SKIP_LOCKED) contacts"


async def store(tx: Connection, account_id: UUID, events: Sequence[NewEvent]) -> list[Outcome]:
    """Put events on record, each once per idempotency key, and tell what became of each. Once per transaction.

    Whoever is not known yet is created, without any subscription, if the account says so.
    """
    connection = cast(AsyncConnection[Any], (await tx.get_raw_connection()).driver_connection)
    async with connection.cursor(row_factory=namedtuple_row) as cursor:

        async def settled(*, all_created: bool) -> list[Any]:
            # Planned anew each time: for an account that has many contacts as for one that has few.
            await cursor.execute(_STORE, {"account_id": account_id, "all_created": all_created}, prepare=False)
            return await cursor.fetchall()

        await _copy(tx, cursor, events)
        rows = await settled(all_created=False)
        if creatable := [row.n for row in rows if row.creatable]:
            await _create(cursor, account_id, creatable)
            rows = await settled(all_created=True)
    outcomes = [_outcome(event, row) for event, row in zip(events, rows, strict=True)]
    after_commit(tx, lambda: _count(outcomes))
    return outcomes


def _outcome(event: NewEvent, row: Any) -> Outcome:
    if row.another:
        return another()
    return OnRecord(row.event_id, repeated=row.event_id != row.id) if row.event_id else nobody(event.contact)


async def _create(cursor: AsyncCursor[Any], account_id: UUID, numbers: Sequence[int]) -> None:
    await cursor.execute(_CREATE, {"account_id": account_id, "numbers": numbers})
    outgrown = await (await cursor.execute(_OUTGROWN)).fetchone()
    if outgrown and outgrown[0]:
        await cursor.execute(_ANALYZE)


async def _copy(tx: Connection, cursor: AsyncCursor[Any], events: Sequence[NewEvent]) -> None:
    info = tx.info  # of the connection, whichever transaction it is in
    if _MADE not in info:
        await cursor.execute(_TOLD)
        after_commit(tx, lambda: info.update({_MADE: True}))
    async with cursor.copy(_COPY) as copy:
        await copy.write("".join(f"{n}\x1f{_columns(event)}\n" for n, event in enumerate(events)))


def _columns(event: NewEvent) -> str:
    who, properties = event.contact, orjson.dumps(event.properties).decode()
    known_by = (who.id, who.email, who.external_id)
    what = (event.name, event.occurred_at, properties, event.value, event.currency, event.idempotency_key)
    told = rf"\x{digest(event).hex()}" if event.idempotency_key else None
    return "\x1f".join("" if each is None else str(each) for each in (*known_by, *what, told))


def _count(outcomes: Sequence[Outcome]) -> None:
    repeated = [each.repeated for each in outcomes if isinstance(each, OnRecord)]
    metrics.events.labels("stored").inc(repeated.count(False))
    metrics.events.labels("repeated").inc(repeated.count(True))
