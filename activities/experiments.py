"""What an experiment's workflow does besides sending: count, decide, ask, and share out a bandit's shards."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from uuid import UUID

from temporalio import activity

from activities.campaigns import read_totals
from activities.experiment_inputs import AllocateInput, AtMoment, ChooseInput, ExperimentStanding, StopInput
from activities.heartbeats import beating
from activities.inputs import CampaignRef
from activities.outward import Tell, nobody
from database import accounts, campaigns, conversions, experiments, notifications, planning
from database.conversions import Sums
from database.engine import Connection, Database
from database.experiments import Allocation, Standing
from marketing.experiment_analysis import analyse
from marketing.experiment_bandits import allocation
from marketing.experiment_decisions import Verdict, best_so_far, verdict
from marketing.experiment_results import Metric, Results, VariantCounts
from marketing.experiment_revenue import MOST_VALUES
from marketing.experiments import REST_SHARD, Experiment, WhenSignificant, experiment_key
from marketing.keyed import keyed_id
from marketing.notifications import Notification, NotificationKind
from marketing.spans import ahead

_LOOKS = 200  # at the most, while figures are looked at all the time
_MOST_OFTEN = timedelta(minutes=1)


@dataclass
class Experiments:
    """
    Args:
        tell: has an account's notifications sent by e-mail, soon.
    """

    database: Database
    tell: Tell = nobody

    @activity.defn
    async def read_experiment(self, input: CampaignRef) -> ExperimentStanding:
        async with self.database.transaction(input.account_id) as tx:
            return await self._standing(tx, input)

    @activity.defn
    async def mark_test_sent(self, input: AtMoment) -> ExperimentStanding:
        """If the test is out, its results are waited for from now on. Without anybody to test with, or where a person
        would decide for nobody, it ends."""
        async with beating(), self.database.transaction(input.account_id) as tx:
            if not (await read_totals(tx, input.campaign_id)).planned:
                await experiments.stop(tx, input.account_id, input.campaign_id, reason="Nobody is in the audience.")
            elif await experiments.is_out(tx, input.campaign_id):
                await experiments.mark_sent(tx, input.account_id, input.campaign_id, input.now)
                by_hand = (await self._experiment(tx, input.campaign_id)).decide == "manual"
                if by_hand and not await experiments.waits(tx, input.campaign_id):
                    reason = "Nobody waits for a winner, so nobody has to choose one."
                    await experiments.conclude(tx, input.account_id, input.campaign_id, reason, input.now)
            return await self._standing(tx, input)

    @activity.defn
    async def decide_winner(self, input: AtMoment) -> ExperimentStanding:
        """Look at the figures. If they may be believed, or it is time, say who has won, or ask the account's people."""
        async with beating():
            experiment, before, figures = await self._look(input)
            results = await asyncio.to_thread(analysed, experiment, figures, before.decision, input.campaign_id)
            async with self.database.transaction(input.account_id) as tx:
                if (await self._read(tx, input.campaign_id, lock=True)).state == "testing":
                    due = (moment := decision_due(experiment, before)) is not None and moment <= input.now
                    found = verdict(
                        results,
                        when_significant=_looks_often(experiment),
                        fallback=experiment.fallback,
                        due=due,
                    )
                    await self._settle(tx, input, experiment, results, found)
                standing = await self._standing(tx, input)
            if standing.state in ("decided", "asking"):
                await self.tell(input.account_id)
        return standing

    async def _settle(
        self, tx: Connection, input: AtMoment, experiment: Experiment, results: Results, found: Verdict | None
    ) -> None:
        kept = results.model_dump(mode="json")
        if found is None:
            await experiments.keep_look(tx, input.campaign_id, kept)
        elif found.winner is not None:
            await self._decide(tx, input, experiment, found, results)
            await _note(tx, input, NotificationKind.DECIDED, f"The winner is “{found.winner}”. {found.reason}")
        elif await experiments.waits(tx, input.campaign_id):
            await self._decide(tx, input, experiment, found, results)
            await _note(tx, input, NotificationKind.ASKED, found.reason)
        else:
            reason = f"No winner can be believed, and nobody waits for one. {results.sentence}"
            await experiments.conclude(tx, input.account_id, input.campaign_id, reason, input.now, decision=kept)
            await _note(tx, input, NotificationKind.DECIDED, reason)

    @activity.defn
    async def choose_winner(self, input: ChooseInput) -> ExperimentStanding:
        """A person says who has won; the figures of this moment are kept with it."""
        async with beating():
            experiment, before, figures = await self._look(input)
            results = await asyncio.to_thread(analysed, experiment, figures, before.decision, input.campaign_id)
            winner = best_so_far(results) if input.variant is None else experiment.names[input.variant]
            chosen = Verdict(winner, "person", input.reason or f"A person chose “{winner}”. {results.sentence}")
            async with self.database.transaction(input.account_id) as tx:
                changed = await self._decide(tx, input, experiment, chosen, results)
                return await self._standing(tx, input, changed=changed)

    async def _decide(
        self, tx: Connection, input: AtMoment, experiment: Experiment, said: Verdict, results: Results
    ) -> bool:
        """The rest leaves at once, or at the local time that the winner has tried; of a bandit also what is left of the
        test."""
        kept = results.model_dump(mode="json")
        changed = await experiments.decide(tx, input.account_id, input.campaign_id, said, kept, input.now)
        schedule = next((each.schedule for each in experiment.variants if each.name == said.winner), None)
        if changed and said.winner and experiment.is_bandit:
            await planning.join_rest(tx, input.campaign_id, now=input.now)
        if changed and schedule:
            zone = (await accounts.read(tx, input.account_id)).default_timezone
            await planning.put_off_rest(tx, input.campaign_id, schedule, now=input.now, default_timezone=zone)
        return changed

    @activity.defn
    async def stop_experiment(self, input: StopInput) -> ExperimentStanding:
        """Nothing of it leaves any more."""
        async with beating(), self.database.transaction(input.account_id) as tx:
            reason = input.reason or "The experiment was stopped."
            changed = await experiments.stop(tx, input.account_id, input.campaign_id, reason=reason)
            return await self._standing(tx, input, changed=changed)

    @activity.defn
    async def allocate_shard(self, input: AllocateInput) -> None:
        """Share out one shard of a bandit by what is known now; once there is a winner, it belongs to the rest."""
        async with beating():
            experiment, _, figures = await self._look(input)
            seed = _seed(input.campaign_id, input.shard)
            wanted = Allocation(
                shard=input.shard,
                weights=await asyncio.to_thread(allocation, figures.counts, experiment.metric, seed),
                seen={
                    each.name: {"recipients": each.recipients, "successes": each.successes} for each in figures.counts
                },
                seed=seed,
                allocated_at=input.now,
            )
            async with self.database.transaction(input.account_id) as tx:
                if (await self._read(tx, input.campaign_id, lock=True)).winner is None:
                    key = experiment_key(input.campaign_id)
                    await experiments.allocate(tx, input.account_id, input.campaign_id, wanted, key=key)

    # -- the record --------------------------------------------------------------------------------------------------

    async def _look(self, input: CampaignRef) -> "tuple[Experiment, Standing, Figures]":
        async with self.database.transaction(input.account_id) as tx:
            experiment = await self._experiment(tx, input.campaign_id)
            standing = await self._read(tx, input.campaign_id)
            return experiment, standing, await figures_of(tx, input.account_id, input.campaign_id, experiment)

    async def _standing(self, tx: Connection, input: CampaignRef, *, changed: bool = False) -> ExperimentStanding:
        experiment, standing = await self._experiment(tx, input.campaign_id), await self._read(tx, input.campaign_id)
        return ExperimentStanding(
            account_id=input.account_id,
            campaign_id=input.campaign_id,
            state=standing.state,
            reason=standing.reason,
            winner=None if standing.winner is None else experiment.names.index(standing.winner),
            rest_shard=REST_SHARD if standing.rest_shard is None else standing.rest_shard,
            is_bandit=experiment.is_bandit,
            test_sent_at=standing.test_sent_at,
            decides_at=decision_due(experiment, standing),
            looks_every=_looks_every(experiment, standing),
            changed=changed,
        )

    async def _experiment(self, tx: Connection, campaign_id: UUID) -> Experiment:
        experiment = (await campaigns.load_plan(tx, campaign_id)).experiment
        assert experiment is not None, "only experiments have such a workflow"
        return experiment

    async def _read(self, tx: Connection, campaign_id: UUID, *, lock: bool = False) -> Standing:
        standing = await experiments.read(tx, campaign_id, lock=lock)
        assert standing is not None, "the launch has made it"
        return standing


