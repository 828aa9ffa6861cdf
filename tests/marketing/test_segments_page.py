"""Is everything that can be asked documented, and does everything that is documented mean something?"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from marketing.segment_events import Event, Total
from marketing.segment_fields import AMOUNTS, CONTACT_FIELDS, COUNTS, EVENT_FIELDS, MOMENTS
from marketing.segment_names import NAMES
from marketing.segment_sentences import describe
from marketing.segments import CONTACT_KEYS, parse
from tests.marketing.test_segments import EVERYTHING

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "segments.md").read_text()
CRITERIA_KEYS = "|".join(CONTACT_KEYS)
SHOWN = [
    json.loads(found)
    for found in (
        *re.findall(rf'`(\{{"(?:{CRITERIA_KEYS})": [^`]+\}})`', PAGE),
        *re.findall(r"```json\n(.+?)```", PAGE, re.DOTALL),
    )
    if '"criteria"' not in found  # the body of a request
]
EXAMPLES = json.loads((ROOT / "examples" / "segments.json").read_text())


def objects(json: Any) -> Iterator[dict[str, Any]]:
    if isinstance(json, dict):
        yield json
    for inner in json.values() if isinstance(json, dict) else json if isinstance(json, list) else ():
        yield from objects(inner)


ASKED = [*objects(SHOWN)]
KEYS = {key for each in ASKED for key in each}
# What the first column of any table names.
ROWS = {name for row in re.findall(r"^\| (`.+?) \|", PAGE, re.MULTILINE) for name in re.findall(r"`([\w.]+)`", row)}


@pytest.mark.parametrize("shown", SHOWN, ids=str)
def test_every_example_means_somebody(shown: Any) -> None:
    assert describe(parse(shown), {}).startswith("Contacts ")


@pytest.mark.parametrize("segment", EXAMPLES, ids=lambda segment: str(segment["name"]))
def test_every_segment_of_the_examples_means_somebody(segment: dict[str, Any]) -> None:
    assert set(segment) == {"name", "criteria"}
    assert describe(parse(segment["criteria"]), {}).startswith("Contacts ")


def test_every_operator_of_a_field_has_a_row_and_an_example() -> None:
    operators = {operator for field in (*CONTACT_FIELDS, *EVENT_FIELDS) for operator in field.operators}
    assert len(operators) > 20
    assert operators - ROWS == set()
    assert operators - KEYS == set()


def test_every_field_has_a_row_and_an_example() -> None:
    fields = {field.written for field in (*CONTACT_FIELDS, *EVENT_FIELDS)}
    assert fields - ROWS == set()
    shown = {str(each["field"]) for each in ASKED if "field" in each}
    assert [field.written for field in (*CONTACT_FIELDS, *EVENT_FIELDS) if not any(map(field.means, shown))] == []


def test_every_kind_of_criterion_and_every_part_of_one_has_a_row_and_an_example() -> None:
    parts = {*CONTACT_KEYS, *Event.model_fields, *Total.model_fields} - {"operator", "operand"}
    assert parts - ROWS == set()
    assert parts - KEYS == set()


def test_what_counts_amounts_and_timings_take_is_told() -> None:
    counted = re.search(r"^\| `count` \|.+$", PAGE, re.MULTILINE)
    timed = re.search(r"^\| `first` \|.+$", PAGE, re.MULTILINE)
    added = re.search(r"^## Totals\n.+?^## ", PAGE, re.MULTILINE | re.DOTALL)
    for told, operators in ((counted, COUNTS), (timed, MOMENTS), (added, AMOUNTS)):
        assert told and {operator for operator in operators if f"`{operator}`" not in told[0]} == set()


def test_every_named_criterion_is_told_with_its_levels_and_thresholds_and_has_an_example() -> None:
    assert {each["named"] for each in ASKED if "named" in each} == set(NAMES)
    for name, model in NAMES.items():
        row = re.search(rf"^\| `{name}` \|.+$", PAGE, re.MULTILINE)
        assert row
        schema = model.model_json_schema()["properties"]
        words = [*schema.get("is", {}).get("enum", ())]
        for threshold, part in schema.items():
            if "default" in part:
                default = part["default"]
                words += [threshold, *map(str, default if isinstance(default, list) else [default])]
        assert [word for word in words if f"`{word}`" not in row[0]] == []


def test_the_example_at_the_top_is_told_as_it_is_described() -> None:
    told = re.search(r"\*(Contacts whose.+?)\*", PAGE, re.DOTALL)
    assert told and " ".join(told[1].split()) == describe(parse(SHOWN_AT_THE_TOP), {})


SHOWN_AT_THE_TOP = {"all": EVERYTHING["all"][:5]}
