"""What is looked at a hundred times errs no more often than what is looked at once."""

import math
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from marketing.experiment_revenue import Moments
from marketing.experiment_sequences import Look, crossing, interval, look_at_means, look_at_rates, p_value
from marketing.experiment_statistics import Rate, z_test

LOOKS = 100


def noise(runs: int) -> float:
    """5 %, and three standard errors of so many runs."""
    return 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)


Counts = NDArray[np.int64]


def visits(rng: np.random.Generator, rate: float, people: int, runs: int) -> tuple[Counts, Counts]:
    """Successes and recipients at each look (runs × looks): more people come, and do it at once or never."""
    successes = rng.binomial(people, rate, (runs, LOOKS)).cumsum(axis=1)
    return successes, np.broadcast_to(people * np.arange(1, LOOKS + 1), successes.shape)


def mailing(rng: np.random.Generator, rate: float, people: int, runs: int) -> tuple[Counts, Counts]:
    """The same, where all are written to at once and do it little by little, until a share `rate` has."""
    chances = np.append(np.full(LOOKS, rate / LOOKS), 1 - rate)
    successes = rng.multinomial(people, chances, runs)[:, :-1].cumsum(axis=1)
    return successes, np.full_like(successes, people)


def looks(a: tuple[Counts, Counts], b: tuple[Counts, Counts]) -> Iterable[list[tuple[Rate, Rate]]]:
    """Of each run, what is seen at each look."""
    for run in zip(*(each.tolist() for each in (*a, *b)), strict=True):
        yield [(Rate(j, m), Rate(k, n)) for j, m, k, n in zip(*run, strict=True)]


def test_a_hundred_looks_fool_the_z_test_and_not_the_sequential_one() -> None:
    rng = np.random.default_rng(1)
    runs, plain, always = 2_000, 0, 0
    for run in looks(visits(rng, 0.1, 200, runs), visits(rng, 0.1, 200, runs)):
        plain += any(z_test(a, b).p <= 0.05 for a, b in run)
        always += any(p_value(look_at_rates(a, b)) <= 0.05 for a, b in run)
    assert plain / runs > 0.15
    assert always / runs <= noise(runs)


@pytest.mark.parametrize(
    ("rate", "control", "other"), [(0.3, 5_000, 5_000), (0.02, 20_000, 20_000), (0.1, 18_000, 2_000)]
)
def test_it_is_not_fooled_by_those_who_answer_late(rate: float, control: int, other: int) -> None:
    rng = np.random.default_rng(2)
    runs, wrong = 1_000, 0
    for run in looks(mailing(rng, rate, control, runs), mailing(rng, rate, other, runs)):
        wrong += any(p_value(look_at_rates(a, b)) <= 0.05 for a, b in run[3::4])
    assert wrong / runs <= noise(runs)


@pytest.mark.parametrize(
    ("of_a", "of_b", "m", "n"), [(0.1, 0.1, 100, 100), (0.1, 0.2, 100, 100), (0.05, 0.3, 480, 20), (0.95, 1, 25, 25)]
)
def test_confidence_sequences_hold_the_difference_at_every_look(of_a: float, of_b: float, m: int, n: int) -> None:
    rng = np.random.default_rng(3)
    runs, missed = 1_000, 0
    for run in looks(visits(rng, of_a, m, runs), visits(rng, of_b, n, runs)):
        between = (interval(look_at_rates(a, b), 0.05) for a, b in run[3::4])
        missed += any(each is not None and not each.low <= of_b - of_a <= each.high for each in between)
    assert missed / runs <= noise(runs)


