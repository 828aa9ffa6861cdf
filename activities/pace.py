"""When may the next message of a set leave, where a campaign has a rate limit?"""

import asyncio
from collections.abc import Awaitable, Callable
from math import ceil, inf
from time import monotonic

# A message may leave so long after its slot, in seconds: with what leasing makes up for, less than a tenth of a second,
# and so no second has a tenth too many. Where slots are far apart, a tenth of the way to the next is no harm either.
LATEST = 0.04


class Pace:
    """The slots that a set has reserved. Those that it has missed are lost, for the ones behind them belong to others.

    Args:
        per_second: the limit.
        first: the first slot, a moment on the clock `monotonic`.
        slots: how many there are.
        reserve: takes so many more, and returns the first.
    """

    def __init__(self, per_second: float, first: float, slots: int, reserve: Callable[[int], Awaitable[float]]) -> None:
        self._every = 1 / per_second
        self._latest = max(LATEST, self._every / 10)
        self._next = first
        self._slots = slots
        self._reserve = reserve

    async def keep(self, messages: int, until: float = inf) -> float | None:
        """Wait until the first of the `messages` that are left may leave.

        Returns:
            how many seconds that took; None, at once, if it may not leave before `until`.
        """
        began = monotonic()
        while True:
            late = monotonic() - self._next
            if late > self._latest:
                missed = ceil(late / self._every)
                self._next += missed * self._every
                self._slots -= missed
            elif late < 0 < self._slots:
                if self._next > until:
                    return None
                await asyncio.sleep(-late)
            elif self._slots > 0:
                self._next += self._every
                self._slots -= 1
                return monotonic() - began
            if self._slots <= 0:
                self._next = await self._reserve(messages)
                self._slots = messages