async def _note(tx: Connection, input: AtMoment, kind: NotificationKind, told: str) -> None:
    note = Notification(
        id=keyed_id(input.now, input.campaign_id, kind),
        kind=kind,
        source_id=input.campaign_id,
        text=told,
        created_at=input.now,
        emailed_at=None,
    )
    await notifications.add(tx, input.account_id, [note])


# -- what was counted, and what it shows -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Figures:
    """What an analysis is made of.

    Args:
        converted: what conversions add up to, also those of the holdout and, as '', of the rest.
        compared: those that are compared: the same; where variants leave at different times, what came in the same
            time after each message; of a bandit without those held out of batches that were not shared out.
        payments: of revenue, what each recipient paid, by variant; None of other metrics, if they are too many, or
            where variants leave at different times.
    """

    counts: Sequence[VariantCounts]
    converted: Mapping[str, Sums]
    compared: Mapping[str, Sums]
    payments: Mapping[str, Sequence[float]] | None = None


async def figures_of(tx: Connection, account_id: UUID, campaign_id: UUID, experiment: Experiment) -> Figures:
    """As they stand now, the latest conversions among them."""
    if experiment.conversion:
        await conversions.fold(tx, account_id, campaign_id, experiment.conversion)
    converted = compared = await conversions.sums(tx, campaign_id)
    if experiment.is_bandit and experiment.holdout:
        compared = await conversions.sums(tx, campaign_id, shared_out=True)
    reach = None if experiment.leaves_at_once else await experiments.time_for_all(tx, campaign_id)
    if experiment.conversion and reach is not None:
        compared = await conversions.sums_within(tx, campaign_id, experiment.conversion, reach)
    counts = await experiments.counted(tx, campaign_id, experiment.names, experiment.metric, compared, reach)
    paid = sum(each.successes for each in counts) if experiment.metric is Metric.REVENUE_PER_RECIPIENT else 0
    few = 0 < paid <= MOST_VALUES and reach is None  # else nobody resamples them
    return Figures(counts, converted, compared, await conversions.payments(tx, campaign_id) if few else None)


