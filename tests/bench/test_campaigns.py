"""Does what a campaign has cost hide nothing?"""

from uuid import UUID

from bench.campaigns import Run
from bench.histories import Kept
from bench.sending import cost

MB = 1_000_000


def run(before: dict[int, int], most: dict[int, int]) -> Run:
    return Run(UUID(int=1), 100, 1.0, {"PostgreSQL": 1.0}, before, most, 100, 100, [0.1], Kept(1, 1, 1, 1.0))


def test_the_growth_is_that_of_one_worker_and_stands_beside_what_that_one_held() -> None:
    made = run({1: 300 * MB, 2: 100 * MB}, {1: 301 * MB, 2: 290 * MB})  # the largest one grew by 1 MB only
    row = next(row for row in cost(made, made) if row.what.startswith("growth of a worker's memory"))
    assert (row.figure, row.reference, row.beside) == (190, 100, "what it held before")


def test_workers_that_shrink_or_stay_have_not_grown() -> None:
    assert run({1: 3 * MB, 2: MB}, {1: 3 * MB, 2: MB}).grown[1] == 0
