"""Do contacts go through declared steps as somebody would who reads them?"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from inspect import signature
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from marketing.steps import KINDS, STEP_TYPES, Branch, Exit, Split, Step, Steps, WaitFor, with_ids
from tests.recorded import BEGIN, CLICKED, Answers, Taken, nobody_answers, walked
from workflows.interpreter import interpret
from workflows.journey import Journey

SEGMENT = "01890000-0000-7000-8000-000000000001"
STEPS: TypeAdapter[Steps] = TypeAdapter(Steps)
DAY = timedelta(days=1)


def stored(*steps: dict[str, Any]) -> dict[str, Any]:
    """The definition as it is stored: checked, and with an id for each step."""
    return {"steps": STEPS.dump_python(with_ids(STEPS.validate_python(steps)), mode="json")}


async def taken(*steps: dict[str, Any], answers: Answers = nobody_answers) -> list[Taken]:
    return (await walked(partial(interpret, stored(*steps)), answers))[0]


ONE_OF_EACH: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "send": (
        {"template": "welcome", "fallback": "sms"},
        {"template": "welcome", "channel": "email", "fallback": "sms"},
    ),
    "wait": ({"duration": "3 days"}, {}),
    "wait_until": ({"at": "09:00", "weekday": "monday"}, {}),
    "wait_for": ({"event": "purchase", "within": "1 day"}, {"event": "purchase"}),
    "branch": ({"if": {"field": "country", "is": "FR"}}, {"criteria": {"field": "country", "is": "FR"}}),
    "split": ({"variants": {"a": {"weight": 1}, "b": {"weight": 1}}}, {}),
    "add_to": ({"segment": SEGMENT}, {"segment": SEGMENT}),
    "remove_from": ({"segment": SEGMENT}, {"segment": SEGMENT}),
    "update_contact": ({"changes": {"country": "FR"}}, {"changes": {"country": "FR"}}),
    "tag": ({"add": ["vip"], "remove": ["new"]}, {"add": ("vip",), "remove": ["new"]}),
    "webhook": ({"url": "https://example.com/", "data": {"a": 1}}, {"url": "https://example.com/", "data": {"a": 1}}),
    "notify": ({"text": "Hello"}, {"text": "Hello"}),
}


@pytest.mark.parametrize("kind", ONE_OF_EACH)
async def test_each_kind_of_step_is_taken_as_it_is_written(kind: str) -> None:
    written, args = ONE_OF_EACH[kind]
    (step,) = await taken({"type": kind, "id": "it", **written})
    assert (step.kind, step.step, step.args) == ("matches" if kind == "branch" else kind, "it", args)


def test_each_kind_of_step_has_its_test() -> None:
    assert set(KINDS) == {*ONE_OF_EACH, "exit", "activity", "create_campaign"}


async def test_an_activity_is_called_by_its_name() -> None:
    (step,) = await taken({"type": "activity", "id": "score", "name": "score", "input": {"top": 10}})
    assert (step.kind, step.step, step.args) == ("activity", "score", {"name": "score", "arguments": ({"top": 10},)})


async def test_a_campaign_is_made_as_it_is_written() -> None:
    campaign = {"name": "For you"}
    (step,) = await taken({"type": "create_campaign", "campaign": campaign, "launch": False})
    assert step.kind == "create_campaign" and step.args["launch"] is False
    assert step.args["campaign"].items() >= {"name": "For you"}.items()


async def test_who_exits_takes_no_further_step() -> None:
    steps = stored({"type": "exit", "reason": "too-soon"}, {"type": "notify", "text": "never"})
    assert await walked(partial(interpret, steps)) == ([], "too-soon")


async def test_times_are_those_of_the_contact_unless_another_zone_is_named() -> None:
    own, named, _ = await taken(
        {"type": "wait_until", "at": "09:00", "zone": "contact"},
        {"type": "wait_until", "at": "09:00", "zone": "America/New_York"},
        {"type": "wait", "duration": "1 day"},
    )
    assert [own.until, named.until] == [BEGIN - timedelta(hours=1) + DAY, BEGIN + timedelta(hours=5) + DAY]


@pytest.mark.parametrize(("kind", "question"), [("branch", "matches"), ("wait_for", "wait_for")])
@pytest.mark.parametrize("holds", [True, False])
async def test_the_answer_says_which_way(kind: str, question: str, holds: bool) -> None:
    asked: dict[str, Any] = {"if": {"field": "country", "is": "FR"}}
    if kind == "wait_for":
        asked = {"event": "message.clicked", "within": "1 day"}
    ways = {
        "then": [{"type": "notify", "id": "yes", "text": "yes"}],
        "else": [{"type": "notify", "id": "no", "text": "no"}],
    }
    steps = [{"type": kind, **asked, **ways}, {"type": "notify", "id": "after", "text": "after"}]
    yes: Any = CLICKED if kind == "wait_for" else True
    found = await taken(*steps, answers=lambda asked, _: yes if asked == question and holds else None)
    assert [step.step for step in found[1:]] == ["yes" if holds else "no", "after"]


async def test_a_way_that_is_not_written_is_no_way_out() -> None:
    found = await taken({"type": "branch", "if": {"field": "country", "is": "FR"}}, {"type": "notify", "text": "after"})
    assert [step.kind for step in found] == ["matches", "notify"]


# -- any steps ---------------------------------------------------------------------------------------------------------


def ways(steps: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(steps, max_size=3)
    variants = st.lists(several, min_size=2, max_size=3).map(
        lambda all_: {f"v{number}": {"weight": number + 1, "steps": each} for number, each in enumerate(all_)}
    )
    return st.one_of(
        st.fixed_dictionaries(
            {"type": st.just("branch"), "if": st.just({"field": "country", "is": "FR"})},
            optional={"then": several, "else": several},
        ),
        st.fixed_dictionaries(
            {"type": st.just("wait_for"), "event": st.just("purchase"), "within": st.just("2 days")},
            optional={"then": several, "else": several},
        ),
        st.fixed_dictionaries({"type": st.just("split"), "variants": variants}),
    )


SIMPLE = st.sampled_from(
    [
        {"type": "send", "template": "welcome"},
        {"type": "wait", "duration": "1 day"},
        {"type": "tag", "add": ["vip"]},
        {"type": "exit", "reason": "enough"},
    ]
)
TREES = st.lists(st.recursive(SIMPLE, ways, max_leaves=12), min_size=1, max_size=6)


class Left(Exception):
    """The reader has come to an exit."""


def answered(kind: str, step: str) -> Any:
    """Yes to about half of the questions; the same to the same."""
    yes = crc32(step.encode()) % 2 == 0
    return {"matches": yes, "wait_for": CLICKED if yes else None}.get(kind, nobody_answers(kind, step))


def read(steps: Sequence[Step], went: dict[str, str]) -> Iterator[str]:
    """What somebody does who reads the steps aloud; `went` tells which way of a split was gone."""
    for step in steps:
        match step:
            case Branch() | WaitFor():
                yield step.id
                kind = "matches" if isinstance(step, Branch) else "wait_for"
                yield from read(step.then if answered(kind, step.id) else step.else_, went)
            case Split():
                yield step.id
                yield from read(step.variants[went[step.id]].steps, went)
            case Exit():
                raise Left
            case _:
                yield step.id


def aloud(steps: Sequence[Step], went: dict[str, str]) -> list[str]:
    done: list[str] = []
    with suppress(Left):
        for each in read(steps, went):
            done.append(each)
    return done


@given(TREES)
async def test_any_steps_are_taken_as_they_are_read(written: list[dict[str, Any]]) -> None:
    found, _ = await walked(partial(interpret, stored(*written)), answered)
    went = {step.step: step.answer for step in found if step.kind == "split"}
    assert [step.step for step in found] == aloud(with_ids(STEPS.validate_python(written)), went)


@given(TREES)
async def test_who_starts_at_a_step_goes_on_as_those_who_came_to_it(written: list[dict[str, Any]]) -> None:
    definition = stored(*written)
    found, reason = await walked(partial(interpret, definition), answered)
    for number, step in enumerate(found):
        rest, left = await walked(partial(interpret, definition, start_at=step.step), answered)
        assert ([each.step for each in rest], left) == ([each.step for each in found[number:]], reason)


async def test_who_starts_where_no_step_is_says_so() -> None:
    with pytest.raises(LookupError, match="no step 'gone'"):
        await walked(partial(interpret, stored({"type": "notify", "text": "a"}), start_at="gone"))


def test_every_part_of_a_step_is_handed_on() -> None:
    """A new part of a step is a parameter of its method, or the interpreter knows what to do with it."""
    known = {"branch", "wait_for", "split", "wait_until", "tag", "activity", "exit"}
    for model in STEP_TYPES:
        kind = model.model_fields["type"].annotation.__args__[0]
        if kind not in known:
            parts = {each.alias or name for name, each in model.model_fields.items()} - {"type", "id"}
            assert parts <= signature(getattr(Journey, kind)).parameters.keys(), kind
