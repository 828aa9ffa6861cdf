"""All that is said of an experiment, from its counters."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

import marketing
from marketing import experiment_statistics as statistics
from marketing.experiment_analysis import analyse
from marketing.experiment_beliefs import odds_of_rates, shape
from marketing.experiment_results import Metric, MinimumSample, Results, VariantCounts
from marketing.experiment_sequences import interval, look_at_rates, p_value
from marketing.experiment_statistics import Rate

OPENS, CLICKS, REVENUE = Metric.OPEN_RATE, Metric.CLICK_RATE, Metric.REVENUE_PER_RECIPIENT


def rates(**counts: tuple[int, int]) -> list[VariantCounts]:
    return [VariantCounts(name=name, successes=k, recipients=n) for name, (k, n) in counts.items()]


def paid(name: str, recipients: int, amounts: "list[float] | np.ndarray[Any, Any]") -> VariantCounts:
    each, logs = np.asarray(amounts, dtype=float), np.log1p(amounts)
    return VariantCounts(
        name=name,
        recipients=recipients,
        successes=len(each),
        revenue=float(each.sum()),
        revenue_squares=float((each**2).sum()),
        log_revenue=float(logs.sum()),
        log_revenue_squares=float((logs**2).sum()),
    )


def codes(results: Results) -> list[str]:
    return [each.code for each in results.warnings]


def test_two_variants_are_compared_in_every_way() -> None:
    results = analyse(rates(A=(500, 5_000), B=(605, 5_000)), OPENS)
    a, b = Rate(500, 5_000), Rate(605, 5_000)
    (pair,) = results.comparisons
    assert (pair.variant, pair.baseline) == ("B", "A")
    assert (pair.difference.low, pair.difference.high) == statistics.newcombe(a, b, 0.95)
    assert pair.lift is not None and pair.lift.value == pytest.approx(0.21)
    assert (pair.test.statistic, pair.test.p) == statistics.z_test(a, b)
    look = look_at_rates(a, b)
    assert pair.always_valid is not None and pair.always_valid.p == p_value(look)
    always = pair.always_valid_difference
    assert always is not None and (always.low, always.high) == pytest.approx(interval(look, 0.05))
    assert pair.test.p < pair.always_valid.p < 0.05
    assert pair.reach.more_recipients_per_variant == 0
    expected = odds_of_rates([shape(500, 5_000), shape(605, 5_000)])
    assert [each.belief.probability_to_be_best for each in results.variants] == [
        each.probability_to_be_best for each in expected
    ]
    assert (results.leader, results.winner_if_planned, results.winner_at_any_time) == ("B", "B", "B")
    assert results.sample_ratio is not None and results.sample_ratio.p == 1
    assert (results.omnibus, results.warnings) == (None, [])


def test_only_what_is_always_valid_is_safe_for_those_who_peek() -> None:
    results = analyse(rates(A=(500, 5_000), B=(605, 5_000), C=(550, 5_000)), OPENS)

    def safe(at: object, path: str = "") -> dict[str, bool]:
        found = {}
        if isinstance(at, dict):
            if "peeking_safe" in at:
                found[path] = bool(at["peeking_safe"])
            for key, value in at.items():
                found |= safe(value, f"{path}.{key}")
        elif isinstance(at, list):
            for value in at:
                found |= safe(value, path)
        return found

    said = safe(results.model_dump())
    assert {path for path, is_safe in said.items() if is_safe} <= {
        ".comparisons.always_valid",
        ".comparisons.always_valid_difference",
    }
    with_control = [pair for pair in results.comparisons if pair.baseline == "A"]
    assert all(pair.always_valid and pair.always_valid.peeking_safe for pair in with_control)
    assert all(not pair.test.peeking_safe for pair in results.comparisons)


def test_of_three_variants_all_pairs_are_corrected_and_always_valid_ones_are_those_with_the_control() -> None:
    results = analyse(rates(A=(200, 2_000), B=(260, 2_000), C=(230, 2_000)), CLICKS, control="C")
    assert [(pair.variant, pair.baseline) for pair in results.comparisons] == [("A", "C"), ("B", "C"), ("B", "A")]
    assert [pair.always_valid is not None for pair in results.comparisons] == [True, True, False]
    plain = [pair.test.p for pair in results.comparisons]
    assert [pair.test.p_adjusted for pair in results.comparisons] == statistics.holm(plain)
    always = [pair.always_valid for pair in results.comparisons[:2]]
    assert [each.p_adjusted for each in always if each] == statistics.holm([each.p for each in always if each])
    omnibus = statistics.independence([Rate(200, 2_000), Rate(260, 2_000), Rate(230, 2_000)])
    assert results.omnibus is not None and (results.omnibus.statistic, results.omnibus.p) == omnibus
    # Bonferroni's share of 5 %: of all three pairs for what is looked at once, of two with the control at any time.
    reach = results.comparisons[0].reach
    assert reach.minimum_detectable_effect == statistics.detectable(0.115, 2_000, 2_000, 0.05 / 3, 0.8)
    b = results.comparisons[1].always_valid_difference
    look = look_at_rates(Rate(230, 2_000), Rate(260, 2_000))
    assert b is not None and (b.low, b.high) == pytest.approx(interval(look, 0.025))


def test_a_winner_that_beats_the_control_may_not_beat_all_others() -> None:
    results = analyse(rates(A=(1_000, 10_000), B=(1_310, 10_000), C=(1_290, 10_000)), OPENS)
    assert (results.leader, results.winner_if_planned, results.winner_at_any_time) == ("B", "B", "B")
    assert [(each.code, each.variant) for each in results.warnings] == [("close_rival", "C")]


def test_a_control_wins_only_against_all_others() -> None:
    assert analyse(rates(A=(1_300, 10_000), B=(1_000, 10_000), C=(1_010, 10_000)), OPENS).winner_if_planned == "A"
    results = analyse(rates(A=(1_300, 10_000), B=(1_000, 10_000), C=(1_290, 10_000)), OPENS)
    assert (results.leader, results.winner_if_planned, results.winner_at_any_time) == ("A", None, None)


def test_of_equals_the_control_leads_and_nobody_wins() -> None:
    results = analyse(rates(A=(500, 5_000), B=(500, 5_000)), OPENS, control="B")
    assert (results.leader, results.winner_if_planned) == ("B", None)
    assert results.comparisons[0].reach.more_recipients_per_variant is None


def test_where_people_were_not_shared_out_as_they_should_nobody_wins() -> None:
    counts = rates(A=(1_000, 10_000), B=(1_500, 9_000))
    results = analyse(counts, OPENS)
    assert results.sample_ratio is not None and results.sample_ratio.mismatch
    assert (results.winner_if_planned, results.winner_at_any_time) == (None, None)
    assert "sample_ratio_mismatch" in codes(results)
    as_planned = analyse(counts, OPENS, weights={"A": 10, "B": 9})
    assert as_planned.winner_at_any_time == "B"
    assert as_planned.sample_ratio is not None
    assert as_planned.sample_ratio.expected == pytest.approx({"A": 10 / 19, "B": 9 / 19})


def test_a_bandit_has_beliefs_and_no_winner() -> None:
    results = analyse(rates(A=(100, 1_000), B=(1_500, 9_000)), OPENS, adaptive=True)
    assert (results.sample_ratio, results.winner_if_planned, results.winner_at_any_time) == (None, None, None)
    assert results.comparisons[0].always_valid is None
    assert results.variants[1].belief.probability_to_be_best > 0.999
    assert codes(results) == ["adaptive"]


@pytest.mark.parametrize(
    ("metric", "successes", "recipients", "enough"),
    [
        (OPENS, 3, 1_000, True),
        (OPENS, 300, 999, False),
        (CLICKS, 100, 1_000, True),
        (CLICKS, 99, 5_000, False),
        (Metric.CONVERSION_RATE, 30, 1_000, True),
        (Metric.CONVERSION_RATE, 29, 1_000, False),
        (REVENUE, 29, 1_000, False),
    ],
)
def test_smaller_samples_are_warned_of(metric: Metric, successes: int, recipients: int, enough: bool) -> None:
    results = analyse(rates(A=(200, 2_000), B=(successes, recipients)), metric, weights={"A": 2_000, "B": recipients})
    assert [each.enough for each in results.variants] == [True, enough]
    assert [each.variant for each in results.warnings if each.code == "small_sample"] == [] if enough else ["B"]


def test_how_small_is_too_small_can_be_said() -> None:
    results = analyse(rates(A=(5, 50), B=(6, 50)), CLICKS, minimum_sample=MinimumSample(recipients=10, clicks=5))
    assert codes(results) == []


def test_a_second_look_takes_nothing_back() -> None:
    first = analyse(rates(A=(500, 5_000), B=(605, 5_000)), OPENS)
    second = analyse(rates(A=(700, 7_000), B=(780, 7_000)), OPENS, earlier=first)
    alone = analyse(rates(A=(700, 7_000), B=(780, 7_000)), OPENS)
    before, now, fresh = (each.comparisons[0] for each in (first, second, alone))
    assert before.always_valid and now.always_valid and fresh.always_valid
    assert now.always_valid.p == before.always_valid.p < fresh.always_valid.p
    assert second.winner_at_any_time == "B" and alone.winner_at_any_time is None
    held = [each.always_valid_difference for each in (before, now, fresh)]
    assert held[0] and held[1] and held[2]
    assert held[1].low == max(held[0].low, held[2].low) and held[1].high == min(held[0].high, held[2].high)
    assert now.test == fresh.test
    stored = Results.model_validate_json(first.model_dump_json())
    assert analyse(rates(A=(700, 7_000), B=(780, 7_000)), OPENS, earlier=stored) == second
    assert analyse(rates(A=(700, 7_000), B=(780, 7_000)), CLICKS, earlier=first).winner_at_any_time is None


def test_where_the_truth_has_moved_the_last_look_counts() -> None:
    first = analyse(rates(A=(1_000, 10_000), B=(2_000, 10_000)), OPENS)
    second = analyse(rates(A=(4_000, 20_000), B=(2_500, 20_000)), OPENS, earlier=first)
    alone = analyse(rates(A=(4_000, 20_000), B=(2_500, 20_000)), OPENS)
    assert second.comparisons[0].always_valid_difference == alone.comparisons[0].always_valid_difference


def test_what_one_variant_has_earned_is_not_to_the_credit_of_another() -> None:
    now = rates(A=(2_050, 10_000), B=(2_100, 10_000))
    first = analyse(rates(A=(200, 1_000), B=(100, 1_000)), OPENS)
    second = analyse(now, OPENS, earlier=first)
    assert (first.winner_at_any_time, second.leader, second.winner_at_any_time) == ("A", "B", None)
    assert second == analyse(now, OPENS)
    third = analyse(rates(A=(3_100, 15_000), B=(3_090, 15_000)), OPENS, earlier=second)
    assert (third.leader, third.winner_at_any_time) == ("A", None)


def test_a_variant_that_leaves_later_is_not_missing() -> None:
    now, later = rates(A=(100, 1_000), B=(0, 0))
    alone = analyse([now, later], CLICKS)
    assert alone.sample_ratio and alone.sample_ratio.mismatch
    waiting = later.model_copy(update={"waiting": 1_010})
    results = analyse([now, waiting], CLICKS)
    assert results.sample_ratio and not results.sample_ratio.mismatch
    assert results.sentence == "Too early to say: too few variants have been sent to anyone yet."


def test_a_look_at_fewer_variants_is_another_experiment() -> None:
    first = analyse(rates(A=(500, 5_000), B=(605, 5_000)), OPENS)
    of_three = rates(A=(700, 7_000), B=(780, 7_000), C=(700, 7_000))
    assert analyse(of_three, OPENS, earlier=first) == analyse(of_three, OPENS)


def test_hardly_anybody_may_differ_by_all() -> None:
    (pair,) = analyse(rates(A=(1, 10), B=(2, 10)), OPENS).comparisons
    always = pair.always_valid_difference
    assert always is not None and (always.low, always.high) == (-1, 1)


def test_revenue_is_tested_by_logarithms_and_where_payments_are_there_by_resampling() -> None:
    rng = np.random.default_rng(40)
    of_a, of_b = rng.lognormal(3, 1, 400), rng.lognormal(3.1, 1, 520)
    counts = [paid("A", 20_000, of_a), paid("B", 20_000, of_b)]
    plain = analyse(counts, REVENUE)
    drawn = analyse(counts, REVENUE, payments={"A": of_a.tolist(), "B": of_b.tolist()}, seed=1)
    (by_log,), (by_drawing,) = plain.comparisons, drawn.comparisons
    assert by_log.test.method.startswith("Welch") and by_log.log_test is None
    assert by_drawing.test.method == "bootstrap" and by_drawing.log_test == by_log.test
    assert by_drawing.difference.low == pytest.approx(by_log.difference.low, rel=0.2)
    assert (plain.winner_if_planned, drawn.winner_if_planned) == ("B", "B")
    assert drawn == analyse(counts, REVENUE, payments={"A": of_a.tolist(), "B": of_b.tolist()}, seed=1)
    assert drawn.omnibus is None and codes(drawn) == []


def test_payments_that_are_too_many_or_not_all_there_are_not_resampled() -> None:
    counts = [paid("A", 200_000, [10.0] * 60_000), paid("B", 200_000, [10.0] * 50_000)]
    results = analyse(counts, REVENUE, payments={"A": [10.0] * 60_000, "B": [10.0] * 50_000})
    assert codes(results) == ["not_resampled"] and "110,000" in results.warnings[0].message
    assert results.comparisons[0].difference.method == "Welch's t interval"
    counts = [paid("A", 2_000, [10.0] * 60), paid("B", 2_000, [10.0] * 50)]
    results = analyse(counts, REVENUE, payments={"A": [10.0] * 60, "B": [10.0] * 49})
    assert [(each.code, each.variant) for each in results.warnings] == [("not_resampled", "B")]


def test_amounts_that_point_one_way_and_logarithms_the_other_make_no_winner() -> None:
    counts = [paid("A", 10_000, [5.0] * 1_000), paid("B", 10_000, [400.0] * 100)]
    results = analyse(counts, REVENUE)
    assert results.leader == "B" and results.comparisons[0].test.p < 0.001
    assert results.winner_if_planned is None


@pytest.mark.parametrize(
    "counts",
    [
        [paid("A", 1_000, []), paid("B", 1_000, [])],
        [paid("A", 1_000, []), paid("B", 1_000, [0.01])],
        [paid("A", 0, []), paid("B", 1, [5.0])],
        [paid("A", 50, [5.0] * 50), paid("B", 50, [5.0] * 50)],
        [paid("A", 50, [5.0] * 50), paid("B", 50, [6.0] * 50)],
        # The square of their difference is 0 in a float.
        [paid("A", 50, [1e-200] * 9), paid("B", 50, [3e-200] * 9)],
    ],
)
def test_revenue_without_spread_is_said_to_show_nothing(counts: list[VariantCounts]) -> None:
    results = analyse(counts, REVENUE, payments={"A": [], "B": []})
    assert results.winner_if_planned is None and results.winner_at_any_time is None
    assert results.sentence.endswith(".")


@pytest.mark.parametrize(
    "wrong",
    [
        {"variants": []},
        {"variants": rates(A=(1, 2)) * 2},
        {"control": "Z"},
        {"confidence": 0.3},
        {"confidence": 1},
        {"weights": {"A": 1}},
        {"weights": {"A": 1, "B": 0}},
        {"weights": {"A": 1, "B": -1}},
        {"weights": {"A": 1, "B": float("nan")}},
        {"weights": {"A": 1, "B": float("inf")}},
        {"weights": {"A": 1, "B": 1, "C": 1}},
    ],
)
def test_what_cannot_be_analysed_is_refused(wrong: dict[str, Any]) -> None:
    asked: dict[str, Any] = {"variants": rates(A=(1, 20), B=(2, 20)), "metric": OPENS} | wrong
    with pytest.raises(ValueError, match=r"variant|confidence|weights"):
        analyse(**asked)


def test_no_more_can_succeed_than_there_are() -> None:
    with pytest.raises(ValidationError, match="3 of 2 recipients"):
        rates(A=(3, 2))


@st.composite
def counted(draw: st.DrawFn, name: str) -> VariantCounts:
    """Counters that belong together, of up to a billion recipients."""
    n = draw(st.one_of(st.integers(0, 30), st.integers(0, 10**9)))
    k = draw(st.integers(0, n))
    each, spread = draw(st.floats(0, 10**5)), draw(st.floats(1, 50))
    log = float(np.log1p(each))
    return VariantCounts(
        name=name,
        recipients=n,
        successes=k,
        revenue=each * k,
        revenue_squares=each**2 * k * spread,
        log_revenue=log * k,
        log_revenue_squares=log**2 * k * spread,
    )


@settings(max_examples=60)
@given(
    st.integers(1, 4).flatmap(lambda n: st.tuples(*(counted(name) for name in "ABCD"[:n]))),
    st.sampled_from(Metric),
    st.sampled_from([0.5, 0.95, 0.9999]),
    st.booleans(),
)
def test_whatever_was_counted_results_are_whole(
    counts: tuple[VariantCounts, ...], metric: Metric, confidence: float, adaptive: bool
) -> None:
    results = analyse(counts, metric, confidence=confidence, adaptive=adaptive)
    # The fields refuse NaN and infinity; JSON could not carry them.
    assert Results.model_validate_json(results.model_dump_json()) == results
    assert results.sentence.endswith(".") and "nan" not in results.sentence and "inf" not in results.sentence
    for pair in results.comparisons:
        assert pair.test.p <= pair.test.p_adjusted <= 1
        assert pair.difference.low <= pair.difference.value <= pair.difference.high
        if pair.always_valid_difference is not None:
            assert pair.always_valid_difference.low <= pair.always_valid_difference.high
    assert sum(each.belief.probability_to_be_best for each in results.variants) == pytest.approx(1)
    assert all(each.belief.expected_loss >= 0 for each in results.variants)


def test_ten_variants_with_a_million_recipients_each_take_well_under_a_second() -> None:
    counts = rates(**{f"v{i}": (100_000 + 50 * i, 1_000_000) for i in range(10)})
    analyse(counts, CLICKS)  # scipy is loaded
    before = time.process_time()
    results = analyse(counts, CLICKS)
    assert time.process_time() - before < 0.5
    assert len(results.comparisons) == 45


def test_whoever_only_imports_the_analysis_does_not_wait_for_scipy() -> None:
    files = Path(marketing.__path__[0]).glob("experiment_*.py")
    imports = "; ".join(f"import marketing.{file.stem}" for file in files)
    assert "experiment_analysis" in imports
    program = f"import sys; {imports}; print(sorted({{'numpy', 'scipy'}} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
