"""Who waits for which event, and has it happened?

Whoever begins to wait is on record first, and looks for the event then; whoever routes an event looks for those who
wait once it is on record. So at least one of them finds the other, and if both do, the first counts.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any
from uuid import UUID

import orjson
from pydantic import TypeAdapter
from sqlalchemy import Row, text

from database.engine import Connection, plan_anew
from database.segments import event_condition
from marketing.kinds import EventWhere
from marketing.segment_conditions import Where

_WHERE: TypeAdapter[Where] = TypeAdapter(EventWhere)


@dataclass(frozen=True)
class Found:
    """An event that a member of a cohort waits for."""

    source_id: UUID
    cohort: int
    member: int
    call: int
    event_id: UUID
    name: str
    occurred_at: datetime


# What occurred at the moment of what a pass began with, as in one list, is told apart by its id.
_SINCE = """
    occurred_at >= waiting.since AND (occurred_at > waiting.since OR events.id > enrollments.event_id)
"""

# -- whoever begins to wait ------------------------------------------------------------------------------------------

_BEGIN = text("""
    INSERT INTO enrollment_waits (account_id, enrollment_id, call, source_id, contact_id, subject, "where", since)
    SELECT account_id, enrollments.id, told.call, source_id, contact_id, :subject, CAST(:where AS jsonb), told.since
    FROM unnest(CAST(:members AS smallint[]), CAST(:calls AS int[]), CAST(:since AS timestamptz[]))
        AS told (member, call, since)
    CROSS JOIN LATERAL (
        SELECT id, account_id, source_id, contact_id, left_at FROM enrollments
        WHERE source_id = :source_id AND cohort = :cohort AND enrollments.member = told.member LIMIT 1
    ) AS enrollments  -- a look each: what is planned for a cohort without statistics compares all with all
    WHERE left_at IS NULL
    ORDER BY enrollments.id
    ON CONFLICT (enrollment_id, call, subject) DO NOTHING
""")

# From then on triggers tell of such events. The number is that of the next transaction: those before it may have had
# an event when nobody looked at it yet.
_LOOK = text("""
    INSERT INTO automation_subjects (account_id, subject, source_id, role)
    VALUES (:account_id, :subject, :source_id, 'wait') ON CONFLICT DO NOTHING
