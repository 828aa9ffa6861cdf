"""Does docs/automations.md tell authors what there is, and does what it shows work?"""

import inspect
import re
from pathlib import Path

import pytest

from automations import welcome
from tests.recorded import CLICKED, nobody_answers, walked
from workflows import journey
from workflows.code import automation_function
from workflows.code_files import READY_MADE, load
from workflows.journey import Journey

PAGE = (Path(__file__).parents[2] / "docs" / "automations.md").read_text()
IN_PYTHON = PAGE.partition("## In Python")[2].partition("\n## ")[0]
BLOCKS = re.findall(r"^```python\n(.+?)^```$", IN_PYTHON, re.MULTILINE | re.DOTALL)
TOLD = set(re.findall(r"`(\w+)\(", IN_PYTHON))


def test_every_step_and_trigger_is_told() -> None:
    steps = {name for name, _ in inspect.getmembers(Journey, inspect.isfunction) if not name.startswith("_")}
    assert steps <= TOLD
    triggers = {name for name in vars(journey) if name.startswith("on_")}
    assert triggers <= set(re.findall(r"`(on_\w+)`", IN_PYTHON))
    terms = set(inspect.signature(journey.automation).parameters) - {"name", "version"}
    assert terms <= set(re.findall(r"`(\w+)`", IN_PYTHON))


@pytest.mark.parametrize("name", ["now", "entered_at", "trigger"])
def test_what_else_a_journey_knows_is_told(name: str) -> None:
    assert hasattr(Journey, name) or name in inspect.signature(Journey).parameters
    assert f"`journey.{name}`" in IN_PYTHON


async def test_what_it_shows_loads_and_goes_its_ways(tmp_path: Path) -> None:
    trial, activity = BLOCKS[:2]
    (tmp_path / "trial.py").write_text(trial)
    (tmp_path / "score.py").write_text(activity)
    loaded = load([tmp_path])
    assert set(loaded.automations) == {("trial", 1)} and set(loaded.activities) == {"credit_score"}
    way = automation_function("trial", 1)
    idle = [step.kind for step in (await walked(way))[0]]
    assert idle == ["send", "wait_for", "wait_until", "send", "wait", "split", "send"]
    busy, _ = await walked(way, lambda kind, step: CLICKED if kind == "wait_for" else nobody_answers(kind, step))
    assert [step.kind for step in busy] == ["send", "wait_for", "wait", "split", "send"]


def test_every_ready_made_one_is_told_with_what_it_needs() -> None:
    table = PAGE.partition("### Ready-made")[2]
    for written in load([READY_MADE]).automations.values():
        (row,) = [line for line in table.splitlines() if f"`automations/{written.file.name}`" in line]
        source = written.file.read_text()
        assert set(re.findall(r'send\("(.+?)"', source)) <= set(re.findall(r"`(.+?)`", row))
    assert inspect.getdoc(welcome)
