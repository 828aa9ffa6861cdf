"""What the people of an account are told: kept, listed, and handed on by e-mail."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select, text, update
from sqlalchemy.dialects.postgresql import insert

from database.engine import Connection
from database.schema_automations import notifications
from marketing.notifications import Notification, NotificationKind


async def add(tx: Connection, account_id: UUID, told: Sequence[Notification]) -> None:
    """Each is told once, however often it is added under its id."""
    if told:
        rows = [{"account_id": account_id, **each.model_dump()} for each in told]
        await tx.execute(insert(notifications).on_conflict_do_nothing(), rows)


async def page(
    tx: Connection, *, kind: NotificationKind | None, source_id: UUID | None, after: UUID | None, limit: int
) -> list[Notification]:
    """Newest first."""
    columns = [notifications.c[name] for name in Notification.model_fields]
    query = select(*columns).order_by(notifications.c.id.desc()).limit(limit)
    if kind:
        query = query.where(notifications.c.kind == kind)
    if source_id:
        query = query.where(notifications.c.source_id == source_id)
    if after:
        query = query.where(notifications.c.id < after)
    return [Notification.model_validate(dict(row)) for row in (await tx.execute(query)).mappings()]


@dataclass(frozen=True)
class Untold:
    """What one source has to say that nobody was e-mailed yet."""

    source_id: UUID | None
    name: str
    last: datetime | None  # when there was an e-mail about it
    ids: list[UUID]
    texts: list[str]


async def untold(tx: Connection, since: datetime) -> list[Untold]:
    """Per source, oldest first, of those made since then: nobody wants to hear of the year before last."""
    rows: Any = await tx.execute(_UNTOLD, {"since": since})
    return [Untold(row.source_id, row.name, row.last, row.ids, row.texts) for row in rows]


# An id tells when it was made, and so where in the index to begin.
_UNTOLD = text("""
    SELECT source_id, coalesce(automations.name, campaigns.name, 'Carillon') AS name, last, ids, texts
    FROM (
        SELECT source_id, max(emailed_at) AS last,
            array_agg(id ORDER BY id) FILTER (WHERE emailed_at IS NULL) AS ids,
            array_agg(text ORDER BY id) FILTER (WHERE emailed_at IS NULL) AS texts
        FROM notifications WHERE id >= uuidv7_floor(CAST(:since AS timestamptz)) GROUP BY source_id
    ) AS told
    LEFT JOIN automations ON automations.id = source_id LEFT JOIN campaigns ON campaigns.id = source_id
    WHERE ids IS NOT NULL ORDER BY ids[1]
""")


async def mark(tx: Connection, ids: Sequence[UUID], at: datetime) -> None:
    await tx.execute(update(notifications).where(notifications.c.id.in_(ids)).values(emailed_at=at))
