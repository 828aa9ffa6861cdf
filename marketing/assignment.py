"""Which variant does a contact get? Always the same, without anybody having to remember it."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import accumulate
from uuid import UUID

HOLDOUT = "holdout"
REST = ""  # no part of the comparison: whoever waits for the winner
_BUCKETS = 1 << 48


def bucket(key: str, contact_id: UUID) -> float:
    """Where the contact lies between 0 and 1 (never 1), by itself for each key: 48 bits of a hash of both.

    `database.assignment.bucket` says the same in SQL.
    """
    return int.from_bytes(sha256(key.encode() + contact_id.bytes).digest()[:6]) / _BUCKETS


@dataclass(frozen=True)
class Cells:
    """The numbers from 0 to 1 cut into cells: `names[n]` reaches up to `cuts[n]`, the last one up to 1."""

    names: Sequence[str]
    cuts: Sequence[float]

    def of(self, place: float) -> str:
        return self.names[bisect_right(self.cuts, place)]


def shared_out(weights: Mapping[str, float]) -> Cells:
    """A cell for each name, as large as its share of all weights."""
    names = list(weights)
    return Cells(names, _cuts(list(weights.values()), 0.0, 1.0)[:-1])


def cells_of_test(weights: Mapping[str, float], *, holdout: float, test_fraction: float) -> Cells:
    """Who gets nothing, who takes part, and who waits; those who take part are shared out by weight.

    Args:
        holdout: the share of all who get nothing.
        test_fraction: the share of the others who take part.
    """
    ends = holdout + (1 - holdout) * test_fraction if test_fraction < 1 else 1.0
    held = ([HOLDOUT], [holdout]) if holdout else ([], [])
    return Cells([*held[0], *weights, REST], [*held[1], *_cuts(list(weights.values()), holdout, ends)])


def _cuts(weights: Sequence[float], start: float, end: float) -> list[float]:
    """Where each ends, of those that lie side by side between `start` and `end`."""
    sums = list(accumulate(weights))
    return [*(start + (end - start) * each / sums[-1] for each in sums[:-1]), end]
