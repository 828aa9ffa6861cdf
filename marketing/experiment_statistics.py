"""Do two or more rates differ, how much, and how many recipients does it take to see?"""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

# scipy.special is imported where it is used: it costs 0.25 s and 30 MB (scipy.stats 0.65 s and 80 MB, and has nothing
# that is needed here besides), which programs that never look at an experiment shouldn't pay, nor workflows.
_NORMAL = NormalDist()
# Rarer than one in a thousand: looked at often, and for many experiments, mismatches are still seldom false alarms.
# Fabijan et al. 2019, "Diagnosing Sample Ratio Mismatch in Online Controlled Experiments", KDD.
MISMATCH_BELOW = 0.001
_LONGEST_TABLE = 10_000


class Rate(NamedTuple):
    """`k` of `n` recipients did it; 0 ≤ k ≤ n, n > 0."""

    k: int
    n: int

    @property
    def value(self) -> float:
        return self.k / self.n


class Tested(NamedTuple):
    """A test's statistic, and how often it is as far out if there is no difference (0 to 1, two-sided)."""

    statistic: float
    p: float


class Interval(NamedTuple):
    low: float
    high: float


def quantile(share: float) -> float:
    """The standard normal quantile, such as 1.96 for 0.975. Raises StatisticsError (a ValueError) outside (0, 1)."""
    return _NORMAL.inv_cdf(share)


def two_sided(z: float) -> float:
    """How often a standard normal number is as far from 0 as `z`, precise however far."""
    return math.erfc(abs(z) / math.sqrt(2))


def z_test(a: Rate, b: Rate) -> Tested:
    """The two-proportion z-test with pooled variance; z > 0 where `b` is higher.

    Where nobody or everybody did it, z is 0 and p is 1. Fleiss, Levin & Paik 2003, "Statistical Methods for Rates and
    Proportions", chapter 3, without continuity correction; z² is Pearson's chi-square of the 2 × 2 table.
    """
    pooled = (a.k + b.k) / (a.n + b.n)
    variance = pooled * (1 - pooled) * (1 / a.n + 1 / b.n)
    if variance <= 0:
        return Tested(0, 1)
    z = (b.value - a.value) / math.sqrt(variance)
    return Tested(z, two_sided(z))


def fisher(a: Rate, b: Rate) -> float | None:
    """How often a table with these margins is as unlikely as this one, or more, if there is no difference.

    For when few are expected to have done it, or not to have: None where z_test serves, as all four expected counts are
    5 or more (Cochran 1954, Biometrics 10). Fisher's exact test, two-sided by probability as in R and SciPy.
    """
    k, n = a.k + b.k, a.n + b.n
    first, last = max(0, k - b.n), min(k, a.n)
    if min(k, n - k) * min(a.n, b.n) >= 5 * n or last - first > _LONGEST_TABLE:
        return None
    whole = _log_choose(n, k)
    logs = [_log_choose(a.n, x) + _log_choose(b.n, k - x) - whole for x in range(first, last + 1)]
    most = logs[a.k - first] + 1e-7  # as likely but for rounding
    return min(1.0, math.fsum(math.exp(each) for each in logs if each <= most))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def wilson(rate: Rate, confidence: float) -> Interval:
    """The score interval of a rate, within 0 and 1 and of some width even where k is 0 or n (Wilson 1927)."""
    z2 = quantile((1 + confidence) / 2) ** 2
    centre = (rate.k + z2 / 2) / (rate.n + z2)
    half = math.sqrt(z2 * (rate.k * (rate.n - rate.k) / rate.n + z2 / 4)) / (rate.n + z2)
    # At the ends it is exactly 0 or 1, but for rounding.
    return Interval(max(0, centre - half) if rate.k else 0, min(1, centre + half) if rate.k < rate.n else 1)


def newcombe(a: Rate, b: Rate, confidence: float) -> Interval:
    """The interval of b's rate minus a's from their score intervals (Newcombe 1998, Stat. Med. 17, 873, method 10)."""
    difference, of_a, of_b = b.value - a.value, wilson(a, confidence), wilson(b, confidence)
    below = math.hypot(b.value - of_b.low, of_a.high - a.value)
    above = math.hypot(of_b.high - b.value, a.value - of_a.low)
    return Interval(max(-1, difference - below), min(1, difference + above))


