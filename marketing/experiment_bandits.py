"""Which share of the next shard should each variant get, so that fewer people receive the worse ones?"""

from collections.abc import Sequence

from marketing.experiment_beliefs import normals, shape
from marketing.experiment_results import Metric, VariantCounts
from marketing.experiment_revenue import Moments

DRAWS = 10_000


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
        believed = normals([Moments.of(each.recipients, each.revenue, each.revenue_squares) for each in counts])
        drawn = rng.normal([of.mean for of in believed], [of.deviation for of in believed], size)
    else:
        shapes = [shape(each.successes, each.recipients) for each in counts]
        drawn = rng.beta([of.a for of in shapes], [of.b for of in shapes], size)
    best = np.bincount(drawn.argmax(axis=1), minlength=len(counts)) / draws
    return {each.name: float(share) for each, share in zip(counts, best, strict=True)}
