"""Lease a set, render it, send it, record what became of it; and the next, until the shard has no more due."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from time import monotonic, time_ns
from uuid import UUID, uuid4

import structlog
from opentelemetry import trace
from sqlalchemy.exc import SQLAlchemyError
from temporalio import activity

from activities.campaigns import email_rules, read_totals
from activities.heartbeats import beating
from activities.inputs import Delivered, DeliverInput
from activities.messages import Composer
from activities.pace import Pace
from channels.base import Channel, Deferred, Message, Receipt, Rejected, Unavailable, Uncertain
from database import campaigns, deliveries, leases
from database.deliveries import Outcome
from database.eligibility import Rules
from database.engine import Database
from database.leases import Lease, Leased, NextSet
from marketing.campaigns import CampaignPlan, CampaignState
from marketing.deliveries import MOST_ATTEMPTS, MOST_SENDINGS, FailReason, UncertainReason, retry_delay
from marketing.rendering import RenderError
from marketing.tracking import RecipientLinks
from telemetry import metrics
from telemetry.tracing import measured, tell_message, tracer

log = structlog.get_logger()

_MARGIN_SECONDS = 2.0  # nothing goes on so shortly before the lease ends
_MOST_PLANS = 100  # kept compiled per process


@dataclass
class Mailing:
    """A campaign made ready for sending."""

    plan: CampaignPlan
    composer: Composer


@dataclass
class Deliveries:
    """Sends what a campaign has planned.

    Args:
        set_size: messages leased at once.
        lanes: sets under way at once in one `deliver`. One is enough: leasing and recording overlap with the sending of
            the other shards, and a second doubles what a killed worker leaves uncertain (docs/performance.md).
        turn_seconds: after so long a `deliver` lets others have its place and tells how the campaign stands.
        lease_seconds: how long a set is ours. The shorter, the sooner a killed worker's messages are settled.
        traced_share: how many of the messages that were sent get a span of their own, where there are traces.
    """

    database: Database
    channels: Mapping[str, Channel]
    links: RecipientLinks
    set_size: int = 50
    lanes: int = 1
    turn_seconds: float = 15.0
    lease_seconds: float = 60.0
    traced_share: float = 0.0
    mailings: OrderedDict[UUID, Mailing] = field(default_factory=OrderedDict)

    @activity.defn
    async def deliver(self, input: DeliverInput) -> Delivered:
        """Everything of one shard that is due.

        A worker that is asked to stop finishes its sets and leaves the rest to the next.
        """
        delivery = _Delivery(self, input, await self.mailing(input.account_id, input.campaign_id))
        watch = asyncio.create_task(delivery.watch_for_shutdown())
        work = asyncio.create_task(delivery.run())
        async with beating():
            try:
                return await asyncio.shield(work)
            except asyncio.CancelledError:
                delivery.stopping = True
                await work  # what is in flight is finished and recorded
                raise
            finally:
                watch.cancel()

    async def mailing(self, account_id: UUID, campaign_id: UUID) -> Mailing:
        """The campaign's plan, which never changes after the launch."""
        if campaign_id not in self.mailings:
            async with self.database.transaction(account_id) as tx:
                plan = await campaigns.load_plan(tx, campaign_id)
            composer = Composer(account_id, campaign_id, plan.email, self.links)
            self.mailings[campaign_id] = Mailing(plan, composer)
            if len(self.mailings) > _MOST_PLANS:
                self.mailings.popitem(last=False)
        self.mailings.move_to_end(campaign_id)
        return self.mailings[campaign_id]


@dataclass(frozen=True)
class _Taken:
    """A set that is ours."""

    lease: Lease
    token: UUID
    deadline: float  # on the clock of `monotonic`
    rules: Rules


