"""What has happened to one person? Events, and from the ledger what became of each message."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import RowMapping, text

from database.engine import Connection
from marketing.timelines import Message, SourceName, TimelineItem, Told, summary

# Each part brings its own newest, so that only those few are put in order, and named with their campaign and message.
_PAGE = """
    WITH sources AS NOT MATERIALIZED (
        SELECT id, name AS campaign_name, NULL AS automation_name FROM campaigns
        UNION ALL SELECT id, NULL, name FROM automations
    ), told AS (
        -- What became of a message the ledger tells below, also of those that were never sent.
        (SELECT id, at, name, properties, value, currency, machine, campaign_id, delivery_id
         FROM (SELECT *, occurred_at AS at FROM events WHERE contact_id = :contact_id) AS events
         WHERE name NOT IN ('message.sent', 'message.failed', 'message.uncertain') {beyond} {named}
         ORDER BY at DESC, id DESC LIMIT :limit)
        UNION ALL
        -- From source to source, for which there is an index: one by contact would cost something for each message.
        (SELECT id, at, name, '{{}}'::jsonb, NULL, NULL, false, campaign_id, id FROM (
             SELECT message.* FROM sources CROSS JOIN LATERAL (
                 SELECT id, campaign_id, coalesce(finished_at, leased_at, not_before) AS at,
                        'message.' || CASE WHEN state = 'planned' AND attempts > 0 THEN 'deferred'
                            ELSE state END AS name
                 FROM deliveries WHERE campaign_id = sources.id AND contact_id = :contact_id OFFSET 0
             ) AS message
         ) AS messages
         WHERE true {beyond} {named} ORDER BY at DESC, id DESC LIMIT :limit)
        UNION ALL
        -- Whoever came with an import, or before there were events.
        (SELECT id, at, name, '{{}}'::jsonb, NULL, NULL, false, NULL, NULL FROM (
             SELECT id, created_at AS at, 'contact.created' AS name FROM contacts WHERE id = :contact_id
             AND NOT EXISTS (SELECT FROM events WHERE contact_id = :contact_id AND name = 'contact.created')
         ) AS arrival
         WHERE true {beyond} {named})
    )
    SELECT told.*, campaign_name, automation_name, channel, deliveries.state, reason, reply, attempts
    FROM told LEFT JOIN sources ON sources.id = told.campaign_id
    LEFT JOIN deliveries ON deliveries.id = told.delivery_id
    ORDER BY at DESC, told.id DESC LIMIT :limit
"""


@dataclass(frozen=True)
class Place:
    """Where a page ended."""

    at: datetime
    id: UUID


async def is_there(tx: Connection, contact_id: UUID) -> bool:
    """Was there ever such a contact? One who was deleted keeps their timeline."""
    query = text("SELECT EXISTS (SELECT FROM contacts WHERE id = :contact_id)")
    found: bool = (await tx.execute(query, {"contact_id": contact_id})).scalar_one()
    return found


async def page(
    tx: Connection, contact_id: UUID, *, name: str | None, after: Place | None, limit: int
) -> list[TimelineItem]:
    """Newest first, what is about to happen before all else; `name` may end with `*`, as in `message.*`."""
    named = ""
    if name:
        named = "AND starts_with(name, :name)" if name.endswith("*") else "AND name = :name"
    query = _PAGE.format(beyond="AND (at, id) < (:after, :after_id)" if after else "", named=named)
    parameters = {
        "contact_id": contact_id,
        "limit": limit,
        **({"name": name.removesuffix("*")} if name else {}),
        **({"after": after.at, "after_id": after.id} if after else {}),
    }
    return [_item(row) for row in (await tx.execute(text(query), parameters)).mappings()]


def _item(row: RowMapping) -> TimelineItem:
    told = Told(
        properties=row["properties"],
        value=row["value"],
        currency=row["currency"],
        machine=row["machine"],
        campaign=row["campaign_name"] or row["automation_name"],
        channel=row["channel"],
        reason=row["reason"],
    )
    return TimelineItem(
        **{name: row[name] for name in ("id", "at", "name", "properties", "value", "currency", "machine")},
        summary=summary(row["name"], told),
        campaign=SourceName(id=row["campaign_id"], name=row["campaign_name"]) if row["campaign_name"] else None,
        automation=SourceName(id=row["campaign_id"], name=row["automation_name"]) if row["automation_name"] else None,
        delivery=Message(
            id=row["delivery_id"],
            **{name: row[name] for name in ("channel", "state", "reason", "reply", "attempts")},
        )
        if row["state"]
        else None,
    )
