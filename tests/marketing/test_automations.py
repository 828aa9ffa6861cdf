"""Automations: what is understood, what they look at, and what another version means for those inside."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from jsonschema_rs import validator_for
from pydantic import TypeAdapter, ValidationError

from marketing.automations import AutomationDefinition, Inside, after_change, subjects
from marketing.segments import path
from tests.marketing.criteria import SEGMENTS
from tests.marketing.definitions import definitions

SCHEMA_TAKES = validator_for(TypeAdapter(AutomationDefinition).json_schema()).is_valid
EXIT = {"type": "exit"}


def automation(**parts: Any) -> AutomationDefinition:
    given = {"name": "A", "trigger": {"type": "api"}, "steps": [EXIT], **parts}
    return AutomationDefinition.model_validate(given)


def told(**parts: Any) -> tuple[str, str]:
    with pytest.raises(ValidationError) as raised:
        automation(**parts)
    (first, *_) = raised.value.errors()
    return path(first["loc"]), first["msg"]


# -- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trigger", "place", "words"),
    [
        (3, "trigger", "takes an object"),
        ({}, "trigger.type", "is missing"),
        ({"type": "clicked"}, "trigger.type", "takes one of 'event', 'segment_entered'"),
        ({"type": "event"}, "trigger.event", "is missing"),
        ({"type": "event", "event": "1st"}, "trigger.event", "takes the name of an event"),
        (
            {"type": "event", "event": "a", "where": {"not": {"field": "x", "is": 1}}},
            "trigger.where.not.field",
            "no such",
        ),
        ({"type": "segment_entered", "segment": "VIPs"}, "trigger.segment", "takes an id"),
        ({"type": "tag_added", "tag": "  "}, "trigger.tag", "is empty"),
        ({"type": "field_changed", "field": "tags"}, "trigger.field", "takes one of email, phone"),
        ({"type": "date", "field": "country"}, "trigger.field", "takes created_at, or an attribute"),
        ({"type": "date", "field": "created_at", "offset": "3"}, "trigger.offset", "takes a time such as -3 days"),
        ({"type": "date", "field": "created_at", "at": "25:00"}, "trigger.at", "takes a time of the day"),
        ({"type": "inactivity", "days": 0}, "trigger.days", "takes a whole number from 1 to 3,650"),
        ({"type": "schedule", "cron": "0 9 * * 1"}, "trigger.segment", "is missing"),
        ({"type": "schedule", "cron": "0 9 * *", "segment": SEGMENTS[0]}, "trigger.cron", "takes five fields"),
        ({"type": "schedule", "cron": "0 9 * * * *", "segment": SEGMENTS[0]}, "trigger.cron", "takes five fields"),
        ({"type": "schedule", "cron": "0 25 * * *", "segment": SEGMENTS[0]}, "trigger.cron", "no time that ever comes"),
        ({"type": "schedule", "cron": "0 9 30 2 *", "segment": SEGMENTS[0]}, "trigger.cron", "no time that ever comes"),
        ({"type": "schedule", "cron": "0 9 1 * 1", "segment": SEGMENTS[0]}, "trigger.cron", "and * for the other"),
        ({"type": "schedule", "cron": "0 9 L * *", "segment": SEGMENTS[0]}, "trigger.cron", "numbers"),
        ({"type": "schedule", "cron": "0 9 * * 1#2", "segment": SEGMENTS[0]}, "trigger.cron", "numbers"),
    ],
)
def test_what_is_wrong_with_a_trigger_is_told_with_its_place(trigger: Any, place: str, words: str) -> None:
    where, message = told(trigger=trigger)
    assert (where, words in message) == (place, True), (where, message)


@pytest.mark.parametrize(
    ("parts", "place", "words"),
    [
        ({"trigger": None}, "", "say what lets contacts in"),
        ({"steps": []}, "", "give steps, or the code"),
        ({"code": "welcome"}, "", "and not both"),
        ({"code": "not a name"}, "code", "takes up to 100 letters"),
        ({"steps": "send"}, "steps", "takes a list"),
        ({"entry": {"field": "x", "is": 1}}, "entry.field", "There is no such field"),
        ({"reentry": "twice"}, "reentry", "takes 'once' or 'always'"),
        ({"reentry": {"after": "never"}}, "reentry.after", "takes a time such as 30 days"),
        ({"goal": {"within": "1 day"}}, "goal.event", "is missing"),
        ({"exit_on": [{"event": "a"}, {"when": 1}]}, "exit_on.1", "Give an object with one of event, if"),
        ({"exit_on": [{"if": {"field": "x", "is": 1}}]}, "exit_on.0.if.field", "There is no such field"),
        ({"exit_on": [{"event": "a", "where": {"field": "x", "is": 1}}]}, "exit_on.0.where.field", "no such field"),
        ({"time_limit": "for ever"}, "time_limit", "takes a time such as 30 days"),
        ({"steps": [{"type": "wait", "duration": "180 days"}]}, "steps.0", "nobody would go on from here"),
        ({"stpes": []}, "stpes", "is not understood here"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(parts: Any, place: str, words: str) -> None:
    where, message = told(**parts)
    assert (where, words in message) == (place, True), (where, message)


@settings(max_examples=60)
@given(definitions)
def test_what_is_understood_is_written_as_it_was_read_and_its_schema_says_so(written: Any) -> None:
    assert SCHEMA_TAKES(written)
    definition = AutomationDefinition.model_validate(written)
    again = json.loads(definition.model_dump_json())
    assert AutomationDefinition.model_validate(again) == definition
    assert SCHEMA_TAKES(again)


@pytest.mark.parametrize(("offset", "days"), [("0 days", 0), ("-3 days", -3), ("+1 day", 1), ("2 weeks", 14)])
def test_offsets_are_days(offset: str, days: int) -> None:
    trigger: Any = automation(trigger={"type": "date", "field": "created_at", "offset": offset}).trigger
    assert (trigger.days, trigger.at.isoformat("minutes"), trigger.repeat) == (days, "09:00", "yearly")


# -- what it looks at ------------------------------------------------------------------------------------------------

_ALWAYS = {("unsubscribed", "exit"), ("contact.deleted", "exit")}


@pytest.mark.parametrize(
    ("parts", "looked_at"),
    [
        ({}, set()),
        ({"trigger": {"type": "event", "event": "purchase"}}, {("event:purchase", "trigger")}),
        (
            {"trigger": {"type": "segment_entered", "segment": SEGMENTS[0]}},
            {(f"segment.entered:{SEGMENTS[0]}", "trigger")},
        ),
        ({"trigger": {"type": "segment_left", "segment": SEGMENTS[0]}}, {(f"segment.left:{SEGMENTS[0]}", "trigger")}),
        ({"trigger": {"type": "tag_added", "tag": " vip "}}, {("tag:vip", "trigger")}),
        ({"trigger": {"type": "field_changed", "field": "country"}}, {("contact.country", "trigger")}),
        (
            {"trigger": {"type": "field_changed", "field": "attributes.plan"}},
            {("contact.attributes.plan", "trigger")},
        ),
        ({"trigger": {"type": "date", "field": "created_at"}}, set()),
        ({"goal": {"event": "purchase"}}, {("event:purchase", "goal")}),
        (
            {"exit_on": [{"event": "complaint"}, {"if": {"field": "attributes.address.city", "is": "Paris"}}]},
            {("event:complaint", "exit"), ("contact.attributes.address", "exit")},
        ),
        (
            {"exit_on": [{"if": {"all": [{"field": "country", "is": "FR"}, {"segment": SEGMENTS[0]}]}}]},
            {
                ("contact.country", "exit"),
                (f"segment.entered:{SEGMENTS[0]}", "exit"),
                (f"segment.left:{SEGMENTS[0]}", "exit"),
            },
        ),
        (
            {
                "exit_on": [{"if": {"total": "purchase.value", "at_least": 100}}],
                "steps": [{"type": "wait_for", "event": "reply", "within": "1 day"}],
            },
            {("event:purchase", "exit"), ("event:reply", "wait")},
        ),
    ],
)
def test_what_an_automation_looks_at_is_known(parts: Any, looked_at: set[tuple[str, str]]) -> None:
    assert subjects(automation(**parts)) == looked_at | _ALWAYS


# -- another version -------------------------------------------------------------------------------------------------


def test_those_inside_finish_on_their_version_unless_they_migrate_to_a_step_that_is_still_there() -> None:
    wait, send = {"type": "wait", "duration": "1 day", "id": "pause"}, {"type": "send", "template": "a", "id": "hello"}
    versions = {
        1: automation(steps=[wait, send]),
        2: automation(steps=[send, {**send, "id": "pause"}]),
        3: automation(steps=[send, wait]),
    }
    inside = [
        Inside(version=1, step="pause", contacts=5),
        Inside(version=1, step="hello", contacts=4),
        Inside(version=2, step="pause", contacts=3),  # it was of another type then
        Inside(version=2, step="", contacts=2),  # these have not begun
        Inside(version=3, step="hello", contacts=1),
    ]
    stay = after_change(versions, 3, inside, migrate=False)
    assert [each.goes_on_in for each in stay] == [1, 1, 2, 2, 3]
    assert [each.contacts for each in stay] == [5, 4, 3, 2, 1]
    assert [each.goes_on_in for each in after_change(versions, 3, inside, migrate=True)] == [3, 3, 2, 3, 3]


@pytest.mark.parametrize(
    ("terms", "told"),
    [
        ({"topic": ""}, (("topic",), "is empty.")),
        (
            {"steps": [{"type": "webhook", "url": "http://"}]},
            (("steps", 0, "url"), "takes the address of a web page, such as https://example.com/hooks/7."),
        ),
    ],
)
def test_an_empty_topic_and_half_an_address_are_refused_in_words(terms: dict[str, Any], told: Any) -> None:
    written = {"name": "Any", "trigger": {"type": "api"}, "steps": [{"type": "wait", "duration": "1 day"}], **terms}
    with pytest.raises(ValidationError) as refused:
        AutomationDefinition.model_validate(written)
    assert [(each["loc"], each["msg"]) for each in refused.value.errors()] == [told]
