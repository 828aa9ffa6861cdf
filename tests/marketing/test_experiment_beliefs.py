"""What is believed of variants: as in closed forms, and as in a million draws."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import betaln

from marketing.experiment_beliefs import BetaShape, Normal, normals, odds_of_means, odds_of_rates, shape
from marketing.experiment_revenue import Moments


def chance_that_b_is_better(a: BetaShape, b: BetaShape) -> float:
    """Evan Miller 2015, "Formulas for Bayesian A/B Testing": a sum over whole numbers, exact."""
    i = np.arange(int(b.a))
    terms = betaln(a.a + i, b.b + a.b) - np.log(b.b + i) - betaln(1 + i, b.b) - betaln(a.a, a.b)
    return float(np.exp(terms).sum())


@settings(max_examples=50)
@given(st.integers(1, 3_000), st.integers(1, 3_000), st.data())
def test_of_two_rates_the_chances_are_those_of_the_closed_form(m: int, n: int, data: st.DataObject) -> None:
    a, b = shape(data.draw(st.integers(0, m)), m), shape(data.draw(st.integers(0, n)), n)
    of_a, of_b = odds_of_rates([a, b])
    assert of_b.probability_to_be_best == pytest.approx(chance_that_b_is_better(a, b), abs=1e-4)
    assert of_a.probability_to_be_best + of_b.probability_to_be_best == pytest.approx(1)
    # E max − E of one, less E max − E of the other, leaves the difference of means.
    means = [each.a / (each.a + each.b) for each in (a, b)]
    assert of_a.expected_loss - of_b.expected_loss == pytest.approx(means[1] - means[0], rel=1e-3, abs=1e-4)


def test_of_two_means_chances_and_losses_are_those_of_the_normal_distribution() -> None:
    """The difference is N(0.5, 1.25): Clark 1961, "The Greatest of a Finite Set of Random Variables", Oper. Res. 9."""
    a, b = odds_of_means([Normal(1, 1), Normal(1.5, 0.5)])
    spread = math.sqrt(1.25)
    z = 0.5 / spread
    assert b.probability_to_be_best == pytest.approx(stats.norm.cdf(z), abs=1e-4)
    assert b.expected_loss == pytest.approx(spread * stats.norm.pdf(z) - 0.5 * stats.norm.cdf(-z), rel=1e-3)
    assert a.expected_loss == pytest.approx(0.5 + b.expected_loss, rel=1e-3)


def test_of_many_variants_chances_and_losses_are_those_of_a_million_draws() -> None:
    rates = [shape(k, n) for k, n in [(100, 1_000), (115, 1_000), (9, 80), (1_300, 12_000), (0, 3)]]
    rng = np.random.default_rng(11)
    drawn = rng.beta([each.a for each in rates], [each.b for each in rates], (10**6 // 5, len(rates)))
    best = np.bincount(drawn.argmax(axis=1), minlength=len(rates)) / len(drawn)
    losses = (drawn.max(axis=1)[:, None] - drawn).mean(axis=0)
    found = odds_of_rates(rates)
    assert [each.probability_to_be_best for each in found] == pytest.approx(best.tolist(), abs=0.005)
    assert [each.expected_loss for each in found] == pytest.approx(losses.tolist(), rel=0.02)


@settings(max_examples=25)
@given(
    st.lists(st.integers(0, 10**12).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), min_size=1, max_size=6)
)
def test_whatever_was_counted_chances_add_up_and_losses_are_no_gains(counted: list[tuple[int, int]]) -> None:
    odds = odds_of_rates([shape(k, n) for k, n in counted])
    assert math.fsum(each.probability_to_be_best for each in odds) == pytest.approx(1)
    assert all(0 <= each.expected_loss <= 1 for each in odds)
    surest = max(odds, key=lambda each: each.probability_to_be_best)
    assert surest.expected_loss <= min(each.expected_loss for each in odds) + 1 / len(odds)


def test_equals_are_equally_likely() -> None:
    for odds in (odds_of_rates([shape(5, 50)] * 4), odds_of_means([Normal(3, 1e-9)] * 4)):
        assert [each.probability_to_be_best for each in odds] == pytest.approx([0.25] * 4)


def test_whom_nobody_has_paid_yet_may_still_be_the_best() -> None:
    nobody, somebody = normals([Moments.of(20, 0, 0), Moments.of(2_000, 1_000, 50_000)])
    assert nobody.deviation > 0
    assert 0.0001 < odds_of_means([nobody, somebody])[0].probability_to_be_best < 0.5


def test_where_nobody_has_paid_anything_all_are_alike() -> None:
    believed = normals([Moments.of(0, 0, 0), Moments.of(1_000, 0, 0)])
    assert [each.probability_to_be_best for each in odds_of_means(believed)] == pytest.approx([0.5, 0.5], abs=0.01)
