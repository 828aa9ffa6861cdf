"""Who came by which split of a journey, and which way it led each."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text

from database.engine import Connection, plan_anew
from database.segments import event_condition
from marketing.assignment import HOLDOUT, REST
from marketing.automations import GoalEvent


@dataclass(frozen=True)
class Split:
    """Members of a cohort whom a split has led the same way at the same moment."""

    members: Sequence[int]
    step: str
    variant: str
    at: datetime


# The first time counts: whoever passes again goes the same way.
_RECORD = text("""
    INSERT INTO exposures (account_id, source_id, step, contact_id, variant, exposed_at)
    SELECT DISTINCT ON (contact_id, step) enrolled.account_id, :source_id, step, contact_id, variant, at
    FROM unnest(CAST(:members AS smallint[]), CAST(:numbers AS int[])) AS told (member, number)
    JOIN unnest(CAST(:steps AS text[]), CAST(:variants AS text[]), CAST(:moments AS timestamptz[]))
        WITH ORDINALITY AS ways (step, variant, at, number) USING (number)
    CROSS JOIN LATERAL (
        SELECT account_id, contact_id FROM enrollments
        WHERE source_id = :source_id AND cohort = :cohort AND enrollments.member = told.member LIMIT 1
    ) AS enrolled  -- a look each, as in notes
    ORDER BY contact_id, step, at
    ON CONFLICT (source_id, step, contact_id) DO NOTHING
""")


async def record(tx: Connection, source_id: UUID, cohort: int, splits: Sequence[Split]) -> None:
    """Keep where splits have led. Told again, it changes nothing."""
    if not splits:
        return
    await plan_anew(tx)
    await tx.execute(
        _RECORD,
        {
            "source_id": source_id,
            "cohort": cohort,
            "steps": [each.step for each in splits],
            "variants": [each.variant for each in splits],
            "moments": [each.at for each in splits],
            "members": [member for each in splits for member in each.members],
            "numbers": [number for number, each in enumerate(splits, 1) for _ in each.members],
        },
    )


# -- what came of it -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Led:
    """How many a step has led one way, and how many of them did afterwards what the source is about."""

    step: str
    variant: str
    contacts: int
    converted: int
    first_at: datetime
    last_at: datetime


_LED = """
    WITH began AS MATERIALIZED (SELECT min(exposed_at) AS at FROM exposures WHERE source_id = :source_id),
    did AS MATERIALIZED ({did})
    SELECT step, variant, count(*) AS contacts, count(did.contact_id) AS converted, min(exposed_at) AS first_at,
           max(exposed_at) AS last_at
    FROM exposures LEFT JOIN did USING (step, contact_id) WHERE source_id = :source_id
    GROUP BY step, variant ORDER BY step, variant
"""

_NOBODY = "SELECT '' AS step, CAST(NULL AS uuid) AS contact_id WHERE false"

# From those who did it, each once: with 100,000 of them and a million who came by it takes 0.8 s.
_DID = """
    SELECT DISTINCT step, contact_id FROM exposures JOIN events USING (contact_id)
    WHERE source_id = :source_id AND events.account_id = :account_id AND name = :event AND NOT machine
    AND occurred_at >= exposed_at AND occurred_at < exposed_at + CAST(:within AS interval)
    AND occurred_at >= (SELECT at FROM began)
    AND events.id >= uuidv7_floor((SELECT at FROM began) - interval '1 hour')
    AND {asked}
"""


async def led(
    tx: Connection, account_id: UUID, source_id: UUID, goal: GoalEvent | None, *, within: timedelta, now: datetime
) -> list[Led]:
    """Where each split has led contacts, and who of them did what the goal says, so soon after they came by."""
    given: dict[str, Any] = {"source_id": source_id}
    did = _NOBODY
    if goal:
        asked, parameters = event_condition(goal.where, now=now, prefix="where_") if goal.where else ("true", {})
        did = _DID.format(asked=asked)
        given |= {"account_id": account_id, "event": goal.event, "within": within, **parameters}
    await plan_anew(tx)
    return [Led(*row) for row in await tx.execute(text(_LED.format(did=did)), given)]


# -- of campaigns ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Exposure:
    """Who saw which variant, and when; of the holdout, since when they have seen nothing."""

    contact_id: UUID
    variant: str
    exposed_at: datetime


# Whoever got the winner afterwards is no part of the comparison; of whom nobody knows whether they got it is.
_EXPOSED = f"""
    SELECT contact_id, variant, coalesce(leased_at, finished_at) AS exposed_at FROM deliveries
    WHERE campaign_id = :campaign_id AND step = '' AND variant <> '{REST}'
    AND (state IN ('sent', 'delivered', 'bounced', 'complained', 'uncertain')
        OR state = 'skipped' AND reason = '{HOLDOUT}')
"""
_PAGE = text(f"""
    {_EXPOSED} AND (variant = :variant OR CAST(:variant AS text) IS NULL)
    AND (contact_id = :contact_id OR CAST(:contact_id AS uuid) IS NULL)
    AND (contact_id > :after OR CAST(:after AS uuid) IS NULL)
    ORDER BY contact_id LIMIT :limit
""")
_OF_CONTACTS = text(f"{_EXPOSED} AND contact_id = ANY (CAST(:contacts AS uuid[]))")


async def page(
    tx: Connection,
    campaign_id: UUID,
    *,
    variant: str | None = None,
    contact_id: UUID | None = None,
    after: UUID | None = None,
    limit: int,
) -> list[Exposure]:
    """Of an experiment, in the order of contacts; the ledger is its record."""
    given = {"campaign_id": campaign_id, "variant": variant, "contact_id": contact_id, "after": after, "limit": limit}
    await plan_anew(tx)
    return [Exposure(*row) for row in await tx.execute(_PAGE, given)]


async def of_contacts(tx: Connection, campaign_id: UUID, contacts: Sequence[UUID]) -> dict[UUID, Exposure]:
    """Which variant each of them saw, of those who saw one."""
    rows = await tx.execute(_OF_CONTACTS, {"campaign_id": campaign_id, "contacts": list(contacts)})
    return {row.contact_id: Exposure(*row) for row in rows}
