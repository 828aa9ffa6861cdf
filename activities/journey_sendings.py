"""Send a message of a journey to a group of contacts, through the ledger: each once, however often it is tried."""

from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from pydantic import ValidationError

from activities.heartbeats import beating
from activities.journey_inputs import CANCELLED, Answer, Caller, SourceRef, StepCall
from activities.letters import Letter, Letters, NoLetter
from activities.sendings import Sending
from channels.base import Channel, Message
from database import accounts, deliveries, enrollments, journeys, leases, standings
from database.eligibility import Rules
from database.engine import Connection, Database
from database.enrollments import Enrolled
from database.journeys import Asked
from database.leases import Leased, NextSet
from database.standings import Standing
from marketing.accounts import ChannelName
from marketing.content import ContentError
from marketing.deliveries import FailReason, SkipReason, Terms

log = structlog.get_logger()

# Why another channel may reach somebody whom this one can't.
_UNREACHED = (SkipReason.NO_ADDRESS, SkipReason.NO_CONSENT, SkipReason.SUPPRESSED)
# Whoever says so is out of the whole journey.
_LEAVES = (SkipReason.UNSUBSCRIBED, SkipReason.CONTACT_DELETED, SkipReason.LEFT)
_DONE = ("sent", "delivered", "bounced", "complained")
_LONGEST_PAUSE = timedelta(minutes=10)  # until a provider that is away is tried again


async def nobody_hears(_: SourceRef) -> None:
    """Whoever is held asks again from time to time."""


@dataclass
class JourneySendings:
    """
    Args:
        set_size: messages leased at once.
        lease_seconds: how long a set is ours.
        turn_seconds: after so long the rest is asked for again, so that others have a turn.
        paused: has the workflow of the source know that it was paused meanwhile: perhaps by what became of these.
    """

    database: Database
    channels: Mapping[str, Channel]
    letters: Letters
    prune: bool = True
    set_size: int = 50
    lease_seconds: float = 60.0
    turn_seconds: float = 15.0
    traced_share: float = 0.0
    paused: Callable[[SourceRef], Awaitable[None]] = nobody_hears

    async def send(self, call: StepCall) -> list[Answer]:
        async with beating():
            async with self.database.transaction(call.account_id) as tx:
                members = await enrollments.members(
                    tx, call.source_id, call.cohort, [each.member for each in call.callers]
                )
                standing = await standings.read(tx, call.kind, call.source_id, call.cohort)
                leaving = await self._exits(tx, call, standing, members)
            group = _Group(call, members, leaving)
            if standing.going != "on":
                return group.answers(standing.going)
            try:
                letter = await self.letters.letter(call, standing, call.args)
            except (NoLetter, ContentError, ValidationError) as error:
                return group.answers("on", error=str(error))
            names = [each for each in (call.args.get("channel", "email"), call.args.get("fallback")) if each]
            there = [each for each in names if each in self.channels]
            if not there:
                return group.answers("on", error=f"There is no channel {names[0]} here.")
            for name in there:
                group.channel = name
                await self._send_by(name, call, standing, letter, group)
                if not group.move_on():
                    break
            async with self.database.transaction(call.account_id) as tx:
                going = await standings.going(tx, call.kind, call.source_id, call.cohort)
            if going == "paused":
                await self.paused(SourceRef(**call.model_dump(include={*SourceRef.model_fields})))
            return group.answers(going)

    async def _exits(
        self, tx: Connection, call: StepCall, standing: Standing, members: Mapping[int, Enrolled]
    ) -> set[UUID]:
        """Those who meet the criteria of whom the source lets go."""
        contacts = [each.contact_id for each in members.values()]
        met: set[UUID] = set()
        for criteria in standing.exits:
            met |= await journeys.matching(tx, criteria, contacts, now=call.now, prune=self.prune)
        return met

    async def _send_by(
        self, channel: ChannelName, call: StepCall, standing: Standing, letter: Letter, group: "_Group"
    ) -> None:
        asked = group.asked
        messages = _Messages(
            call, channel, standing, letter, self.set_size, self.lease_seconds, rehearsed=not self.prune
        )
        async with self.database.transaction(call.account_id) as tx:
            rules = await messages.rules(tx, call.now)
            lost = await deliveries.settle_lost(tx, call.source_id, call.cohort, resend=False, rules=rules)
            ids = await journeys.plan_messages(
                tx, call.account_id, call.source_id, call.cohort, asked, step=call.step, channel=channel, now=call.now
            )
            if len(ids) < len(asked):  # asked for before
                ledger = await journeys.messages(tx, asked, channel=channel)
                ids = [each.id for each in ledger.values() if each.state == "planned"]
            if letter.asks_event:
                messages.triggers = await journeys.triggers(tx, [each.enrollment_id for each in asked])
        if lost:
            log.warning("settled messages of a lost worker", source_id=str(call.source_id), messages=lost)
        messages.ids.extend(ids)
        sending = Sending(
            self.database,
            self.channels[channel],
            messages,
            now=call.now,
            lease_seconds=self.lease_seconds,
            turn_seconds=self.turn_seconds,
            traced_share=self.traced_share,
        )
        await sending.run()
        async with self.database.transaction(call.account_id) as tx:
            group.told(await journeys.messages(tx, asked, channel=channel), sending.now(), away=sending.unavailable)


