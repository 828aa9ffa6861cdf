"""Who belongs to which segment? There is one way in which that changes: `_settle`, under a lock per segment.

What it goes by is read after the lock was taken. And what changes for a contact is told (`contact_touches`) in the
transaction that changes it. So whoever settles what was told sees the change, and whoever settles later sees no less.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import text

from database.engine import Connection, after_commit, deadline
from database.segments import condition, plan_well
from marketing.segments import parse
from telemetry import metrics

# As long as it may take to look at all contacts of an account.
COMPUTING_SECONDS = 600.0

# -- the one way -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settled:
    """How many entered and left, and how many of them for no reason that was told."""

    entered: int = 0
    left: int = 0
    drift: int = 0

    def __add__(self, other: "Settled") -> "Settled":
        return Settled(self.entered + other.entered, self.left + other.left, self.drift + other.drift)


@dataclass(frozen=True)
class _Segment:
    id: UUID
    account_id: UUID
    name: str
    criteria: dict[str, Any] | None  # None: a static one


# The criteria cannot change until the transaction ends, and nobody else settles.
_LOCK = text("""
    SELECT id, account_id, name, criteria FROM segments WHERE id = :segment_id AND deleted_at IS NULL
    FOR NO KEY UPDATE
""")

_SETTLE = """
    WITH wanted AS MATERIALIZED (
        SELECT contacts.id FROM contacts
        WHERE contacts.id = ANY (CAST(:among AS uuid[])) AND contacts.deleted_at IS NULL AND ({belongs})
    ), entered AS (
        INSERT INTO segment_members (account_id, segment_id, contact_id, entered_at)
        SELECT CAST(:account_id AS uuid), CAST(:segment_id AS uuid), id, CAST(:now AS timestamptz)
        FROM wanted ORDER BY id
        ON CONFLICT DO NOTHING RETURNING contact_id
    ), gone AS (
        DELETE FROM segment_members WHERE segment_id = :segment_id AND contact_id = ANY (CAST(:among AS uuid[]))
        AND NOT EXISTS (SELECT FROM wanted WHERE wanted.id = contact_id) RETURNING contact_id
    ), changed AS (
        SELECT contact_id, 'segment.entered' AS name FROM entered UNION ALL SELECT contact_id, 'segment.left' FROM gone
    ), told AS (
        INSERT INTO events (account_id, name, contact_id, occurred_at, properties)
        SELECT :account_id, name, contact_id, :now, CAST(:about AS jsonb) FROM changed
    )
    SELECT count(*) FILTER (WHERE name = 'segment.entered'), count(*) FILTER (WHERE name = 'segment.left'),
           count(*) FILTER (WHERE {unexplained})
    FROM changed
"""

_UNEXPLAINED = """
    contact_id <> ALL (array(SELECT contact_id FROM contact_touches WHERE contact_id = ANY (CAST(:among AS uuid[]))))
"""

_COUNT = text("""
    WITH sized AS (UPDATE segments SET size = size + :entered - :left WHERE id = :segment_id RETURNING size)
    INSERT INTO segment_hours AS hours (account_id, segment_id, hour, entered, left_out, size, drift)
    SELECT :account_id, :segment_id, date_trunc('hour', CAST(:now AS timestamptz), 'UTC'), :entered, :left, size, :drift
    FROM sized
    ON CONFLICT (segment_id, hour) DO UPDATE SET size = EXCLUDED.size, entered = hours.entered + EXCLUDED.entered,
        left_out = hours.left_out + EXCLUDED.left_out, drift = hours.drift + EXCLUDED.drift
""")

_IS_MEMBER = """
    EXISTS (SELECT FROM segment_members WHERE segment_id = :segment_id AND contact_id = contacts.id)
