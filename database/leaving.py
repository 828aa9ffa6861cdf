"""Who is inside, and whoever leaves before a cohort has taken it in."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import text

from database import step_counters
from database.engine import Connection

# What was told after somebody had been let in by no event may be what the automation was to bring about, though by
# another clock it occurred a moment before.
CLOCKS_DIFFER = timedelta(minutes=1)
# Why somebody leaves (`enrollments.reason`).
GOAL, EXIT, UNSUBSCRIBED, DELETED = "goal", "exit", "unsubscribed", "contact_deleted"


class Place(NamedTuple):
    """Of a member, in a cohort."""

    cohort: int
    member: int


@dataclass(frozen=True)
class Inside:
    """A pass that is not over; who is pending has no place in a cohort yet."""

    id: UUID
    source_id: UUID
    contact_id: UUID
    event_id: UUID | None  # that it began with
    began_at: datetime  # when that occurred, or else when it entered
    place: Place | None


# When what a pass began with occurred; that may have been long before anybody could be told of it.
BEGAN_AT = """
    least((SELECT occurred_at FROM events WHERE events.id = enrollments.event_id), enrollments.entered_at)
"""
# Of a subscription: what its event tells. Imports and pages tell of what somebody said long ago.
REFUSED_AT = "least(subscriptions.consent_at, subscriptions.updated_at)"
_INSIDE = text(f"""
    SELECT id, source_id, contact_id, event_id, {BEGAN_AT}, cohort, member FROM enrollments
    WHERE contact_id = ANY (:contacts) AND left_at IS NULL ORDER BY id
""")

# Whoever was taken into a cohort at this very moment is told by it instead.
_END = text("""
    UPDATE enrollments SET state = 'exited', reason = ended.reason, left_at = :now,
        converted_at = CASE WHEN ended.reason = 'goal' THEN CAST(:now AS timestamptz) END
    FROM unnest(CAST(:ids AS uuid[]), CAST(:reasons AS text[])) AS ended (id, reason)
    WHERE enrollments.id = ended.id AND state = 'pending'
    RETURNING enrollments.id, source_id, version, enrollments.reason
""")
_PLACES = text("SELECT id, cohort, member FROM enrollments WHERE id = ANY (:ids) AND left_at IS NULL")

_CANCEL = text("""
    UPDATE enrollments SET state = 'cancelled', reason = :reason, left_at = :now WHERE id = ANY (ARRAY(
        SELECT id FROM enrollments WHERE source_id = :source_id AND state = 'pending' ORDER BY id LIMIT :limit
        FOR UPDATE SKIP LOCKED
    ))
    RETURNING version
""")


async def inside(tx: Connection, contacts: Collection[UUID]) -> list[Inside]:
    """The passes of these contacts that are not over."""
    rows = await tx.execute(_INSIDE, {"contacts": list(contacts)})
    return [
        Inside(id, source, contact, event, began_at, None if cohort is None else Place(cohort, member))
        for id, source, contact, event, began_at, cohort, member in rows
    ]


async def end_pending(
    tx: Connection, account_id: UUID, reasons: Mapping[UUID, str], *, now: datetime
) -> dict[UUID, Place]:
    """End those passes, each for its reason, that no cohort has taken in.

    Returns:
        the places of those that one has taken in meanwhile.
    """
    if not reasons:
        return {}
    given = {"ids": list(reasons), "reasons": list(reasons.values()), "now": now}
    ended = (await tx.execute(_END, given)).all()
    # In one order, so that two that end passes never wait for each other.
    for (source_id, version, reason), n in sorted(Counter(row[1:] for row in ended).items()):
        names = [f"exited:{reason}", *(["converted"] if reason == GOAL else [])]
        amounts = {(step_counters.PASS, name): step_counters.Amount(n) for name in names}
        await step_counters.add(tx, account_id, source_id, version, amounts, now=now)
    rest = set(reasons) - {row.id for row in ended}
    rows = await tx.execute(_PLACES, {"ids": list(rest)}) if rest else ()
    return {row.id: Place(row.cohort, row.member) for row in rows}


async def cancel_pending(
    tx: Connection, account_id: UUID, source_id: UUID, reason: str, *, now: datetime, limit: int
) -> int:
    """End up to so many passes that no cohort has taken in; how many there were."""
    given = {"source_id": source_id, "reason": reason, "now": now, "limit": limit}
    versions = Counter((await tx.execute(_CANCEL, given)).scalars())
    for version, n in sorted(versions.items()):
        amounts = {(step_counters.PASS, "cancelled"): step_counters.Amount(n)}
        await step_counters.add(tx, account_id, source_id, version, amounts, now=now)
    return versions.total()
