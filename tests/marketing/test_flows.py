"""Are the ways of contacts drawn so that Mermaid takes them, and people too?"""

import re
from typing import Any, cast
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from marketing.flows import Block, Do, Flow, Fork, Jump, Leave, Loop, mermaid
from marketing.step_flows import flow
from marketing.step_sentences import entered, said
from marketing.steps import KINDS
from marketing.triggers import TRIGGERS

LABEL = r'"[^"\n]*"'
NODE = re.compile(rf"    (n\d+)(\[{LABEL}\]|\(\[{LABEL}\]\)|\{{{LABEL}\}}|\{{\{{{LABEL}\}}\}})")
ARROW = re.compile(rf"    (n\d+) -->(?:\|{LABEL}\|)? (n\d+)")


def drawn(*flow: object) -> list[str]:
    return mermaid("Begins", flow).splitlines()[1:]  # type: ignore[arg-type]  # blocks, as tests write them


def test_steps_follow_each_other() -> None:
    assert drawn(Do("Send"), Do("Wait")) == [
        '    n1(["Begins"])',
        '    n2["Send"]',
        "    n1 --> n2",
        '    n3["Wait"]',
        "    n2 --> n3",
        '    n4(["Completed"])',
        "    n3 --> n4",
    ]


def test_ways_part_and_come_together_again() -> None:
    lines = drawn(Fork("Clicked?", (("yes", (Do("Tag"),)), ("no", ()))), Do("Send"))
    assert '    n2 -->|"yes"| n3' in lines
    assert lines[6:8] == ["    n3 --> n4", '    n2 -->|"no"| n4']


def test_whoever_leaves_goes_nowhere_else() -> None:
    lines = drawn(Leave("Leaves: enough"), Do("never"))
    assert lines == ['    n1(["Begins"])', '    n2(["Leaves: enough"])', "    n1 --> n2"]


def test_loops_go_round_until_they_are_left() -> None:
    body = (Do("Wait"), Fork("Bought?", (("yes", (Jump(out=True),)), ("no", (Jump(out=False),)))))
    lines = drawn(Loop("Again and again", body, endless=True), Do("Thank"))
    assert '    n2{{"Again and again"}}' in lines
    assert '    n4 -->|"no"| n2' in lines and '    n4 -->|"yes"| n5' in lines
    assert not any(line.startswith("    n2 -->|") for line in lines)


def test_a_loop_that_ends_by_itself_goes_on() -> None:
    lines = drawn(Loop("For each day", (Do("Wait"),)))
    assert '    n2 -->|"again"| n3' in lines and "    n3 --> n2" in lines and '    n2 -->|"then"| n4' in lines


LABELS = st.text(max_size=300)


def ways(inner: st.SearchStrategy[Block]) -> st.SearchStrategy[Block]:
    several = st.lists(inner, max_size=3).map(tuple)
    round_ = st.lists(inner | st.builds(Jump, st.booleans()), max_size=3).map(tuple)
    forks = st.lists(st.tuples(LABELS, several), min_size=1, max_size=3).map(tuple)
    return st.builds(Fork, LABELS, forks) | st.builds(Loop, LABELS, round_, st.booleans())


BLOCKS = st.recursive(st.builds(Do, LABELS) | st.builds(Leave, LABELS), ways, max_leaves=10)


@given(LABELS, st.lists(BLOCKS, max_size=5).map(tuple))
@example("Begins", (Do("100 %%{init: {}}%% off"), Do("for-{n}, [x] (y)")))
def test_whatever_is_said_mermaid_takes_it(begin: str, flow: Flow) -> None:
    first, *lines = mermaid(begin, flow).rstrip("\n").split("\n")
    assert first == "flowchart TD"
    assert not any("%%" in line for line in lines), "which would be a comment, or tell Mermaid what to do"
    nodes = [found[1] for line in lines if (found := NODE.fullmatch(line))]
    arrows = [(found[1], found[2]) for line in lines if (found := ARROW.fullmatch(line))]
    assert len(nodes) + len(arrows) == len(lines), "each line is one or the other"
    assert nodes == [f"n{number + 1}" for number in range(len(nodes))]
    assert {node for arrow in arrows for node in arrow} <= set(nodes)
    assert {to for _, to in arrows} >= set(nodes[1:]), "somebody comes to each"


# -- what is said ------------------------------------------------------------------------------------------------------

SEGMENT = "01890000-0000-7000-8000-000000000001"