class _Delivery:
    """One run of `deliver`."""

    def __init__(self, our: Deliveries, input: DeliverInput, mailing: Mailing) -> None:
        self.our = our
        self.input = input
        self.mailing = mailing
        self.channel = our.channels["email"]
        self.began = monotonic()
        self.stopping = False
        self.halted = False  # the campaign is not running (any more)
        self.unavailable = False

    def now(self) -> datetime:
        """The campaign's clock, which a rehearsal may have set: what the workflow said, and what has passed since."""
        return self.input.now + timedelta(seconds=monotonic() - self.began)

    async def run(self) -> Delivered:
        await self.settle_lost()
        results = await asyncio.gather(*(self.lane() for _ in range(self.our.lanes)), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        async with self.our.database.transaction(self.input.account_id) as tx:
            totals = await read_totals(tx, self.input.campaign_id)
            due, lease_ends_in = await leases.next_due(tx, self.input.campaign_id, self.input.shard)
        if lease_ends_in is not None:
            ends = self.now() + timedelta(seconds=max(lease_ends_in, 0) + 0.1)
            due = min(due, ends) if due else ends
        return Delivered(totals=totals, next_due=due, stopped=self.halted, unavailable=self.unavailable)

    def turn_is_over(self) -> bool:
        return monotonic() > self.began + self.our.turn_seconds

    async def watch_for_shutdown(self) -> None:
        await activity.wait_for_worker_shutdown()
        self.stopping = True

    async def settle_lost(self) -> None:
        """Say what became of the messages that a lost worker had taken."""
        async with self.our.database.transaction(self.input.account_id) as tx:
            rules = await email_rules(tx, self.input.account_id, self.mailing.plan.topic, self.now())
            lost = await deliveries.settle_lost(
                tx,
                self.input.campaign_id,
                self.input.shard,
                resend=self.mailing.plan.on_uncertain == "resend",
                rules=rules,
            )
        if lost:
            log.warning("settled messages of a lost worker", campaign_id=str(self.input.campaign_id), messages=lost)

    def goes_on(self) -> bool:
        return not (self.stopping or self.halted or self.unavailable or self.turn_is_over())

    async def lane(self) -> None:
        """Set after set, until nothing is due, or we are asked to stop."""
        taken: _Taken | None = None
        while taken or self.goes_on():  # what was taken is sent, whatever happened while it was
            taken = taken or await self.take()
            if taken.lease.wait is not None:
                metrics.rate_limit_wait.labels(self.channel.name).inc(min(taken.lease.wait, 1.0))
                await asyncio.sleep(min(taken.lease.wait, 1.0))
                taken = None
            elif not taken.lease.touched:
                return
            else:
                taken = await self.send_set(taken) if taken.lease.messages else None

    async def take(self) -> _Taken:
        token = uuid4()
        deadline = monotonic() + self.our.lease_seconds
        try:
            with measured("lease", metrics.lease_seconds.labels(self.channel.name)):
                lease, rules = await self.lease(token)
        except SQLAlchemyError:
            # The lease may have been written although we got no answer; nothing of it was sent.
            await self.insist(partial(self.release, token))
            raise
        return _Taken(lease, token, deadline, rules)

    async def send_set(self, taken: _Taken) -> _Taken | None:
        """Send a set and record what became of it; the next, if one could be taken at the same time."""
        metrics.set_size.labels(self.channel.name).observe(len(taken.lease.messages))
        with tracer.start_as_current_span("set", attributes={"carillon.messages": len(taken.lease.messages)}):
            outcomes = await self.send_all(taken.lease, taken.deadline)
            with measured("record", metrics.record_seconds.labels(self.channel.name)):
                if self.goes_on() and leases.is_free(self.mailing.plan, taken.rules):
                    with measured("lease", metrics.lease_seconds.labels(self.channel.name)):
                        return await self.record_and_take(taken, outcomes)
                await self.insist(partial(self.record, taken.token, outcomes, taken.rules))
        return None

    async def record_and_take(self, taken: _Taken, outcomes: list[Outcome]) -> _Taken | None:
        """One transaction in place of two."""
        wanted = NextSet(self.input.shard, uuid4(), self.our.lease_seconds, self.our.set_size)
        deadline = monotonic() + self.our.lease_seconds
        try:
            async with self.our.database.transaction(self.input.account_id) as tx:
                rules = await email_rules(tx, self.input.account_id, self.mailing.plan.topic, self.now())
                state, _ = await campaigns.state_of(tx, self.input.campaign_id)
                goes_on = state is CampaignState.RUNNING and leases.is_free(self.mailing.plan, rules)
                recorded = await deliveries.record(
                    tx, self.input.campaign_id, taken.token, outcomes, rules=rules, wanted=wanted if goes_on else None
                )
        except SQLAlchemyError:
            # It may have been written although no answer came. What was sent is recorded once more, to no effect if it
            # was; of what was taken nothing was sent.
            await self.insist(partial(self.record, taken.token, outcomes, taken.rules))
            await self.insist(partial(self.release, wanted.token))
            return None
        return _Taken(recorded.lease, wanted.token, deadline, rules) if goes_on and not recorded.paused else None

    async def lease(self, token: UUID) -> tuple[Lease, Rules]:
        async with self.our.database.transaction(self.input.account_id) as tx:
            rules = await email_rules(tx, self.input.account_id, self.mailing.plan.topic, self.now())
            state, _ = await campaigns.state_of(tx, self.input.campaign_id)
            if state is not CampaignState.RUNNING:
                self.halted = True
                return Lease(), rules
            leased = await leases.lease(
                tx,
                self.input.campaign_id,
                self.input.shard,
                self.mailing.plan,
                rules,
                token=token,
                seconds=self.our.lease_seconds,
                limit=self.our.set_size,
            )
        return leased, rules

    async def release(self, token: UUID) -> None:
        async with self.our.database.transaction(self.input.account_id) as tx:
            await leases.release(tx, self.input.campaign_id, self.input.shard, token)

    async def record(self, token: UUID, outcomes: list[Outcome], rules: Rules) -> None:
        async with self.our.database.transaction(self.input.account_id) as tx:
            await deliveries.record(tx, self.input.campaign_id, token, outcomes, rules=rules)

    async def insist(self, write: Callable[[], Awaitable[None]]) -> None:
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

    async def send_all(self, leased: Lease, deadline: float) -> list[Outcome]:
        """Every message of a set, and truthfully what became of each."""
        # Begun in the first half of the lease, a message has the other half to be answered. We may also have been
        # asleep for long, and somebody else have the lease by now.
        begin_by = deadline - self.our.lease_seconds / 2
        rate = self.mailing.plan.rate_limit_per_second
        pace = Pace(rate, leased.first_slot, len(leased.messages), self.reserve) if rate else None
        traced = trace.get_current_span().is_recording()
        outcomes: list[Outcome] = []
        sending: list[tuple[Leased, Message, asyncio.Future[Receipt]]] = []
        for number, each in enumerate(leased.messages):
            try:
                message = self.mailing.composer.message(each.id, each.contact, self.now())
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
                answer.add_done_callback(partial(self.tell, each, message, time_ns()))
        if sending:
            answers = [answer for _, _, answer in sending]
            _, late = await asyncio.wait(answers, timeout=max(deadline - _MARGIN_SECONDS - monotonic(), 0.0))
            for answer in late:
                answer.cancel()
        told = [self.outcome(each, message, _told(answer)) for each, message, answer in sending]
        if told and all(outcome.state == "planned" and not outcome.attempt for outcome in told):
            self.unavailable = True
        return outcomes + told

    async def reserve(self, slots: int) -> float:
        """More slots of the rate limit: the first, on the clock `monotonic`."""
        assert self.mailing.plan.rate_limit_per_second
        seconds = slots / self.mailing.plan.rate_limit_per_second
        try:
            async with self.our.database.transaction(self.input.account_id) as tx:
                return await leases.take_new_slots(tx, self.input.campaign_id, seconds)
        except SQLAlchemyError:
            return monotonic()  # nobody else gets any now

    def tell(self, leased: Leased, message: Message, began: int, answer: asyncio.Future[Receipt]) -> None:
        """Trace one message."""
        outcome = self.outcome(leased, message, _told(answer))
        tell_message(leased.id, began, outcome=outcome.state, reply=outcome.reply, share=self.our.traced_share)

    def outcome(self, leased: Leased, message: Message, answer: Receipt | BaseException) -> Outcome:
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
        if self.mailing.plan.on_uncertain == "resend" and leased.attempts + 1 < MOST_SENDINGS:
            return Outcome(leased.id, "planned", reply=why, delay=retry_delay(leased.attempts + 1))
        return Outcome(leased.id, "uncertain", UncertainReason.CONNECTION_LOST, why)


def _told(answer: asyncio.Future[Receipt]) -> Receipt | BaseException:
    """What a channel said, if it has."""
    if answer.cancelled() or not answer.done():
        return TimeoutError("The lease ended before the provider answered.")
    return answer.exception() or answer.result()
