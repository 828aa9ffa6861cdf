"""Does one variant earn more per recipient than another, and how much more?"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from marketing.experiment_statistics import Interval, Tested, quantile, two_sided

if TYPE_CHECKING:  # numpy and scipy are loaded on use: see experiment_statistics
    import numpy as np
    from numpy.typing import NDArray

    Means = NDArray[np.float64]

# Of converters, of all variants together: 2,000 resamples of them take less than a second.
MOST_VALUES = 100_000
RESAMPLES = 2_000
# Of more than 200 different values the highest 100 are resampled one by one, as the tail is where the spread comes
# from, others in 100 groups of neighbours.
_SINGLE = _GROUPS = 100
# With fewer resamples on one side of 0, their share is no measure of how rare that is.
_FEWEST_RESAMPLES = 10
# Below this share of the mean square, what is left of a variance is rounding.
_ROUNDING = 1e-12
# A sum too small for any currency; squares of such would leave the range of floats.
_NOTHING = 1e-9


class Moments(NamedTuple):
    """How many, their mean and their variance (n − 1 in the denominator; 0 for fewer than two)."""

    n: int
    mean: float
    variance: float

    @classmethod
    def of(cls, n: int, total: float, squares: float) -> "Moments":
        """From counters: of `n` values their sum and the sum of their squares."""
        if n == 0 or total < _NOTHING:
            return cls(n, 0, 0)
        mean = total / n
        around = squares / n - mean**2
        if n < 2 or around <= _ROUNDING * squares / n:
            return cls(n, mean, 0)
        return cls(n, mean, around * n / (n - 1))

    @property
    def of_mean(self) -> float:
        """The variance of the mean."""
        return self.variance / self.n


def welch(a: Moments, b: Moments) -> Tested:
    """Welch's t-test of two means with unequal variances (Welch 1947, Biometrika 34); t > 0 where `b` is higher.

    Without any spread nothing can be tested: t is 0 and p is 1.
    """
    from scipy.special import stdtr

    variance = a.of_mean + b.of_mean
    if variance <= 0:
        return Tested(0, 1)
    t = (b.mean - a.mean) / math.sqrt(variance)
    return Tested(t, min(1.0, 2 * float(stdtr(_freedom(a, b), -abs(t)))))


def welch_interval(a: Moments, b: Moments, confidence: float) -> Interval:
    """Of b's mean minus a's; without any spread it is that difference alone."""
    from scipy.special import stdtrit

    difference, variance = b.mean - a.mean, a.of_mean + b.of_mean
    if variance <= 0:
        return Interval(difference, difference)
    half = float(stdtrit(_freedom(a, b), (1 + confidence) / 2)) * math.sqrt(variance)
    return Interval(difference - half, difference + half)


def _freedom(a: Moments, b: Moments) -> float:
    """Satterthwaite's degrees of freedom, by shares: squares of tiny variances would be 0."""
    share = a.of_mean / (a.of_mean + b.of_mean)
    return 1 / (share**2 / max(a.n - 1, 1) + (1 - share) ** 2 / max(b.n - 1, 1))


def mean_interval(of: Moments, confidence: float) -> Interval:
    """Student's interval of a mean of amounts, which is not below 0; needs two values."""
    from scipy.special import stdtrit

    half = float(stdtrit(of.n - 1, (1 + confidence) / 2)) * math.sqrt(of.of_mean)
    return Interval(max(0, of.mean - half), of.mean + half)


def sample_size_of_means(a: Moments, b: Moments, alpha: float, power: float) -> float:
    """Recipients per variant with which a difference like this is found, by the normal approximation; means differ."""
    z = quantile(1 - alpha / 2) + quantile(power)
    return z**2 * (a.variance + b.variance) / (b.mean - a.mean) ** 2


class Payments(NamedTuple):
    """What the payers among `n` recipients paid, each a positive amount: everybody else paid 0."""

    n: int
    amounts: Sequence[float]


def resampled_means(payments: Payments, rng: "np.random.Generator") -> "Means":
    """Means of RESAMPLES samples of n, drawn with replacement from all recipients (Efron 1979, Ann. Statist. 7).

    Raises ValueError where an amount is NaN or infinite.
    """
    import numpy as np

    amounts, counts = np.unique(np.asarray(payments.amounts, dtype=float), return_counts=True)
    if not np.isfinite(amounts).all():
        raise ValueError("what somebody paid is a number")
    if len(amounts) > _SINGLE + _GROUPS:
        starts = np.linspace(0, len(amounts) - _SINGLE, _GROUPS, endpoint=False).astype(int)
        starts = np.concatenate([starts, np.arange(len(amounts) - _SINGLE, len(amounts))])
        totals, counts = np.add.reduceat(amounts * counts, starts), np.add.reduceat(counts, starts)
        amounts = totals / counts
    # How often each amount is drawn; what is left over draws a 0.
    chances = np.append(counts, payments.n - counts.sum()) / payments.n
    drawn = rng.multinomial(payments.n, chances, size=RESAMPLES)[:, :-1]
    means: Means = drawn @ amounts / payments.n
    return means


class Resampled(NamedTuple):
    p: float
    interval: Interval


def bootstrap(
    a: "Means",
    b: "Means",
    confidence: float,
) -> Resampled:
    """Percentile bootstrap of b's mean minus a's, from their resampled means.

    p is twice the share of resamples on the rarer side of 0, and where hardly any are there, that of a normal number
    with their mean and spread. Where there is no spread, p is 1.
    """
    import numpy as np

    differences = b - a
    rarer, spread = min(int((differences <= 0).sum()), int((differences >= 0).sum())), float(differences.std())
    p = min(1.0, 2 * rarer / len(differences))
    if spread == 0:
        p = 1
    elif rarer < _FEWEST_RESAMPLES:
        p = two_sided(float(differences.mean()) / spread)
    low, high = np.quantile(differences, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Resampled(p, Interval(float(low), float(high)))
