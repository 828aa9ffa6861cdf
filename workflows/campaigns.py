"""A campaign from its launch to its last message."""

import asyncio
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from temporalio import workflow
from temporalio.common import Priority, SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.exceptions import ActivityError, ApplicationError

with workflow.unsafe.imports_passed_through():
    from activities.campaigns import Campaigns
    from activities.deliveries import Deliveries
    from activities.inputs import (
        CampaignRef,
        Delivered,
        DeliverInput,
        FreezeInput,
        OpenShardsInput,
        ShardDue,
        SkipRestInput,
        StateChange,
        Totals,
        WaveOfShards,
    )
    from workflows.inputs import CampaignInput, CampaignProgressState, Command, Progress
    from workflows.options import CRUNCHING, PRIORITY_BROADCAST, QUICK, SENDING, StartOptions

STATE = SearchAttributeKey.for_keyword("State")
LONGEST_BACKOFF = timedelta(minutes=5)


def campaign_workflow_id(campaign_id: UUID) -> str:
    return f"campaign-{campaign_id}"


def start_options(input: CampaignInput, state: str) -> StartOptions:
    """How a campaign's workflow is started, whoever starts it: the API or the sweep."""
    return {
        "id": campaign_workflow_id(input.campaign_id),
        "search_attributes": search_attributes(input, state),
        "priority": Priority(priority_key=PRIORITY_BROADCAST, fairness_key=str(input.account_id)),
        "static_summary": input.name,
    }


def search_attributes(input: CampaignInput, state: str) -> TypedSearchAttributes:
    """What operators find the campaign by."""
    return TypedSearchAttributes(
        [
            SearchAttributePair(SearchAttributeKey.for_keyword("AccountId"), str(input.account_id)),
            SearchAttributePair(SearchAttributeKey.for_keyword("CampaignId"), str(input.campaign_id)),
            SearchAttributePair(SearchAttributeKey.for_keyword("Kind"), input.kind),
            SearchAttributePair(STATE, state),
        ]
    )


