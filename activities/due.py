"""Those whose time has come are let in: a day of their own, so long without a sign of life, or a time for all."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import time, timedelta
from functools import partial
from uuid import UUID

from temporalio import activity

from activities.heartbeats import beating
from activities.journey_inputs import SourceRef
from activities.routing_inputs import Due, DueInput
from database import due, sources
from database.engine import Connection, Database
from database.enrolling import Candidate, enroll
from marketing.triggers import OnDate, OnInactivity, OnSchedule

# Looked at so often; the clocks of all zones show one of these quarters when it is one in UTC.
EVERY = timedelta(minutes=15)
# What fell due while nobody was at work is made up for within this time.
CATCH_UP = timedelta(hours=12)
NOBODY = UUID(int=0)

Page = Callable[[Connection, UUID], Awaitable[list[Candidate]]]


@dataclass
class DueContacts:
    """
    Args:
        wake: has the workflow of a source know that somebody is pending.
    """

    database: Database
    wake: Callable[[SourceRef], Awaitable[None]]
    slice: int = 1_000

    @activity.defn
    async def enroll_due(self, input: DueInput) -> Due:
        """Let them in, each once however often it is asked."""
        since = max(input.since or input.moment - EVERY, input.moment - CATCH_UP)
        enrolled = 0
        async with beating():
            async with self.database.transaction(input.account_id) as tx:
                source = (await sources.read(tx, [input.source_id])).get(input.source_id)
            if source is None or source.state != "active":
                return Due(until=input.moment)
            pages: list[Page] = []
            match source.terms.trigger:
                case OnSchedule() as at:
                    pages = [partial(due.in_segment, at, input.moment, self.slice)]
                case OnInactivity() as since_when:
                    pages = [partial(due.inactive, since_when, since, input.moment, self.slice)]
                case OnDate() as on:
                    days = due.days_between(time.fromisoformat(str(on.at)), since, input.moment)
                    pages = [partial(due.on_day, on, day, zones, self.slice) for day, zones in days.items()]
            for page in pages:
                async for tx, candidates in self._slices(input.account_id, page):
                    outcomes = await enroll(tx, input.account_id, source, candidates, now=input.moment)
                    enrolled += outcomes["enrolled"]
            if enrolled:
                await self.wake(SourceRef(**input.model_dump(include={*SourceRef.model_fields})))
        return Due(until=input.moment, enrolled=enrolled)

    async def _slices(self, account_id: UUID, page: Page) -> AsyncIterator[tuple[Connection, list[Candidate]]]:
        """Each in a transaction of its own, which ends when the next is asked for."""
        after = NOBODY
        while True:
            async with self.database.transaction(account_id, bulk=True) as tx:
                candidates = await page(tx, after)
                yield tx, candidates
            if len(candidates) < self.slice:
                return
            after = candidates[-1].contact_id
