"""What happened is told to those whom it concerns, and those who wait are put together."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import structlog
from pydantic_core import to_json
from temporalio import activity
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from activities.heartbeats import beating, until_the_worker_stops
from activities.inputs import FollowInput
from activities.journey_inputs import CohortRef, Formed, FormInput, Happened, Leave, Member, SourceRef
from activities.routing_inputs import Lost, SourceCommand, SourceStanding, TellInput
from database import automations, campaigns, cohorts, journey_touches, leaving, routing, sources, standings
from database.cohorts import Cohort, Known
from database.engine import Database, is_away
from database.journey_touches import Touch
from database.routing import Routed, Told
from marketing.automations import AutomationState
from marketing.campaigns import CampaignState
from telemetry import metrics

log = structlog.get_logger()

# Whoever does something waits half as long, on the average, before anybody takes notice.
POLL_SECONDS = 0.1
# While things happen, so long is waited for more of them: a turn, and the workflows that it wakes, cost the same for
# one as for a hundred.
GATHER_SECONDS = 0.25
# A cohort that is told before its workflow has begun is told again, less and less often, and others meanwhile: those
# of a lost one would else be what has waited longest for ever. After so long it has none.
BEGUN_WITHIN = timedelta(minutes=5)
# A cohort has a workflow by then, unless something was lost.
FORMED_BEFORE = timedelta(minutes=2)
# A rehearsal that is older has lost the process that it ran in: nobody is there for its tasks.
REHEARSED_WITHIN = timedelta(minutes=5)
MOST_LOST = 1_000  # of a kind are found at a time, so that one sweep can see to all of them
LOST = "What carried this contact was lost in Temporal: nobody knows where it stood."
TOLD_AT_ONCE = 20  # cohorts
AT_A_TIME = 500  # so many are told by one signal, and so many cohorts in one go
# Of what a pass began with: a thousand times that, and the rest of a cohort, is less than the 2 MiB that Temporal
# takes.
MOST_OF_A_TRIGGER = 1_000  # bytes
NOT_THERE = (RPCStatusCode.NOT_FOUND, RPCStatusCode.FAILED_PRECONDITION)

Wake = Callable[[SourceRef], Awaitable[None]]


class _Early(NamedTuple):
    """A touch of which a cohort was told too early: since when, and until when it is left alone."""

    since: datetime
    until: datetime


def _put_off(early: _Early | None, now: datetime) -> _Early:
    since = early.since if early else now
    return _Early(since, now + max(now - since, timedelta(seconds=GATHER_SECONDS)))


@dataclass
class Routing:
    """
    Args:
        wake: has the workflow of a source know that somebody is pending, and starts it if there is none.
        keep_times: has Temporal let contacts in at the times that a source names, or not any more.
    """

    database: Database
    temporal: Client
    wake: Wake
    keep_times: Callable[[SourceRef, dict[str, Any] | None], Awaitable[None]]
    turn: int = 1_000  # so many touches of an account at a time
    look_seconds: float = 5.0  # who has no answer by then begins anew, on another connection
    _early: defaultdict[tuple[UUID, bool], dict[int, "_Early"]] = field(
        default_factory=lambda: defaultdict(dict), init=False, repr=False
    )

    @activity.defn
    async def follow_journeys(self, input: FollowInput) -> None:
        """Route what happens, as it comes, until a moment; a slice for each account in turn."""
        async with beating(), until_the_worker_stops(), self.database.aside() as looking:
            while datetime.now(UTC) < input.until:
                async with asyncio.timeout(self.look_seconds):
                    waiting = await journey_touches.accounts(looking, input.lane, input.lanes)
                routed = [await self.take_turn(account_id) for account_id in waiting]
                if not any(each >= self.turn for each in routed):
                    await asyncio.sleep(GATHER_SECONDS if any(routed) else POLL_SECONDS)

    async def take_turn(self, account_id: UUID) -> int:
        """Route some of what waits for an account: of what came one by one, and as much of what came in bulk; how much
        that was."""
        return sum([await self._take_from(account_id, bulk) for bulk in (False, True)])

    async def _take_from(self, account_id: UUID, bulk: bool) -> int:
        """Only what was told to all is forgotten: who is killed before leaves it to be told again."""
        now, early = datetime.now(UTC), self._early[account_id, bulk]
        resting = {id: each for id, each in early.items() if each.until > now}
        async with self.database.transaction(account_id) as tx:
            touches = await journey_touches.oldest(tx, self.turn, bulk=bulk, without=resting)
        if not touches:
            return 0
        kept = await self._route(account_id, touches, bulk)
        self._early[account_id, bulk] = resting | {id: _put_off(early.get(id), now) for id in kept}
        async with self.database.transaction(account_id) as tx:
            seconds = await journey_touches.forget(tx, [each.id for each in touches if each.id not in kept])
        for each in seconds:
            metrics.routed_seconds.observe(each)
        return len(seconds)

    async def _route(self, account_id: UUID, touches: Sequence[Touch], bulk: bool) -> set[int]:
        """Tell what follows from these; those of them that are to be routed once more.

        What fails is found by halves, and left out: else nobody of the account would be told of anything any more.
        """
        try:
            async with self.database.transaction(account_id, bulk=bulk) as tx:
                routed = await routing.route(tx, account_id, touches, datetime.now(UTC))
        except Exception as error:
            if is_away(error):
                raise
            if len(touches) == 1:
                log.exception("not routed", account_id=str(account_id), subject=touches[0].subject)
                return set()
            half = len(touches) // 2
            parts = [await self._route(account_id, part, bulk) for part in (touches[:half], touches[half:])]
            return set().union(*parts)
        return await self._tell(account_id, routed, {each.id: each.touched_at for each in touches})

    async def _tell(self, account_id: UUID, routed: Routed, touched_at: dict[int, datetime]) -> set[int]:
        for source_id, kind in routed.pending.items():
            await self.wake(SourceRef(account_id=account_id, source_id=source_id, kind=kind))
        early: set[int] = set()
        for some in _pages(list(routed.cohorts.items()), TOLD_AT_ONCE):
            refs = [
                CohortRef(account_id=account_id, source_id=id, kind=routed.kind_of(id), cohort=number)
                for (id, number), _ in some
            ]
            heard = await asyncio.gather(
                *(self._tell_cohort(ref, told) for ref, (_, told) in zip(refs, some, strict=True))
            )
            early.update(*(told.touches for (_, told), has in zip(some, heard, strict=True) if not has))
        newest = datetime.now(UTC) - BEGUN_WITHIN
        return {each for each in early if touched_at[each] > newest}

    async def _tell_cohort(self, cohort: CohortRef, told: Told) -> bool:
        """Whether it has been told, or is over."""
        for some in _pages(told.leaving, AT_A_TIME):
            those = [Leave(member=each.member, reason=each.reason, converted=each.converted) for each in some]
            if not await self._signal(cohort, "leave", those):
                return False
        for these in _pages(told.awaited, AT_A_TIME):
            if not await self._signal(cohort, "happened", [Happened(**asdict(each)) for each in these]):
                return False
        return True

    async def _signal(self, cohort: CohortRef, name: str, *arguments: Any) -> bool:
        try:
            await self.temporal.get_workflow_handle(cohort_id(cohort)).signal(name, args=arguments)
        except RPCError as error:
            if error.status not in NOT_THERE:
                raise
            return False
        return True

    # -- cohorts -----------------------------------------------------------------------------------------------------

    @activity.defn
    async def form_cohort(self, input: FormInput) -> Formed:
        """Put those who have waited longest into a cohort. To join one, they need no definition: it has that already,
        and it would be in the history of whoever asks each time."""
        known = None if input.cohort is None else Known(input.cohort, input.members)
        async with self.database.transaction(input.account_id) as tx:
            of = (tx, input.account_id, input.source_id, input.kind)
            cohort = await cohorts.form(*of, known, joins=input.joins, limit=input.limit, now=input.now)
            if cohort is None:
                return Formed()
            formed = as_formed(cohort, more=await cohorts.somebody_waits(tx, input.source_id))
        return formed.model_copy(update={"definition": None}) if formed.first and input.joins else formed

    @activity.defn
    async def tell_cohorts(self, input: TellInput) -> None:
        """Tell all cohorts how their source stands, or of a new version; an attempt goes on where the last one was."""
        after = int(activity.info().heartbeat_details[0]) if activity.info().heartbeat_details else 0
        if input.migration is not None and not after:
            await self._take_along(input, input.migration["version"])
        while True:
            async with self.database.transaction(input.account_id) as tx:
                # Looked at for each page: whoever tells of a state that has passed by now tells of the new one.
                standing = await sources.standing(tx, input.kind, input.source_id)
                cancelled = await cohorts.open_ones(tx, input.source_id, after=after, limit=AT_A_TIME)
            if not cancelled:
                break
            refs = [CohortRef(**input.model_dump(include={*SourceRef.model_fields}), cohort=each) for each in cancelled]
            for some in _pages(refs, TOLD_AT_ONCE):
                words = [_word(standing, input, cancelled=cancelled[each.cohort]) for each in some]
                await asyncio.gather(*(self._signal(each, *word) for each, word in zip(some, words, strict=True)))
                after = some[-1].cohort
                activity.heartbeat(after)
        ended = AT_A_TIME
        while standing.state == "over" and ended:
            async with self.database.transaction(input.account_id) as tx:
                reason = standing.reason or "cancelled"
                of = (tx, input.account_id, input.source_id, reason)
                ended = await leaving.cancel_pending(*of, now=input.now, limit=AT_A_TIME)
            activity.heartbeat(after)

    async def _take_along(self, source: SourceRef, version: int) -> None:
        """Those who have not begun, before whoever forms cohorts can find them in the version before."""
        last: UUID | None = UUID(int=0)
        while last:
            async with self.database.transaction(source.account_id) as tx:
                last = await cohorts.take_along(tx, source.source_id, version, after=last, limit=AT_A_TIME)
            activity.heartbeat(0)

    # -- what was lost -----------------------------------------------------------------------------------------------

    @activity.defn
    async def find_lost(self) -> Lost:
        """Sources and cohorts that the record calls open and nobody is at work on; whom nobody can carry on is failed.

        Because something crashed before a workflow was started, or because Temporal was lost.
        """
        lost = Lost()
        async with beating():
            for each in await sources.open_sources(self.database):
                ref = SourceRef(account_id=each.account_id, source_id=each.source_id, kind=each.kind)
                if not await self._is_running(workflow_id(ref)):
                    lost.sources.append(ref)
                elif each.pending and each.state in ("active", "running"):
                    lost.unheard.append(ref)
            lost.cohorts = await self._without_workflow()
            await self.end_rehearsals(datetime.now(UTC) - REHEARSED_WITHIN)
        return Lost(**{name: those[:MOST_LOST] for name, those in lost})

    @activity.defn
    async def read_lost(self, ref: CohortRef) -> Formed:
        """What such a cohort begins with, once more; no cohort if nobody is inside any more, or all are cancelled."""
        async with self.database.transaction(ref.account_id) as tx:
            if await standings.going(tx, ref.kind, ref.source_id, ref.cohort) == "over":
                await cohorts.give_up(
                    tx, ref.account_id, ref.source_id, ref.kind, ref.cohort, LOST, now=datetime.now(UTC)
                )
                return Formed()
            cohort = await cohorts.not_begun(tx, ref.source_id, ref.kind, ref.cohort)
        return as_formed(cohort) if cohort else Formed()

    async def _without_workflow(self) -> list[CohortRef]:
        """Cohorts that can be started again; those that can't are given up."""
        now = datetime.now(UTC)
        open_cohorts = await sources.open_cohorts(self.database, now - FORMED_BEFORE)
        if not open_cohorts:
            return []
        query = 'Kind = "cohort" AND ExecutionStatus = "Running"'
        running = {each.id async for each in self.temporal.list_workflows(query)}
        found: list[CohortRef] = []
        for each in open_cohorts:
            ref = CohortRef(account_id=each.account_id, source_id=each.source_id, kind=each.kind, cohort=each.cohort)
            # The list comes a little late.
            if cohort_id(ref) in running or await self._is_running(cohort_id(ref)):
                continue
            if not each.begun:
                found.append(ref)
                continue
            async with self.database.transaction(ref.account_id) as tx:
                inside = await cohorts.give_up(tx, ref.account_id, ref.source_id, ref.kind, ref.cohort, LOST, now=now)
            log.error("a cohort was lost", cohort=cohort_id(ref), inside=inside)
        return found

    async def end_rehearsals(self, before: datetime) -> None:
        """Those that began before a moment."""
        query = f'Kind = "rehearsal" AND ExecutionStatus = "Running" AND StartTime < "{before.isoformat()}"'
        async for each in self.temporal.list_workflows(query, limit=MOST_LOST):
            with suppress(RPCError):  # it has ended by itself
                await self.temporal.get_workflow_handle(each.id).terminate("Whoever rehearsed is gone.")

    async def _is_running(self, id: str) -> bool:
        try:
            found = await self.temporal.get_workflow_handle(id).describe()
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            return False
        return found.status is WorkflowExecutionStatus.RUNNING

    # -- the state of a source ---------------------------------------------------------------------------------------

    @activity.defn
    async def read_source(self, ref: SourceRef) -> SourceStanding:
        """How it stands; and have its times kept as long as it lets contacts in."""
        async with self.database.transaction(ref.account_id) as tx:
            standing = await sources.standing(tx, ref.kind, ref.source_id)
            known = await sources.read(tx, [ref.source_id])
        source = known.get(ref.source_id)
        trigger = source.definition.get("trigger") if source and standing.state == "active" else None
        await self.keep_times(ref, trigger)
        return SourceStanding(**asdict(standing))

    @activity.defn
    async def change_source(self, input: SourceCommand) -> SourceStanding:
        """Give it a state, if it may have it; answer what it has now."""
        async with self.database.transaction(input.account_id) as tx:
            if input.kind == "drip":
                state = _CAMPAIGN_STATES[input.state]
                await campaigns.change_state(tx, input.account_id, input.source_id, state, input.reason)
            else:
                found = await automations.read(tx, input.source_id, lock=True)
                if found and found.state in _MAY_BECOME[input.state]:
                    if input.state == "cancelled":
                        now = datetime.now(UTC)
                        await automations.cancel(tx, input.account_id, input.source_id, input.reason, now=now)
                    else:
                        await automations.move(tx, input.source_id, _AUTOMATION_STATES[input.state], input.reason)
            return SourceStanding(**asdict(await sources.standing(tx, input.kind, input.source_id)))


