"""Has somebody who is about to begin already done what makes contacts leave?

Who is let in is inside for others once that is committed. What was routed before found nobody who could leave: by then
something may have been told of long after it occurred, or an audience of a million was still entering. Whoever looks
from a later statement sees all that was routed without seeing the pass, for it had been committed by then.
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text

from database import leaving
from database.engine import Connection
from database.leaving import BEGAN_AT, CLOCKS_DIFFER, DELETED, EXIT, GOAL, REFUSED_AT, UNSUBSCRIBED
from database.segments import event_condition
from database.sources import Source
from marketing.automations import GoalEvent
from marketing.exits import ExitEvent

# Whose passes.
_PENDING = "contact_id = ANY (CAST(:contacts AS uuid[])) AND state = 'pending'"
_CARRIED = "cohort = :cohort AND left_at IS NULL"

_PASSES = f"""(
    SELECT id, contact_id, coalesce(event_id, id) AS first, {BEGAN_AT} AS began_at,
        CASE WHEN event_id IS NULL THEN make_interval(secs => {CLOCKS_DIFFER.total_seconds()}) ELSE '0' END AS differ
    FROM enrollments WHERE source_id = :source_id AND {{whose}}
) AS passes"""

_GONE = f"""
    SELECT passes.id, contacts.deleted_at IS NULL AS is_there FROM {_PASSES} JOIN contacts ON contacts.id = contact_id
    WHERE deleted_at IS NOT NULL OR EXISTS (
        SELECT FROM subscriptions
        WHERE subscriptions.contact_id = passes.contact_id AND status = 'unsubscribed'
        AND updated_at > began_at AND {REFUSED_AT} <> began_at -- nor what the pass began with
        AND channel = ANY (CAST(:channels AS text[])) AND topic IN ('', :topic)
    )
"""


async def look_back(
    tx: Connection,
    account_id: UUID,
    source: Source,
    contacts: Collection[UUID],
    *,
    now: datetime,
    prune: bool = True,
) -> None:
    """End the passes of those who are pending and who, since what led them there, have reached the goal, met what makes
    contacts leave, refused our messages or been deleted.

    Args:
        prune: whether the ids of events tell when they happened: not where `now` is ahead of the database's clock.
    """
    reasons = await _reasons(tx, source, _PENDING, {"contacts": list(contacts)}, now=now, prune=prune)
    await leaving.end_pending(tx, account_id, reasons, now=now)


async def unheard(tx: Connection, source: Source, cohort: int, *, now: datetime) -> dict[UUID, str]:
    """The passes in a cohort that was lost which such a thing should have ended, and for which reason."""
    return await _reasons(tx, source, _CARRIED, {"cohort": cohort}, now=now)


async def _reasons(
    tx: Connection, source: Source, whose: str, given: Mapping[str, Any], *, now: datetime, prune: bool = True
) -> dict[UUID, str]:
    given = {**given, "source_id": source.id}
    about = {"channels": list(source.channels), "topic": source.topic or ""}
    gone = await tx.execute(text(_GONE.format(whose=whose)), {**given, **about})
    reasons = {row.id: UNSUBSCRIBED if row.is_there else DELETED for row in gone}
    asked: list[tuple[str, GoalEvent | ExitEvent]] = [(GOAL, each) for each in source.goals]
    asked += [(EXIT, each) for each in source.terms.exit_on if isinstance(each, ExitEvent)]
    found: dict[UUID, tuple[datetime, UUID, str]] = {}
    for reason, event in asked:
        holds, parameters = event_condition(event.where, now=now, prefix="where_") if event.where else ("true", {})
        pruned = "AND events.id >= uuidv7_floor(began_at - interval '1 hour')" if prune else ""
        query = text(f"""
            SELECT passes.id, event.* FROM {_PASSES.format(whose=whose)} CROSS JOIN LATERAL (
                SELECT occurred_at, events.id AS event_id FROM events
                WHERE events.contact_id = passes.contact_id AND name = :event AND NOT machine
                AND occurred_at >= began_at - differ
                AND (occurred_at > began_at OR events.id > first) {pruned} AND {holds}
                ORDER BY occurred_at, events.id LIMIT 1
            ) AS event
        """)
        for row in await tx.execute(query, {**parameters, **given, "event": event.event}):
            first = (row.occurred_at, row.event_id, reason)
            found[row.id] = min(found.get(row.id, first), first)
    return reasons | {id: reason for id, (*_, reason) in found.items()}
