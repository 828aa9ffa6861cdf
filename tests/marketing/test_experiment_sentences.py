"""What people read of an experiment."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketing.experiment_analysis import analyse
from marketing.experiment_results import Metric, Results, VariantCounts
from marketing.experiment_sentences import deciding

MONEY = Metric.REVENUE_PER_RECIPIENT


def said(metric: Metric = Metric.OPEN_RATE, *, adaptive: bool = False, **counts: tuple[int, int]) -> str:
    variants = [VariantCounts(name=name, successes=k, recipients=n) for name, (k, n) in counts.items()]
    weights = {name: n or 1 for name, (_, n) in counts.items()}
    return analyse(variants, metric, adaptive=adaptive, weights=weights).sentence


def test_a_winner_at_any_time() -> None:
    assert said(A=(500, 5_000), B=(605, 5_000)) == (
        "12.1 % of those who got “B” opened, 10.0 % of those who got “A”: 2.1 points more (95 % interval 0.2 "
        "to 4.0); if they were "
        "equally good, luck alone would ever show as much in at most 2.1 % of experiments; it may be believed now, "
        "however often you have looked."
    )


def test_a_winner_only_at_the_moment_that_was_planned() -> None:
    assert said(Metric.CLICK_RATE, A=(500, 5_000), B=(575, 5_000)) == (
        "11.5 % of those who got “B” clicked, 10.0 % of those who got “A”: 1.5 points more (95 % interval 0.3 "
        "to 2.7); if they were "
        "equally good, luck alone would show as much in 1.5 % of experiments; it may be believed if this was the "
        "moment to look that was planned, and is too early to say if it was not."
    )


def test_too_early_to_say_and_how_many_more_it_takes() -> None:
    assert said(Metric.CONVERSION_RATE, A=(500, 5_000), B=(560, 5_000)) == (
        "11.2 % of those who got “B” converted, 10.0 % of those who got “A”: 1.2 points more (95 % interval "
        "0.0 to 2.4); if they were "
        "equally good, luck alone would show as much in 5.1 % of experiments; too early to say: about 5,400 more "
        "recipients per variant are needed."
    )


def test_the_better_one_comes_first_though_it_is_the_control() -> None:
    sentence = said(A=(2_600, 20_000), B=(2_000, 20_000), C=(2_100, 20_000))
    assert sentence.startswith(
        "13.0 % of those who got “A” opened, 10.5 % of those who got “C”: 2.5 points more (95 % interval 1.4 to 3.6)"
    )
    assert "luck alone would ever show as much in fewer than 0.01 % of experiments" in sentence


def looked(*looks: tuple[int, int, int]) -> Results:
    """Of A and B with so many recipients each, one look after the other."""
    results = None
    for n, a, b in looks:
        counts = [VariantCounts(name=name, successes=k, recipients=n) for name, k in (("A", a), ("B", b))]
        results = analyse(counts, Metric.CLICK_RATE, earlier=results)
    assert results
    return results


def test_what_an_earlier_look_has_shown_is_not_said_of_the_figures_of_now() -> None:
    assert looked((1_000, 100, 190), (2_000, 200, 286)).sentence == (
        "14.3 % of those who got “B” clicked, 10.0 % of those who got “A”: 4.3 points more (95 % interval 4.1 to 7.4); "
        "if they were equally good, luck alone would ever show as much as the 9.0 points of an earlier look in "
        "fewer than 0.01 % of experiments; it may be believed now, however often you have looked."
    )


def test_looks_at_what_is_no_longer_so_are_forgotten() -> None:
    moved = looked((1_000, 100, 190), (10_000, 1_000, 1_010))
    assert moved == looked((10_000, 1_000, 1_010))
    assert (moved.winner_at_any_time, "too early to say" in moved.sentence) == (None, True)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(100, 500), st.integers(100, 500)), min_size=2, max_size=4))
def test_however_figures_move_they_lie_in_their_interval_and_p_is_of_what_is_named(ks: list[tuple[int, int]]) -> None:
    (pair,) = looked(*[(1_000, a, b) for a, b in ks]).comparisons
    assert pair.always_valid and pair.always_valid_difference
    assert pair.always_valid_difference.low <= pair.difference.value <= pair.always_valid_difference.high
    before = pair.always_valid.shown_before
    earlier = [(1_000, a, b) for a, b in ks if before is not None and b - a == round(before * 1_000)]
    assert (before is not None) == bool(earlier)
    of = [looked(each).comparisons[0].always_valid for each in earlier or [(1_000, *ks[-1])]]
    assert pair.always_valid.p in [each.p for each in of if each]


@settings(max_examples=40)
@given(st.lists(st.integers(0, 2_000), min_size=2, max_size=4), st.sampled_from([Metric.OPEN_RATE, Metric.CLICK_RATE]))
def test_what_holds_however_often_one_looks_does_so_with_each_of_its_numbers(ks: list[int], metric: Metric) -> None:
    shown = analyse(
        [VariantCounts(name=name, successes=k, recipients=2_000) for name, k in zip("ABCD", ks, strict=False)], metric
    )
    if "however often" not in shown.sentence:
        assert shown.winner_at_any_time is None or "that it takes" in shown.sentence
        return
    pair = deciding(shown)
    between = pair and pair.always_valid_difference
    assert between and "luck alone would ever show as much in " in shown.sentence
    ends = [f"{abs(100 * end):.1f}" for end in (between.low, between.high)]
    told = re.search(r"interval (−?[\d.]+) to (−?[\d.]+)\)", shown.sentence)
    assert told and sorted(each.strip("−") for each in told.groups()) == sorted(ends)


def test_no_difference_at_all() -> None:
    assert said(A=(500, 5_000), B=(500, 5_000)) == (
        "10.0 % of those who got “A” opened, 10.0 % of those who got “B”: no difference (95 % interval −1.2 "
        "to 1.2); too early to say, "
        "and so small a difference may never be found."
    )


def test_small_rates_have_as_many_decimals_as_they_are_worth() -> None:
    assert said(A=(2_600, 1_000_000), B=(2_900, 1_000_000)).startswith(
        "0.29 % of those who got “B” opened, 0.26 % of those who got “A”: 0.03 points more (95 % interval 0.01 to 0.05)"
    )


def test_revenue_is_told_per_recipient() -> None:
    counts = [
        VariantCounts(
            name=name,
            recipients=10_000,
            successes=100,
            revenue=total,
            revenue_squares=total**2 / 50,
            log_revenue=log,
            log_revenue_squares=log**2 / 90,
        )
        for name, total, log in (("A", 10_000, 400), ("B", 12_345_000, 700))
    ]
    sentence = analyse(counts, MONEY).sentence
    assert sentence.startswith("“B” earned 1,234.50 per recipient, “A” 1.00: 1,233.50 more (95 % interval ")


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        ({"A": (5, 50)}, "There is only “A”: nothing to compare it with."),
        ({"A": (0, 0), "B": (5, 50)}, "Too early to say: too few variants have been sent to anyone yet."),
        ({"A": (0, 50), "B": (0, 50)}, "Nothing to tell the variants apart: nobody has opened so far."),
        ({"A": (50, 50), "B": (50, 50)}, "Nothing to tell the variants apart: everybody has opened so far."),
    ],
)
def test_what_there_is_to_say_where_nothing_can_be_compared(counts: dict[str, tuple[int, int]], sentence: str) -> None:
    variants = [VariantCounts(name=name, successes=k, recipients=n) for name, (k, n) in counts.items()]
    assert analyse(variants, Metric.OPEN_RATE).sentence == sentence


def test_where_nobody_has_paid_there_is_nothing_to_tell() -> None:
    assert said(MONEY, A=(0, 50), B=(0, 50)) == "Nothing to tell the variants apart: nobody has paid so far."


def test_a_mismatch_is_the_last_word() -> None:
    counts = [VariantCounts(name=name, successes=1_000, recipients=n) for name, n in (("A", 12_000), ("B", 10_000))]
    assert analyse(counts, Metric.OPEN_RATE).sentence.endswith(
        "not to be believed, as the variants did not get the shares of recipients that they should have."
    )


def test_of_a_bandit_only_beliefs_are_told() -> None:
    sentence = said(A=(500, 5_000), B=(605, 5_000), adaptive=True)
    assert sentence.endswith("shares follow the results, so no test applies: “B” is the best with probability 1.00.")
    assert "luck" not in sentence
