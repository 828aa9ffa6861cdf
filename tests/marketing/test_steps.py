"""Steps: what is understood, what is refused and where, and how they are called."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from pydantic import BaseModel, TypeAdapter, ValidationError

from marketing.segments import path
from marketing.steps import DEEPEST, KINDS, MOST_STEPS, STEP_TYPES, AllSteps, walk
from tests.marketing.definitions import steps

FRENCH = {"field": "country", "is": "FR"}
EXIT = {"type": "exit"}


class Body(BaseModel):
    steps: AllSteps


def read(*steps: Any) -> Any:
    return Body.model_validate({"steps": list(steps)}).steps


def told(*steps: Any) -> list[tuple[str, str]]:
    with pytest.raises(ValidationError) as raised:
        read(*steps)
    return [(path(each["loc"]), each["msg"]) for each in raised.value.errors()]


def nested(depth: int) -> Any:
    step: Any = EXIT
    for _ in range(depth - 1):
        step = {"type": "branch", "if": FRENCH, "then": [step]}
    return step


# -- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "place", "words"),
    [
        (3, "", "takes an object"),
        ({}, ".type", "is missing"),
        ({"type": "sned"}, ".type", "takes one of 'send', 'wait'"),
        ({"type": "wait"}, ".duration", "is missing"),
        ({"type": "wait", "duration": "soon"}, ".duration", "takes a time such as 30 days"),
        ({"type": "wait", "duration": "1 day", "days": 1}, ".days", "is not understood here"),
        ({"type": "send"}, "", "give exactly one of template and content"),
        ({"type": "send", "template": "a", "content": {"subject": "b"}}, "", "exactly one"),
        ({"type": "send", "template": "a", "channel": "email", "fallback": "email"}, "", "channel itself"),
        ({"type": "send", "template": 3}, ".template", "takes a text"),
        ({"type": "send", "content": {"sbuject": "a"}}, ".content.sbuject", "is not understood here"),
        ({"type": "wait_until"}, "", "say until when"),
        ({"type": "wait_until", "at": "9 o'clock"}, ".at", "takes a time of the day"),
        ({"type": "wait_until", "weekday": "monday", "date": "2027-01-01"}, "", "not both"),
        ({"type": "wait_until", "at": "09:00", "zone": "Europe/Pairs"}, ".zone", "is no IANA time zone"),
        ({"type": "wait_for", "event": "purchase"}, ".within", "is missing"),
        (
            {"type": "wait_for", "event": "a", "within": "1 day", "where": {"any": [{"field": "worth", "is": 1}]}},
            ".where.any.0.field",
            "There is no such field. There are value",
        ),
        ({"type": "branch", "then": [EXIT]}, ".if", "is missing"),
        ({"type": "branch", "if": {"all": [{"field": "x", "is": 1}]}}, ".if.all.0.field", "There is no such field"),
        ({"type": "branch", "if": FRENCH, "then": [EXIT, {"type": "wait"}]}, ".then.1.duration", "is missing"),
        ({"type": "branch", "if": FRENCH, "else": EXIT}, ".else", "takes a list"),
        ({"type": "split", "variants": {"a": {"weight": 1}}}, ".variants", "at least 2"),
        (
            {"type": "split", "variants": {"a": {"weight": 1}, "b": {"weight": 1, "steps": [{"type": "tag"}]}}},
            ".variants.b.steps.0",
            "name at least one tag",
        ),
        ({"type": "add_to", "segment": ""}, ".segment", "is empty."),
        ({"type": "update_contact", "changes": {}}, ".changes", "give at least one of first_name"),
        ({"type": "update_contact", "changes": {"email": "a@example.com"}}, ".changes.email", "is not understood here"),
        ({"type": "update_contact", "changes": {"country": "Atlantis"}}, ".changes.country", "is no country"),
        ({"type": "webhook", "url": "ftp://example.com"}, ".url", "address of a web page"),
        ({"type": "create_campaign", "campaign": {"name": ""}}, ".campaign.name", "is empty"),
        ({"type": "notify", "text": "x" * 2001}, ".text", "longer than 2,000"),
        ({"type": "exit", "id": "Not This"}, ".id", "takes up to 63 small letters"),
        ({"type": "exit", "reason": "two words"}, ".reason", "takes up to 63 small letters"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(bad: Any, place: str, words: str) -> None:
    where, message = told(EXIT, bad)[0]
    assert (where, words in message) == (f"steps.1{place}", True), (where, message)


def test_everything_that_is_wrong_is_told_at_once() -> None:
    assert [where for where, _ in told({"type": "wait"}, EXIT, {"type": "split", "variants": {}}, nested(11))] == [
        "steps.3.then.0.then.0.then.0.then.0.then.0.then.0.then.0.then.0.then.0.then"
    ]
    assert [where for where, _ in told({"type": "wait"}, EXIT, {"type": "split", "variants": {}})] == [
        "steps.0.duration",
        "steps.2.variants",
    ]


def test_steps_are_as_deep_and_as_many_as_promised_and_no_more() -> None:
    assert read(nested(DEEPEST))
    ((where, message),) = told(nested(DEEPEST + 1))
    assert where == "steps.0" + ".then.0" * (DEEPEST - 1) + ".then" and "at most 10 levels deep" in message
    assert len(read(*[EXIT] * MOST_STEPS)) == MOST_STEPS
    ((_, message),) = told(*[EXIT] * (MOST_STEPS - 1), nested(2))
    assert "at most 200 steps" in message


def test_a_thousand_levels_are_refused_and_not_gone_down() -> None:
    assert "levels deep" in told(nested(5000))[0][1]


@settings(max_examples=60)
@given(steps)
def test_steps_are_written_as_they_were_read_and_keep_their_ids(written: Any) -> None:
    steps = read(*written)
    again = json.loads(Body(steps=steps).model_dump_json())
    assert read(*again["steps"]) == steps
    ids = [step.id for _, step in walk(steps)]
    assert all(ids) and len({*ids}) == len(ids)


def test_what_was_left_out_is_not_written_and_null_forgets() -> None:
    forgets = {"type": "update_contact", "changes": {"first_name": None}}
    (step,) = read(forgets)
    assert step.model_dump(mode="json") == {**forgets, "id": "update_contact-1"}


# -- names -----------------------------------------------------------------------------------------------------------


def test_steps_are_numbered_by_kind_in_reading_order_around_the_names_that_are_given() -> None:
    send = {"type": "send", "template": "a"}
    steps = read(
        send,
        {"type": "branch", "if": FRENCH, "then": [send], "else": [{**send, "id": "nudge"}]},
        {"type": "split", "variants": {"a": {"weight": 1, "steps": [send]}, "b": {"weight": 1}}},
        {**EXIT, "id": "send-3"},
        send,
    )
    assert [step.id for _, step in walk(steps)] == [
        *("send-1", "branch-1", "send-2", "nudge", "split-1", "send-4", "send-3", "send-5")
    ]


def test_two_steps_of_one_name_are_refused() -> None:
    named = {**EXIT, "id": "end"}
    assert told(named, {"type": "branch", "if": FRENCH, "else": [named]}) == [
        ("steps.1.else.0.id", "Another step is called 'end' already.")
    ]


def test_places_are_where_steps_are_written() -> None:
    split = {"type": "split", "variants": {"a": {"weight": 1, "steps": [EXIT]}, "b": {"weight": 1}}}
    steps = read({"type": "wait_for", "event": "purchase", "within": "1 day", "then": [EXIT], "else": [split]})
    assert [path(place) for place, _ in walk(steps)] == [
        *("steps.0", "steps.0.then.0", "steps.0.else.0", "steps.0.else.0.variants.a.steps.0")
    ]


def test_every_kind_is_in_the_schema_and_in_random_steps() -> None:
    assert len(KINDS) == len(STEP_TYPES) == 15
    schema = json.dumps(TypeAdapter(AllSteps).json_schema())
    assert [kind for kind in KINDS if f'"const": "{kind}"' not in schema] == []
