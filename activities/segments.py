"""Who belongs is kept: what changed is settled as it comes, and what time changes when its turn comes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from time import monotonic
from uuid import UUID

import structlog
from temporalio import activity

from activities.heartbeats import beating, until_the_worker_stops
from activities.inputs import FollowInput, Recomputed, SegmentRef, SweepInput
from database import memberships, touches
from database.engine import AWAY, Database, TooSlow, deadline
from database.memberships import Kept, Settled
from database.touches import Touches
from telemetry import metrics

log = structlog.get_logger()

# Rarely enough to cost nothing where nothing happens, and a small part of the five seconds that a change may take.
POLL_SECONDS = 0.25
# How long a recompute waits for what began before it to end, to look once more.
LONGEST_WAIT = 300.0


@dataclass
class Segments:
    database: Database
    turn: int = 1_000  # so many touches of an account at a time: a fifth of a second for a segment or two
    turn_seconds: float = 0.4  # after so long, what is left of them waits until other accounts had their turn
    slice: int = 5_000  # so many contacts of one segment under one lock
    settling_seconds: float = 60.0  # as long as that may take
    look_seconds: float = 5.0  # who has no answer by then begins anew, on another connection
    doubted: set[UUID] = field(default_factory=set)  # with these the database went away
    # By account and line: what one turn did not settle.
    begun: dict[tuple[UUID, bool], Touches] = field(default_factory=dict)

    @activity.defn
    async def follow_changes(self, input: FollowInput) -> None:
        """Settle what changes, as it comes, until a moment; a slice for each account in turn."""
        async with beating(), until_the_worker_stops():
            while datetime.now(UTC) < input.until:
                async with asyncio.timeout(self.look_seconds):
                    waiting = await touches.accounts(self.database, input.lane, input.lanes)
                for account_id in waiting:
                    await self.take_turn(account_id)
                if not waiting:
                    await asyncio.sleep(POLL_SECONDS)

    @activity.defn
    async def refresh(self, ref: SegmentRef) -> Recomputed:
        """Compute all members of one segment."""
        async with beating(), until_the_worker_stops():
            return Recomputed(segments=1, **asdict(await self._recompute(ref.account_id, ref.segment_id)))

    @activity.defn
    async def sweep(self, input: SweepInput) -> Recomputed:
        """Compute all members of the segments that time changes, of those that are new or failed, and by night of all;
        of those that ask for events after some were forgotten.

        An attempt goes on where the one before was ended: with what was not computed since the sweep began.
        """
        done, total = 0, Settled()
        async with beating(), until_the_worker_stops():
            async with self.database.transaction(None) as tx:
                kept = await memberships.kept(tx)
            for each in kept:
                if _is_due(each, input):
                    # What time has changed by now would pass for drift, or what nobody keeps any more.
                    watched = input.nightly and each.in_order and not each.depends_on_time
                    total += await self._recompute(each.account_id, each.segment_id, watched=watched)
                    done += 1
        if total.drift:
            log.warning("memberships had drifted", contacts=total.drift)
        return Recomputed(segments=done, **asdict(total))

    # -- what they do ------------------------------------------------------------------------------------------------

    async def take_turn(self, account_id: UUID) -> None:
        """Settle some of what waits for an account: of what came one by one, and as much of what came in bulk, so that
        neither waits for the other to be over. What follows from it waits in the line of its cause."""
        for bulk in (False, True):
            await self._take_from(account_id, bulk)

    async def _take_from(self, account_id: UUID, bulk: bool) -> None:
        """Only what is settled for all segments is forgotten: who is killed before leaves it to be settled again, which
        changes nothing."""
        end = monotonic() + self.turn_seconds
        touched = self.begun.pop((account_id, bulk), None)
        if touched is None:
            async with self.database.transaction(account_id) as tx:
                touched = await touches.oldest(tx, self.turn, bulk=bulk)
        while touched.concerned:
            segment_id, contacts = touched.concerned.popitem()
            async with self._failing_alone(account_id, segment_id):
                await self._settle(account_id, segment_id, contacts, bulk=bulk)
            if touched.concerned and monotonic() > end:
                self.begun[account_id, bulk] = touched
                return
        if touched.ids:
            async with self.database.transaction(account_id) as tx:
                seconds = await touches.forget(tx, touched)
            for each in seconds:
                metrics.settled_seconds.observe(each)

    async def _recompute(self, account_id: UUID, segment_id: UUID, *, watched: bool = False) -> Settled:
        total = Settled()
        async with self._failing_alone(account_id, segment_id):
            async with self.database.transaction(account_id) as tx:
                mark = await memberships.begin(tx, segment_id)
            give_up = monotonic() + LONGEST_WAIT
            while mark is not None:
                now = datetime.now(UTC)
                async with self.database.transaction(account_id) as tx:
                    found = await memberships.candidates(tx, segment_id, now=now)
                if found is None:
                    break
                for contacts in found.slices(self.slice):
                    total += await self._settle(account_id, segment_id, contacts, watched=watched)
                async with self.database.transaction(account_id) as tx:
                    wrong_by = await memberships.finish(tx, segment_id, found, now=now)
                if wrong_by:
                    log.warning("the size of a segment was wrong", segment_id=str(segment_id), by=wrong_by)
                if found.oldest >= mark or monotonic() > give_up:
                    break
                await self._all_ended(mark, give_up)
        return total

    async def _settle(
        self,
        account_id: UUID,
        segment_id: UUID,
        contacts: list[UUID],
        *,
        watched: bool = False,
        bulk: bool | None = None,
    ) -> Settled:
        async with self.database.transaction(account_id, bulk=bulk) as tx, deadline(tx, self.settling_seconds):
            return await memberships.settle(tx, segment_id, contacts, now=datetime.now(UTC), watched=watched)

    async def _all_ended(self, before: int, give_up: float) -> None:
        """What changed when nobody looked at it yet may not be committed yet."""
        while monotonic() < give_up:
            async with self.database.transaction(None) as tx:
                if await memberships.all_ended(tx, before):
                    return
            await asyncio.sleep(POLL_SECONDS)

    @asynccontextmanager
    async def _failing_alone(self, account_id: UUID, segment_id: UUID) -> AsyncIterator[None]:
        """What fails here is the segment's own problem: the others go on, and it is computed as a whole later.

        But where the database goes away, once is nobody's fault.
        """
        try:
            yield
        except Exception as error:
            if isinstance(error, AWAY) and segment_id not in self.doubted:
                self.doubted.add(segment_id)
                raise
            problem = "Its members could not be worked out: see the log of the worker. It will be tried again."
            if isinstance(error, TooSlow):
                problem = "Its members could not be worked out in time. Ask for less: fewer events, a shorter time."
            async with self.database.transaction(account_id) as tx:
                await memberships.fail(tx, segment_id, problem)
            metrics.segment_failures.inc()
            log.exception("segment not settled", account_id=str(account_id), segment_id=str(segment_id))
        self.doubted.discard(segment_id)


def _is_due(segment: Kept, input: SweepInput) -> bool:
    if not segment.in_order:
        return segment.retry_at is None or segment.retry_at <= input.now
    computed = segment.settled_at is not None and segment.settled_at >= input.now
    affected = input.nightly or segment.depends_on_time or (input.events_forgotten and segment.asks_events)
    return affected and not computed
