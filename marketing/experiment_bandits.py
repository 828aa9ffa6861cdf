"""Which share of the next shard should each variant get, so that fewer people receive the worse ones?"""

from collections.abc import Sequence
from typing import NamedTuple

from marketing.experiment_beliefs import normals, shape
from marketing.experiment_results import Metric, VariantCounts
from marketing.experiment_revenue import Moments

DRAWS = 10_000
_ROUNDS = 12  # from the third on, hardly anything moves


class Answered(NamedTuple):
    """What became of one variant in one batch."""

    batch: int
    variant: str
    recipients: int
    successes: int


def settled(counts: Sequence[VariantCounts], answered: Sequence[Answered]) -> list[VariantCounts]:
    """The counts, with as many recipients `settled` as their answers can be expected of by now.

    Batches leave one after another, and whoever got a message a minute ago has had no time to answer: were they taken
    for people who won't, the variant that got the most of the latest batch would look the worst. What a batch has
    answered so far is a share of what it will, the same for each variant in it, and no larger than that of an older
    batch. These shares and the rates of variants are those under which what was seen is the most likely (Poisson, by
    turns, the shares by isotonic regression: Ayer et al. 1955, Ann. Math. Statist. 26).
    """
    import numpy as np
    from scipy.optimize import isotonic_regression

    batches, names = sorted({each.batch for each in answered}), [each.name for each in counts]
    if not any(each.successes for each in answered):
        return list(counts)
    sent, did = np.zeros((len(batches), len(names))), np.zeros((len(batches), len(names)))
    for each in answered:
        at = batches.index(each.batch), names.index(each.variant)
        sent[at], did[at] = each.recipients, each.successes
    shares = np.ones(len(batches))
    for _ in range(_ROUNDS):
        rates = (did.sum(axis=0) + 0.5) / (shares @ sent + 1)
        expected = sent @ rates
        shares = isotonic_regression(did.sum(axis=1) / expected, weights=expected, increasing=False).x
        shares /= shares[0]
    return [
        each.model_copy(update={"settled": min(round(n), each.recipients)})
        for each, n in zip(counts, shares @ sent, strict=True)
    ]


def allocation(counts: Sequence[VariantCounts], metric: Metric, seed: int, draws: int = DRAWS) -> dict[str, float]:
    """The share of each variant by name, together 1: how often it came out best in draws of what is believed.

    Thompson sampling (Thompson 1933, Biometrika 25; Chapelle & Li 2011, NIPS) for a shard at once: were its recipients
    drawn for one by one without news in between, these are the shares that they would get. Without any
    counts all get about the same.

    The same counts and `seed` (0 or more) give the same shares, with the same release of numpy: keep what was
    allocated. Raises ValueError without variants.
    """
    import numpy as np

    if not counts:
        raise ValueError("there are no variants to share out to")
    rng = np.random.default_rng(seed)
    size = (draws, len(counts))
    if metric is Metric.REVENUE_PER_RECIPIENT:
        believed = normals([Moments.of(each.believed_of, each.revenue, each.revenue_squares) for each in counts])
        drawn = rng.normal([of.mean for of in believed], [of.deviation for of in believed], size)
    else:
        shapes = [shape(each.successes, each.believed_of) for each in counts]
        drawn = rng.beta([of.a for of in shapes], [of.b for of in shapes], size)
    best = np.bincount(drawn.argmax(axis=1), minlength=len(counts)) / draws
    return {each.name: float(share) for each, share in zip(counts, best, strict=True)}
