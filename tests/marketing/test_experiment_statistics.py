"""Rates that are compared: as in the papers, and as SciPy reckons."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from marketing.experiment_statistics import (
    MISMATCH_BELOW,
    Rate,
    detectable,
    fisher,
    holm,
    independence,
    newcombe,
    power,
    ratio_interval,
    sample_ratio,
    sample_size,
    wilson,
    z_test,
)


@st.composite
def rates(draw: st.DrawFn, most: int = 10**9) -> Rate:
    n = draw(st.integers(1, most))
    return Rate(draw(st.integers(0, n)), n)


# Newcombe 1998, "Two-sided confidence intervals for the single proportion", Stat. Med. 17, 857-872, table I, method 3.
@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0000, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_a_rate_has_the_score_interval_that_newcombe_printed(k: int, n: int, low: float, high: float) -> None:
    assert wilson(Rate(k, n), 0.95) == pytest.approx((low, high), abs=5e-5)


# Newcombe 1998, "Interval estimation for the difference between independent proportions", Stat. Med. 17, 873-890,
# table II, method 10.
@pytest.mark.parametrize(
    ("b", "a", "low", "high"),
    [
        (Rate(56, 70), Rate(48, 80), 0.0524, 0.3339),
        (Rate(9, 10), Rate(3, 10), 0.1705, 0.8090),
        (Rate(6, 7), Rate(2, 7), 0.0582, 0.8062),
        (Rate(5, 56), Rate(0, 29), -0.0381, 0.1926),
        (Rate(0, 10), Rate(0, 20), -0.1611, 0.2775),
        (Rate(0, 10), Rate(0, 10), -0.2775, 0.2775),
        (Rate(10, 10), Rate(0, 20), 0.6791, 1.0000),
        (Rate(10, 10), Rate(0, 10), 0.6075, 1.0000),
    ],
)
def test_a_difference_has_the_interval_that_newcombe_printed(b: Rate, a: Rate, low: float, high: float) -> None:
    assert newcombe(a, b, 0.95) == pytest.approx((low, high), abs=5.1e-5)


@settings(max_examples=50)
@given(rates(10**6), st.sampled_from([0.8, 0.95, 0.999]))
def test_score_intervals_are_those_of_scipy(rate: Rate, confidence: float) -> None:
    expected = stats.binomtest(rate.k, rate.n).proportion_ci(confidence, method="wilson")
    assert wilson(rate, confidence) == pytest.approx((expected.low, expected.high), abs=1e-9)


@settings(max_examples=50)
@given(rates(10**6), rates(10**6))
def test_the_z_test_is_the_chi_square_test_of_scipy(a: Rate, b: Rate) -> None:
    z, p = z_test(a, b)
    if a.k + b.k in {0, a.n + b.n}:
        assert (z, p) == (0, 1)
        return
    table = [[a.k, a.n - a.k], [b.k, b.n - b.k]]
    expected = stats.chi2_contingency(table, correction=False)
    assert z**2 == pytest.approx(expected.statistic, rel=1e-6, abs=1e-9)
    assert p == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-300)
    assert math.copysign(1, z) == math.copysign(1, b.value - a.value) or z == 0


def test_the_lady_who_tastes_tea_is_tested_exactly() -> None:
    """Fisher 1935, "The Design of Experiments", chapter II: three of four cups right, or as seldom, in 34 of 70."""
    assert fisher(Rate(1, 4), Rate(3, 4)) == pytest.approx(34 / 70)


def test_tables_that_are_equally_likely_count_whatever_rounding_makes_of_them() -> None:
    assert fisher(Rate(4, 11), Rate(7, 23)) == pytest.approx(stats.fisher_exact(np.array([[4, 7], [7, 16]])).pvalue)


@given(rates(400), rates(400))
def test_small_tables_are_tested_as_by_scipy_and_large_ones_left_to_the_z_test(a: Rate, b: Rate) -> None:
    exact = fisher(a, b)
    table = [[a.k, a.n - a.k], [b.k, b.n - b.k]]
    expected = min(sum(row) * sum(column) for row in table for column in zip(*table, strict=True)) / (a.n + b.n)
    if exact is None:
        assert expected >= 5
    else:
        assert exact == pytest.approx(stats.fisher_exact(np.array(table)).pvalue, rel=1e-6)


@settings(max_examples=30)
@given(st.lists(rates(10**6), min_size=2, max_size=10))
def test_the_omnibus_is_the_chi_square_test_of_scipy(several: list[Rate]) -> None:
    found = independence(several)
    if sum(each.k for each in several) in {0, sum(each.n for each in several)}:
        assert found == (0, 1)
        return
    expected = stats.chi2_contingency([[each.k, each.n - each.k] for each in several], correction=False)
    assert found == pytest.approx((expected.statistic, expected.pvalue), rel=1e-6, abs=1e-12)


def test_holm_corrects_as_in_his_example() -> None:
    # The four p-values with which his method is usually explained; by hand: 4 × 0.005, 3 × 0.01, 2 × 0.03, then 0.06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


@settings(max_examples=30)
@given(st.lists(st.floats(0, 1), max_size=45))
def test_correction_makes_nothing_more_significant_and_keeps_the_order(ps: list[float]) -> None:
    adjusted = holm(ps)
    assert all(p <= q <= min(1, p * len(ps)) + 1e-12 for p, q in zip(ps, adjusted, strict=True))
    in_order = [q for _, q in sorted(zip(ps, adjusted, strict=True))]
    assert in_order == sorted(in_order)


def test_a_sample_ratio_mismatch_is_seen_where_kohavi_sees_it() -> None:
    # Kohavi, Tang & Xu 2020, "Trustworthy Online Controlled Experiments", chapter 3.
    assert sample_ratio([821_588, 815_482], [1, 1]).p == pytest.approx(1.8e-6, rel=0.03)
    # "Sample ratio mismatch", Wikipedia.
    assert sample_ratio([600, 400], [0.5, 0.5]).p == pytest.approx(2.54e-10, rel=0.002)
    assert sample_ratio([502, 498], [0.5, 0.5]).p > MISMATCH_BELOW


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(1, 10**6), st.floats(0.01, 100)), min_size=2, max_size=10))
def test_sample_ratios_are_tested_as_by_scipy(counted: list[tuple[int, float]]) -> None:
    counts, weights = np.array([n for n, _ in counted]), np.array([weight for _, weight in counted])
    expected = stats.chisquare(counts, weights / weights.sum() * counts.sum())
    assert sample_ratio(counts.tolist(), weights.tolist()) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_nobody_is_no_mismatch() -> None:
    assert sample_ratio([0, 0], [1, 2]) == (0, 1)
    assert sample_ratio([7], [1]) == (0, 1)


# What samplesize_proportions_2indep_onetail of statsmodels 0.15 says with alternative="two-sided", rounded up.
@pytest.mark.parametrize(
    ("a", "b", "alpha", "wanted", "size"),
    [
        (0.10, 0.12, 0.05, 0.8, 3_841),
        (0.05, 0.06, 0.05, 0.8, 8_158),
        (0.20, 0.25, 0.05, 0.9, 1_464),
        (0.25, 0.40, 0.05, 0.8, 152),
        (0.60, 0.70, 0.05, 0.8, 356),
    ],
)
def test_sample_sizes_are_those_of_fleiss(a: float, b: float, alpha: float, wanted: float, size: int) -> None:
    assert sample_size(a, b, alpha, wanted) == size
    assert power(a, b, size, size, alpha) == pytest.approx(wanted, abs=0.002)


def test_there_is_no_sample_size_for_no_difference() -> None:
    with pytest.raises(ValueError, match="no difference"):
        sample_size(0.1, 0.1, 0.05, 0.8)


@settings(max_examples=50)
@given(st.floats(0.001, 0.999), st.integers(10, 10**8), st.integers(10, 10**8), st.sampled_from([0.05, 0.01, 1e-6]))
def test_what_is_detectable_is_found_with_the_power_that_was_asked_for(a: float, m: int, n: int, alpha: float) -> None:
    effect = detectable(a, m, n, alpha, 0.8)
    if effect is None:
        return
    assert 0 < effect <= 1
    found = max(power(a, b, m, n, alpha) for b in (a + effect, a - effect) if 0 <= b <= 1)
    assert found >= 0.799


def test_of_hardly_anybody_nothing_is_detectable() -> None:
    assert detectable(0.1, 2, 2, 0.05, 0.8) is None
    assert detectable(1.0, 1_000, 1_000, 0.05, 0.8) == pytest.approx(0.0078, abs=0.0001)  # downwards


@pytest.mark.parametrize(("a", "b", "size"), [(0.10, 0.12, 3_841), (0.02, 0.03, 3_826)])
def test_simulated_experiments_find_the_difference_as_often_as_planned(a: float, b: float, size: int) -> None:
    rng = np.random.default_rng(20)
    runs = 4_000
    pairs = zip(rng.binomial(size, a, runs).tolist(), rng.binomial(size, b, runs).tolist(), strict=True)
    found = sum(z_test(Rate(j, size), Rate(k, size)).p < 0.05 for j, k in pairs) / runs
    assert abs(found - 0.8) < 0.03
    none = zip(rng.binomial(size, a, runs).tolist(), rng.binomial(size, a, runs).tolist(), strict=True)
    assert sum(z_test(Rate(j, size), Rate(k, size)).p < 0.05 for j, k in none) / runs < 0.065


def test_lifts_have_the_interval_of_katz() -> None:
    # By hand: ln(2) ± 1.959964 √(1/40 − 1/200 + 1/20 − 1/200) = 0.693147 ± 0.499696.
    variance = 1 / 40 - 1 / 200 + 1 / 20 - 1 / 200
    assert ratio_interval(2, variance, 0.95) == pytest.approx((0.21343, 2.29645), abs=1e-4)
    assert all(map(math.isfinite, ratio_interval(2, 1e9, 0.95)))


@given(rates(), rates(), st.sampled_from([0.5, 0.95, 0.9999]))
def test_whatever_was_counted_numbers_are_finite_and_in_their_bounds(a: Rate, b: Rate, confidence: float) -> None:
    low, high = newcombe(a, b, confidence)
    assert -1 <= low <= b.value - a.value <= high <= 1
    z, p = z_test(a, b)
    assert math.isfinite(z) and 0 <= p <= 1
    exact = fisher(a, b)
    assert exact is None or 0 <= exact <= 1
    for rate in (a, b):
        bottom, top = wilson(rate, confidence)
        assert 0 <= bottom <= rate.value <= top <= 1 and bottom < top
