"""Is a way of a split only called better where chance alone led contacts one way or the other?"""

from typing import Any, NamedTuple

import pytest

from marketing.automations import AutomationDefinition
from marketing.splits import SplitReport, split_reports


class Led(NamedTuple):
    variant: str
    contacts: int
    converted: int
    step: str = "which"
    first_at: Any = None
    last_at: Any = None


# Of 1,400 who came first 5 % did it, of the 1,400 who came later 15 %, whichever way they went; at 9:1, then 1:9.
LED = [Led("x", 1_400, 84), Led("y", 1_400, 196)]


def report(*weights: dict[str, int], newest: dict[str, int] | None = None) -> SplitReport:
    """Of versions with these weights that people came under; without any, the split stands in code."""
    versions = [
        {
            "name": "Welcome",
            "trigger": {"type": "api"},
            "goal": {"event": "purchase"},
            "steps": [
                {"type": "split", "id": "which", "variants": {name: {"weight": n} for name, n in each.items()}}
                if each
                else {"type": "wait", "id": "pause", "duration": "1 day"}
            ],
        }
        for each in (newest or (weights or ({},))[0], *weights)
    ]
    now, *walked = [AutomationDefinition.model_validate(each) for each in versions]
    (found,) = split_reports(now, walked, LED, "7 days").splits
    return found


@pytest.mark.parametrize(
    ("weights", "code"),
    [
        ([{"x": 1, "y": 9}, {"x": 9, "y": 1}], "shares_changed"),
        ([], "shares_unknown"),
        ([{"x": 1, "z": 1}], "shares_changed"),
    ],
)
def test_times_at_which_shares_differed_are_no_difference_between_ways(weights: Any, code: str) -> None:
    results = report(*weights).results
    assert results
    assert (results.winner_at_any_time, results.winner_if_planned, results.sample_ratio) == (None, None, None)
    (pair,) = results.comparisons
    assert (pair.always_valid, pair.always_valid_difference) == (None, None)
    assert [each.code for each in results.warnings if each.code != "small_sample"] == [code]
    assert "; not to be believed, as the shares " in results.sentence
    assert "luck alone" not in results.sentence


@pytest.mark.parametrize("weights", [[{"x": 1, "y": 1}], [{"x": 50, "y": 50}, {"x": 1, "y": 1}]])
def test_the_same_shares_in_all_versions_have_a_winner(weights: list[dict[str, int]]) -> None:
    results = report(*weights).results
    assert results and results.winner_at_any_time == "y"


def test_shares_that_nobody_came_under_have_not_changed_who_went_where() -> None:
    found = report({"x": 1, "y": 1}, newest={"x": 9, "y": 1})
    assert found.results and found.results.winner_at_any_time == "y"
    assert [each.code for each in found.results.warnings] == []
    assert [(each.name, each.weight) for each in found.variants] == [("x", 9), ("y", 1)]