class _Messages:
    """The messages of one step to a group of contacts, by one channel."""

    def __init__(
        self,
        call: StepCall,
        channel: ChannelName,
        standing: Standing,
        letter: Letter,
        set_size: int,
        lease_seconds: float,
        *,
        rehearsed: bool,
    ) -> None:
        self.account_id = call.account_id
        self.source_id = call.source_id
        self.step = call.step
        self.call = call
        self.channel = channel
        self.letter = letter
        self.lease_seconds = lease_seconds
        self.rehearsed = rehearsed
        rate, most = standing.rate_limit_per_second, standing.max_messages
        self.terms = Terms(standing.topic, rate, most, metered=call.kind == "drip" or bool(rate or most))
        self.set_size = leases.most_at_once(self.terms, set_size)
        self.ids: deque[UUID] = deque()
        self.triggers: Mapping[UUID, dict[str, Any]] = {}

    async def rules(self, tx: Connection, now: datetime) -> Rules:
        account = await accounts.read(tx, self.account_id)
        return Rules(self.channel, self.terms.topic, account, now, rehearsed=self.rehearsed)

    async def is_running(self, tx: Connection) -> bool:
        return await standings.going(tx, self.call.kind, self.source_id, self.call.cohort) == "on"

    def next_set(self, token: UUID) -> NextSet | None:
        ids = [self.ids.popleft() for _ in range(min(self.set_size, len(self.ids)))]
        return NextSet(self.call.cohort, token, self.lease_seconds, self.set_size, ids) if ids else None

    def message(self, leased: Leased, now: datetime) -> Message:
        event = self.triggers.get(leased.contact["id"])
        to = "email" if self.channel == "email" else "phone"
        return self.letter.composer.message(leased.id, leased.contact, now, event, to)


@dataclass
class _Group:
    """What becomes of each caller."""

    call: StepCall
    members: Mapping[int, Enrolled]
    leaving: set[UUID]  # contacts that meet exit criteria
    channel: str = ""
    settled: dict[tuple[UUID, int], Answer] = field(default_factory=dict)
    unreached: dict[tuple[UUID, int], Answer] = field(default_factory=dict)

    @property
    def asked(self) -> list[Asked]:
        """Those who are to get a message, and have got no answer yet."""
        return [
            Asked(member.id, member.contact_id, caller.call)
            for caller in self.call.callers
            if (member := self.members.get(caller.member))
            and not member.has_left
            and member.contact_id not in self.leaving
            and (member.id, caller.call) not in self.settled
        ]

    def told(self, ledger: Mapping[tuple[UUID, int], journeys.Message], now: datetime, *, away: bool) -> None:
        """What the ledger says of them now."""
        self.unreached = {}
        for key, message in ledger.items():
            answer = _answer(message, now, away=away)
            if message.state == "skipped" and message.reason in _UNREACHED:
                self.unreached[key] = answer
            else:
                self.settled[key] = answer

    def move_on(self) -> bool:
        """Whether another channel may reach some; whom it can't is told why this one could not."""
        return bool(self.unreached)

    def answers(self, going: str, error: str = "") -> list[Answer]:
        return [self._answer(caller, going, error) for caller in self.call.callers]

    def _answer(self, caller: Caller, going: str, error: str) -> Answer:
        member = self.members.get(caller.member)
        if member is None:
            return Answer(error="There is no such member of the cohort.", final=True)
        if member.has_left:
            return Answer.gone(member.state, member.reason)
        if member.contact_id in self.leaving:
            return Answer(leave="exit")
        key = (member.id, caller.call)
        found = self.settled.get(key) or self.unreached.get(key)
        if found and found.later is None:
            return found
        if going == "over":
            return CANCELLED
        if going == "paused":
            return Answer(held=True)
        if error:
            return Answer(error=error, final=True)
        return found or Answer(later=self.call.now)


def _answer(message: journeys.Message, now: datetime, *, away: bool) -> Answer:
    if message.state == "planned":
        later = max(message.not_before, now)
        if away:  # as long again as it has waited so far
            planned_at = timedelta(milliseconds=message.id.int >> 80)  # UUIDv7 begins with the time
            waited = timedelta(seconds=now.timestamp()) - planned_at
            later = max(later, now + min(max(waited, timedelta(seconds=1)), _LONGEST_PAUSE))
        return Answer(later=later)
    if message.state == "sending":  # somebody else's, or lost with a worker
        return Answer(later=now + timedelta(seconds=max(message.lease_ends_in or 0.0, 0.0) + 0.1))
    if message.state == "skipped" and message.reason == SkipReason.CANCELLED:
        return CANCELLED
    if message.state == "failed" and message.reason == FailReason.RENDER:  # the author's mistake, which no retry mends
        return Answer(error=f"The message can't be written: {message.reply}", final=True)
    if message.state == "skipped" and message.reason in _LEAVES:
        return Answer(leave=message.reason)
    state = "sent" if message.state in _DONE else message.state
    return Answer(value={"state": state, "reason": message.reason} if message.reason else {"state": state})
