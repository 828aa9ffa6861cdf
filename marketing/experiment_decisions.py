"""Which variant goes to the rest, and who says so: the figures, the clock, or a person?"""

from typing import Literal, NamedTuple

from marketing.experiment_results import Results

Fallback = Literal["control", "best_so_far", "ask"]
DecidedBy = Literal["significance", "time", "fallback", "person", "bandit"]


class Verdict(NamedTuple):
    """`winner` is None where a person is to be asked."""

    winner: str | None
    by: DecidedBy
    reason: str


def verdict(results: Results, *, when_significant: bool, fallback: Fallback, due: bool) -> Verdict | None:
    """What is to be done now; None: wait.

    Before the end only what may be looked at at any time counts, and a single planned look at the end is as good as the
    plain test says. Who has looked all the time can't have both: then the plain test does not count at the end either.

    Args:
        when_significant: figures are looked at all the time.
        due: this is the last look.
    """
    if results.adaptive:
        return _of_a_bandit(results, fallback) if due else None
    winner = results.winner_at_any_time if when_significant else results.winner_if_planned if due else None
    if winner is not None and all(each.enough for each in results.variants):
        return Verdict(winner, "significance" if when_significant else "time", results.sentence)
    if not due:
        return None
    looked = " of figures that were looked at all the time" if when_significant and results.winner_if_planned else ""
    return _fallen_back(results, fallback, looked)


def best_so_far(results: Results) -> str:
    """The one that leads, of a bandit the one that is most likely the best; the control where none does."""
    if results.leader is None:
        return results.control
    return results.most_likely_best.name if results.adaptive else results.leader


def _of_a_bandit(results: Results, fallback: Fallback) -> Verdict:
    """There is no test that would hold, but the most likely one cost the fewest recipients to find. The others have as
    few as they deserve: only that one must have been tried enough."""
    if results.leader is None or not results.most_likely_best.enough:
        return _fallen_back(results, fallback)
    return Verdict(results.most_likely_best.name, "bandit", results.sentence)


def _fallen_back(results: Results, fallback: Fallback, of: str = "") -> Verdict:
    nobody = f"No winner can be believed{of}"
    if fallback == "ask":
        return Verdict(None, "fallback", f"{nobody}, so choose one. {results.sentence}")
    winner = results.control if fallback == "control" else best_so_far(results)
    what = "the control" if fallback == "control" or results.leader is None else "the best so far"
    return Verdict(winner, "fallback", f"{nobody}, so it is {what}, “{winner}”. {results.sentence}")
