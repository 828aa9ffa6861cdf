"""What every channel does: put one message in front of one person, and say truthfully what became of it."""

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Protocol
from uuid import UUID

CHANNELS = ("email",)  # those that workers have something for


@dataclass(frozen=True, slots=True)
class Sender:
    """Who the message is from: `name` may be any text, `address` is in the channel's own form."""

    name: str
    address: str


@dataclass(frozen=True, slots=True)
class Message:
    """One rendered message to one contact. `headers` are e-mail headers or what the channel has in their place."""

    delivery_id: UUID
    to: str
    sender: Sender
    subject: str
    text: str
    html: str | None = None
    reply_to: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Receipt:
    """The provider has the message. `provider_id` is its name for it (the Message-ID for e-mail)."""

    provider_id: str
    reply: str


class Rejected(Exception):
    """Never again: the provider or the channel refuses this message for good (SMTP 5xx, an impossible address).

    `suppress` says that the address itself is dead (user unknown), so nobody should write to it again.
    """

    def __init__(self, reply: str, *, suppress: bool = False) -> None:
        super().__init__(reply)
        self.reply = reply
        self.suppress = suppress


class Deferred(Exception):
    """Later: the provider refuses this message for now (SMTP 4xx such as greylisting). Counts as an attempt."""

    def __init__(self, reply: str) -> None:
        super().__init__(reply)
        self.reply = reply


class Unavailable(Exception):
    """The provider can't be reached or throttles everybody (421, connection refused, time-out before DATA).

    Says nothing about the message, which was surely not accepted; no attempt is counted.
    """

    def __init__(self, reply: str, *, retry_after: float | None = None) -> None:
        super().__init__(reply)
        self.reply = reply
        self.retry_after = retry_after


class Uncertain(Exception):
    """The connection broke after the message was handed over and before the answer (RFC 1047): nobody can know."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.reply = why


class Channel(Protocol):
    """A way to reach people. One file per provider, one entry in `tests/channels/test_every_channel.py`."""

    name: str

    def send(self, message: Message, *, begin_by: float = inf) -> Awaitable[Receipt]:
        """Hand one message over. Safe to call concurrently; waits for a free connection.

        After `begin_by` (as `time.monotonic` tells it) nothing begins that could become `Uncertain`: whoever is too
        late is `Unavailable`.

        Raises:
            Rejected, Deferred, Unavailable, Uncertain: as their docstrings say. Nothing else, ever; when awaited.
        """

    async def close(self) -> None:
        """Say goodbye on every connection."""
