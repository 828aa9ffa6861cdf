"""An experiment from its launch to the last message with the winner."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ApplicationError

with workflow.unsafe.imports_passed_through():
    from activities.experiment_inputs import AllocateInput, AtMoment, ChooseInput, ExperimentStanding, StopInput
    from activities.experiments import Experiments
    from activities.inputs import CampaignKind, CampaignRef, Totals
    from workflows.campaigns import CampaignWorkflow
    from workflows.inputs import CampaignInput, ChooseWinner, Command, Progress
    from workflows.options import DECIDING, QUICK


def run_of(kind: CampaignKind) -> Callable[..., Any]:
    """What carries out a campaign of this kind."""
    return ExperimentWorkflow.run if kind == "experiment" else CampaignWorkflow.run


@workflow.defn
class ExperimentWorkflow(CampaignWorkflow):
    """Sends the variants to those who take part, waits for a winner, and sends that to the rest.

    How far it has come is on record alone: a run that continues another one, whoever started it, looks there.
    """

    @workflow.init
    def __init__(self, input: CampaignInput) -> None:
        super().__init__(input)
        self.standing: ExperimentStanding | None = None
        self.deciding = asyncio.Lock()  # no older answer after a newer one
        self.fenced = False  # the rest was still waiting when this run last looked
        self.looked_at: datetime | None = None  # by this run
        self.allocated: set[int] = set()
        self.begun = 0  # how often a shard of the test was
        self.begun_when_asked = -1  # whether the test is out

    @workflow.run
    async def run(self, input: CampaignInput) -> Totals:
        if input.progress:
            await self.read_standing()
            await self.look_for_more()
        return await self.carry_out(input)

    @property
    def undecided(self) -> bool:
        return self.standing is not None and self.standing.state in ("testing", "asking")

    @property
    def stopped(self) -> bool:
        return self.standing is not None and self.standing.state == "stopped"

    @property
    def ending(self) -> bool:
        return super().ending or self.stopped

    @property
    def expects_more(self) -> bool:
        return self.undecided

    @property
    def fence(self) -> int | None:
        return self.standing.rest_shard if self.standing and self.undecided else None

    # -- the plan it carries out -------------------------------------------------------------------------------------

    async def begin(self) -> bool:
        if not await super().begin():
            return False
        standing = await self.read_standing()
        test = [wave for wave in self.waves if wave.first < standing.rest_shard]
        self.waves = [wave.model_copy(update={"last": min(wave.last, standing.rest_shard - 1)}) for wave in test]
        if not self.waves:  # it was frozen by an attempt whose answer was lost
            await self.look_for_more()
        return True

    async def read_standing(self) -> ExperimentStanding:
        self.standing = await workflow.execute_activity_method(
            Experiments.read_experiment, CampaignRef(**self.ids), summary="read how the experiment stands", **QUICK
        )
        return self.standing

    async def prepare(self, shard: int) -> None:
        """A bandit shares out each shard by what is known just before."""
        assert self.standing, "no shard starts before it was read"
        if shard >= self.standing.rest_shard:
            return
        self.begun += 1
        if self.standing.is_bandit and shard not in self.allocated:
            await workflow.execute_activity_method(
                Experiments.allocate_shard,
                AllocateInput(**self.ids, shard=shard, now=workflow.now()),
                summary=f"share out shard {shard}",
                priority=self.priority,
                **DECIDING,
            )
            self.allocated.add(shard)

    async def advance(self) -> None:
        """See when the test is out, also if it is decided before that, and look at the figures as often as is due."""
        if self.ending or self.standing is None:
            return
        self.fenced |= self.undecided
        if self.standing.test_sent_at is None and self.has_tried_all() and self.begun != self.begun_when_asked:
            self.begun_when_asked = self.begun
            await self.ask(Experiments.mark_test_sent, "see whether the test is out")
        if (look := self.next_look()) and look <= workflow.now():
            self.looked_at = workflow.now()
            await self.ask(Experiments.decide_winner, "look at the figures")
        if self.fenced and not self.undecided:
            self.fenced = False
            await self.look_for_more()

    async def look_for_more(self) -> bool:
        """A bandit's batches that had to wait leave as soon as there is a winner: the ledger says when."""
        if self.standing and self.standing.is_bandit and not self.undecided:
            self.waves = []
        return await super().look_for_more()

    async def ask(self, activity: Callable[[Experiments, AtMoment], Awaitable[ExperimentStanding]], why: str) -> None:
        async with self.deciding:
            self.standing = await workflow.execute_activity_method(
                activity, AtMoment(**self.ids, now=workflow.now()), summary=why, **DECIDING
            )

    def has_tried_all(self) -> bool:
        """All that is due of the test."""
        assert self.standing, "nothing was tried before it was read"
        rest = self.standing.rest_shard
        due = [wave.due for wave in self.waves if wave.first < rest]
        due += [each.due for each in self.waiting if each.shard < rest]
        return all(shard >= rest for shard in self.under_way) and all(moment > workflow.now() for moment in due)

    def next_look(self) -> datetime | None:
        """When to look at the figures next; None while only people can change anything."""
        standing = self.standing
        if standing is None or standing.state != "testing" or standing.decides_at is None or self.ending:
            return None
        since = self.looked_at or standing.test_sent_at
        if standing.looks_every is None or since is None:
            return standing.decides_at
        return min(since + standing.looks_every, standing.decides_at)

    def time_to_next(self) -> timedelta | None:
        to_shard, look = super().time_to_next(), self.next_look()
        if look is None:
            return to_shard
        to_look = max(look - workflow.now(), timedelta(0))
        return to_look if to_shard is None else min(to_look, to_shard)

    async def finish(self, state: str, reason: str = "") -> Totals:
        if self.stopped and state == "completed":
            assert self.standing
            await self.skip_rest("stopped")
            reason = self.standing.reason
        return await super().finish(state, reason)

    # -- what people ask of it ---------------------------------------------------------------------------------------

    @workflow.update
    async def choose_winner(self, choice: ChooseWinner, /) -> Progress:
        """Answers when the choice holds; the rest gets it from now on, or once the campaign is resumed."""
        await workflow.wait_condition(lambda: self.standing is not None)
        await self.settle(Experiments.choose_winner, ChooseInput(**self.ids, now=workflow.now(), **choice.model_dump()))
        return self.progress()

    @workflow.update
    async def stop(self, command: Command, /) -> Progress:
        """Answers when nothing more is sent; what was not sent is skipped after that, and the campaign completed."""
        await workflow.wait_condition(lambda: self.standing is not None)
        await self.settle(Experiments.stop_experiment, StopInput(**self.ids, reason=command.reason))
        return self.progress()

    @choose_winner.validator
    def check_undecided(self, _: ChooseWinner, /) -> None:
        self.check_begun(Command())
        if self.standing and self.standing.state == "decided":
            raise ApplicationError("This experiment is decided already.", type="Ended")

    @stop.validator
    def check_begun(self, command: Command, /) -> None:
        self.check_open(command)
        if self.standing is None and self.input.progress is None:
            raise ApplicationError("This experiment has not begun yet.", type="NotBegun")
        if self.stopped:
            raise ApplicationError("This experiment was stopped already.", type="Ended")

    async def settle(
        self, activity: Callable[[Experiments, Any], Awaitable[ExperimentStanding]], input: ChooseInput | StopInput
    ) -> None:
        """Have the record say what a person wants, unless somebody was faster."""
        async with self.deciding:
            self.standing = await workflow.execute_activity_method(
                activity, input, summary=activity.__name__.replace("_", " "), **DECIDING
            )
        self.news = True
        if not self.standing.changed:
            raise ApplicationError(f"This experiment is {self.standing.state} already.", type="Ended")

    @workflow.query
    def progress(self) -> Progress:
        return super().progress().model_copy(update={"experiment": self.standing})

    def details(self) -> str:
        if self.standing is None:
            return ""
        standing = self.standing
        by = f", until {standing.decides_at:%Y-%m-%d %H:%M} UTC" if self.next_look() and standing.decides_at else ""
        return f"\n\nThe test: **{standing.state}**{by}\n\n{standing.reason}".rstrip()
