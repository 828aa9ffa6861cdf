"""Is everything that can be declared documented, and is everything that is shown understood?"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import TypeAdapter

from marketing.automations import AutomationDefinition
from marketing.executions import AutomationStats
from marketing.steps import DEEPEST, KINDS, MOST_STEPS, STEP_TYPES, AllSteps, Changes, Variant
from marketing.triggers import CHANGING, TRIGGERS, Trigger

PAGE = (Path(__file__).parents[2] / "docs" / "automations.md").read_text()
AS_JSON = PAGE.partition("## As JSON")[2].partition("\n## ")[0]
_TRIGGERS, _STEPS = (AS_JSON.partition(f"### {name}\n")[2].partition("\n### ")[0] for name in ("Triggers", "Steps"))
BLOCKS = re.findall(r"```json\n(.+?)```", AS_JSON, re.DOTALL)


def rows(section: str) -> dict[str, str]:
    """By what the first column names."""
    found = re.findall(r"^\| `(\w+)` \|(.+)$", section, re.MULTILINE)
    return {name: row for name, row in found if name != "type"}  # which is above the first column


def objects(json: Any) -> Iterator[dict[str, Any]]:
    if isinstance(json, dict):
        yield json
    for inner in json.values() if isinstance(json, dict) else json if isinstance(json, list) else ():
        yield from objects(inner)


def parts(model: Any) -> set[str]:
    """What may be said in it."""
    return {field.alias or name for name, field in model.model_fields.items()} - {"type", "id"}


def kind(model: Any) -> str:
    return str(model.model_fields["type"].annotation.__args__[0])


def test_the_example_at_the_top_is_understood() -> None:
    assert AutomationDefinition.model_validate_json(BLOCKS[0])


def test_every_field_has_a_row() -> None:
    assert set(AutomationDefinition.model_fields) <= set(rows(AS_JSON))
    assert f"up to {MOST_STEPS} [steps](#steps), {DEEPEST} levels deep" in AS_JSON


@pytest.mark.parametrize("trigger", TRIGGERS, ids=kind)
def test_every_trigger_has_a_row_with_its_fields_and_an_example(trigger: Any) -> None:
    shown = [each for each in json.loads(BLOCKS[1]) if each["type"] == kind(trigger)]
    assert {name for each in shown for name in each} - {"type"} == parts(trigger)
    for each in shown:
        TypeAdapter(Trigger).validate_python(each)
    assert [name for name in parts(trigger) if f"`{name}`" not in rows(_TRIGGERS)[kind(trigger)]] == []


@pytest.mark.parametrize("step", STEP_TYPES, ids=kind)
def test_every_step_has_a_row_with_its_fields_and_an_example(step: Any) -> None:
    examples = json.loads(BLOCKS[2])
    TypeAdapter(AllSteps).validate_python(examples)
    shown = [each for each in objects(examples) if each.get("type") == kind(step)]
    assert {name for each in shown for name in each} - {"type", "id"} == parts(step)
    assert [name for name in parts(step) if f"`{name}`" not in rows(_STEPS)[kind(step)]] == []


def test_what_changes_and_variants_take_is_told() -> None:
    assert [name for name in Changes.model_fields if f"`{name}`" not in rows(_STEPS)["update_contact"]] == []
    assert [name for name in Variant.model_fields if f"`{name}`" not in rows(_STEPS)["split"]] == []
    assert [name for name in CHANGING if f"`{name}`" not in rows(_TRIGGERS)["field_changed"]] == []


def test_nothing_is_told_that_is_not_there() -> None:
    assert set(rows(_STEPS)) == set(KINDS)
    assert set(rows(_TRIGGERS)) == {kind(each) for each in TRIGGERS}
    assert set(rows(AS_JSON.partition("### Figures")[2])) <= set(AutomationStats.model_fields)


def test_every_route_is_told(app: FastAPI) -> None:
    life = AS_JSON.partition("### Its life")[2]
    for path in app.openapi()["paths"]:
        if path.startswith("/api/automations/{automation_id}/"):
            assert f"…/{path.rpartition('/')[2]}`" in life, path