def analysed(
    experiment: Experiment, figures: Figures, last_look: Mapping[str, object] | None, campaign_id: UUID
) -> Results:
    """Up to a second: not on an event loop."""
    return analyse(
        figures.counts,
        experiment.metric,
        confidence=experiment.confidence,
        control=experiment.control_name,
        minimum_sample=experiment.minimum_sample,
        weights=experiment.weights,
        adaptive=experiment.is_bandit,
        payments=figures.payments,
        seed=_seed(campaign_id, -1),
        earlier=Results.model_validate(last_look) if last_look else None,
    )


def _seed(campaign_id: UUID, shard: int) -> int:
    """Chance that is the same whenever the same is asked."""
    return int.from_bytes(sha256(f"{experiment_key(campaign_id)}:{shard}".encode()).digest()[:7])


# -- when ------------------------------------------------------------------------------------------------------------


def decision_due(experiment: Experiment, standing: Standing) -> datetime | None:
    """When figures are looked at last; None: a person decides, the test is not out yet, or it is over."""
    if standing.state != "testing" or experiment.window is None:
        return None
    if standing.test_sent_at is None or standing.test_began_at is None:
        return None
    if experiment.is_bandit:  # whose shards were spread over that time
        return max(standing.test_sent_at, ahead(standing.test_began_at, experiment.window))
    return ahead(standing.test_sent_at, experiment.window)


def _looks_often(experiment: Experiment) -> bool:
    """Whether figures are looked at all the time."""
    return isinstance(experiment.decide, WhenSignificant) and not experiment.is_bandit


def _looks_every(experiment: Experiment, standing: Standing) -> timedelta | None:
    """How often figures are looked at before that; None: not at all."""
    decides_at = decision_due(experiment, standing)
    if not _looks_often(experiment) or decides_at is None or standing.test_sent_at is None:
        return None
    return max(_MOST_OFTEN, (decides_at - standing.test_sent_at) / _LOOKS)
