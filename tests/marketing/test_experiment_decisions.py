"""Is a winner only called one when it may be believed?"""

import pytest

from marketing.experiment_analysis import analyse
from marketing.experiment_decisions import Fallback, Verdict, best_so_far, verdict
from marketing.experiment_results import Metric, MinimumSample, Results, VariantCounts


def results(a: int, b: int, of: int = 1_000, *, adaptive: bool = False, control: str = "A") -> Results:
    """Clicks of two variants, each sent to so many."""
    counts = [VariantCounts(name=name, recipients=of, successes=k) for name, k in (("A", a), ("B", b))]
    few = MinimumSample(recipients=100, clicks=10)
    return analyse(counts, Metric.CLICK_RATE, control=control, minimum_sample=few, adaptive=adaptive)


def said(found: Verdict | None) -> tuple[str | None, str]:
    assert found
    return found.winner, found.by


def test_a_difference_that_is_significant_at_the_planned_moment_decides() -> None:
    found = verdict(results(100, 160), when_significant=False, fallback="control", due=True)
    assert said(found) == ("B", "time")


def test_before_the_planned_moment_no_difference_decides() -> None:
    assert verdict(results(100, 400), when_significant=False, fallback="control", due=False) is None


def test_what_is_looked_at_all_the_time_decides_as_soon_as_it_is_always_valid() -> None:
    assert verdict(results(100, 140), when_significant=True, fallback="control", due=False) is None
    found = verdict(results(100, 200), when_significant=True, fallback="control", due=False)
    assert said(found) == ("B", "significance")


def test_who_has_looked_all_the_time_can_not_take_the_plain_test_at_the_end() -> None:
    shown = results(100, 140)
    assert shown.winner_if_planned == "B" and shown.winner_at_any_time is None
    assert said(verdict(shown, when_significant=True, fallback="control", due=True)) == ("A", "fallback")


@pytest.mark.parametrize(("fallback", "winner"), [("control", "A"), ("best_so_far", "B"), ("ask", None)])
def test_too_little_evidence_falls_back_to_what_was_asked_for(fallback: Fallback, winner: str | None) -> None:
    found = verdict(results(100, 104), when_significant=False, fallback=fallback, due=True)
    assert said(found) == (winner, "fallback")


def test_a_difference_among_fewer_than_the_minimum_sample_is_too_little_evidence() -> None:
    shown = results(5, 40, of=90)
    assert shown.winner_if_planned == "B"
    assert said(verdict(shown, when_significant=False, fallback="control", due=True)) == ("A", "fallback")


@pytest.mark.parametrize("when_significant", [False, True])
def test_who_is_asked_because_of_too_few_recipients_is_told_so(when_significant: bool) -> None:
    found = verdict(results(5, 60, of=90), when_significant=when_significant, fallback="ask", due=True)
    assert found and found.reason.startswith("No winner can be believed")
    assert found.reason.endswith(
        "too early to say: “A” has 90 of the 100 recipients and 5 of the 10 clicks that it takes."
    )
    assert "may be believed" not in found.reason


def test_who_is_asked_because_figures_were_looked_at_all_the_time_is_told_so() -> None:
    found = verdict(results(100, 140), when_significant=True, fallback="ask", due=True)
    assert found and found.reason.startswith(
        "No winner can be believed of figures that were looked at all the time, so choose one. "
    )


def test_where_nobody_did_anything_the_best_so_far_is_the_control() -> None:
    shown = results(0, 0, control="B")
    assert best_so_far(shown) == "B"
    found = verdict(shown, when_significant=False, fallback="best_so_far", due=True)
    assert said(found) == ("B", "fallback") and found
    assert found.reason.startswith("No winner can be believed, so it is the control, “B”. ")


def test_a_bandit_ends_with_the_one_that_is_most_likely_the_best() -> None:
    shown = results(100, 104, adaptive=True)
    assert verdict(shown, when_significant=False, fallback="control", due=False) is None
    found = verdict(shown, when_significant=False, fallback="control", due=True)
    assert said(found) == ("B", "bandit")


@pytest.mark.parametrize(("fallback", "winner"), [("control", "A"), ("best_so_far", "B"), ("ask", None)])
def test_a_bandit_whose_best_had_too_few_falls_back_to_what_was_asked_for(
    fallback: Fallback, winner: str | None
) -> None:
    shown = results(0, 1, of=8, adaptive=True)
    found = verdict(shown, when_significant=False, fallback=fallback, due=True)
    assert said(found) == (winner, "fallback") and found
    assert "of the 100 recipients and 1 of the 10 clicks that it takes" in found.reason


def test_of_a_bandit_only_the_best_needs_its_minimum_as_others_get_few() -> None:
    counts = [VariantCounts(name="A", recipients=20), VariantCounts(name="B", recipients=900, successes=90)]
    shown = analyse(counts, Metric.CLICK_RATE, minimum_sample=MinimumSample(recipients=100, clicks=10), adaptive=True)
    assert [each.enough for each in shown.variants] == [False, True]
    assert said(verdict(shown, when_significant=False, fallback="ask", due=True)) == ("B", "bandit")


def test_a_bandit_takes_what_is_likely_the_best_rather_than_what_was_lucky_once() -> None:
    counts = [
        VariantCounts(name="A", recipients=900, successes=890),
        VariantCounts(name="B", recipients=3, successes=3),
    ]
    shown = analyse(counts, Metric.CLICK_RATE, adaptive=True)
    assert (shown.leader, best_so_far(shown)) == ("B", "A")
    assert "“A” is the best with probability" in shown.sentence


def test_a_bandit_that_nobody_reacted_to_falls_back() -> None:
    found = verdict(results(0, 0, adaptive=True), when_significant=False, fallback="ask", due=True)
    assert said(found) == (None, "fallback")


def test_variants_that_did_not_get_their_shares_have_no_winner() -> None:
    counts = [VariantCounts(name="A", recipients=5_000, successes=500), VariantCounts(name="B", recipients=4_000)]
    shown = analyse(counts, Metric.CLICK_RATE)
    assert shown.sample_ratio and shown.sample_ratio.mismatch
    assert said(verdict(shown, when_significant=False, fallback="ask", due=True)) == (None, "fallback")
