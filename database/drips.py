"""Drips: who gets them, and whether one is over."""

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from sqlalchemy import insert, text

from database import audiences, step_counters
from database.engine import Connection, after_commit
from database.schema_automations import automation_subjects
from marketing.automations import Subject
from marketing.campaigns import Audience
from telemetry import metrics


async def look_at(tx: Connection, account_id: UUID, campaign_id: UUID, subjects: Collection[Subject]) -> None:
    """From now on, what happens to contacts in these respects is told (`journey_touches`)."""
    rows = [
        {"account_id": account_id, "source_id": campaign_id, "subject": subject, "role": role}
        for subject, role in sorted(subjects)
    ]
    await tx.execute(insert(automation_subjects), rows)


async def look_away(tx: Connection, campaign_id: UUID) -> None:
    await tx.execute(text("DELETE FROM automation_subjects WHERE source_id = :id"), {"id": campaign_id})


async def enroll_audience(
    tx: Connection, account_id: UUID, campaign_id: UUID, audience: Audience, *, now: datetime, joinable: bool = True
) -> int:
    """Have everybody of the audience enter, as it stands now, in one statement; how many that were.

    Args:
        joinable: somebody may have joined by entering a segment meanwhile. To look takes a third longer.
    """
    condition, parameters = await audiences.condition(tx, audience, now)
    enrolled = await tx.execute(
        text(f"""
            WITH first AS MATERIALIZED (
                SELECT left(CAST(uuidv7() AS text), 24) AS front, random(0x100000000000, 0xEFFFFFFFFFFF) AS back
            )
            INSERT INTO enrollments (id, account_id, source_id, contact_id, cause, entered_at)
            -- Counted on from one id, as when the audience of a broadcast is frozen.
            SELECT CAST(front || to_hex(back + row_number() OVER (ORDER BY contact_id)) AS uuid),
                account_id, :source_id, contact_id, 'launch', :now
            FROM first, (SELECT id AS contact_id, account_id FROM contacts WHERE {condition}) AS audience
            {"ON CONFLICT DO NOTHING" if joinable else ""}
        """),
        {**parameters, "source_id": campaign_id, "now": now},
    )
    amounts = {(step_counters.PASS, "enrolled"): step_counters.Amount(enrolled.rowcount)}
    await step_counters.add(tx, account_id, campaign_id, 1, amounts, now=now)
    after_commit(tx, lambda: metrics.enrollments.labels("enrolled").inc(enrolled.rowcount))
    return enrolled.rowcount


async def somebody_is_inside(tx: Connection, campaign_id: UUID) -> bool:
    """Whether a contact is on its way, or about to begin."""
    # In the order of an index: of a million inside the planner believes that the table's first page has one, and reads
    # half of the table.
    query = text("SELECT FROM enrollments WHERE source_id = :id AND left_at IS NULL ORDER BY contact_id LIMIT 1")
    return (await tx.execute(query, {"id": campaign_id})).first() is not None
