"""What can be told of each recipient of a campaign?"""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field

from marketing.deliveries import DeliveryState


class Recipient(BaseModel):
    """One message to one contact: how far it came, and why no further."""

    delivery_id: UUID
    contact_id: UUID
    email: str | None
    channel: str
    message: str = Field(description="Of a drip: `message-1`, `message-2`, …; else empty.")
    variant: str = Field(description="Of an experiment: its name, `holdout`, or empty for the rest.")
    state: DeliveryState
    reason: str | None
    reply: str | None
    attempts: int
    not_before: datetime
    finished_at: datetime | None
    opened_at: datetime | None
    clicked_at: datetime | None
    unsubscribed_at: datetime | None


class CampaignEvent(BaseModel):
    """Something that happened to the campaign (`campaign.…`) or to one of its messages (`message.…`)."""

    id: UUID
    name: str
    occurred_at: datetime
    contact_id: UUID | None
    delivery_id: UUID | None
    machine: bool
    properties: dict[str, Any]