def ratio_interval(ratio: float, relative_variance: float, confidence: float) -> Interval:
    """The interval of a ratio of two means from the delta method on its logarithm, less 1: that of the lift.

    `relative_variance` is the sum over both of (variance of the mean) ÷ mean². For rates that is 1/k − 1/n of each
    (Katz et al. 1978, Biometrics 34).
    """
    half = quantile((1 + confidence) / 2) * math.sqrt(relative_variance)
    # So wide that nothing is known; exp would leave the range of floats.
    half = min(half, 100.0)
    return Interval(ratio * math.exp(-half) - 1, ratio * math.exp(half) - 1)


def power(a: float, b: float, n_a: int, n_b: int, alpha: float) -> float:
    """How likely the z-test finds (p < `alpha`) that true rates `a` and `b` differ; Fleiss et al. 2003, chapter 4."""
    pooled = (a * n_a + b * n_b) / (n_a + n_b)
    threshold = quantile(1 - alpha / 2) * math.sqrt(pooled * (1 - pooled) * (1 / n_a + 1 / n_b))
    spread = math.sqrt(a * (1 - a) / n_a + b * (1 - b) / n_b)
    if spread == 0:
        return float(abs(b - a) > threshold)
    return _NORMAL.cdf((abs(b - a) - threshold) / spread) + _NORMAL.cdf((-abs(b - a) - threshold) / spread)


def sample_size(a: float, b: float, alpha: float, power: float) -> int:
    """Recipients per variant with which the z-test finds that rates `a` and `b` differ with this power.

    Fleiss et al. 2003, chapter 4, without continuity correction. Raises ValueError where a = b.
    """
    if a == b:
        raise ValueError("there is no difference to find")
    pooled = (a + b) / 2
    under_none = quantile(1 - alpha / 2) * math.sqrt(2 * pooled * (1 - pooled))
    under_this = quantile(power) * math.sqrt(a * (1 - a) + b * (1 - b))
    return math.ceil(((under_none + under_this) / (b - a)) ** 2)


def detectable(a: float, n_a: int, n_b: int, alpha: float, wanted: float) -> float | None:
    """The smallest difference from rate `a` that is found with the `wanted` power; None where none is.

    Upwards where there is room for it, else downwards; always positive.
    """

    def found(effect: float, sign: int) -> bool:
        return power(a, a + sign * effect, n_a, n_b, alpha) >= wanted

    for sign, room in ((1, 1 - a), (-1, a)):
        if room > 0 and found(room, sign):
            low, high = 0.0, room
            for _ in range(40):  # to within 1e-12
                middle = (low + high) / 2
                low, high = (low, middle) if found(middle, sign) else (middle, high)
            return high
    return None


def independence(rates: Sequence[Rate]) -> Tested:
    """Pearson's chi-square test that all rates are one: variants − 1 degrees of freedom (Fleiss et al. 2003, ch. 9)."""
    from scipy.special import chdtrc

    pooled = sum(rate.k for rate in rates) / sum(rate.n for rate in rates)
    if pooled in {0, 1} or len(rates) < 2:
        return Tested(0, 1)
    spread = pooled * (1 - pooled)
    statistic = sum(rate.n * (rate.value - pooled) ** 2 for rate in rates) / spread
    return Tested(statistic, float(chdtrc(len(rates) - 1, statistic)))


def holm(ps: Sequence[float]) -> list[float]:
    """p-values so raised that all of them together err as seldom as one (Holm 1979, Scand. J. Statist. 6), in order."""
    adjusted = [1.0] * len(ps)
    highest = 0.0
    for tried, i in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        highest = max(highest, min(1, (len(ps) - tried) * ps[i]))
        adjusted[i] = highest
    return adjusted


def sample_ratio(counts: Sequence[int], weights: Sequence[float]) -> Tested:
    """Chi-square test that people were shared out by these positive weights; of nobody and of one variant p is 1.

    To be held against MISMATCH_BELOW, not against 0.05.
    """
    from scipy.special import chdtrc

    total, whole = sum(counts), sum(weights)
    if total == 0 or len(counts) < 2:
        return Tested(0, 1)
    expected = [total * weight / whole for weight in weights]
    statistic = sum((n - e) ** 2 / e for n, e in zip(counts, expected, strict=True))
    return Tested(statistic, float(chdtrc(len(counts) - 1, statistic)))
