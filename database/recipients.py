"""What became of each recipient's message, one by one?"""

from uuid import UUID

from sqlalchemy import select, tuple_

from database.engine import Connection
from database.schema import contacts, deliveries, events
from marketing.recipients import CampaignEvent, Recipient


async def page(
    tx: Connection,
    campaign_id: UUID,
    *,
    state: str | None,
    reason: str | None,
    contact_id: UUID | None,
    after: tuple[UUID, UUID] | None,
    limit: int,
) -> list[Recipient]:
    """In the order of contacts; `after` is the contact and delivery that the page before ended with."""
    query = (
        select(
            deliveries.c.id.label("delivery_id"),
            deliveries.c.contact_id,
            contacts.c.email,
            deliveries.c.channel,
            deliveries.c.step.label("message"),
            deliveries.c.variant,
            deliveries.c.state,
            deliveries.c.reason,
            deliveries.c.reply,
            deliveries.c.attempts,
            deliveries.c.not_before,
            deliveries.c.finished_at,
            deliveries.c.opened_at,
            deliveries.c.clicked_at,
            deliveries.c.unsubscribed_at,
        )
        .outerjoin(contacts, contacts.c.id == deliveries.c.contact_id)
        .where(deliveries.c.campaign_id == campaign_id)
        .order_by(deliveries.c.contact_id, deliveries.c.id)
        .limit(limit)
    )
    if state:
        query = query.where(deliveries.c.state == state)
    if reason:
        query = query.where(deliveries.c.reason == reason)
    if contact_id:
        query = query.where(deliveries.c.contact_id == contact_id)
    if after:
        query = query.where(tuple_(deliveries.c.contact_id, deliveries.c.id) > tuple_(*after))
    return [Recipient(**row) for row in (await tx.execute(query)).mappings()]


async def events_page(
    tx: Connection, campaign_id: UUID, *, name: str | None, after: UUID | None, limit: int
) -> list[CampaignEvent]:
    """Newest first, but for `message.sent`, which `page` tells of; `name` may end with `*`, as in `campaign.*`."""
    query = (
        select(
            events.c.id,
            events.c.name,
            events.c.occurred_at,
            events.c.contact_id,
            events.c.delivery_id,
            events.c.machine,
            events.c.properties,
        )
        .where(events.c.campaign_id == campaign_id, events.c.name != "message.sent")
        .order_by(events.c.id.desc())
        .limit(limit)
    )
    if name and name.endswith("*"):
        query = query.where(events.c.name.startswith(name[:-1], autoescape=True))
    elif name:
        query = query.where(events.c.name == name)
    if after:
        query = query.where(events.c.id < after)
    return [CampaignEvent(**row) for row in (await tx.execute(query)).mappings()]