"""


async def settle(
    tx: Connection, segment_id: UUID, contacts: Sequence[UUID], *, now: datetime, watched: bool = False
) -> Settled:
    """Have those of these contacts belong to the segment who do by its criteria, and no others.

    Whoever enters or leaves gives an event. Nothing happens if the segment was deleted.

    Args:
        watched: count as drift whoever enters or leaves while nothing that was told of them waits.
    """
    segment = await _lock(tx, segment_id)
    if segment is None:
        return Settled()
    if segment.criteria is None:  # whoever was added stays as long as there is such a contact
        return await _settle(tx, segment, contacts, (_IS_MEMBER, {}), now=now)
    criteria = parse(segment.criteria)
    await plan_well(tx, criteria)
    belongs = condition(criteria, now=now, prefix="criteria_", among="among")
    return await _settle(tx, segment, contacts, belongs, now=now, watched=watched)


async def add(tx: Connection, segment_id: UUID, contacts: Sequence[UUID], *, now: datetime) -> Settled:
    """Put contacts into a static segment; of whom there is no such contact, nothing comes."""
    segment = await _lock(tx, segment_id)
    return await _settle(tx, segment, contacts, ("true", {}), now=now) if segment else Settled()


async def remove(tx: Connection, segment_id: UUID, contacts: Sequence[UUID], *, now: datetime) -> Settled:
    """Take contacts out of a static segment."""
    segment = await _lock(tx, segment_id)
    return await _settle(tx, segment, contacts, ("false", {}), now=now) if segment else Settled()


async def _lock(tx: Connection, segment_id: UUID) -> _Segment | None:
    row = (await tx.execute(_LOCK, {"segment_id": segment_id})).one_or_none()
    return _Segment(*row) if row else None


async def _settle(
    tx: Connection,
    segment: _Segment,
    contacts: Sequence[UUID],
    belongs: tuple[str, dict[str, Any]],
    *,
    now: datetime,
    watched: bool = False,
) -> Settled:
    sql, parameters = belongs
    about = {"segment_id": str(segment.id), "name": segment.name}
    ours = {"account_id": segment.account_id, "segment_id": segment.id, "now": now}
    statement = text(_SETTLE.format(belongs=sql, unexplained=_UNEXPLAINED if watched else "false"))
    given = {**parameters, **ours, "among": list(contacts), "about": orjson.dumps(about).decode()}
    settled = Settled(*(await tx.execute(statement, given)).one())
    if settled.entered or settled.left:
        await tx.execute(_COUNT, {**ours, "entered": settled.entered, "left": settled.left, "drift": settled.drift})
        after_commit(tx, partial(_tell, settled))
    return settled


def _tell(settled: Settled) -> None:
    metrics.segment_changes.labels("entered").inc(settled.entered)
    metrics.segment_changes.labels("left").inc(settled.left)
    metrics.segment_drift.inc(settled.drift)


# -- all members at once ---------------------------------------------------------------------------------------------

# From now on what changes is settled for it again. The number is that of the next transaction: those before it may
# have changed something when nobody looked at it yet.
_BEGIN = text("""
    UPDATE segments SET retry_at = NULL WHERE id = :segment_id AND deleted_at IS NULL AND criteria IS NOT NULL
    RETURNING pg_snapshot_xmax(pg_current_snapshot())::text::bigint
""")

# Under the lock, and begun after it was taken: nobody enters or leaves meanwhile.
_RECOUNT = text("""
    WITH counted AS (
        SELECT segments.*, (SELECT count(*) FROM segment_members WHERE segment_id = :segment_id) AS members
        FROM segments WHERE id = :segment_id
    ), corrected AS (
        UPDATE segments SET size = members FROM counted
        WHERE segments.id = counted.id AND segments.size <> members
        RETURNING segments.account_id, members, counted.size - members AS wrong_by
    ), told AS (
        INSERT INTO segment_hours (account_id, segment_id, hour, size)
        SELECT account_id, :segment_id, date_trunc('hour', clock_timestamp(), 'UTC'), members FROM corrected
        ON CONFLICT (segment_id, hour) DO UPDATE SET size = EXCLUDED.size
    )
    SELECT wrong_by FROM corrected
""")

# In one value: a million ids are 16 MB, where a million rows take half a minute to read.
_CANDIDATES = """
    SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint,
           string_agg(uuid_send(coalesce(wanted.id, member.id)), ''::bytea ORDER BY coalesce(wanted.id, member.id))
    FROM (SELECT contacts.id FROM contacts WHERE contacts.deleted_at IS NULL AND ({belongs})) AS wanted
    FULL JOIN (SELECT contact_id AS id FROM segment_members WHERE segment_id = :segment_id) AS member
        ON member.id = wanted.id
    WHERE wanted.id IS NULL OR member.id IS NULL
