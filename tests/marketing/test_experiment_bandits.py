"""What a bandit allocates, and what that saves."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketing.experiment_bandits import Answered, allocation, settled
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


def ripe(*batches: tuple[tuple[int, int], tuple[int, int]]) -> list[int | None]:
    """Of A and B, of whom so many have answered in each batch, the oldest first."""
    answered = [
        Answered(b, name, n, k) for b, both in enumerate(batches) for name, (k, n) in zip("AB", both, strict=True) if n
    ]
    return [each.settled for each in settled(counted(*_totals(batches)), answered)]


def _totals(batches: Sequence[tuple[tuple[int, int], tuple[int, int]]]) -> list[tuple[int, int]]:
    return [(sum(both[each][0] for both in batches), sum(both[each][1] for both in batches)) for each in (0, 1)]


def test_who_has_just_got_a_message_is_not_taken_for_somebody_who_does_not_answer() -> None:
    assert ripe(((100, 1_000), (150, 1_000)), ((0, 100), (0, 1_900))) == pytest.approx([1_000, 1_000], abs=3)
    assert ripe(((100, 1_000), (150, 1_000)), ((50, 1_000), (75, 1_000))) == pytest.approx([1_500, 1_500], abs=3)


def test_where_all_batches_have_answered_alike_all_recipients_count() -> None:
    assert ripe(((100, 1_000), (150, 1_000)), ((20, 200), (270, 1_800))) == pytest.approx([1_200, 2_800], abs=3)


def test_while_nobody_has_answered_all_recipients_count() -> None:
    assert ripe(((0, 100), (0, 100)), ((0, 50), (0, 150))) == [None, None]


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(*[st.integers(0, 10**6).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))] * 2),
        min_size=1,
        max_size=20,
    )
)
def test_nobody_counts_twice_and_who_has_answered_counts(batches: list[Any]) -> None:
    for (k, n), of in zip(_totals(batches), ripe(*batches), strict=True):
        assert of is None or 0 <= of <= n
        told = VariantCounts(name="A", recipients=n, successes=k, settled=of)
        assert k <= told.believed_of <= n


@pytest.mark.parametrize("rates", [(0.10, 0.12), (0.10, 0.12, 0.15)])
def test_a_bandit_whose_people_take_as_long_as_it_lasts_still_loses_half_and_finds_the_best(
    rates: tuple[float, ...],
) -> None:
    """Answers come in after four hours on average, the batches within four: to the last ones hardly any have come."""
    best, shards, people, runs, hours = np.array(rates), 20, 500, 40, 4.0
    lost, found = [], 0
    for run in range(runs):
        rng = np.random.default_rng(run)
        sent: list[Any] = []
        when: list[Any] = []  # each of them answers, by batch and variant

        def known(now: float, sent: list[Any] = sent, when: list[Any] = when) -> list[VariantCounts]:
            answered = [
                Answered(batch, name, int(n), int((moments <= now).sum()))
                for batch, (counts, those) in enumerate(zip(sent, when, strict=True))
                for name, n, moments in zip(NAMES, counts, those, strict=False)
            ]
            totals = dict.fromkeys(NAMES[: len(rates)], (0, 0))
            for each in answered:
                k, n = totals[each.variant]
                totals[each.variant] = (k + each.successes, n + each.recipients)
            return settled(counted(*totals.values()), answered)

        for shard in range(shards):
            now = shard * hours / shards
            shares = allocation(known(now), CLICKS, seed=run * shards + shard, draws=500)
            sent.append(rng.multinomial(people, list(shares.values())))
            when.append(
                [
                    np.where(rng.random(n) < rate, now + rng.exponential(hours, n), np.inf)
                    for n, rate in zip(sent[-1], rates, strict=True)
                ]
            )
        lost.append(float((np.sum(sent, axis=0) * (best.max() - best)).sum()))
        chances = odds_of_rates([shape(each.successes, each.believed_of) for each in known(hours)])
        found += int(np.argmax([each.probability_to_be_best for each in chances]) == best.argmax())
    assert np.mean(lost) < shards * people * float((best.max() - best).mean()) / 2
    assert found >= 0.95 * runs


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
