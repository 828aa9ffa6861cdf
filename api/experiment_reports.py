"""`/api/campaigns/ab-tests/{id}/results`, `/exposures`: what has an experiment brought, and who saw what?"""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel

from activities.experiments import Figures as Counted
from activities.experiments import analysed, decision_due, figures_of
from api.auth import Viewer
from api.errors import Conflict
from api.experiments import find
from api.paging import Cursor, Limit, Page, page_of
from database import campaigns, conversions, counters, experiments, exposures
from database.conversions import Sums
from database.engine import Connection
from marketing.assignment import HOLDOUT, REST
from marketing.campaigns import ENDED
from marketing.experiment_reports import (
    AllocationReport,
    ExperimentReport,
    VariantFigures,
    how_it_stands,
    incrementality,
    variant_figures,
)
from marketing.experiment_results import Caution, Metric, Results, VariantCounts
from marketing.experiments import Experiment
from marketing.reports import Figures, campaign_stats
from marketing.text import Printable

router = APIRouter(prefix="/api/campaigns/ab-tests", tags=["experiments"])


@router.get("/{experiment_id}/results")
async def results_of_experiment(experiment_id: UUID, caller: Viewer) -> ExperimentReport:
    """Everything there is to say: figures for each variant, what they show, and which of it may be believed when.

    `peeking_safe` is true of numbers that may be looked at again and again, at any moment, and acted on.
    """
    async with caller.transaction() as tx:
        campaign = await find(tx, experiment_id)
        standing = await experiments.read(tx, experiment_id)
        if standing is None:
            raise Conflict("This experiment has not been started, so there are no results. POST …/start does that.")
        experiment = (await campaigns.load_plan(tx, experiment_id)).experiment
        assert experiment is not None, "the launch has kept it"
        figures = await figures_of(tx, caller.account_id, experiment_id, experiment)
        counted = campaign_stats(await counters.read(tx, experiment_id)).per_variant
        converted = figures.converted if experiment.conversion else None
        paid = experiment.metric is Metric.REVENUE_PER_RECIPIENT
        currencies = await conversions.currencies(tx, experiment_id) if paid else []
        allocated = await experiments.all_allocations(tx, experiment_id)
        sides = await _sides(tx, experiment_id, experiment, figures)
    analysis = await asyncio.to_thread(analysed, experiment, figures, standing.decision, experiment_id)
    brought = await asyncio.to_thread(incrementality, *sides, experiment.confidence) if sides else None
    weights = None if experiment.is_bandit else experiment.weights

    def of(name: str, spelled: str | None = None) -> VariantFigures:
        share = weights[name] / sum(weights.values()) if weights and name in weights else None
        sums = converted.get(name, Sums()) if converted is not None else None
        return variant_figures(spelled or name, share, counted.get(spelled or name, Figures()), sums)

    decides_at = None if campaign.state in ENDED else decision_due(experiment, standing)
    return ExperimentReport(
        id=campaign.id,
        campaign_id=campaign.id,
        name=campaign.name,
        status=campaign.state,
        state=standing.state,
        winner=standing.winner,
        decided_by=standing.decided_by,
        reason=standing.reason,
        sentence=how_it_stands(
            *(standing.state, standing.winner, standing.decided_by, standing.reason, analysis),
            is_out=standing.test_sent_at is not None,
            decides_at=decides_at,
            status=campaign.state,
        ),
        test_sent_at=standing.test_sent_at,
        decides_at=decides_at,
        decided_at=standing.decided_at,
        metric=experiment.metric,
        conversion=experiment.conversion,
        variants=[of(name) for name in experiment.names],
        holdout=of(HOLDOUT) if experiment.holdout else None,
        rest=of(REST, "rest") if "rest" in counted else None,
        analysis=analysis,
        decision=Results.model_validate(standing.decision) if standing.decision else None,
        incrementality=brought,
        allocations=[AllocationReport.model_validate(each, from_attributes=True) for each in allocated],
        warnings=_cautions(experiment, currencies),
    )


Sides = tuple[VariantCounts, VariantCounts, Metric]


async def _sides(tx: Connection, experiment_id: UUID, experiment: Experiment, counted: Counted) -> Sides | None:
    """Who got something and who was held out, if conversions say what that brought."""
    if not experiment.holdout or not experiment.conversion:
        return None
    paid = experiment.metric is Metric.REVENUE_PER_RECIPIENT
    metric = experiment.metric if paid else Metric.CONVERSION_RATE
    treated, held_out = await experiments.treated_and_held(
        tx, experiment_id, experiment.names, metric, counted.compared, is_bandit=experiment.is_bandit
    )
    return treated, held_out, metric


def _cautions(experiment: Experiment, currencies: Sequence[str]) -> list[Caution]:
    return [*_of_the_holdout(experiment), *_of_different_times(experiment), *_of_currencies(currencies)]


def _of_the_holdout(experiment: Experiment) -> list[Caution]:
    if not experiment.holdout or experiment.conversion:
        return []
    message = "Some are held out, but no event is a conversion, so there is nothing to tell what sending brings by."
    return [Caution(code="nothing_to_compare", message=message)]


def _of_different_times(experiment: Experiment) -> list[Caution]:
    if experiment.leaves_at_once:
        return []
    message = (
        "The variants leave at different times, so each message counts for as long as the last one has been out, and "
        "nothing is compared before that. The figures of each variant are of all the time."
    )
    return [Caution(code="different_times", message=message)]


def _of_currencies(currencies: Sequence[str]) -> list[Caution]:
    if len(currencies) < 2:
        return []
    message = (
        f"Revenue was counted in {', '.join(currencies)}, and amounts of several currencies are added up as they are. "
        "Give the conversion a `currency` next time."
    )
    return [Caution(code="several_currencies", message=message)]


@router.get("/{experiment_id}/analytics")
async def analytics_of_experiment(experiment_id: UUID, caller: Viewer) -> ExperimentReport:
    """The same as `/results`."""
    return await results_of_experiment(experiment_id, caller)


class ExposureAnswer(BaseModel):
    """Who saw which variant, and when; of the holdout, since when they have been kept back."""

    contact_id: UUID
    variant: str
    exposed_at: datetime


@router.get("/{experiment_id}/exposures")
async def exposures_of_experiment(
    experiment_id: UUID,
    caller: Viewer,
    variant: Printable | None = None,
    contact_id: UUID | None = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[ExposureAnswer]:
    """Who takes part and saw which variant, or is held out (`holdout`), in the order of contacts."""
    async with caller.transaction() as tx:
        await find(tx, experiment_id)
        found = await exposures.page(
            tx, experiment_id, variant=variant, contact_id=contact_id, after=cursor, limit=limit + 1
        )
    answers = [ExposureAnswer(**vars(each)) for each in found]
    return page_of(answers, limit, lambda each: each.contact_id)
