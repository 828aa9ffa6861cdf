"""Revenue that is compared: as SciPy reckons, and as resampling by hand does."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from marketing.experiment_revenue import (
    RESAMPLES,
    Moments,
    Payments,
    bootstrap,
    mean_interval,
    resampled_means,
    sample_size_of_means,
    welch,
    welch_interval,
)

money = st.integers(0, 10**8).map(lambda cents: cents / 100)
moments = st.lists(money, min_size=2, max_size=40).map(
    lambda paid: Moments.of(len(paid), math.fsum(paid), math.fsum(each**2 for each in paid))
)


def of(paid: list[float]) -> Moments:
    return Moments.of(len(paid), sum(paid), sum(each**2 for each in paid))


# "Welch's t-test", Wikipedia, example 3.
FEW = [19.8, 20.4, 19.6, 17.8, 18.5, 18.9, 18.3, 18.9, 19.5, 22.0]
MANY = [
    28.2,
    26.6,
    20.1,
    23.3,
    25.2,
    22.1,
    17.7,
    27.6,
    20.6,
    13.7,
    23.2,
    17.5,
    20.6,
    18.0,
    23.9,
    21.6,
    24.3,
    20.4,
    24.0,
]
MANY = [*MANY, 13.2]


def test_means_are_compared_as_in_the_encyclopedia() -> None:
    t, p = welch(of(FEW), of(MANY))
    assert t == pytest.approx(2.22, abs=0.005)
    assert p == pytest.approx(0.036, abs=0.0005)


@settings(max_examples=50)
@given(moments, moments)
def test_welchs_test_and_intervals_are_those_of_scipy(a: Moments, b: Moments) -> None:
    if a.variance + b.variance == 0:
        assert welch(a, b) == (0, 1)
        assert welch_interval(a, b, 0.9) == (b.mean - a.mean, b.mean - a.mean)
        return
    expected = stats.ttest_ind_from_stats(
        b.mean, math.sqrt(b.variance), b.n, a.mean, math.sqrt(a.variance), a.n, equal_var=False
    )
    assert welch(a, b) == pytest.approx((expected.statistic, expected.pvalue), rel=1e-6, abs=1e-12)
    freedom = (a.of_mean + b.of_mean) ** 2 / (a.of_mean**2 / (a.n - 1) + b.of_mean**2 / (b.n - 1))
    low, high = stats.t.interval(0.9, freedom, b.mean - a.mean, math.sqrt(a.of_mean + b.of_mean))
    assert welch_interval(a, b, 0.9) == pytest.approx((low, high), rel=1e-6, abs=1e-6 * (high - low))


@settings(max_examples=50)
@given(st.lists(st.integers(0, 10**6).map(float), min_size=2, max_size=40))
def test_counters_say_as_much_as_the_amounts(paid: list[float]) -> None:
    found = of(paid)
    assert found.mean == pytest.approx(np.mean(paid))
    assert found.variance == pytest.approx(np.var(paid, ddof=1), rel=1e-6, abs=1e-6 * max(paid))
    if found.variance > 0:
        low, high = stats.t.interval(0.95, found.n - 1, found.mean, math.sqrt(found.of_mean))
        assert mean_interval(found, 0.95) == pytest.approx((max(0, low), high), rel=1e-6)


@pytest.mark.parametrize("payers", [50, 5_000])
def test_resampling_by_amount_is_resampling_one_by_one(payers: int) -> None:
    rng = np.random.default_rng(5)
    paid, n = rng.lognormal(3, 1, payers).round(2), payers * 4
    everybody = np.concatenate([paid, np.zeros(n - payers)])
    by_amount = resampled_means(Payments(n, paid.tolist()), rng)
    one_by_one = np.array([rng.choice(everybody, n).mean() for _ in range(400)])
    assert by_amount.shape == (RESAMPLES,)
    assert by_amount.mean() == pytest.approx(everybody.mean(), abs=4 * by_amount.std() / math.sqrt(RESAMPLES))
    # 400 of them know their spread to within 3.5 % (one standard error).
    assert by_amount.std() == pytest.approx(one_by_one.std(), rel=0.12)
    assert by_amount.std() == pytest.approx(everybody.std() / math.sqrt(n), rel=0.06)


def test_the_bootstrap_finds_a_difference_as_often_as_it_should() -> None:
    rng = np.random.default_rng(6)
    covered = significant = 0
    runs = 200
    prices = [10.0, 20.0, 50.0, 120.0, 300.0]
    for _ in range(runs):
        a, b = (resampled_means(Payments(2_000, rng.choice(prices, 60).tolist()), rng) for _ in range(2))
        p, (low, high) = bootstrap(a, b, 0.95)
        covered += low <= 0 <= high
        significant += p <= 0.05
    assert covered / runs >= 0.9
    assert significant / runs <= 0.1


def test_what_is_far_apart_is_not_luck_at_all() -> None:
    rng = np.random.default_rng(7)
    a, b = (resampled_means(Payments(10_000, [each] * 1_000), rng) for each in (10.0, 20.0))
    p, (low, high) = bootstrap(a, b, 0.95)
    assert 0 < p < 1e-12
    assert 0.8 < low < 1 < high < 1.2


def test_where_nobody_paid_nothing_is_significant() -> None:
    nothing = resampled_means(Payments(100, []), np.random.default_rng(8))
    assert bootstrap(nothing, nothing, 0.95) == (1, (0, 0))


@pytest.mark.parametrize("amount", [math.nan, math.inf])
def test_amounts_that_are_no_numbers_are_refused(amount: float) -> None:
    with pytest.raises(ValueError, match="is a number"):
        resampled_means(Payments(10, [1.0, amount]), np.random.default_rng(9))


def test_the_sample_size_of_means_finds_their_difference_as_often_as_planned() -> None:
    a, b = Moments(100, 1.0, 25.0), Moments(100, 1.2, 36.0)
    n = math.ceil(sample_size_of_means(a, b, 0.05, 0.8))
    # By hand: (1.959964 + 0.841621)² × 61 / 0.04.
    assert n == pytest.approx(11_970, abs=1)
    rng = np.random.default_rng(10)
    spread = math.sqrt(61 / n)
    found = np.abs(rng.normal(0.2, spread, 4_000)) > 1.959964 * spread
    assert abs(found.mean() - 0.8) < 0.03
