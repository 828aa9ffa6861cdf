"""How does one variant compare with another?"""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

from marketing import experiment_revenue as money
from marketing import experiment_sequences as sequences
from marketing import experiment_statistics as statistics
from marketing.experiment_results import Comparison, Estimate, Metric, Reach, Results, Significance, VariantCounts
from marketing.experiment_revenue import Moments
from marketing.experiment_sequences import Look
from marketing.experiment_statistics import Interval, Rate

if TYPE_CHECKING:
    from marketing.experiment_revenue import Means

# Of what a comparison could have found, and of what it would take to find what was seen.
POWER = 0.8
_MOST_MORE = 10**9


class Terms(NamedTuple):
    """On what terms variants are compared: `variants` of them share one allowance of errors."""

    metric: Metric
    confidence: float
    control: str
    variants: int
    by_chance: bool  # alone decided who got which

    @property
    def alpha(self) -> float:
        """The share of experiments that may see differences where there are none."""
        return 1 - self.confidence

    @property
    def alpha_of_pair(self) -> float:
        """Bonferroni's share of it for one of all pairs: what Holm's correction demands of the first."""
        return self.alpha / max(1, math.comb(self.variants, 2))

    @property
    def alpha_at_any_time(self) -> float:
        """Bonferroni's share of it for one comparison with the control."""
        return self.alpha / max(1, self.variants - 1)


def rate_of(counts: VariantCounts) -> Rate:
    return Rate(counts.successes, counts.recipients)


def amounts_of(counts: VariantCounts) -> Moments:
    return Moments.of(counts.recipients, counts.revenue, counts.revenue_squares)


def _logs_of(counts: VariantCounts) -> Moments:
    return Moments.of(counts.recipients, counts.log_revenue, counts.log_revenue_squares)


def compared(
    counts: Sequence[VariantCounts], terms: Terms, resampled: Mapping[str, "Means"], earlier: Results | None
) -> list[Comparison]:
    """All pairs, each variant with those before it, of variants that have recipients (for revenue, two or more).

    The control comes first, whatever its place. `resampled` has for every variant the means of its resampled revenue,
    or is empty; `earlier` are the results of the last look.
    """
    ordered = sorted(counts, key=lambda each: each.name != terms.control)
    pairs = list(combinations(ordered, 2))
    if terms.metric is Metric.REVENUE_PER_RECIPIENT:
        found = [_of_revenue(a, b, terms, resampled) for a, b in pairs]
        looks = [sequences.look_at_means(amounts_of(a), amounts_of(b)) for a, b in pairs]
    else:
        found = [_of_rates(a, b, terms) for a, b in pairs]
        looks = [sequences.look_at_rates(rate_of(a), rate_of(b)) for a, b in pairs]
    adjusted = statistics.holm([each.test.p for each in found])
    found = [
        each.model_copy(update={"test": each.test.model_copy(update={"p_adjusted": p})})
        for each, p in zip(found, adjusted, strict=True)
    ]
    with_control = sum(each.baseline == terms.control for each in found) if terms.by_chance else 0
    return [*_at_any_time(found[:with_control], looks[:with_control], terms, earlier), *found[with_control:]]


def _of_rates(baseline: VariantCounts, other: VariantCounts, terms: Terms) -> Comparison:
    a, b = rate_of(baseline), rate_of(other)
    test, exact = statistics.z_test(a, b), statistics.fisher(a, b)
    lift = None
    if a.k and b.k:
        relative = 1 / a.k - 1 / a.n + 1 / b.k - 1 / b.n
        between = statistics.ratio_interval(b.value / a.value, relative, terms.confidence)
        lift = _estimate(b.value / a.value - 1, between, terms, "Katz")
    needed = None if a.value == b.value else statistics.sample_size(a.value, b.value, terms.alpha_of_pair, POWER)
    return Comparison(
        variant=other.name,
        baseline=baseline.name,
        difference=_estimate(
            b.value - a.value, statistics.newcombe(a, b, terms.confidence), terms, "Newcombe's score interval"
        ),
        lift=lift,
        test=_tested("two-proportion z-test", test.p, test.statistic)
        if exact is None
        else _tested("Fisher's exact test", exact),
        reach=_reach(statistics.detectable(a.value, a.n, b.n, terms.alpha_of_pair, POWER), needed, min(a.n, b.n)),
    )


