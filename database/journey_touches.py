"""What happened to whom that some automation or drip looks at? Triggers fill the queue; whoever routes empties it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import psycopg
from sqlalchemy import text

from database.engine import Connection

_OLDEST = text("""
    SELECT id, contact_id, subject, event_id, touched_at FROM journey_touches
    WHERE bulk = :bulk AND id <> ALL (CAST(:without AS bigint[])) ORDER BY account_id, bulk, id LIMIT :limit
""")

_FORGET = text("""
    DELETE FROM journey_touches WHERE id = ANY (:ids)
    RETURNING extract(epoch FROM clock_timestamp() - touched_at)::float8
""")


@dataclass(frozen=True)
class Touch:
    """Something that happened to a contact."""

    id: int
    contact_id: UUID
    subject: str
    event_id: UUID | None
    touched_at: datetime


_ACCOUNTS = "SELECT account_id FROM journey_touched_accounts(%s, %s)"


async def accounts(connection: psycopg.AsyncConnection, lane: int, lanes: int) -> list[UUID]:
    """The accounts for which something waits, of one of so many lanes."""
    return [row[0] for row in await (await connection.execute(_ACCOUNTS, [lane, lanes])).fetchall()]


async def oldest(tx: Connection, limit: int, *, bulk: bool, without: Collection[int] = ()) -> list[Touch]:
    """Up to `limit` of an account, the oldest first, of what came in bulk or of what came one by one."""
    given = {"limit": limit, "bulk": bulk, "without": list(without)}
    return [Touch(*row) for row in await tx.execute(_OLDEST, given)]


async def forget(tx: Connection, ids: Sequence[int]) -> list[float]:
    """They are routed; how many seconds after each was made."""
    return list((await tx.execute(_FORGET, {"ids": list(ids)})).scalars())
