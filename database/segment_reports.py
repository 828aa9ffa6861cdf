"""What do segments bring, how much have they in common, and how did they grow?"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from sqlalchemy import text

from database.engine import Connection, plan_anew
from marketing.segment_reports import Change, Overlaps, Performance, Step, performance

# Whoever is in several of the segments counts for each of them.
_MESSAGES = text("""
    SELECT segment_id, count(*) AS messages, count(opened_at) AS opens, count(clicked_at) AS clicks,
           count(unsubscribed_at) AS unsubscribes
    FROM deliveries JOIN segment_members ON segment_members.contact_id = deliveries.contact_id
    WHERE segment_id = ANY (CAST(:segments AS uuid[]))
    AND deliveries.state IN ('sent', 'delivered', 'bounced', 'complained')
    AND deliveries.leased_at >= :since AND deliveries.leased_at < :until
    -- The ledger is found by its source: those that sent nothing within the window need no look.
    AND deliveries.campaign_id = ANY (ARRAY(
        SELECT id FROM campaigns WHERE created_at < :until AND (finished_at IS NULL OR finished_at >= :since)
        UNION ALL SELECT id FROM automations WHERE activated_at < :until))
    GROUP BY segment_id
""")

_CONVERSIONS = text("""
    SELECT segment_id, currency, sum(conversions)::bigint AS conversions, count(DISTINCT contact_id) AS converted,
           sum(revenue) AS revenue
    FROM (
        SELECT segment_id, events.contact_id, coalesce(currency, '') AS currency, count(*) AS conversions,
               sum(value) AS revenue
        FROM events JOIN segment_members ON segment_members.contact_id = events.contact_id
        WHERE segment_id = ANY (CAST(:segments AS uuid[])) AND events.name = :goal AND NOT events.machine
        AND occurred_at >= :since AND occurred_at < :until
        AND events.id >= uuidv7_floor(CAST(:since AS timestamptz) - interval '1 hour')  -- which months to look into
        GROUP BY segment_id, events.contact_id, coalesce(currency, '')
    ) AS goals
    GROUP BY GROUPING SETS ((segment_id), (segment_id, currency))  -- under currency NULL all of a segment
""")

_COMBINED = text("""
    SELECT mask, count(*) AS contacts FROM (
        SELECT bit_or(1 << (array_position(CAST(:segments AS uuid[]), segment_id) - 1)) AS mask
        FROM segment_members WHERE segment_id = ANY (CAST(:segments AS uuid[])) GROUP BY contact_id
    ) AS contacts GROUP BY mask
""")

_HISTORY = text("""
    SELECT start, (array_agg(size ORDER BY hour DESC))[1] AS size, sum(entered)::bigint AS entered,
           sum(left_out)::bigint AS left, sum(drift)::bigint AS drift
    FROM (
        SELECT *, date_trunc(:step, hour, 'UTC') AS start FROM segment_hours WHERE segment_id = :segment_id
    ) AS hours
    WHERE start < coalesce(CAST(:before AS timestamptz), 'infinity')
    GROUP BY start ORDER BY start DESC LIMIT :limit
""")


@dataclass(frozen=True)
class Window:
    """From `since` until before `until`, and the event that counts as a conversion."""

    since: datetime
    until: datetime
    goal: str


async def performances(tx: Connection, sizes: Mapping[UUID, int], window: Window) -> dict[UUID, Performance]:
    """What was sent to the members of each of these segments, and what they did; `sizes` says how many there are."""
    await plan_anew(tx)  # one plan for all windows and segments made 9 s of what takes 0.03
    asked = {"segments": list(sizes), **vars(window)}
    counted = {segment_id: {"members": size} for segment_id, size in sizes.items()}
    revenue: defaultdict[UUID, dict[str, Decimal]] = defaultdict(dict)
    for row in (await tx.execute(_MESSAGES, asked)).mappings():
        counted[row["segment_id"]] |= {name: n for name, n in row.items() if name != "segment_id"}
    for each in await tx.execute(_CONVERSIONS, asked):
        if each.currency is None:
            counted[each.segment_id] |= {"conversions": each.conversions, "converted": each.converted}
        elif each.revenue is not None:
            revenue[each.segment_id][each.currency] = each.revenue
    return {segment_id: performance(counts, revenue[segment_id]) for segment_id, counts in counted.items()}


async def overlaps(tx: Connection, segments: Sequence[UUID]) -> Overlaps:
    """How many contacts are in which of these segments, at most 31."""
    rows = await tx.execute(_COMBINED, {"segments": list(segments)})
    return Overlaps(segments, {row.mask: row.contacts for row in rows})


async def history(tx: Connection, segment_id: UUID, step: Step, *, before: datetime | None, limit: int) -> list[Change]:
    """The hours or days, UTC, in which something changed, the newest first."""
    asked = {"segment_id": segment_id, "step": step, "before": before, "limit": limit}
    return [Change(**row) for row in (await tx.execute(_HISTORY, asked)).mappings()]
