"""What has happened to one person, and how is it told in a sentence?"""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from marketing.deliveries import DeliveryState


class Message(BaseModel):
    """The message that it is about, as it stands now."""

    id: UUID
    channel: str
    state: DeliveryState
    reason: str | None
    reply: str | None  # the provider's last words
    attempts: int


class SourceName(BaseModel):
    id: UUID
    name: str


class TimelineItem(BaseModel):
    """Something that happened to a person, or is about to."""

    id: UUID
    at: datetime
    name: str
    summary: str
    properties: dict[str, Any]
    value: Decimal | None
    currency: str | None
    machine: bool  # done by a program: a scanner, a proxy, a prefetching mail program
    campaign: SourceName | None
    automation: SourceName | None
    delivery: Message | None


class Told(BaseModel):
    """What a sentence may speak of."""

    properties: Mapping[str, Any]
    value: Decimal | None = None
    currency: str | None = None
    machine: bool = False
    campaign: str | None = None
    channel: str | None = None
    reason: str | None = None


_SENTENCES = {
    "message.planned": "{letter} will be sent by {channel}.",
    "message.deferred": "{letter} could not be delivered yet and will be tried again.",
    "message.sending": "{letter} is being sent by {channel}.",
    "message.sent": "{letter} was sent by {channel}.",
    "message.delivered": "{letter} was delivered.",
    "message.bounced": "{letter} bounced: {why}.",
    "message.complained": "complained about {letter}.",
    "message.skipped": "{letter} was not sent: {why}.",
    "message.failed": "{letter} could not be sent: {why}.",
    "message.uncertain": "nobody knows whether {letter} arrived: {why}.",
    "message.accepted": "somebody decided to take {letter} as sent.",
    "message.put_back": "somebody decided to send {letter} again.",
    "message.opened": "{by_a_program}opened {letter}.",
    "message.clicked": "{by_a_program}clicked {link} in {letter}.",
    "message.unsubscribed": "unsubscribed by a link in {letter}.",
    "contact.created": "was added to the contacts.",
    "contact.changed": "changed: {changes}.",
    "contact.deleted": "was deleted from the contacts.",
    "contact.subscribed": "agreed to {what}.",
    "contact.unsubscribed": "does not want {what} any more.",
    "segment.entered": "entered the segment “{segment}”.",
    "segment.left": "left the segment “{segment}”.",
}
NAMES = frozenset(_SENTENCES)


def summary(name: str, told: Told) -> str:
    """What happened, as an English sentence."""
    said = told.properties
    sentence = _SENTENCES.get(name, "{event}{worth}.").format(
        event=name,
        worth=f": {told.value:f} {told.currency or ''}".rstrip() if told.value is not None else "",
        letter=f"“{told.campaign}”" if told.campaign else "a message",
        channel=told.channel,
        why=(told.reason or "no reason is known").replace("_", " "),
        by_a_program="a program " if told.machine else "",
        link=said.get("url") or "a link",
        changes=", ".join(_changes(said)),
        what=f"{_topic(said)} by {said.get('channel', 'email')}",
        segment=said.get("name", ""),
    )
    return sentence[0].upper() + sentence[1:]


def _topic(said: Mapping[str, Any]) -> str:
    return f"“{said['topic']}”" if said.get("topic") else "messages"


def _changes(said: Mapping[str, Any]) -> list[str]:
    """Attributes by their names alone, and of the tags which came and went."""
    tags = [f"+{tag}" for tag in said.get("tags_added", [])] + [f"-{tag}" for tag in said.get("tags_removed", [])]
    names = [name.removeprefix("attributes.").replace("_", " ") for name in said.get("changed", [])]
    return [f"tags ({', '.join(tags)})" if name == "tags" and tags else name for name in names]
