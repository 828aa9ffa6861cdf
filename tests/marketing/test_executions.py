"""Figures of automations: they add up, and steps come in the order of the definition."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from marketing.automations import AutomationDefinition
from marketing.executions import ENDS, AutomationStats, automation_stats
from marketing.reports import CampaignStats, Figures


@dataclass(frozen=True)
class Counted:
    step: str
    name: str
    n: int
    seconds: float = 0.0


def definition(*steps: Any) -> AutomationDefinition:
    return AutomationDefinition.model_validate({"name": "A", "trigger": {"type": "api"}, "steps": list(steps)})


def stats(*counted: Counted, pending: int = 0, active: int = 0, **messages: Figures) -> AutomationStats:
    newest = definition({"type": "exit", "id": "b"}, {"type": "wait", "duration": "1 day", "id": "a"})
    older = definition({"type": "send", "template": "x", "id": "c"}, {"type": "exit", "id": "a"})
    sent = CampaignStats(per_message=messages, sent=sum(each.sent for each in messages.values()))
    return automation_stats(counted, sent, [newest, older], pending=pending, active=active)


def test_nobody_has_no_rates() -> None:
    empty = stats()
    assert (empty.enrolled, empty.success_rate, empty.conversion_rate) == (0, None, None)


def test_steps_come_in_the_order_of_the_newest_definition_then_those_of_older_ones_and_of_code() -> None:
    told = stats(Counted("z:code", "done", 1), c=Figures(sent=3), b=Figures(sent=4))
    assert [(each.step, each.type) for each in told.steps] == [
        ("b", "exit"),
        ("a", "wait"),
        ("c", "send"),
        ("z:code", None),
    ]
    assert [each.messages and each.messages.sent for each in told.steps] == [4, None, 3, None]
    assert told.messages.sent == 7


def test_steps_tell_how_long_they_take_on_average() -> None:
    (_, told, *_) = stats(
        Counted("a", "entered", 5), Counted("a", "done", 4, 10.0), Counted("a", "failed", 1, 99.0)
    ).steps
    assert (told.entered, told.done, told.failed, told.mean_seconds) == (5, 4, 1, 2.5)


def test_reasons_are_told_apart_and_rates_are_of_those_who_have_left_and_of_all() -> None:
    told = stats(
        Counted("", "completed", 2),
        Counted("", "exited:goal", 3),
        Counted("", "exited:unsubscribed", 1),
        Counted("", "failed", 2),
        Counted("", "converted", 3),
        Counted("", "refused:once", 7),
        pending=1,
        active=1,
    )
    assert told.exited_by_reason == {"goal": 3, "unsubscribed": 1} and told.refused_by_reason == {"once": 7}
    assert (told.enrolled, told.exited, told.success_rate, told.conversion_rate) == (10, 4, 0.75, 0.3)


_NAMES = st.sampled_from(["enrolled", "completed", "exited:goal", "exited", "failed", "timed_out", "cancelled"])


@given(st.lists(st.builds(Counted, st.just(""), _NAMES, st.integers(0, 9))), st.integers(0, 9), st.integers(0, 9))
def test_at_every_moment_all_who_were_enrolled_are_somewhere(rows: list[Counted], pending: int, active: int) -> None:
    told = stats(*rows, pending=pending, active=active)
    sums: Counter[str] = Counter()
    for row in rows:
        sums[row.name.partition(":")[0]] += row.n
    assert {state: getattr(told, state) for state in ENDS} == {state: sums[state] for state in ENDS}
    assert told.enrolled == pending + active + sum(getattr(told, state) for state in ENDS)
