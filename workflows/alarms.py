"""When must somebody wake next?"""

import asyncio
from collections.abc import Iterator
from datetime import datetime, timedelta
from heapq import heappop, heappush
from itertools import count

from temporalio import workflow

from workflows.passes import Call, Pass

SOONEST = timedelta(milliseconds=1)


class Alarms:
    """Moments at which passes go on. One timer is enough for all that wake at the same moment, and none is needed for
    a moment that comes after that of another timer. So a cohort has as good as one, however many wait."""

    def __init__(self) -> None:
        self.rang = False
        self._moments: list[tuple[datetime, int, Pass, Call | None]] = []
        self._timers: list[datetime] = []
        self._order = count()

    def set(self, moment: datetime, one: Pass, call: Call | None) -> None:
        """For a call, or for the pass as a whole. An earlier alarm of the same call is off."""
        if call:
            call.wakes_at = moment
        heappush(self._moments, (moment, next(self._order), one, call))

    def due(self, now: datetime) -> Iterator[tuple[Pass, Call | None]]:
        """Those whose moment has come."""
        while self._next() and self._moments[0][0] <= now:
            _, _, one, call = heappop(self._moments)
            yield one, call

    def wind(self, now: datetime) -> None:
        """See to it that there is a timer in time for the next moment."""
        moment = self._next()
        if moment and not any(timer <= moment for timer in self._timers):
            self._timers.append(moment)
            asyncio.create_task(self._ring(moment, now))  # noqa: RUF006  # the loop of a workflow keeps its tasks

    async def _ring(self, moment: datetime, now: datetime) -> None:
        await workflow.sleep(max(moment - now, SOONEST), summary="until the next contacts wake")
        self._timers.remove(moment)
        self.rang = True

    def _next(self) -> datetime | None:
        """The next moment at which somebody really waits."""
        while self._moments:
            moment, _, one, call = self._moments[0]
            if not one.ending and (call is None or (call.is_open and call.wakes_at == moment)):
                return moment
            heappop(self._moments)
        return None
