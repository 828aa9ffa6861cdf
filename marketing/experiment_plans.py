"""How many recipients does an experiment need, and how many days are they?"""

import math
from typing import Annotated, Self

from pydantic import BaseModel, Field, model_validator

from marketing.experiment_results import NO_PERCENTAGE
from marketing.experiment_sequences import LIFT, crossing
from marketing.experiment_statistics import quantile, sample_size

_Share = Annotated[float, NO_PERCENTAGE]
_MOST = 10**13
# Of days: what takes longer takes for ever, and a pace close to 0 must not make it infinite.
_LONGEST = 10**9


class Plan(BaseModel, frozen=True):
    """What is to be found: from a rate of `baseline`, a difference of `minimum_detectable_effect` or more.

    The effect is absolute: 0.02 is two points. It is found in a share `power` of experiments, and one is seen where
    there is none in 1 − `confidence`. The rate may rise, or fall where it can't rise by so much.
    """

    baseline: _Share = Field(gt=0, lt=1, allow_inf_nan=False, strict=True)
    minimum_detectable_effect: _Share = Field(gt=0, lt=1, allow_inf_nan=False, strict=True)
    power: _Share = Field(0.8, ge=0.5, le=0.999, allow_inf_nan=False, strict=True)
    confidence: _Share = Field(0.95, ge=0.5, le=0.9999, allow_inf_nan=False, strict=True)
    variants: int = Field(2, ge=2, le=10)
    recipients_per_day: float | None = Field(None, gt=0, allow_inf_nan=False, strict=True)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.changed is None:
            raise ValueError("a rate can neither rise nor fall by so much: give a smaller minimum_detectable_effect")
        if self.minimum_detectable_effect < 1e-5:
            raise ValueError(
                "no list is long enough to see so small an effect: give a larger minimum_detectable_effect"
            )
        return self

    @property
    def changed(self) -> float | None:
        """The rate that is to be told from the baseline."""
        up, down = (self.baseline + sign * self.minimum_detectable_effect for sign in (1, -1))
        return up if up <= 1 else down if down >= 0 else None


class SampleSizes(BaseModel, frozen=True):
    """`sample_size_per_variant` and `total` are for one look at the end; `comparisons` pairs share the error that is
    allowed. Those who look at any time and stop when it is significant need `…_at_any_time` at most.

    `days` and `days_at_any_time` are whole, a billion at most, None if the pace is not known.
    """

    sample_size_per_variant: int
    total: int
    sample_size_per_variant_at_any_time: int
    total_at_any_time: int
    comparisons: int
    days: int | None
    days_at_any_time: int | None


def sizes(plan: Plan) -> SampleSizes:
    """Recipients for a plan.

    For the z-test by Fleiss' formula (see sample_size). Of more than two variants all pairs are tested, which Holm's
    correction does at least as sharply as Bonferroni's that is reckoned with here; at any time, each with the control.
    """
    changed = plan.changed
    assert changed is not None  # as validated
    pairs, alpha = math.comb(plan.variants, 2), 1 - plan.confidence
    once = sample_size(plan.baseline, changed, alpha / pairs, plan.power)
    ever = max(once, _size_at_any_time(plan.baseline, changed, alpha / (plan.variants - 1), plan.power))

    def days(people: int) -> int | None:
        return None if plan.recipients_per_day is None else math.ceil(min(people / plan.recipients_per_day, _LONGEST))

    return SampleSizes(
        sample_size_per_variant=once,
        total=once * plan.variants,
        sample_size_per_variant_at_any_time=ever,
        total_at_any_time=ever * plan.variants,
        comparisons=pairs,
        days=days(once * plan.variants),
        days_at_any_time=days(ever * plan.variants),
    )


def _size_at_any_time(a: float, b: float, alpha: float, power: float) -> int:
    """With so many, the sequential test is past its boundary with this power, if it was not before already."""
    pooled = (a + b) / 2
    z = quantile(power)

    def found(n: int) -> bool:
        boundary = crossing(2 * pooled * (1 - pooled) / n, (LIFT * pooled) ** 2, alpha)
        return abs(b - a) >= boundary + z * math.sqrt((a * (1 - a) + b * (1 - b)) / n)

    low, high = 1, _MOST
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if found(middle) else (middle + 1, high)
    return low