_CAMPAIGN_STATES = {
    "active": CampaignState.RUNNING,
    "paused": CampaignState.PAUSED,
    "cancelled": CampaignState.CANCELLED,
}
_AUTOMATION_STATES = {"active": AutomationState.ACTIVE, "paused": AutomationState.PAUSED}
_MAY_BECOME = {
    "active": {AutomationState.PAUSED},
    "paused": {AutomationState.ACTIVE},
    "cancelled": {AutomationState.ACTIVE, AutomationState.PAUSED},
}


T = TypeVar("T")


def _pages(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[first : first + size] for first in range(0, len(items), size))


def _word(standing: sources.Standing, input: TellInput, *, cancelled: bool) -> tuple[Any, ...]:
    """The signal to a cohort, and its argument."""
    if standing.state == "over":
        return "cancel", {"reason": standing.reason or "cancelled"}
    if cancelled:  # and the source was activated again since
        return "cancel", {"reason": "cancelled"}
    if input.migration is not None:
        return "migrate", input.migration
    return ("resume" if standing.state == "active" else "pause",)


def workflow_id(source: SourceRef) -> str:
    """As `workflows.journey_inputs.workflow_id`."""
    return f"{'campaign' if source.kind == 'drip' else 'automation'}-{source.source_id}"


def cohort_id(cohort: CohortRef) -> str:
    return f"{workflow_id(cohort)}/cohort-{cohort.cohort}"


def as_formed(cohort: Cohort, *, more: bool = False) -> Formed:
    return Formed(
        cohort=cohort.number,
        first=cohort.first,
        version=cohort.version,
        code=cohort.code,
        definition=None if cohort.code else cohort.definition,
        name=cohort.name,
        topic=cohort.topic,
        time_limit=cohort.definition.get("time_limit"),
        members=[
            Member(
                contact_id=each.contact_id,
                zone=each.zone,
                entered_at=each.entered_at,
                since=each.began_at if each.began_at < each.entered_at else None,
                trigger=_discreet(each.trigger) if cohort.code else {},
            )
            for each in cohort.members
        ],
        more=more,
    )


def _discreet(trigger: dict[str, Any]) -> dict[str, Any]:
    """What may go into a history of what a pass began with: numbers and answers, no words, and as many as fit."""
    few, size = {}, 0
    for name, value in trigger.items():
        if isinstance(value, int | float):
            size += len(to_json({name: value}))
            if size > MOST_OF_A_TRIGGER:
                break
            few[name] = value
    return few
