"""How long does a provider take, and how does it answer?"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import cache, partial, wraps
from time import perf_counter
from typing import Concatenate, ParamSpec, TypeVar

from prometheus_client import Histogram

from channels.base import Channel, Deferred, Receipt, Rejected, Unavailable, Uncertain
from telemetry import metrics

AnyChannel = TypeVar("AnyChannel", bound=Channel)
P = ParamSpec("P")


def watched(
    send: Callable[Concatenate[AnyChannel, P], Awaitable[Receipt]],
) -> Callable[Concatenate[AnyChannel, P], asyncio.Future[Receipt]]:
    """A channel's `send`, counted by channel and outcome. It begins at once, awaited or not."""

    @wraps(send)
    def wrapped(channel: AnyChannel, /, *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[Receipt]:
        answer = asyncio.ensure_future(send(channel, *args, **kwargs))
        answer.add_done_callback(partial(_count, channel.name, perf_counter()))
        return answer

    return wrapped


def _count(channel: str, began: float, answer: asyncio.Future[Receipt]) -> None:
    error = asyncio.CancelledError() if answer.cancelled() else answer.exception()
    match error:
        case None:
            outcome = "sent"
        case Rejected() | Deferred() | Unavailable() | Uncertain():
            outcome = type(error).__name__.lower()
        case _:
            outcome = "broken"
    _seconds(channel, outcome).observe(perf_counter() - began)


@cache
def _seconds(channel: str, outcome: str) -> Histogram:
    return metrics.send_seconds.labels(channel, outcome)  # 1 µs each time, of some 300 that a message takes
