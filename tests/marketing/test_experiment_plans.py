"""How many recipients experiments need."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from marketing.experiment_plans import Plan, sizes
from marketing.experiment_sequences import look_at_rates, p_value
from marketing.experiment_statistics import Rate, sample_size, z_test

TEN_TO_TWELVE = Plan(baseline=0.10, minimum_detectable_effect=0.02)


def test_two_points_from_ten_percent_take_what_the_textbook_says() -> None:
    plan = sizes(TEN_TO_TWELVE)
    assert (plan.sample_size_per_variant, plan.total, plan.comparisons) == (3_841, 7_682, 1)
    assert plan.total_at_any_time == 2 * plan.sample_size_per_variant_at_any_time
    assert (plan.days, plan.days_at_any_time) == (None, None)


def test_more_variants_share_the_error_that_is_allowed() -> None:
    plan = sizes(TEN_TO_TWELVE.model_copy(update={"variants": 4}))
    assert plan.comparisons == 6
    assert plan.sample_size_per_variant == sample_size(0.10, 0.12, 0.05 / 6, 0.8)
    assert plan.total == 4 * plan.sample_size_per_variant
    assert plan.sample_size_per_variant_at_any_time > sizes(TEN_TO_TWELVE).sample_size_per_variant_at_any_time


def test_days_are_whole_and_as_many_as_it_takes() -> None:
    plan = sizes(TEN_TO_TWELVE.model_copy(update={"recipients_per_day": 1_000}))
    assert plan.days == 8
    assert plan.days_at_any_time == math.ceil(plan.total_at_any_time / 1_000)
    assert sizes(TEN_TO_TWELVE.model_copy(update={"recipients_per_day": 5e-324})).days == 10**9


def test_a_rate_that_cannot_rise_by_so_much_is_seen_to_fall() -> None:
    assert Plan(baseline=0.95, minimum_detectable_effect=0.1).changed == pytest.approx(0.85)


@pytest.mark.parametrize(
    "wrong",
    [
        {"baseline": 0},
        {"baseline": 1},
        {"baseline": math.nan},
        {"minimum_detectable_effect": 0},
        {"minimum_detectable_effect": 0.95},
        {"minimum_detectable_effect": 1e-9},
        {"power": 1},
        {"confidence": 1},
        {"variants": 1},
        {"variants": 11},
        {"recipients_per_day": 0},
    ],
)
def test_what_cannot_be_planned_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Plan.model_validate({"baseline": 0.1, "minimum_detectable_effect": 0.02} | wrong)


@settings(max_examples=50)
@given(
    st.floats(0.0001, 0.9999),
    st.floats(0.00001, 0.4),
    st.floats(0.5, 0.999),
    st.floats(0.5, 0.9999),
    st.integers(2, 10),
)
def test_every_plan_has_sizes_and_a_larger_effect_takes_fewer(
    baseline: float, effect: float, power: float, confidence: float, variants: int
) -> None:
    plan = Plan(
        baseline=baseline, minimum_detectable_effect=effect, power=power, confidence=confidence, variants=variants
    )
    found = sizes(plan)
    assert 1 <= found.sample_size_per_variant <= found.sample_size_per_variant_at_any_time < 10**13
    smaller = plan.model_copy(update={"minimum_detectable_effect": effect / 2})
    if plan.changed is not None and plan.changed > baseline:
        assert sizes(smaller).sample_size_per_variant >= found.sample_size_per_variant


def test_who_looks_a_hundred_times_finds_the_difference_as_often_as_planned() -> None:
    size, runs, looks = sizes(TEN_TO_TWELVE).sample_size_per_variant_at_any_time, 400, 50
    rng = np.random.default_rng(30)
    each = size // looks
    a, b = (rng.binomial(each, rate, (runs, looks)).cumsum(axis=1).tolist() for rate in (0.10, 0.12))
    stopped = []
    for ks in zip(a, b, strict=True):
        seen = ((Rate(j, each * i), Rate(k, each * i)) for i, (j, k) in enumerate(zip(*ks, strict=True), 1))
        stopped.append(next((x.n for x, y in seen if p_value(look_at_rates(x, y)) <= 0.05), None))
    assert sum(n is not None for n in stopped) / runs >= 0.77
    # Stopping pays: most are done before the plan is through.
    assert np.median([n or size for n in stopped]) < 0.75 * size


def test_one_look_at_the_end_of_a_plan_for_three_variants_finds_the_best() -> None:
    plan = sizes(TEN_TO_TWELVE.model_copy(update={"variants": 3}))
    n, runs = plan.sample_size_per_variant, 4_000
    rng = np.random.default_rng(31)
    pairs = zip(rng.binomial(n, 0.10, runs).tolist(), rng.binomial(n, 0.12, runs).tolist(), strict=True)
    found = sum(z_test(Rate(j, n), Rate(k, n)).p <= 0.05 / plan.comparisons for j, k in pairs) / runs
    assert abs(found - 0.8) < 0.03


@pytest.mark.parametrize("name", ["baseline", "minimum_detectable_effect", "power", "confidence"])
def test_a_percentage_is_told_which_share_it_is(name: str) -> None:
    written = {"baseline": 0.1, "minimum_detectable_effect": 0.02, name: 80}
    with pytest.raises(ValueError, match=r"takes a share of 1: 80 % is 0\.8"):
        Plan.model_validate(written)
