"""Messages for the tests of channels."""

from collections.abc import Mapping
from uuid import UUID, uuid4

from channels.base import Message, Sender

NEWS = Sender("Carillon News", "news@example.com")


def a_message(
    to: str = "ann@example.org",
    *,
    sender: Sender = NEWS,
    subject: str = "The bells are back",
    text: str = "Hello Ann",
    html: str | None = "<p>Hello Ann</p>",
    reply_to: str | None = None,
    headers: Mapping[str, str] | None = None,
    delivery_id: UUID | None = None,
) -> Message:
    return Message(delivery_id or uuid4(), to, sender, subject, text, html, reply_to, headers or {})