""")
_MARK = text("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")


async def begin(
    tx: Connection,
    account_id: UUID,
    source_id: UUID,
    cohort: int,
    callers: Sequence[tuple[int, int, datetime]],
    *,
    event: str,
    where: Mapping[str, Any] | None,
) -> bool:
    """Put on record who waits: the member, its call, and since when the event counts.

    Returns:
        whether it is the first time that this source waits for such an event.
    """
    subject = f"event:{event}"
    members, calls, since = zip(*callers, strict=True)
    await tx.execute(
        _BEGIN,
        {
            "source_id": source_id,
            "cohort": cohort,
            "subject": subject,
            "where": orjson.dumps(where).decode() if where else None,
            "members": list(members),
            "calls": list(calls),
            "since": list(since),
        },
    )
    look = {"account_id": account_id, "subject": subject, "source_id": source_id}
    return (await tx.execute(_LOOK, look)).rowcount == 1


async def mark(tx: Connection) -> int:
    """Once all transactions before this number have ended, every event that happens is told of."""
    number: int = (await tx.execute(_MARK)).scalar_one()
    return number


async def happened_already(
    tx: Connection,
    source_id: UUID,
    cohort: int,
    callers: Sequence[tuple[int, int]],
    *,
    event: str,
    where: Mapping[str, Any] | None,
    now: datetime,
    until: datetime | None = None,
    heard: Mapping[tuple[int, int], UUID] = MappingProxyType({}),
    prune: bool = True,
) -> dict[tuple[int, int], Found]:
    """The first such event of each who waits, by member and call.

    Args:
        until: whatever happens later is none; without it, everything counts.
        heard: what one of them waited for before: neither that counts, nor what was before it at the same moment.
        prune: whether the ids of events tell when they happened: not where `now` is ahead of the database's clock.
    """
    members, calls = zip(*callers, strict=True)
    asked, parameters = (
        event_condition(_WHERE.validate_python(where), now=now, prefix="where_") if where else ("true", {})
    )
    await plan_anew(tx)
    pruned = "AND events.id >= uuidv7_floor(waiting.since - interval '1 hour')" if prune else ""
    rows = await tx.execute(
        text(f"""
            SELECT waiting.source_id, cohort, enrollments.member, waiting.call, event.* FROM unnest(
                CAST(:members AS smallint[]), CAST(:calls AS int[]), CAST(:heard AS uuid[])
            ) AS told (member, call, heard)
            CROSS JOIN LATERAL (
                SELECT * FROM enrollments
                WHERE source_id = :source_id AND cohort = :cohort AND enrollments.member = told.member LIMIT 1
            ) AS enrollments
            CROSS JOIN LATERAL (
                SELECT * FROM enrollment_waits
                WHERE enrollment_id = enrollments.id AND call = told.call
                AND subject = 'event:' || CAST(:event AS text) LIMIT 1
            ) AS waiting  -- a look each here too: joined, it compares all with all whose calls are alike
            CROSS JOIN LATERAL (
                SELECT events.id, name, occurred_at FROM events
                WHERE events.contact_id = waiting.contact_id AND name = :event AND {_SINCE}
                AND occurred_at <= coalesce(CAST(:until AS timestamptz), 'infinity')
                AND events.id IS DISTINCT FROM enrollments.event_id AND NOT machine {pruned} AND {asked}
                AND (told.heard IS NULL OR events.id > told.heard
                     OR occurred_at > (SELECT before.occurred_at FROM events AS before WHERE before.id = told.heard))
                ORDER BY occurred_at, events.id LIMIT 1
            ) AS event
        """),
        {
            **parameters,
            "source_id": source_id,
            "cohort": cohort,
            "members": list(members),
            "calls": list(calls),
            "heard": [heard.get(key) for key in callers],
            "event": event,
            "until": until,
        },
    )
    found = [Found(*row) for row in rows]
    return {(each.member, each.call): each for each in found}


# -- whoever routes an event -----------------------------------------------------------------------------------------

_WAITING = text(f"""
    SELECT waiting.source_id, cohort, member, waiting.call, events.id AS event_id, name, occurred_at, waiting."where"
    FROM events
    JOIN enrollment_waits AS waiting
        ON waiting.contact_id = events.contact_id AND waiting.subject = 'event:' || name
    JOIN enrollments ON enrollments.id = waiting.enrollment_id AND cohort IS NOT NULL AND left_at IS NULL
        AND event_id IS DISTINCT FROM events.id
    WHERE events.id = ANY (CAST(:events AS uuid[])) AND NOT machine AND {_SINCE}
    ORDER BY occurred_at, events.id
""")


async def happened(tx: Connection, events: Iterable[UUID], *, now: datetime) -> list[Found]:
    """Who waits for these events, in the order in which they happened. To be asked once they are committed."""
    rows = (await tx.execute(_WAITING, {"events": list(events)})).all()
    asking: defaultdict[bytes, list[Row[Any]]] = defaultdict(list)
    for row in rows:
        if row.where is not None:
            asking[orjson.dumps(row.where)].append(row)
    refused: set[tuple[bytes, UUID]] = set()
    for key, those in asking.items():
        ids = {row.event_id for row in those}
        refused |= {(key, each) for each in ids - await _as_asked(tx, ids, orjson.loads(key), now)}
    return [
        Found(*row[:7]) for row in rows if row.where is None or (orjson.dumps(row.where), row.event_id) not in refused
    ]


async def _as_asked(tx: Connection, events: Iterable[UUID], where: Mapping[str, Any], now: datetime) -> set[UUID]:
    asked, parameters = event_condition(_WHERE.validate_python(where), now=now, prefix="where_")
    query = text(f"SELECT id FROM events WHERE id = ANY (CAST(:events AS uuid[])) AND {asked}")
    return set((await tx.execute(query, {**parameters, "events": list(events)})).scalars())