def _of_revenue(
    baseline: VariantCounts, other: VariantCounts, terms: Terms, resampled: Mapping[str, "Means"]
) -> Comparison:
    a, b = amounts_of(baseline), amounts_of(other)
    logs = money.welch(_logs_of(baseline), _logs_of(other))
    test = _tested("Welch's t-test of log(1 + revenue)", logs.p, logs.statistic)
    log_test, between, method = None, money.welch_interval(a, b, terms.confidence), "Welch's t interval"
    if resampled:
        drawn = money.bootstrap(resampled[baseline.name], resampled[other.name], terms.confidence)
        log_test, between, method = test, drawn.interval, "bootstrap"
        test = _tested("bootstrap", drawn.p)
    lift = None
    if a.mean > 0 and b.mean > 0:
        relative = a.of_mean / a.mean**2 + b.of_mean / b.mean**2
        around = statistics.ratio_interval(b.mean / a.mean, relative, terms.confidence)
        lift = _estimate(b.mean / a.mean - 1, around, terms, "delta method")
    spread = a.of_mean + b.of_mean
    z = statistics.quantile(1 - terms.alpha_of_pair / 2) + statistics.quantile(POWER)
    needed = None if a.mean == b.mean else money.sample_size_of_means(a, b, terms.alpha_of_pair, POWER)
    return Comparison(
        variant=other.name,
        baseline=baseline.name,
        difference=_estimate(b.mean - a.mean, between, terms, method),
        lift=lift,
        test=test,
        log_test=log_test,
        reach=_reach(z * math.sqrt(spread) if spread else None, needed, min(a.n, b.n)),
    )


def _estimate(value: float, between: Interval, terms: Terms, method: str) -> Estimate:
    return Estimate(
        value=value, low=between.low, high=between.high, confidence=terms.confidence, method=method, peeking_safe=False
    )


def _tested(method: str, p: float, statistic: float | None = None) -> Significance:
    return Significance(method=method, statistic=statistic, p=p, p_adjusted=p, peeking_safe=False)


def _reach(effect: float | None, needed: float | None, have: int) -> Reach:
    more = None if needed is None or needed - have > _MOST_MORE else max(0, math.ceil(needed) - have)
    return Reach(minimum_detectable_effect=effect, power=POWER, more_recipients_per_variant=more)


def _at_any_time(
    found: Sequence[Comparison], looks: Sequence[Look], terms: Terms, earlier: Results | None
) -> list[Comparison]:
    """Adds what is always valid, the lowest p and the narrowest interval of this look and of those before it.

    What was earned while the one led is no evidence for the other: then all begins with the look at which it took over.
    So it does where the difference has left the interval of before: those looks were at another truth. To forget only
    makes p larger, and the interval of every look holds, so both may be looked at at any time as before.
    """
    before = _by_pair(earlier, terms)
    ps, intervals, shown = [], [], []
    for each, look in zip(found, looks, strict=True):
        last = before.get((each.variant, each.baseline))
        if last and not _still_holds(last, each):
            last = None
        p, between = sequences.p_value(look), sequences.interval(look, terms.alpha_at_any_time)
        if between and terms.metric is not Metric.REVENUE_PER_RECIPIENT:
            between = Interval(max(-1, between.low), min(1, between.high))
        of_last = last.always_valid if last and last.always_valid and last.always_valid.p < p else None
        ps.append(of_last.p if of_last else p)
        shown.append((of_last.shown_before or last.difference.value) if last and of_last else None)
        intervals.append(_common(between, last.always_valid_difference if last else None))
    return [
        each.model_copy(
            update={
                "always_valid": Significance(
                    method="mSPRT", p=p, p_adjusted=adjusted, shown_before=before, peeking_safe=True
                ),
                "always_valid_difference": between
                and Estimate(
                    value=each.difference.value,
                    low=between.low,
                    high=between.high,
                    confidence=terms.confidence,
                    method="normal mixture confidence sequence",
                    peeking_safe=True,
                ),
            }
        )
        for each, p, adjusted, before, between in zip(found, ps, statistics.holm(ps), shown, intervals, strict=True)
    ]


def _by_pair(earlier: Results | None, terms: Terms) -> dict[tuple[str, str], Comparison]:
    """What the last look says that is comparable with this one."""
    if earlier is None or (earlier.metric, earlier.confidence) != (terms.metric, terms.confidence):
        return {}
    if len(earlier.variants) != terms.variants:
        return {}
    return {(each.variant, each.baseline): each for each in earlier.comparisons}


def _still_holds(last: Comparison, now: Comparison) -> bool:
    """Whether what the last look has shown is about the difference that there is now."""
    held = last.always_valid_difference
    same_leads = last.difference.value * now.difference.value > 0
    return same_leads and (held is None or held.low <= now.difference.value <= held.high)


def _common(now: Interval | None, last: Estimate | None) -> Interval | None:
    """What both hold."""
    if now is None or last is None:
        return now if last is None else Interval(last.low, last.high)
    return Interval(max(now.low, last.low), min(now.high, last.high))
