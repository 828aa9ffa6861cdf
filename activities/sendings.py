"""Sets of messages of one source: leased, rendered, sent, recorded. One way for broadcasts and journeys."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from time import monotonic, time_ns
from typing import Protocol
from uuid import UUID, uuid4

import structlog
from opentelemetry import trace
from sqlalchemy.exc import SQLAlchemyError
from temporalio import activity

from activities.pace import Pace
from channels.base import Channel, Deferred, Message, Receipt, Rejected, Unavailable, Uncertain
from database import deliveries, leases
from database.deliveries import Outcome, Recorded
from database.eligibility import Rules
from database.engine import Connection, Database
from database.leases import Lease, Leased, NextSet
from marketing.deliveries import MOST_ATTEMPTS, MOST_SENDINGS, FailReason, Terms, UncertainReason, retry_delay
from marketing.rendering import RenderError
from telemetry import metrics
from telemetry.tracing import measured, tell_message, tracer

log = structlog.get_logger()

_MARGIN_SECONDS = 2.0  # nothing goes on so shortly before the lease ends


class Messages(Protocol):
    """What there is to send: messages of one source and step, by one channel."""

    @property
    def account_id(self) -> UUID: ...

    @property
    def source_id(self) -> UUID: ...

    @property
    def step(self) -> str: ...

    @property
    def terms(self) -> Terms: ...

    async def rules(self, tx: Connection, now: datetime) -> Rules:
        """Those of this moment."""

    async def is_running(self, tx: Connection) -> bool:
        """Whether the source may send, by its record."""

    def next_set(self, token: UUID) -> NextSet | None:
        """What to lease next under this token; None if nothing is left."""

    def message(self, leased: Leased, now: datetime) -> Message:
        """
        Raises:
            RenderError: it can't be written for this contact.
        """


@dataclass(frozen=True)
class _Taken:
    """A set that is ours."""

    lease: Lease
    wanted: NextSet
    deadline: float  # on the clock of `monotonic`
    rules: Rules

    @property
    def found_nothing(self) -> bool:
        """Nothing is due in the shard now; of messages that were named, the next may be."""
        return not self.lease.touched and self.wanted.ids is None


class Sending:
    """Sends set after set, until nothing is due, the source halts, its provider is away, or the turn is over.

    Args:
        now: the source's clock when this begins, which a rehearsal may have set.
        lease_seconds: how long a set is ours.
        turn_seconds: no set is taken after so long.
        traced_share: how many of the messages that were sent get a span of their own, where there are traces.
    """

    def __init__(
        self,
        database: Database,
        channel: Channel,
        messages: Messages,
        *,
        now: datetime,
        lease_seconds: float,
        turn_seconds: float,
        traced_share: float = 0.0,
    ) -> None:
        self.database = database
        self.channel = channel
        self.messages = messages
        self.terms = messages.terms
        self.lease_seconds = lease_seconds
        self.turn_seconds = turn_seconds
        self.traced_share = traced_share
        self._now = now
        self._began = monotonic()
        self._stopping = False
        self.halted = False  # the source is not running (any more)
        self.unavailable = False

    def now(self) -> datetime:
        """The source's clock: what it was when this began, and what has passed since."""
        return self._now + timedelta(seconds=monotonic() - self._began)

    async def run(self, lanes: int = 1) -> None:
        """So many sets are under way at once. A worker that is asked to stop finishes them, and leaves the rest."""
        watch = asyncio.create_task(self._watch_for_shutdown())
        work = asyncio.gather(*(self._lane() for _ in range(lanes)), return_exceptions=True)
        try:
            results = await asyncio.shield(work)
        except asyncio.CancelledError:
            self._stopping = True
            await work  # what is in flight is finished and recorded
            raise
        finally:
            watch.cancel()
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _watch_for_shutdown(self) -> None:
        await activity.wait_for_worker_shutdown()
        self._stopping = True

    def _goes_on(self) -> bool:
        is_over = monotonic() > self._began + self.turn_seconds
        return not (self._stopping or self.halted or self.unavailable or is_over)

    async def _lane(self) -> None:
        """Set after set."""
        taken: _Taken | None = None
        while taken or self._goes_on():  # what was taken is sent, whatever happened while it was
            taken = taken or await self._take()
            if taken is None or taken.found_nothing:
                return
            taken = await self._send_set(taken) if taken.lease.messages else None

    # -- the ledger --------------------------------------------------------------------------------------------------

    async def _take(self) -> _Taken | None:
        """The next set, as soon as the rate limit has a slot for it; None if there is none."""
        wanted = self.messages.next_set(uuid4())
        while wanted and self._goes_on():
            deadline = monotonic() + self.lease_seconds
            try:
                with measured("lease", metrics.lease_seconds.labels(self.channel.name)):
                    lease, rules = await self._lease(wanted)
            except SQLAlchemyError:
                # The lease may have been written although we got no answer; nothing of it was sent.
                await self._insist(partial(self._release, wanted))
                raise
            if lease.wait is None:
                return _Taken(lease, wanted, deadline, rules)
            metrics.rate_limit_wait.labels(self.channel.name).inc(min(lease.wait, 1.0))
            await asyncio.sleep(min(lease.wait, 1.0))
        return None

    async def _send_set(self, taken: _Taken) -> _Taken | None:
        """Send a set and record what became of it; the next, if one could be taken at the same time."""
        metrics.set_size.labels(self.channel.name).observe(len(taken.lease.messages))
        with tracer.start_as_current_span("set", attributes={"carillon.messages": len(taken.lease.messages)}):
            outcomes = await self._send_all(taken.lease, taken.deadline)
            with measured("record", metrics.record_seconds.labels(self.channel.name)):
                may_take = self._goes_on() and leases.is_free(self.terms, taken.rules)
                if may_take and (wanted := self.messages.next_set(uuid4())):
                    with measured("lease", metrics.lease_seconds.labels(self.channel.name)):
                        return await self._record_and_take(taken, outcomes, wanted)
                await self._insist(partial(self._record, taken, outcomes))
        return None

    async def _record_and_take(self, taken: _Taken, outcomes: list[Outcome], wanted: NextSet) -> _Taken | None:
        """One transaction in place of two."""
        deadline = monotonic() + self.lease_seconds
        try:
            async with self.database.transaction(self.messages.account_id) as tx:
                rules = await self.messages.rules(tx, self.now())
                goes_on = await self.messages.is_running(tx) and leases.is_free(self.terms, rules)
                recorded = await self._write(tx, taken, outcomes, rules, wanted if goes_on else None)
        except SQLAlchemyError:
            # It may have been written although no answer came. What was sent is recorded once more, to no effect if it
            # was; of what was taken nothing was sent.
            await self._insist(partial(self._record, taken, outcomes))
            await self._insist(partial(self._release, wanted))
            return None
        return _Taken(recorded.lease, wanted, deadline, rules) if goes_on and not recorded.paused else None

    async def _lease(self, wanted: NextSet) -> tuple[Lease, Rules]:
        async with self.database.transaction(self.messages.account_id) as tx:
            rules = await self.messages.rules(tx, self.now())
            if not await self.messages.is_running(tx):
                self.halted = True
                return Lease(), rules
            leased = await leases.lease_set(
                tx, self.messages.source_id, wanted, self.terms, rules, step=self.messages.step
            )
        return leased, rules

    async def _release(self, wanted: NextSet) -> None:
        async with self.database.transaction(self.messages.account_id) as tx:
            await leases.release(tx, self.messages.source_id, wanted.shard, wanted.token)

    async def _record(self, taken: _Taken, outcomes: list[Outcome]) -> None:
        async with self.database.transaction(self.messages.account_id) as tx:
            await self._write(tx, taken, outcomes, taken.rules)

    async def _write(
        self, tx: Connection, taken: _Taken, outcomes: list[Outcome], rules: Rules, wanted: NextSet | None = None
    ) -> Recorded:
        return await deliveries.record(
            tx,
            self.messages.source_id,
            taken.wanted.token,
            outcomes,
            rules=rules,
            wanted=wanted,
            step=self.messages.step,
            metered=self.terms.metered,
        )

    async def _insist(self, write: Callable[[], Awaitable[None]]) -> None:
        """Write what must not be lost, through a restart of the database: what was sent can't be unsent."""
        pause, give_up = 0.1, monotonic() + 600
        while True:
            try:
                await write()
                return
            except SQLAlchemyError as error:
                if monotonic() > give_up:
                    raise
                log.warning("the database does not take the outcome of a set yet", error=type(error).__name__)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 5.0)

    # -- one set -----------------------------------------------------------------------------------------------------

    async def _send_all(self, leased: Lease, deadline: float) -> list[Outcome]:
        """Every message of a set, and truthfully what became of each."""
        # Begun in the first half of the lease, a message has the other half to be answered. We may also have been
        # asleep for long, and somebody else have the lease by now.
        begin_by = deadline - self.lease_seconds / 2
        rate = self.terms.rate_limit_per_second
        pace = Pace(rate, leased.first_slot, len(leased.messages), self._reserve) if rate else None
        traced = trace.get_current_span().is_recording()
        outcomes: list[Outcome] = []
        sending: list[tuple[Leased, Message, asyncio.Future[Receipt]]] = []
        for number, each in enumerate(leased.messages):
            try:
                message = self.messages.message(each, self.now())
            except RenderError as error:
                outcomes.append(Outcome(each.id, "failed", FailReason.RENDER, str(error)))
                continue
            if pace:
                waited = await pace.keep(len(leased.messages) - number, begin_by)
                if waited is None:  # others may have these, when they may leave: this lease will be over by then
                    outcomes += [Outcome(rest.id, "planned", attempt=False) for rest in leased.messages[number:]]
                    break
                metrics.rate_limit_wait.labels(self.channel.name).inc(waited)
            answer: asyncio.Future[Receipt] = asyncio.ensure_future(self.channel.send(message, begin_by=begin_by))
            sending.append((each, message, answer))
            if traced:
                answer.add_done_callback(partial(self._tell, each, message, time_ns()))
        if sending:
            answers = [answer for _, _, answer in sending]
            _, late = await asyncio.wait(answers, timeout=max(deadline - _MARGIN_SECONDS - monotonic(), 0.0))
            for answer in late:
                answer.cancel()
        told = [self._outcome(each, message, _told(answer)) for each, message, answer in sending]
        if told and all(outcome.state == "planned" and not outcome.attempt for outcome in told):
            self.unavailable = True
        return outcomes + told

    async def _reserve(self, slots: int) -> float:
        """More slots of the rate limit: the first, on the clock `monotonic`."""
        assert self.terms.rate_limit_per_second
        seconds = slots / self.terms.rate_limit_per_second
        try:
            async with self.database.transaction(self.messages.account_id) as tx:
                return await leases.take_new_slots(tx, self.messages.source_id, seconds)
        except SQLAlchemyError:
            return monotonic()  # nobody else gets any now

    def _tell(self, leased: Leased, message: Message, began: int, answer: asyncio.Future[Receipt]) -> None:
        """Trace one message."""
        outcome = self._outcome(leased, message, _told(answer))
        tell_message(leased.id, began, outcome=outcome.state, reply=outcome.reply, share=self.traced_share)

    def _outcome(self, leased: Leased, message: Message, answer: Receipt | BaseException) -> Outcome:
        """What the answer of the channel means for the message."""
        match answer:
            case Receipt():
                return Outcome(leased.id, "sent", reply=answer.reply)
            case Rejected():
                dead = message.to if answer.suppress else None
                return Outcome(leased.id, "failed", FailReason.REJECTED, answer.reply, suppress=dead)
            case Deferred():
                if leased.attempts + 1 >= MOST_ATTEMPTS:
                    return Outcome(leased.id, "failed", FailReason.EXPIRED, answer.reply)
                return Outcome(leased.id, "planned", reply=answer.reply, delay=retry_delay(leased.attempts + 1))
            case Unavailable():
                delay = timedelta(seconds=min(answer.retry_after or 1.0, 3600.0))
                return Outcome(leased.id, "planned", reply=answer.reply, delay=delay, attempt=False)
        # Uncertain, the end of our time, or a bug of the channel: nobody can know.
        if not isinstance(answer, (Uncertain, TimeoutError)):
            log.error("a channel failed in an unforeseen way", delivery_id=str(leased.id), exc_info=answer)
        why = str(answer) or "The channel failed."
        if self.terms.resend and leased.attempts + 1 < MOST_SENDINGS:
            return Outcome(leased.id, "planned", reply=why, delay=retry_delay(leased.attempts + 1))
        return Outcome(leased.id, "uncertain", UncertainReason.CONNECTION_LOST, why)


def _told(answer: asyncio.Future[Receipt]) -> Receipt | BaseException:
    """What a channel said, if it has."""
    if answer.cancelled() or not answer.done():
        return TimeoutError("The lease ended before the provider answered.")
    return answer.exception() or answer.result()
