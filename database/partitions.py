"""The months of events: made before they come, dropped when no account keeps them any more."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import text

from database.engine import Connection, Database

AHEAD = 3  # months

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# What was received before a moment occurred at most ten minutes after it: `events_name_idx` finds those of an account.
_FORGET = text("""
    DELETE FROM events WHERE id < :first_kept AND id = ANY (ARRAY(
        SELECT id FROM events
        WHERE id < :first_kept AND occurred_at < CAST(:kept_from AS timestamptz) + interval '1 hour' LIMIT :limit
    ))
""")


@dataclass(frozen=True)
class Retention:
    """How long an account keeps its events."""

    account_id: UUID
    days: int


def uuidv7_floor(moment: datetime) -> UUID:
    """The least id that is drawn at a moment or after it; the database has such a function too."""
    return UUID(int=((moment - _EPOCH) // timedelta(milliseconds=1) << 80) | 7 << 76 | 2 << 62)


async def make(database: Database) -> int:
    """Have a partition for this month, the next three, and each month that the default partition holds events of.

    Returns:
        how many are new.
    """
    async with database.transaction(None) as tx:
        made: int = (await tx.execute(text("SELECT make_event_partitions(:ahead)"), {"ahead": AHEAD})).scalar_one()
        return made


async def drop(database: Database) -> int:
    """Drop the months that no account keeps any more, and tell how many there were.

    For a moment nobody else can read or write events. It gives up after a second of waiting for that moment.
    """
    async with database.transaction(None) as tx:
        dropped: int = (await tx.execute(text("SELECT drop_event_partitions()"))).scalar_one()
        return dropped


async def shorter_retentions(database: Database) -> Sequence[Retention]:
    """The accounts that keep their events for a shorter time than another, so that nothing of theirs can be dropped."""
    async with database.transaction(None) as tx:
        query = text("""
            SELECT account_id, days FROM event_retentions()
            WHERE days < (SELECT max(days) FROM event_retentions()) ORDER BY account_id
        """)
        return [Retention(row.account_id, row.days) for row in await tx.execute(query)]


async def forget(tx: Connection, *, kept_from: datetime, limit: int) -> int:
    """Delete up to `limit` of an account's events that were received before a moment, and tell how many."""
    values = {"first_kept": uuidv7_floor(kept_from), "kept_from": kept_from, "limit": limit}
    return (await tx.execute(_FORGET, values)).rowcount


async def forget_keys(database: Database, *, limit: int) -> int:
    """Delete up to `limit` idempotency keys of events that no longer are kept, of all accounts, and tell how many."""
    async with database.transaction(None) as tx:
        forgotten: int = (await tx.execute(text("SELECT forget_event_keys(:most)"), {"most": limit})).scalar_one()
        return forgotten


async def analyze(database: Database) -> None:
    """Tell the planner how all months together look: PostgreSQL by itself looks at each alone."""
    async with database.transaction(None) as tx:
        await tx.execute(text("ANALYZE ONLY events"))