@workflow.defn
class CampaignWorkflow:
    """Freezes the audience, then keeps a sliding window of `deliver` activities over its shards."""

    @workflow.init
    def __init__(self, input: CampaignInput) -> None:
        self.input = input
        self.ids = {"account_id": input.account_id, "campaign_id": input.campaign_id}
        self.priority = Priority(priority_key=PRIORITY_BROADCAST, fairness_key=str(input.account_id))
        before = input.progress or CampaignProgressState(
            totals=Totals(), waves=[], waiting=[], state="scheduled" if input.starts_at else "running"
        )
        self.totals = before.totals
        self.waves = before.waves
        self.waiting = before.waiting
        self.state = before.state
        self.reason = before.reason
        self.under_way: dict[int, asyncio.Task[None]] = {}
        self.control = asyncio.Lock()  # one change of state at a time
        self.backoff = timedelta(0)
        self.not_before: datetime | None = None  # the provider could not be reached: no shard starts before
        self.failure: ActivityError | None = None
        self.news = False  # something happened that the main loop should look at
        self.put_back = False  # the ledger has more to do than we know of

    @property
    def paused(self) -> bool:
        return self.state == "paused"

    @property
    def cancelled(self) -> bool:
        return self.state == "cancelled"

    @property
    def ending(self) -> bool:
        """No shard starts any more."""
        return self.cancelled

    @workflow.run
    async def run(self, input: CampaignInput) -> Totals:
        return await self.carry_out(input)

    async def carry_out(self, input: CampaignInput) -> Totals:
        """The whole plan, from wherever it stands."""
        try:
            if input.progress is None and not await self.begin():
                return await self.finish("cancelled")
            while True:
                await self.deliver_all()
                totals = await self.finish("cancelled" if self.cancelled else "completed")
                if not self.put_back:
                    return totals
        except ActivityError as error:
            await self.finish("failed", str(error.cause))
            raise

    # -- the plan it carries out -------------------------------------------------------------------------------------

    async def begin(self) -> bool:
        """Wait for the scheduled moment and freeze the audience; False if cancelled before."""
        while self.input.starts_at and self.input.starts_at > workflow.now() and not self.cancelled:
            self.tell()
            await self.until(self.input.starts_at - workflow.now(), "wait for the scheduled time")
        await self.follow_database()
        if self.state == "scheduled":
            await self.set_state("running")
        if self.cancelled:
            return False
        frozen = await workflow.execute_activity_method(
            Campaigns.freeze_audience,
            FreezeInput(**self.ids, now=workflow.now(), shard_size=self.input.shard_size),
            summary="freeze the audience",
            priority=self.priority,
            **CRUNCHING,
        )
        self.totals = Totals(planned=frozen.planned)
        self.waves = frozen.waves
        return True

    async def deliver_all(self) -> None:
        """Until nothing is left: start what is due, as far as the window allows, and wait for news."""
        while True:
            if self.put_back:
                self.put_back = False
                self.totals = Totals()  # more is pending than before: no earlier reading counts any more
                await self.follow_database()
                await self.look_for_more()
            await self.advance()
            self.start_due_shards()
            self.tell()
            if not self.under_way:
                if self.failure:
                    raise self.failure
                if self.ending or not (self.waves or self.waiting or self.expects_more or await self.look_for_more()):
                    return
            if workflow.info().get_current_history_length() > self.input.most_events:
                await self.continue_as_new()
            await self.until(self.time_to_next(), "wait for the next shard to fall due")

    async def advance(self) -> None:
        """For campaigns with more to do than sending."""

    async def prepare(self, shard: int) -> None:
        """For campaigns that have something to do before a shard."""

    @property
    def expects_more(self) -> bool:
        """Is there something to come that the ledger does not know of?"""
        return False

    @property
    def fence(self) -> int | None:
        """The first of the shards that may not start yet; None: all may."""
        return None

    async def look_for_more(self) -> bool:
        """The ledger has the last word on whether anything is left."""
        open_shards = await workflow.execute_activity_method(
            Campaigns.open_shards,
            OpenShardsInput(**self.ids, below=self.fence),
            summary="look whether anything is left",
            **QUICK,
        )
        self.totals = self.totals.or_newer(open_shards.totals)
        self.waiting = [each for each in open_shards.shards if not self.knows(each.shard)]
        return bool(self.waiting)

    def knows(self, shard: int) -> bool:
        """Is it under way, or waiting to begin?"""
        return shard in self.under_way or any(wave.first <= shard <= wave.last for wave in self.waves)

    def start_due_shards(self) -> None:
        while len(self.under_way) < self.input.window and not (self.paused or self.ending or self.failure):
            shard = self.next_shard()
            if shard is None:
                return
            self.under_way[shard] = asyncio.create_task(self.deliver(shard))

    def next_shard(self) -> int | None:
        """The shard that has been due longest, taken off the list."""
        now = workflow.now()
        if self.not_before and self.not_before > now:
            return None
        begun = min(self.waiting, key=lambda each: each.due, default=None)
        fresh = min(self.waves, key=lambda each: (each.due, each.first), default=None)
        if fresh and fresh.due <= now and (begun is None or fresh.due <= begun.due):
            self.waves.remove(fresh)
            if fresh.first < fresh.last:
                self.waves.append(WaveOfShards(due=fresh.due, first=fresh.first + 1, last=fresh.last))
            return fresh.first
        if begun and begun.due <= now:
            self.waiting.remove(begun)
            return begun.shard
        return None

    def time_to_next(self) -> timedelta | None:
        """How long until a shard that is not under way may start; None if only news can change anything."""
        moments = [begun.due for begun in self.waiting] + [fresh.due for fresh in self.waves]
        if not moments or self.paused or self.ending or self.failure or len(self.under_way) >= self.input.window:
            return None
        return max(min(moments), self.not_before or min(moments)) - workflow.now()

    async def deliver(self, shard: int) -> None:
        """One shard, as far as it gets."""
        began = workflow.now()
        try:
            await self.prepare(shard)
            result = await workflow.execute_activity_method(
                Deliveries.deliver,
                DeliverInput(**self.ids, shard=shard, now=workflow.now()),
                summary=f"deliver shard {shard}",
                priority=self.priority,
                **SENDING,
            )
            if result.stopped:
                await self.follow_database()
            self.take(shard, result, began)  # no await from here to the end: a shard is either under way or waiting
        except ActivityError as error:  # one that no retry can help
            self.failure = error
        finally:
            del self.under_way[shard]
            self.news = True

    def take(self, shard: int, result: Delivered, began: datetime) -> None:
        """Take the figures from a shard, and remember what it left."""
        self.totals = self.totals.or_newer(result.totals)
        if result.next_due:
            self.waiting.append(ShardDue(shard=shard, due=result.next_due))
        if result.unavailable:
            if self.not_before and began < self.not_before and workflow.patched("one-backoff-for-all-shards"):
                return  # the same absence, told by another shard
            self.backoff = min(max(self.backoff * 2, timedelta(seconds=5)), LONGEST_BACKOFF)
            self.not_before = workflow.now() + self.backoff
        else:
            self.backoff, self.not_before = timedelta(0), None

    async def finish(self, state: str, reason: str = "") -> Totals:
        """Close the books."""
        if state == "cancelled":
            await self.skip_rest()
        self.reason = reason or self.reason
        await self.set_state(state, self.reason, final=True)
        await workflow.wait_condition(workflow.all_handlers_finished)
        self.tell()
        return self.totals

    async def skip_rest(self, reason: Literal["cancelled", "stopped"] = "cancelled") -> None:
        """Until nothing of a campaign that was ended is open: what a lost worker had in hand is settled last."""
        while True:
            rest = await workflow.execute_activity_method(
                Campaigns.skip_rest,
                SkipRestInput(**self.ids, now=workflow.now(), reason=reason),
                summary="skip what was not sent",
                **CRUNCHING,
            )
            self.totals = rest.totals
            if rest.wait_seconds is None:
                return
            await workflow.sleep(rest.wait_seconds, summary="wait for the lease of a lost worker to end")

    async def continue_as_new(self) -> None:
        """Hand over to a fresh run, with nothing under way."""
        await workflow.wait_condition(lambda: not self.under_way)
        await workflow.wait_condition(workflow.all_handlers_finished)
        if self.failure:
            raise self.failure
        progress = CampaignProgressState(
            totals=self.totals,
            waves=self.waves,
            waiting=self.waiting,
            state=self.state,
            reason=self.reason,
        )
        workflow.continue_as_new(self.input.model_copy(update={"progress": progress}))

    async def until(self, wait: timedelta | None, why: str) -> None:
        """Sleep until there is news, or for `wait`."""
        with suppress(TimeoutError):
            await workflow.wait_condition(lambda: self.news, timeout=wait, timeout_summary=why)
        self.news = False

    # -- what people ask of it ---------------------------------------------------------------------------------------

    @workflow.update
    async def pause(self, command: Command, /) -> Progress:
        """Answers when the pause holds: at most what is in flight still leaves."""
        await self.set_state("paused", command.reason)
        return self.progress()

    @workflow.update
    async def resume(self, command: Command, /) -> Progress:
        """Answers when the campaign is running again."""
        await self.set_state("running", command.reason)
        return self.progress()

    @workflow.update
    async def cancel(self, command: Command, /) -> Progress:
        """Answers when the cancellation holds; what was not sent is skipped after that."""
        await self.set_state("cancelled", command.reason)
        return self.progress()

    @pause.validator
    @resume.validator
    @cancel.validator
    def check_open(self, _: Command, /) -> None:
        if self.state in ("completed", "failed", "cancelled"):
            raise ApplicationError(f"This campaign is {self.state} already.", type="Ended")

    @workflow.signal
    async def follow(self) -> None:
        """Somebody changed the campaign's state in the database: look."""
        await self.follow_database()

    @workflow.signal
    def look_again(self) -> None:
        """Messages were put back into the ledger."""
        self.put_back = self.news = True

    @workflow.query
    def progress(self) -> Progress:
        return Progress(
            state=self.state,
            reason=self.reason,
            totals=self.totals,
            pending=self.totals.pending,
            shards_under_way=len(self.under_way),
        )

    # -- the state, which the database has the last word on ----------------------------------------------------------

    async def set_state(self, state: str, reason: str = "", *, final: bool = False) -> bool:
        """Ask for a state; True if the campaign has it now."""
        async with self.control:
            answer = await workflow.execute_activity_method(
                Campaigns.change_state,
                StateChange(**self.ids, state=state, reason=reason, final=final),
                summary=f"set state {state}",
                **QUICK,
            )
            self.accept(answer.state, answer.reason)
        return answer.state == state

    async def follow_database(self) -> None:
        async with self.control:
            answer = await workflow.execute_activity_method(
                Campaigns.read_state, CampaignRef(**self.ids), summary="read the state", **QUICK
            )
            self.accept(answer.state, answer.reason)

    def accept(self, state: str, reason: str) -> None:
        if state != self.state:
            workflow.upsert_search_attributes([STATE.value_set(state)])
        self.state, self.reason = state, reason
        self.news = True

    def tell(self) -> None:
        """Write the operators' page."""
        total = self.totals
        because = f"\n\n{self.reason}" if self.reason else ""
        workflow.set_current_details(
            f"**{self.state}**{because}\n\n"
            f"- planned: **{total.planned:,}**\n- pending: **{total.pending:,}**\n- sent: **{total.sent:,}**\n"
            f"- skipped: **{total.skipped:,}**\n- failed: **{total.failed:,}**\n"
            f"- uncertain: **{total.uncertain:,}**\n\n"
            f"{len(self.under_way)} shards under way{self.details()}"
        )

    def details(self) -> str:
        """What operators see besides, in Markdown."""
        return ""
