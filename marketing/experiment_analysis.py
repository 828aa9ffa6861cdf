"""What do the counters of an experiment show?"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from marketing import experiment_beliefs as beliefs
from marketing import experiment_revenue as money
from marketing import experiment_statistics as statistics
from marketing.experiment_comparisons import Terms, amounts_of, compared, rate_of
from marketing.experiment_results import (
    Belief,
    Caution,
    Comparison,
    Estimate,
    Metric,
    MinimumSample,
    Results,
    SampleRatio,
    Significance,
    VariantCounts,
    VariantResult,
)
from marketing.experiment_revenue import Payments
from marketing.experiment_sentences import sentence

if TYPE_CHECKING:
    from marketing.experiment_revenue import Means


def analyse(
    variants: Sequence[VariantCounts],
    metric: Metric,
    *,
    confidence: float = 0.95,
    control: str | None = None,
    minimum_sample: MinimumSample = MinimumSample(),
    weights: Mapping[str, float] | None = None,
    adaptive: bool = False,
    confounded: Caution | None = None,
    payments: Mapping[str, Sequence[float]] | None = None,
    seed: int = 0,
    earlier: Results | None = None,
) -> Results:
    """Everything that can be said of an experiment, from its counters: no clock, and no chance but `seed`.

    The first call of a program takes 0.3 s longer, which scipy needs to load; others take milliseconds, and those with
    `payments` up to a second: not on an event loop.

    Args:
        variants: what was counted, in the order in which variants are shown; made for 2 to 10, 1 will do.
        confidence: of every interval, 0.5 to 0.9999; 1 less the share of experiments that may err.
        control: the name of the variant that others are to beat; the first one if left out.
        weights: the share that each variant should have got, by name, in any unit, for the sample ratio; equal ones
            if left out.
        adaptive: allocation followed the results (a bandit). Then there is no sample ratio, nothing that is always
            valid and no winner, as differences between hours of the day look like differences between variants; what
            is believed of each variant remains.
        confounded: why something besides chance and the variants tells those apart who got one from those who got
            another. Then there is nothing of that either, and the sentence says why (see `experiment_sentences`).
        payments: for revenue, what each paying recipient paid, by variant. With all of them, and no more than
            100,000 in all, the test and the interval are those of the bootstrap, drawn with `seed`; else the test is
            Welch's on log(1 + amount) and the interval Welch's on amounts.
        earlier: the results of the last look at this experiment: always-valid numbers never get weaker again while
            the same one leads.

    Returns:
        Results without NaN or infinity, whatever was counted.

    Raises:
        ValueError: no variants, two of one name, a control or weights that are not of these variants, or a confidence
            that is none.
    """
    names = [each.name for each in variants]
    if not names or len(set(names)) < len(names):
        raise ValueError("an experiment has at least one variant, each with a name of its own")
    if control is not None and control not in names:
        raise ValueError(f"there is no variant {control!r} to be the control")
    if not 0.5 <= confidence <= 0.9999:
        raise ValueError("confidence lies between 0.5 and 0.9999")
    expected = _expected(names, weights)
    by_chance = not adaptive and confounded is None
    terms = Terms(metric, confidence, names[0] if control is None else control, len(names), by_chance)
    ratio = _sample_ratio(variants, expected) if by_chance else None
    shown = _results_of_variants(variants, terms, minimum_sample)
    seen = [each for each, result in zip(variants, shown, strict=True) if result.estimate]
    resampled, warnings = _resampled(seen, terms, payments, seed)
    pairs = compared(seen, terms, resampled, earlier)
    leader, trusted = _leader(shown, terms), by_chance and not (ratio and ratio.mismatch)
    results = Results(
        metric=metric,
        confidence=confidence,
        control=terms.control,
        adaptive=adaptive,
        sentence="",
        leader=leader,
        winner_if_planned=_winner(leader, pairs, terms, lambda pair: pair.test) if trusted else None,
        winner_at_any_time=_winner(leader, pairs, terms, lambda pair: pair.always_valid) if trusted else None,
        variants=shown,
        comparisons=pairs,
        omnibus=_omnibus(seen, terms),
        sample_ratio=ratio,
        warnings=[
            *([confounded] if confounded else []),
            *_of_the_whole(ratio, adaptive),
            *_of_close_rivals(leader, pairs, terms),
            *warnings,
            *_of_small_samples(shown, terms, minimum_sample),
        ],
    )
    return results.model_copy(update={"sentence": sentence(results)})


def _expected(names: Sequence[str], weights: Mapping[str, float] | None) -> dict[str, float]:
    if weights is None:
        return {name: 1 / len(names) for name in names}
    whole = math.fsum(weights.values())
    expected = {name: weights.get(name, 0) / whole for name in names} if whole > 0 and math.isfinite(whole) else {}
    if set(weights) != set(names) or not expected or min(expected.values()) <= 0:
        raise ValueError("weights are positive numbers, one for each variant")
    return expected


def _sample_ratio(variants: Sequence[VariantCounts], expected: Mapping[str, float]) -> SampleRatio:
    people = [each.recipients + each.waiting for each in variants]
    p = statistics.sample_ratio(people, [expected[each.name] for each in variants]).p
    threshold = statistics.MISMATCH_BELOW
    return SampleRatio(p=p, threshold=threshold, mismatch=p < threshold, expected=dict(expected))


def _results_of_variants(
    variants: Sequence[VariantCounts], terms: Terms, minimum: MinimumSample
) -> list[VariantResult]:
    if terms.metric is Metric.REVENUE_PER_RECIPIENT:
        odds = beliefs.odds_of_means(beliefs.normals([amounts_of(each) for each in variants]))
        method = "normal model of means, flat prior, quadrature"
    else:
        odds = beliefs.odds_of_rates([beliefs.shape(each.successes, each.recipients) for each in variants])
        method = "Beta-binomial model, uniform prior, quadrature"
    return [
        VariantResult(
            name=each.name,
            recipients=each.recipients,
            successes=each.successes,
            estimate=_estimate(each, terms),
            belief=Belief(
                probability_to_be_best=of.probability_to_be_best, expected_loss=of.expected_loss, method=method
            ),
            enough=each.recipients >= minimum.recipients and each.successes >= _fewest(terms.metric, minimum),
        )
        for each, of in zip(variants, odds, strict=True)
    ]


def _estimate(counts: VariantCounts, terms: Terms) -> Estimate | None:
    if terms.metric is Metric.REVENUE_PER_RECIPIENT:
        if counts.recipients < 2:
            return None
        amounts = amounts_of(counts)
        value, between, method = amounts.mean, money.mean_interval(amounts, terms.confidence), "Student's t"
    elif counts.recipients == 0:
        return None
    else:
        rate = rate_of(counts)
        value, between, method = rate.value, statistics.wilson(rate, terms.confidence), "Wilson"
    return Estimate(
        value=value, low=between.low, high=between.high, confidence=terms.confidence, method=method, peeking_safe=False
    )


def _fewest(metric: Metric, minimum: MinimumSample) -> int:
    """How many of its recipients should have done it."""
    match metric:
        case Metric.OPEN_RATE:
            return 0
        case Metric.CLICK_RATE:
            return minimum.clicks
        case Metric.CONVERSION_RATE | Metric.REVENUE_PER_RECIPIENT:
            return minimum.conversions


def _resampled(
    seen: Sequence[VariantCounts], terms: Terms, payments: Mapping[str, Sequence[float]] | None, seed: int
) -> tuple[dict[str, "Means"], list[Caution]]:
    """The means of resampled revenue by variant; without them the reason, where people should know it."""
    if terms.metric is not Metric.REVENUE_PER_RECIPIENT or payments is None:
        return {}, []
    paid = sum(each.successes for each in seen)
    if paid > money.MOST_VALUES:
        message = (
            f"{paid:,} recipients paid, more than the {money.MOST_VALUES:,} that are resampled: the interval is a "
            "normal approximation, which is as good with so many."
        )
        return {}, [Caution(code="not_resampled", message=message)]
    lacking = [each for each in seen if len(payments.get(each.name, ())) != each.successes]
    if lacking:
        message = "Its payments are not all here, so revenue is not resampled: the interval is a normal approximation."
        return {}, [Caution(code="not_resampled", message=message, variant=each.name) for each in lacking]
    import numpy as np

    rng = np.random.default_rng(seed)
    return {each.name: money.resampled_means(Payments(each.recipients, payments[each.name]), rng) for each in seen}, []


def _leader(shown: Sequence[VariantResult], terms: Terms) -> str | None:
    """The best so far, and of equals the control; None where nobody has done it, or everybody."""
    values = {each.name: each.estimate.value for each in shown if each.estimate}
    most = 1 if terms.metric is not Metric.REVENUE_PER_RECIPIENT else math.inf
    if not values or all(value <= 0 for value in values.values()) or all(value >= most for value in values.values()):
        return None
    return max(values, key=lambda name: (values[name], name == terms.control))


def _winner(
    leader: str | None,
    pairs: Sequence[Comparison],
    terms: Terms,
    test: Callable[[Comparison], Significance | None],
) -> str | None:
    """The leader, if it is believed to beat the control; the control, if it is believed to beat all others."""
    rivals = {pair.variant for pair in pairs} if leader == terms.control else {leader}
    decisive = [pair for pair in pairs if pair.baseline == terms.control and pair.variant in rivals]
    return leader if decisive and all(_believed(pair, test(pair), terms) for pair in decisive) else None


def _believed(pair: Comparison, test: Significance | None, terms: Terms) -> bool:
    """Also not where amounts point one way and their logarithms, which are tested, the other."""
    same_way = test is not None and (test.statistic is None or test.statistic * pair.difference.value > 0)
    return test is not None and same_way and test.p_adjusted <= terms.alpha


def _omnibus(seen: Sequence[VariantCounts], terms: Terms) -> Significance | None:
    """Of three or more rates: are they all one?"""
    if len(seen) < 3 or terms.metric is Metric.REVENUE_PER_RECIPIENT:
        return None
    test = statistics.independence([rate_of(each) for each in seen])
    return Significance(
        method="Pearson's chi-square", statistic=test.statistic, p=test.p, p_adjusted=test.p, peeking_safe=False
    )


def _of_the_whole(ratio: SampleRatio | None, adaptive: bool) -> list[Caution]:
    if ratio and ratio.mismatch:
        message = (
            "The variants did not get the shares of recipients that they should have, and chance alone would do so in "
            f"fewer than {ratio.threshold:.1%} of experiments: find out who is missing before you believe any figure."
        )
        return [Caution(code="sample_ratio_mismatch", message=message)]
    if adaptive:
        message = "Shares followed the results, so tests and intervals are no more than a hint."
        return [Caution(code="adaptive", message=message)]
    return []


def _of_close_rivals(leader: str | None, pairs: Sequence[Comparison], terms: Terms) -> list[Caution]:
    """A winner has beaten the control: the others perhaps not."""
    close = [
        pair.variant if pair.baseline == leader else pair.baseline
        for pair in pairs
        if leader in (pair.variant, pair.baseline)
        and terms.control not in (leader, pair.baseline)
        and not _believed(pair, pair.test, terms)
    ]
    return [
        Caution(code="close_rival", message=f"Whether “{leader}” is better than “{name}” too is open.", variant=name)
        for name in close
    ]


def _of_small_samples(shown: Sequence[VariantResult], terms: Terms, minimum: MinimumSample) -> list[Caution]:
    did = {
        Metric.OPEN_RATE: "openings",
        Metric.CLICK_RATE: "clicks",
        Metric.CONVERSION_RATE: "conversions",
        Metric.REVENUE_PER_RECIPIENT: "payments",
    }[terms.metric]
    fewest = _fewest(terms.metric, minimum)

    def lacking(of: VariantResult) -> str:
        wanted = [(of.recipients, minimum.recipients, "recipients"), (of.successes, fewest, did)]
        return " and ".join(f"{n:,} of the {least:,} {what}" for n, least, what in wanted if n < least)

    return [
        Caution(code="small_sample", message=f"“{each.name}” has {lacking(each)} that it takes.", variant=each.name)
        for each in shown
        if not each.enough
    ]
