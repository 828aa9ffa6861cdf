"""Do the schemas that the OpenAPI document shows tell what the models take?"""

from typing import Any

import pytest
from jsonschema_rs import is_valid
from pydantic import BaseModel, ValidationError

from marketing.accounts import AccountSettings, QuietHours, Topic
from marketing.campaigns import Audience, TagFilter
from marketing.contacts import Consent, ContactChanges, NewContact, SubscriptionChange
from marketing.schedules import Schedule
from marketing.templates import TemplateDefinition

TEMPLATE = {"name": "House"}
AGREED = {"channel": "email", "status": "subscribed"}
DEEP = {"a": {"b": {"c": 1}}, "list": [[1]]}


def taken(model: type[BaseModel], value: Any) -> bool:
    try:
        model.model_validate(value)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize(
    ("model", "value", "allowed"),
    [
        (Topic, {"key": "news", "name": "a\tb\nc"}, True),
        (Topic, {"key": "news", "name": "a\x00b"}, False),
        (QuietHours, {"start": "21:00", "end": "08:00:00.5"}, True),
        (QuietHours, {"start": "21:00Z", "end": "08:00"}, False),
        (QuietHours, {"start": 75_600, "end": "08:00"}, False),
        (AccountSettings, {"name": "x", "sender_domains": [" News.Example.com"]}, True),
        (AccountSettings, {"name": "x", "sender_domains": ["example"]}, False),
        (Schedule, {"send_at": "2126-11-27T09:00"}, True),
        (Schedule, {"send_at": "2126-11-27T09:00", "timezone": "recipient"}, True),
        (Schedule, {"send_at": "2126-11-27T09:00Z"}, False),
        (Schedule, {"send_at": 4_951_155_600}, False),
        (Schedule, {"send_at": "4951155600"}, False),
        (Audience, {"everyone": True, "tags": None}, True),
        (Audience, {"everyone": True, "tags": {"any": ["vip"]}}, False),
        (Audience, {}, False),
        (TagFilter, {"none": ["vip"], "any": []}, True),
        (TagFilter, {"any": [], "all": []}, False),
        (TemplateDefinition, {**TEMPLATE, "html": "<p>", "mjml": None}, True),
        (TemplateDefinition, {**TEMPLATE, "html": "<p>", "mjml": "<mjml>"}, False),
        (TemplateDefinition, TEMPLATE, False),
        (Consent, {"at": "2026-11-02T09:30:00Z"}, True),
        (Consent, {"at": 1_793_611_800}, False),
        (SubscriptionChange, {**AGREED, "consent": {"how": "form"}}, True),
        (SubscriptionChange, {**AGREED, "consent": {"how": " "}}, False),
        (SubscriptionChange, AGREED, False),
        (SubscriptionChange, {**AGREED, "status": "unsubscribed"}, True),
        (NewContact, {"email": None, "external_id": "1"}, True),
        (NewContact, {"email": " ", "first_name": "Zoë"}, False),
        (ContactChanges, {"attributes": DEEP}, True),
        (ContactChanges, {"attributes": {"too": DEEP}}, False),
        (ContactChanges, {"attributes": {"": 1}}, False),
        (ContactChanges, {"attributes": {"a": ["\x07"]}}, False),
        (ContactChanges, {"first_name": "x" * 250}, True),
        (ContactChanges, {"first_name": "x" * 251}, False),
        (ContactChanges, {"tags": ["x"] * 201}, False),
    ],
)
def test_a_model_and_its_schema_agree(model: type[BaseModel], value: Any, allowed: bool) -> None:
    assert taken(model, value) is allowed
    assert is_valid(model.model_json_schema(), value) is allowed
