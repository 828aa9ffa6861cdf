"""What a bandit allocates, and what that saves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketing.experiment_bandits import allocation
from marketing.experiment_beliefs import odds_of_rates, shape
from marketing.experiment_results import Metric, VariantCounts

NAMES = "ABCDEFGHIJ"
CLICKS = Metric.CLICK_RATE


def counted(*counts: tuple[int, int]) -> list[VariantCounts]:
    return [VariantCounts(name=name, recipients=n, successes=k) for name, (k, n) in zip(NAMES, counts, strict=False)]


def test_shares_are_the_chances_to_be_best() -> None:
    counts = [(100, 1_000), (115, 1_000), (90, 800)]
    shares = allocation(counted(*counts), CLICKS, seed=1, draws=100_000)
    chances = odds_of_rates([shape(k, n) for k, n in counts])
    assert list(shares.values()) == pytest.approx([each.probability_to_be_best for each in chances], abs=0.01)


def test_before_anything_was_counted_all_get_about_the_same() -> None:
    for metric in Metric:
        shares = allocation(counted(*[(0, 0)] * 5), metric, seed=2)
        assert list(shares.values()) == pytest.approx([0.2] * 5, abs=0.02)


@settings(max_examples=40)
@given(
    st.lists(
        st.integers(0, 10**9).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), min_size=1, max_size=10
    ),
    st.integers(0, 2**63),
    st.sampled_from(Metric),
)
def test_the_same_counts_and_seed_give_the_same_shares_which_add_up(
    counts: list[tuple[int, int]], seed: int, metric: Metric
) -> None:
    shares = allocation(counted(*counts), metric, seed, draws=200)
    assert shares == allocation(counted(*counts), metric, seed, draws=200)
    assert list(shares) == [*NAMES[: len(counts)]]
    assert sum(shares.values()) == pytest.approx(1)
    assert min(shares.values()) >= 0


def test_another_seed_gives_other_shares() -> None:
    counts = counted((10, 100), (11, 100))
    assert allocation(counts, CLICKS, seed=1) != allocation(counts, CLICKS, seed=2)


def test_what_earns_more_gets_more() -> None:
    poor = VariantCounts(name="A", recipients=5_000, successes=100, revenue=2_000, revenue_squares=60_000)
    rich = VariantCounts(name="B", recipients=5_000, successes=100, revenue=4_000, revenue_squares=240_000)
    assert allocation([poor, rich], Metric.REVENUE_PER_RECIPIENT, seed=3)["B"] > 0.95


def test_without_variants_there_is_nothing_to_share_out() -> None:
    with pytest.raises(ValueError, match="no variants"):
        allocation([], CLICKS, seed=4)


def test_a_bandit_loses_less_than_half_of_what_an_even_split_loses() -> None:
    """Regret: the clicks that sending everybody the best one would have brought besides."""
    rates, shards, people, runs = np.array([0.10, 0.12, 0.15]), 20, 500, 60
    rng = np.random.default_rng(5)
    lost = []
    for run in range(runs):
        sent, clicked = np.zeros(3, dtype=int), np.zeros(3, dtype=int)
        for shard in range(shards):
            so_far = counted(*zip(clicked.tolist(), sent.tolist(), strict=True))
            shares = allocation(so_far, CLICKS, seed=run * shards + shard, draws=500)
            now = rng.multinomial(people, list(shares.values()))
            sent, clicked = sent + now, clicked + rng.binomial(now, rates)
        lost.append(float((sent * (rates.max() - rates)).sum()))
    even = shards * people * float((rates.max() - rates).mean())
    assert np.mean(lost) < even / 2
    assert np.quantile(lost, 0.95) < even
