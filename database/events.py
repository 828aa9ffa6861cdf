"""What happened to whom: written with what it tells of, and read again."""

from uuid import UUID

from sqlalchemy import insert

from database.engine import Connection
from database.schema import events


async def tell(tx: Connection, account_id: UUID, name: str, *, contact_id: UUID, **properties: object) -> None:
    """Write an event of a contact."""
    told = {"account_id": account_id, "name": name, "contact_id": contact_id, "properties": properties}
    await tx.execute(insert(events).values(told))


def facts(changed: str) -> str:
    """A statement that makes an event of each message of `changed` that was sent, has failed or is uncertain.

    For the same statement that changed them, so that neither is ever on record without the other.

    Args:
        changed: the name of a CTE with such rows of `deliveries`, whole.
    """
    return f"""
        INSERT INTO events (account_id, name, contact_id, campaign_id, delivery_id, occurred_at, properties)
        SELECT account_id, 'message.' || state, contact_id, campaign_id, id, finished_at,
               jsonb_strip_nulls(jsonb_build_object('channel', channel, 'reason', reason, 'step', nullif(step, '')))
        FROM {changed} WHERE state IN ('sent', 'failed', 'uncertain')
    """
