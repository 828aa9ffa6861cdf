"""What may be looked at again and again, at any moment, without being fooled more often?

The mixture sequential probability ratio test of Johari, Pekelis & Walsh 2017 ("Peeking at A/B Tests", KDD; "Always
Valid Inference", Operations Research 2022), and the confidence sequences that are its other side (Robbins 1970, Ann.
Math. Statist. 41; Howard et al. 2021, Ann. Statist. 49). The evidence against no difference is a likelihood ratio,
averaged over differences that might be: one that is fair can't exceed 1/α anywhere along its way more often than with
probability α.

Two things are our own, as mail is not like visits. Differences are measured in shares of the pooled mean: all is sent
at once, and then recipients stand still while opens come in for days. Information grows with what was seen, not with
whom it was sent to, and on that scale the difference is a fair walk in both. And rates are drawn a little to the
middle, so that variances are not underestimated while hardly anything was seen.
"""

import math
from typing import NamedTuple

from marketing.experiment_revenue import Moments
from marketing.experiment_statistics import Interval, Rate

# The lifts for which the test is sharpest: a standard deviation of 20 % of the pooled mean. Others take a few more
# recipients to be found; errors stay below α with any.
LIFT = 0.2
# With fewer on a side, a variance says nothing.
_FEWEST = 10
# So little variance of the mixture beside that of the difference moves nothing, and dividing by it would overflow.
_NOTHING = 1e-12


class Look(NamedTuple):
    """What is seen at one moment: the difference of two means, and variances of it.

    `under_none` if both have the pooled mean, `variance` of an interval around it; `mixing` is the variance of the
    differences that are reckoned with.
    """

    difference: float
    under_none: float
    variance: float
    mixing: float


def look_at_rates(a: Rate, b: Rate) -> Look:
    """b's rate minus a's; both were sent at the same time."""
    pooled, drawn_in = (a.k + b.k) / (a.n + b.n), (a.k + b.k + 2) / (a.n + b.n + 4)
    under_none = max(pooled * (1 - pooled), drawn_in * (1 - drawn_in)) * (1 / a.n + 1 / b.n)
    return _look(a.n, b.n, b.value - a.value, under_none, _binomial(a) + _binomial(b), pooled)


def _binomial(rate: Rate) -> float:
    """The variance of a rate, with one more who did it and one more who did not (as Agresti & Caffo 2000)."""
    drawn_in = (rate.k + 1) / (rate.n + 2)
    return drawn_in * (1 - drawn_in) / rate.n


def look_at_means(a: Moments, b: Moments) -> Look:
    """b's mean minus a's, of amounts most of which are 0.

    Mean squares stand for variances: what single large amounts contribute is bounded by them even where there are few
    (de la Peña 1999, Ann. Probab. 27), and where most amounts are 0 they are hardly larger.
    """
    of_a, of_b = a.variance + a.mean**2, b.variance + b.mean**2
    whole = a.n + b.n
    pooled = (a.n * a.mean + b.n * b.mean) / whole
    under_none = (a.n * of_a + b.n * of_b) / whole * (1 / a.n + 1 / b.n)
    # Of a few among whom nobody has paid yet, what is theirs alone says nothing.
    variance = max(under_none, of_a / a.n + of_b / b.n)
    return _look(a.n, b.n, b.mean - a.mean, under_none, variance, pooled)


def _look(n_a: int, n_b: int, difference: float, under_none: float, variance: float, pooled: float) -> Look:
    mixing = (LIFT * pooled) ** 2 if min(n_a, n_b) >= _FEWEST else 0.0
    return Look(difference, under_none, variance, mixing)


def p_value(look: Look) -> float:
    """One over the mixture likelihood ratio, 1 at most (Johari et al. 2017).

    The lowest of all looks so far is valid too.
    """
    variance, mixing = look.under_none, look.mixing
    if mixing <= _NOTHING * variance:
        return 1
    z2, share = look.difference**2 / variance, mixing / (variance + mixing)
    return min(1.0, math.exp((math.log1p(mixing / variance) - z2 * share) / 2))


def interval(look: Look, alpha: float) -> Interval | None:
    """Holds the true difference at all looks together, but for a share `alpha` of experiments; None if it has no end.

    The two-sided normal mixture of Howard et al. 2021, solved for the difference. What is common to the
    intervals of all looks so far is valid too.
    """
    variance, mixing = look.variance, look.mixing
    if mixing <= _NOTHING * variance:
        return None
    ratio = mixing / variance
    half = math.sqrt(variance * (1 + 1 / ratio) * (2 * math.log(1 / alpha) + math.log1p(ratio)))
    return Interval(look.difference - half, look.difference + half)


def crossing(variance: float, mixing: float, alpha: float) -> float:
    """How large a difference must be for p ≤ `alpha`, with the variance that it has if there is none."""
    return math.sqrt(variance * (1 + variance / mixing) * (2 * math.log(1 / alpha) + math.log1p(mixing / variance)))
