"""What are the people of an account told of?"""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from pydantic import BaseModel, Field

LONGEST = 2_000
_TOLD_AT_ONCE = 20


class NotificationKind(StrEnum):
    """`note`: an author's step said so. `failed`: contacts could not go on. `stopped`: too many passes of a contact.
    `decided`: an experiment has its winner, or nobody waits for one. `asked`: somebody is to choose it."""

    NOTE = "note"
    FAILED = "failed"
    STOPPED = "stopped"
    DECIDED = "decided"
    ASKED = "asked"


class Notification(BaseModel):
    """One thing that the people of the account are told."""

    id: UUID
    kind: NotificationKind
    source_id: UUID | None = Field(description="The automation or campaign that it is about.")
    text: str
    created_at: datetime
    emailed_at: datetime | None = Field(description="null: not yet, or nobody wants it.")


def how_many(text: str, contacts: Sequence[UUID]) -> str:
    """The same said of many contacts, once, and of whom."""
    if len(contacts) == 1:
        return f"{text[:LONGEST]} (contact {contacts[0]})"
    return f"{text[:LONGEST]} ({len(contacts):,} contacts, such as {contacts[0]})"


def digest(source: str, texts: Sequence[str]) -> tuple[str, str]:
    """Subject and text of the one e-mail that tells all of it, oldest first."""
    subject = f"{source}: {len(texts)} things to know" if len(texts) > 1 else f"{source}: {texts[0].splitlines()[0]}"
    lines = [f"- {text}" for text in texts[:_TOLD_AT_ONCE]]
    if len(texts) > _TOLD_AT_ONCE:
        lines.append(f"- and {len(texts) - _TOLD_AT_ONCE} more")
    lines += [
        "",
        "All of them: GET /api/notifications. Who gets these e-mails: notification_emails of PUT /api/account.",
    ]
    return subject[:200], "\n".join(lines)