def amounts(rng: np.random.Generator, people: int, spread: float, runs: int) -> list[list[Moments]]:
    """At each look of each run: the revenue of recipients 1 in 50 of whom pays, sums with a heavy tail."""
    payers = rng.binomial(people, 0.02, (runs, LOOKS // 4))
    paid = rng.lognormal(3, spread, (*payers.shape, payers.max())) * (np.arange(payers.max()) < payers[..., None])
    totals, squares = paid.sum(axis=2).cumsum(axis=1), (paid**2).sum(axis=2).cumsum(axis=1)
    return [
        [Moments.of(people * (i + 1), *sums) for i, sums in enumerate(zip(*run, strict=True))]
        for run in zip(totals.tolist(), squares.tolist(), strict=True)
    ]


def test_revenue_with_a_heavy_tail_fools_nobody_who_looks_often() -> None:
    rng = np.random.default_rng(4)
    runs, wrong, missed = 1_000, 0, 0
    for run in zip(amounts(rng, 400, 1.5, runs), amounts(rng, 400, 1.5, runs), strict=True):
        seen = [look_at_means(a, b) for a, b in zip(*run, strict=True)]
        wrong += any(p_value(look) <= 0.05 for look in seen)
        between = (interval(look, 0.05) for look in seen)
        missed += any(each is not None and not each.low <= 0 <= each.high for each in between)
    assert wrong / runs <= noise(runs)
    assert missed / runs <= noise(runs)


def test_the_likelihood_ratio_is_the_average_that_it_stands_for() -> None:
    """Johari et al. 2017: of N(θ, V) over N(0, V) where θ is N(0, τ²); here by adding up, with V = 2, τ² = 0.5."""
    seen, variance, mixing = 4.0, 2.0, 0.5
    thetas = np.linspace(-12, 12, 20_001)
    ratio = np.exp((2 * thetas * seen - thetas**2) / (2 * variance))
    prior = np.exp(-(thetas**2) / (2 * mixing)) / math.sqrt(2 * math.pi * mixing)
    expected = float(np.trapezoid(ratio * prior, thetas))
    assert p_value(Look(seen, variance, variance, mixing)) == pytest.approx(1 / expected, rel=1e-6)


def test_the_sequence_is_the_two_sided_normal_mixture() -> None:
    """Howard et al. 2021: √((v + ρ) log((v + ρ) / (α² ρ))) for a sum of variance v; here with v = 400, ρ = 25."""
    v, rho, alpha = 400.0, 25.0, 0.05
    boundary = math.sqrt((v + rho) * math.log((v + rho) / (alpha**2 * rho)))
    found = interval(Look(0, 1 / v, 1 / v, 1 / rho), alpha)
    assert found == pytest.approx((-boundary / v, boundary / v))


@settings(max_examples=50)
@given(st.floats(1e-9, 1e3), st.floats(1e-6, 1e6), st.sampled_from([0.05, 0.01, 0.3]))
def test_p_falls_below_alpha_where_the_interval_leaves_nothing_behind(
    variance: float, ratio: float, alpha: float
) -> None:
    mixing = variance * ratio
    edge = crossing(variance, mixing, alpha)
    assert p_value(Look(edge, variance, variance, mixing)) == pytest.approx(alpha, rel=1e-6)
    between = interval(Look(edge, variance, variance, mixing), alpha)
    assert between is not None
    assert between.low == pytest.approx(0, abs=1e-9 * edge)


@pytest.mark.parametrize(
    "look",
    [
        look_at_rates(Rate(0, 10**6), Rate(0, 10**6)),
        look_at_rates(Rate(0, 3), Rate(3, 3)),
        look_at_means(Moments(1_000, 0, 0), Moments(1_000, 0, 0)),
        look_at_means(Moments(9, 1, 1), Moments(9, 2, 1)),
    ],
)
def test_of_nothing_and_of_hardly_anybody_there_is_no_evidence(look: Look) -> None:
    assert (p_value(look), interval(look, 0.05)) == (1, None)


def test_a_few_among_whom_nobody_has_paid_yet_are_not_taken_for_misers() -> None:
    payers = Moments.of(20_000, 8_000, 400_000)
    between = interval(look_at_means(payers, Moments.of(100, 0, 0)), 0.05)
    assert between is not None and between.low < 0 < between.high