@pytest.mark.parametrize(
    ("kind", "args", "words"),
    [
        ("send", {"template": "welcome"}, "Send “welcome”"),
        ("send", {"content": {"subject": "Hello"}, "channel": "sms"}, "Send “Hello” by sms"),
        ("wait", {"duration": "3 days"}, "Wait 3 days"),
        ("wait_until", {"at": "09:00:00", "weekday": "monday", "zone": "contact"}, "Wait until Monday 09:00"),
        ("wait_until", {"date": "2026-12-24", "zone": "Europe/Paris"}, "Wait until 2026-12-24 in Europe/Paris"),
        ("wait_for", {"event": "purchase", "within": "2 days"}, "“purchase” within 2 days?"),
        (
            "wait_for",
            {"event": "purchase", "where": {"field": "value", "at_least": 50}, "within": "2 days"},
            "“purchase” whose value is at least 50 within 2 days?",
        ),
        ("branch", {"if": {"field": "country", "is": "FR"}}, "Whose country is “FR”?"),
        ("branch", {"if": {"segment": SEGMENT}}, "Who are in the segment “VIPs”?"),
        ("split", {"variants": {}}, "By chance"),
        ("exit", {"reason": "enough"}, "Leaves: enough"),
        ("add_to", {"segment": SEGMENT}, "Add to the segment “VIPs”"),
        ("remove_from", {"segment": "At risk"}, "Remove from the segment “At risk”"),
        ("update_contact", {"changes": {"first_name": "Zoë", "attributes": {"plan": 1}}}, "Set first name, “plan”"),
        ("tag", {"add": ["a", "b"], "remove": ["c"]}, "Tag “a”, “b”, Take away “c”"),
        ("webhook", {"url": "https://example.com/x?y"}, "Tell example.com"),
        ("create_campaign", {"campaign": {"name": "For you"}, "launch": False}, "Draft a campaign “For you”"),
        ("notify", {"text": "Look"}, "Notify: Look"),
        ("activity", {"name": "score"}, "Run score"),
    ],
)
def test_a_step_says_what_it_does(kind: str, args: dict[str, object], words: str) -> None:
    assert said(kind, args, {UUID(SEGMENT): "VIPs"}) == words


def cases(test: object) -> list[Any]:
    """What a test is parametrized with."""
    return [case for mark in cast(Any, test).pytestmark for case in mark.args[1]]


def test_every_kind_of_step_is_said() -> None:
    told = {case[0] for case in cases(test_a_step_says_what_it_does)}
    assert set(KINDS) <= told


@pytest.mark.parametrize(
    ("trigger", "words"),
    [
        ({"type": "event", "event": "purchase"}, "“purchase”"),
        ({"type": "segment_entered", "segment": SEGMENT}, f"Entered the segment “{SEGMENT}”"),
        ({"type": "segment_left", "segment": SEGMENT}, f"Left the segment “{SEGMENT}”"),
        ({"type": "tag_added", "tag": "vip"}, "Got the tag “vip”"),
        ({"type": "field_changed", "field": "country"}, "country changed"),
        ({"type": "date", "field": "attributes.birthday"}, "on attributes.birthday, at 09:00"),
        ({"type": "date", "field": "created_at", "offset": "-3 days"}, "3 days before created_at, at 09:00"),
        ({"type": "date", "field": "created_at", "offset": "2 weeks"}, "2 weeks after created_at, at 09:00"),
        ({"type": "inactivity", "days": 14}, "14 days without activity"),
        ({"type": "inactivity", "days": 14, "event": "login"}, "14 days without “login”"),
        (
            {"type": "schedule", "cron": "0 9 * * 1", "segment": SEGMENT},
            f"0 9 * * 1 (UTC), everybody in the segment “{SEGMENT}”",
        ),
        ({"type": "api"}, "When the API says so"),
    ],
)
def test_a_trigger_says_whom_it_lets_in(trigger: dict[str, object], words: str) -> None:
    assert entered(trigger, {}) == words


def test_every_trigger_is_said() -> None:
    kinds = {model.model_fields["type"].annotation.__args__[0] for model in TRIGGERS}
    assert {case[0]["type"] for case in cases(test_a_trigger_says_whom_it_lets_in)} == kinds


def test_declared_steps_have_their_ways() -> None:
    found = flow(
        [
            {"type": "send", "id": "a", "template": "welcome"},
            {
                "type": "split",
                "id": "b",
                "variants": {"x": {"weight": 1, "steps": [{"type": "exit", "id": "c"}]}, "y": {"weight": 3}},
            },
            {
                "type": "wait_for",
                "id": "d",
                "event": "purchase",
                "within": "1 day",
                "else": [{"type": "wait", "duration": "1 day"}],
            },
        ],
        {},
    )
    assert found == (
        Do("Send “welcome”"),
        Fork("By chance", (("x: 25 %", (Leave("Leaves: exit"),)), ("y: 75 %", ())), asks=True),
        Fork("“purchase” within 1 day?", (("yes", ()), ("no", (Do("Wait 1 day"),))), asks=True),
    )
