"""What changed for whom, and which segments does it concern? Triggers fill the queue; here it is emptied."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text

from database.engine import Connection, Database

_TOUCHED = text("""
    SELECT id, contact_id, subjects FROM contact_touches WHERE bulk = :bulk ORDER BY account_id, bulk, id LIMIT :limit
""")

# Segments that failed are recomputed as a whole.
_LOOKING = text("""
    SELECT subject, segment_id FROM segment_subjects JOIN segments ON segments.id = segment_id
    WHERE subject = ANY (:subjects) AND deleted_at IS NULL AND retry_at IS NULL
""")

_FORGET = text("""
    DELETE FROM contact_touches WHERE id = ANY (:ids)
    RETURNING extract(epoch FROM clock_timestamp() - touched_at)::float8
""")


@dataclass(frozen=True)
class Touches:
    """Some of what waits for an account."""

    ids: list[int]
    concerned: dict[UUID, list[UUID]]  # by segment, the contacts to be settled


async def accounts(database: Database, lane: int, lanes: int) -> list[UUID]:
    """The accounts for which something waits, of one of so many lanes."""
    async with database.transaction(None) as tx:
        query = text("SELECT account_id FROM touched_accounts(:lane, :lanes)")
        return list((await tx.execute(query, {"lane": lane, "lanes": lanes})).scalars())


async def oldest(tx: Connection, limit: int, *, bulk: bool) -> Touches:
    """Up to `limit`, the oldest first, of what came in bulk or of what came one by one."""
    rows = (await tx.execute(_TOUCHED, {"limit": limit, "bulk": bulk})).all()
    by_subject: dict[str, set[UUID]] = {}
    for row in rows:
        for subject in row.subjects:
            by_subject.setdefault(subject, set()).add(row.contact_id)
    # Only after what changed is known: a segment that begins to look in between computes its members later than that.
    concerned: dict[UUID, set[UUID]] = {}
    for row in await tx.execute(_LOOKING, {"subjects": list(by_subject)}):
        concerned.setdefault(row.segment_id, set()).update(by_subject[row.subject])
    contacts = {segment: sorted(concerned[segment]) for segment in sorted(concerned)}
    return Touches([row.id for row in rows], contacts)


async def forget(tx: Connection, touches: Touches) -> list[float]:
    """They are settled; how many seconds after each was made."""
    return list((await tx.execute(_FORGET, {"ids": touches.ids})).scalars())