"""

_ID = 16  # bytes


@dataclass(frozen=True)
class Candidates:
    """Who belongs and is no member, or the other way round."""

    criteria: dict[str, Any]  # by these
    oldest: int  # the transaction that had begun first of those that had not ended
    ids: bytes

    def slices(self, size: int) -> Iterator[list[UUID]]:
        for first in range(0, len(self.ids), size * _ID):
            ids = self.ids[first : first + size * _ID]
            yield [UUID(bytes=ids[at : at + _ID]) for at in range(0, len(ids), _ID)]


async def begin(tx: Connection, segment_id: UUID) -> int | None:
    """Before all members are computed: once the transactions before this number have ended, nothing is missed any more.
    None if there is no such dynamic segment."""
    return (await tx.execute(_BEGIN, {"segment_id": segment_id})).scalar_one_or_none()


async def candidates(tx: Connection, segment_id: UUID, *, now: datetime) -> Candidates | None:
    """Whom to settle so that all members are right as of this moment; None if the segment was deleted.

    Raises:
        TooSlow: it took longer than `COMPUTING_SECONDS`.
    """
    query = text("SELECT criteria FROM segments WHERE id = :segment_id AND deleted_at IS NULL")
    criteria = (await tx.execute(query, {"segment_id": segment_id})).scalar_one_or_none()
    if criteria is None:
        return None
    await plan_well(tx, parse(criteria))
    belongs, parameters = condition(parse(criteria), now=now, prefix="criteria_")
    async with deadline(tx, COMPUTING_SECONDS):
        statement = text(_CANDIDATES.format(belongs=belongs))
        row = (await tx.execute(statement, {**parameters, "segment_id": segment_id})).one()
    return Candidates(criteria, row[0], row[1] or b"")


async def all_ended(tx: Connection, before: int) -> bool:
    """Whether no transaction before this one is at work any more."""
    query = text("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint >= :before")
    return bool((await tx.execute(query, {"before": before})).scalar_one())


async def finish(tx: Connection, segment_id: UUID, found: Candidates, *, now: datetime) -> int:
    """All its members are right, unless its criteria have changed since or settling has failed; and so is its size.

    Returns:
        by how many the size was too large.
    """
    await tx.execute(
        text("""
            UPDATE segments SET state = 'ready', settled_at = :now, problem = '', failures = 0
            WHERE id = :segment_id AND criteria = CAST(:criteria AS jsonb) AND retry_at IS NULL
        """),
        {"segment_id": segment_id, "now": now, "criteria": orjson.dumps(found.criteria).decode()},
    )
    if await _lock(tx, segment_id) is None:
        return 0
    return int((await tx.execute(_RECOUNT, {"segment_id": segment_id})).scalar_one_or_none() or 0)


async def fail(tx: Connection, segment_id: UUID, problem: str) -> None:
    """Its members could not be settled: a sweep computes them all, at the earliest in a minute, then in two, four, …"""
    await tx.execute(
        text("""
            UPDATE segments SET problem = :problem, failures = failures + 1,
                retry_at = now() + least(interval '1 minute' * 2 ^ least(failures, 10), interval '6 hours')
            WHERE id = :segment_id AND deleted_at IS NULL
        """),
        {"segment_id": segment_id, "problem": problem},
    )


# -- who belongs -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Member:
    contact_id: UUID
    entered_at: datetime


async def page(tx: Connection, segment_id: UUID, *, after: UUID | None, limit: int) -> list[Member]:
    """Members, the newest contacts first; one that was just deleted is none, settled or not."""
    rows = await tx.execute(
        text("""
            SELECT contact_id, entered_at FROM segment_members JOIN contacts ON contacts.id = contact_id
            WHERE segment_id = :segment_id AND deleted_at IS NULL
            AND contact_id < coalesce(:after, CAST('ffffffff-ffff-ffff-ffff-ffffffffffff' AS uuid))
            ORDER BY contact_id DESC LIMIT :limit
        """),
        {"segment_id": segment_id, "after": after, "limit": limit},
    )
    return [Member(*row) for row in rows]


async def among(tx: Connection, segment_id: UUID, contacts: Sequence[UUID]) -> set[UUID]:
    """Those of these contacts who are members."""
    query = text("SELECT contact_id FROM segment_members WHERE segment_id = :segment_id AND contact_id = ANY (:ids)")
    return set((await tx.execute(query, {"segment_id": segment_id, "ids": list(contacts)})).scalars())


@dataclass(frozen=True)
class Kept:
    """A dynamic segment of any account."""

    account_id: UUID
    segment_id: UUID
    depends_on_time: bool
    state: str
    settled_at: datetime | None
    retry_at: datetime | None
    asks_events: bool

    @property
    def in_order(self) -> bool:
        """All its members were computed, and what changed since was settled."""
        return self.state == "ready" and self.retry_at is None


async def kept(tx: Connection) -> list[Kept]:
    """All dynamic segments, those first whose members were computed longest ago."""
    names = ("account_id", "segment_id", "depends_on_time", "state", "settled_at", "retry_at", "asks_events")
    rows = await tx.execute(text(f"SELECT {', '.join(names)} FROM kept_segments()"))
    return [Kept(*row) for row in rows]
