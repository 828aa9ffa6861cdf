"""`/api/experiments/plan`: how many recipients does an experiment need, and how many days are they?"""

from datetime import UTC, datetime

from fastapi import APIRouter
from pydantic import ConfigDict, Field

from api.auth import Viewer
from database import counters
from marketing.experiment_plans import Plan, SampleSizes, sizes

router = APIRouter(prefix="/api/experiments", tags=["experiments"])


class ExperimentPlan(Plan):
    """From a rate of `baseline`, a difference of `minimum_detectable_effect` or more is to be found; 0.02 is 2 points.

    It is found in a share `power` of experiments, and one is seen where there is none in 1 − `confidence` of them.
    """

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {"baseline": 0.10, "minimum_detectable_effect": 0.02, "power": 0.8, "confidence": 0.95}
        },
    )

    recipients_per_day: float | None = Field(
        None,
        gt=0,
        le=1e12,
        allow_inf_nan=False,
        strict=True,
        description="Left out: what the account has sent on average in the last 28 days.",
    )


class Planned(SampleSizes):
    """What it takes. With one look at the end, the first two; whoever looks at any time and stops when it is
    significant needs `…_at_any_time` at most, and fewer where the difference is larger."""

    recipients_per_day: float | None = Field(description="By which days are reckoned; null: nothing was sent lately.")
    sentence: str


@router.post("/plan")
async def plan_experiment(plan: ExperimentPlan, caller: Viewer) -> Planned:
    """How many recipients each variant needs, and how many days that takes at the pace of this account."""
    pace = plan.recipients_per_day
    if pace is None:
        async with caller.transaction() as tx:
            pace = await counters.sent_per_day(tx, datetime.now(UTC))
    at_that_pace = plan.model_copy(update={"recipients_per_day": pace})
    needed = sizes(at_that_pace)
    return Planned(**dict(needed), recipients_per_day=pace, sentence=_sentence(at_that_pace, needed))


def _sentence(plan: Plan, needed: SampleSizes) -> str:
    assert plan.changed is not None  # as validated
    aim = f"To tell {_percent(plan.changed)} from {_percent(plan.baseline)}, in {_percent(plan.power)} of experiments"
    takes = (
        f"{needed.sample_size_per_variant:,} recipients for each of {plan.variants} variants, {needed.total:,} in all"
    )
    if plan.recipients_per_day is None or needed.days is None:
        return f"{aim}, it takes {takes}. Nothing was sent in the last 28 days that would tell how long that is."
    days = "a day" if needed.days == 1 else f"{needed.days:,} days"
    return f"{aim}, it takes {takes}: {days} at {_pace(plan.recipients_per_day)} messages a day."


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %"


def _pace(per_day: float) -> str:
    return f"{per_day:,.0f}" if per_day >= 10 else f"{per_day:.2g}"
