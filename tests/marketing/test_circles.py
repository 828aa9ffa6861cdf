"""Circles: automations that set each other off are found, and no others."""

from typing import Any
from uuid import UUID

import pytest

from marketing.automations import AutomationDefinition
from marketing.circles import circle
from tests.marketing.criteria import SEGMENTS

A, B, C = (UUID(int=number) for number in (1, 2, 3))
VIPS, LEADS = SEGMENTS
TAGS_X: Any = {"type": "tag", "add": ["x"]}
ON_X: Any = {"type": "tag_added", "tag": "x"}


def automations(**parts: tuple[Any, Any]) -> dict[UUID, AutomationDefinition]:
    """Each with its trigger and its step."""
    return {
        {"a": A, "b": B, "c": C}[name]: AutomationDefinition.model_validate(
            {"name": name, "trigger": trigger, "steps": [{"type": "branch", "if": {"bucket": [0, 9]}, "else": [step]}]}
        )
        for name, (trigger, step) in parts.items()
    }


def event(name: str, **where: Any) -> Any:
    return {"type": "event", "event": name, **where}


def test_a_circle_is_told_from_any_place_in_it() -> None:
    three = automations(
        a=({"type": "segment_entered", "segment": VIPS}, TAGS_X),
        b=(ON_X, {"type": "update_contact", "changes": {"attributes": {"plan": "gold"}}}),
        c=({"type": "field_changed", "field": "attributes.plan"}, {"type": "add_to", "segment": VIPS}),
    )
    assert circle(A, three) == [A, B, C, A]
    assert circle(C, three) == [C, A, B, C]
    del three[B]
    assert circle(A, three) == circle(C, three) == []


@pytest.mark.parametrize(
    ("trigger", "step", "is_circle"),
    [
        (ON_X, TAGS_X, True),
        (ON_X, {"type": "tag", "remove": ["x"]}, False),
        (ON_X, {"type": "tag", "add": ["y"]}, False),
        ({"type": "segment_left", "segment": VIPS}, {"type": "remove_from", "segment": VIPS}, True),
        ({"type": "segment_left", "segment": VIPS}, {"type": "add_to", "segment": VIPS}, False),
        ({"type": "segment_left", "segment": VIPS}, {"type": "remove_from", "segment": LEADS}, False),
        ({"type": "field_changed", "field": "country"}, {"type": "update_contact", "changes": {"country": "FR"}}, True),
        ({"type": "field_changed", "field": "locale"}, {"type": "update_contact", "changes": {"country": "FR"}}, False),
        (event("contact.changed"), TAGS_X, True),
        (event("purchase"), TAGS_X, False),
        ({"type": "api"}, TAGS_X, False),
        (event("message.sent"), {"type": "create_campaign", "campaign": {"name": "C"}}, True),
        (event("message.sent"), {"type": "create_campaign", "campaign": {"name": "C"}, "launch": False}, False),
        (event("message.clicked"), {"type": "send", "template": "a"}, False),  # that is the contact's own doing
    ],
)
def test_what_a_step_does_for_certain_is_counted(trigger: Any, step: Any, is_circle: bool) -> None:
    assert circle(A, automations(a=(trigger, step))) == ([A, A] if is_circle else [])


_OWN, _OTHER = {"field": "campaign_id", "is": str(A)}, {"field": "campaign_id", "is": str(B)}
_DEAR = {"field": "value", "at_least": 50}


@pytest.mark.parametrize(
    ("where", "is_circle"),
    [
        (_OWN, True),
        (_OTHER, False),
        (_DEAR, True),  # nobody knows
        ({"not": _OTHER}, True),
        ({"not": _OWN}, False),
        ({"not": _DEAR}, True),
        ({"all": [_DEAR, _OTHER]}, False),
        ({"all": [_DEAR, _OWN]}, True),
        ({"all": [_OWN, _OWN]}, True),
        ({"any": [_DEAR, _OTHER]}, True),
        ({"any": [_OWN, _OTHER]}, True),
        ({"any": [_OTHER, _OTHER]}, False),
        ({"field": "campaign_id", "not_in": [str(A), str(C)]}, False),
        ({"field": "campaign_id", "in": [str(A), str(C)]}, True),
    ],
)
def test_where_decides_whether_a_message_of_its_own_sets_an_automation_off(where: Any, is_circle: bool) -> None:
    asked = automations(a=(event("message.sent", where=where), {"type": "send", "template": "a"}))
    assert circle(A, asked) == ([A, A] if is_circle else [])


def test_where_decides_for_segments_too() -> None:
    step = {"type": "add_to", "segment": VIPS}
    vips, leads = ({"field": "properties.segment_id", "is": each} for each in (VIPS, LEADS))
    assert circle(A, automations(a=(event("segment.entered", where=vips), step))) == [A, A]
    assert circle(A, automations(a=(event("segment.entered", where=leads), step))) == []


def test_of_code_nobody_knows_what_it_does() -> None:
    code = AutomationDefinition.model_validate({"name": "code", "code": "welcome", "trigger": ON_X})
    assert circle(A, {A: code}) == []
