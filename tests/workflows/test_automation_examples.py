"""Do the ready-made automations do the same as JSON and as Python?"""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from marketing.automations import AutomationDefinition, Terms
from tests.recorded import CLICKED, nobody_answers, walked
from workflows.code import Loaded, automation_function
from workflows.code_files import READY_MADE, load
from workflows.interpreter import interpret

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = {
    "welcome": "welcome.json",
    "winback": "winback.json",
    "birthday": "birthday.json",
    "milestone": "milestone.json",
    "abandoned_cart": "abandoned-cart.json",
}


@pytest.fixture(scope="module")
def code() -> Loaded:
    return load([READY_MADE])


def everything_holds(kind: str, step: str) -> Any:
    """What is asked holds, and what is waited for happens."""
    return {"matches": True, "wait_for": CLICKED}.get(kind) or nobody_answers(kind, step)


def test_each_is_there_in_both_forms(code: Loaded) -> None:
    assert {name for name, _ in code.automations} == set(FILES)


@pytest.mark.parametrize("name", FILES)
async def test_the_json_lets_in_whom_the_code_lets_in_and_takes_the_same_steps(name: str, code: Loaded) -> None:
    declared = AutomationDefinition.model_validate(json.loads((EXAMPLES / FILES[name]).read_text()))
    written = code.newest(name)
    assert written is not None
    for term in Terms.model_fields:
        assert getattr(declared, term) == getattr(written.definition, term), term
    as_json = partial(interpret, declared.model_dump(mode="json"))
    for answers in (nobody_answers, everything_holds):
        of_json, of_code = [
            [(each.kind, json.loads(json.dumps(each.args)), each.until) for each in (await walked(way, answers))[0]]
            for way in (as_json, automation_function(name, written.version))
        ]
        assert of_json == of_code
        assert "send" in {kind for kind, *_ in of_json}
