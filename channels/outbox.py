"""A channel that keeps what it was given: for tests, and for rehearsals that must reach nobody."""

import asyncio
from collections import deque
from math import inf
from time import monotonic, time

from channels.base import Message, Receipt, Unavailable
from channels.mime import write
from channels.webhooks import Reply, WebhookCall, Webhooks, checked


class Outbox:
    """Takes every message that e-mail could carry, in order, into `messages`; the oldest leave when it is full."""

    def __init__(self, name: str = "email", *, keep: int | None = None) -> None:
        self.name = name
        self.messages: deque[Message] = deque(maxlen=keep)
        self._closed = False

    async def send(self, message: Message, *, begin_by: float = inf) -> Receipt:
        letter = write(message, int(time()))  # refuses what a relay would never see
        await asyncio.sleep(0)  # lets others in between, as a network would
        if self._closed:
            raise Unavailable("This channel is closed.")
        if monotonic() > begin_by:
            raise Unavailable("Too late.")
        self.messages.append(message)
        return Receipt(letter.message_id, "kept in the outbox")

    async def close(self) -> None:
        self._closed = True


class CallBox(Webhooks):
    """Takes every call that we could make, and makes none."""

    def __init__(self) -> None:  # without connections
        self.calls: list[WebhookCall] = []

    async def call(self, call: WebhookCall, secret: bytes) -> Reply:  # noqa: ARG002  # nothing is sealed
        checked(call.url)  # refuses what is no address for us
        self.calls.append(call)
        return Reply(200, b"")
