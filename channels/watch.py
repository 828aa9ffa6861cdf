"""How long does a provider take, and how does it answer?"""

from collections.abc import Callable, Coroutine
from functools import cache, wraps
from time import perf_counter
from typing import Any, TypeVar

from prometheus_client import Histogram

from channels.base import Channel, Deferred, Message, Receipt, Rejected, Unavailable, Uncertain
from telemetry import metrics

AnyChannel = TypeVar("AnyChannel", bound=Channel)
Send = Callable[[AnyChannel, Message], Coroutine[Any, Any, Receipt]]


def watched(send: Send[AnyChannel]) -> Send[AnyChannel]:
    """A channel's `send`, counted by channel and outcome."""

    @wraps(send)
    async def wrapped(channel: AnyChannel, message: Message) -> Receipt:
        began, outcome = perf_counter(), "broken"
        try:
            receipt = await send(channel, message)
            outcome = "sent"
        except (Rejected, Deferred, Unavailable, Uncertain) as refusal:
            outcome = type(refusal).__name__.lower()
            raise
        finally:
            _seconds(channel.name, outcome).observe(perf_counter() - began)
        return receipt

    return wrapped


@cache
def _seconds(channel: str, outcome: str) -> Histogram:
    return metrics.send_seconds.labels(channel, outcome)  # 1 µs each time, of some 300 that a message takes
