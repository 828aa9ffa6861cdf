"""Criteria: what do they read like?"""

import re
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings

from marketing.segment_sentences import describe
from marketing.segments import parse
from tests.marketing.criteria import SEGMENTS, criteria

FRENCH = {"field": "country", "is": "FR"}
VIPS = UUID(SEGMENTS[0])


@given(criteria)
@settings(max_examples=300, deadline=None)
def test_every_criterion_is_one_sentence(asked: dict[str, Any]) -> None:
    sentence = describe(parse(asked), {VIPS: "Our\nVIPs."})
    assert sentence.startswith("Contacts ") and sentence.endswith(".")
    ours = re.sub("“[^”]*”", "“”", sentence)
    assert sentence.isprintable() and "  " not in ours
    assert ours.count("(") == ours.count(")")


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (FRENCH, "whose country is “FR”"),
        ({"not": FRENCH}, "other than those whose country is “FR”"),
        ({"any": [FRENCH, {"field": "tags", "contains": "vip"}]}, "whose country is “FR”, or who have the tag “vip”"),
        (
            {"all": [FRENCH, {"any": [{"field": "phone", "exists": True}, {"field": "email", "exists": False}]}]},
            "whose country is “FR”, and (who have a phone number, or who have no e-mail address)",
        ),
        (
            {
                "event": "purchase",
                "count": {"at_least": 2},
                "within": "30 days",
                "where": {"field": "value", "at_least": 50},
            },
            "with at least 2 “purchase” events in the last 30 days whose value is at least 50",
        ),
        (
            {"not": {"event": "message.clicked", "within": "14 days"}},
            "with no “message.clicked” events in the last 14 days",
        ),
        ({"event": "purchase", "within": "1 minutes"}, "with at least one “purchase” event in the last 1 minute"),
        ({"event": "purchase", "within": "2 day"}, "with at least one “purchase” event in the last 2 days"),
        ({"field": "attributes.due", "within": "1 hours"}, "whose “due” is in the last 1 hour"),
        ({"field": "attributes.due", "within_next": "1 weeks"}, "whose “due” is in the next 1 week"),
        ({"field": "created_at", "older_than": "1 months"}, "who were added more than 1 month ago"),
        (
            {"field": "attributes.born", "anniversary_within": "1 days"},
            "whose “born” has its anniversary today or in the next 1 day",
        ),
        (
            {"named": "days_without_activity", "at_least": 1, "events": ["login"]},
            "who were added more than 1 day ago, and with no “login” events in the last 1 day",
        ),
        (
            {"event": "purchase", "count": {"less_than": 3}, "last": {"older_than": "1 year"}},
            "with fewer than 3 “purchase” events, the last of them more than 1 year ago",
        ),
        (
            {"total": "purchase.properties.items", "between": [1, 2.5], "after": "2026-01-01"},
            "whose total “items” of “purchase” events after 1 January 2026 is between 1 and 2.5",
        ),
        ({"segment": SEGMENTS[0]}, "who are in the segment “VIPs”"),
        ({"not": {"segment": SEGMENTS[1]}}, f"who are not in the segment {SEGMENTS[1]}"),
        ({"bucket": [0, 10]}, "who are in the random buckets from 0 to below 10 of 100"),
        (
            {"field": "created_at", "between": ["2026-01-01", "2026-01-31T08:30"]},
            "who were added between 1 January 2026 and 31 January 2026 08:30 UTC",
        ),
        (
            {"field": "attributes.born", "anniversary_within": "7 days"},
            "whose “born” has its anniversary today or in the next 7 days",
        ),
        (
            {"field": "subscriptions.email.news", "is": "subscribed"},
            "whose subscription to “news” on email is “subscribed”",
        ),
        ({"field": "suppressions.email", "is": False}, "who are not suppressed on email"),
        ({"field": "subscriptions.email", "exists": True}, "whose subscription to email is known"),
        ({"field": "subscriptions.sms.news", "exists": False}, "whose subscription to “news” on sms is not known"),
        ({"field": "attributes.plan", "exists": True}, "whose “plan” is known"),
        ({"field": "email", "exists": True}, "who have an e-mail address"),
        ({"field": "external_id", "exists": True}, "who have an external id"),
        ({"event": "x", "where": {"field": "value", "exists": True}}, "with at least one “x” event that have a value"),
        ({"field": "last_name", "contains": "van "}, "whose last name contains “van ”"),
        ({"field": "attributes.x", "is": " a  b\n"}, "whose “x” is “ a  b ”"),
        ({"field": "attributes.x", "is": -0.0}, "whose “x” is 0"),
        ({"field": "attributes.x", "is": 1e18}, "whose “x” is 1,000,000,000,000,000,000"),
        ({"field": "attributes.x", "is": -1234.5}, "whose “x” is -1,234.5"),
        ({"field": "attributes.x", "is": 0.0000001}, "whose “x” is 0.0000001"),
        ({"field": "attributes.x", "is": 1e-300}, "whose “x” is 1e-300"),
        ({"field": "country", "in": ["FR"]}, "whose country is “FR”"),
        ({"field": "country", "not_in": ["FR"]}, "whose country is not “FR”"),
        ({"field": "attributes.x", "contains_any": [1]}, "whose “x” contains 1"),
        ({"field": "attributes.x", "contains_none": ["a"]}, "whose “x” does not contain “a”"),
        ({"field": "tags", "contains_any": ["vip"]}, "who have the tag “vip”"),
        ({"field": "tags", "contains_all": ["vip"]}, "who have the tag “vip”"),
        ({"field": "tags", "contains_none": ["vip"]}, "who do not have the tag “vip”"),
        ({"field": "tags", "contains_none": ["vip", "staff"]}, "who have none of the tags “vip” and “staff”"),
        ({"event": "x", "count": {"at_least": 1}, "within": "1 days"}, "with at least 1 “x” event in the last 1 day"),
        (
            {"event": "message.clicked", "where": {"field": "campaign_id", "in": [SEGMENTS[0]]}},
            "with at least one “message.clicked” event whose campaign is “VIPs”",
        ),
        (
            {"field": "country", "in": ["FR", "DE", "IT", "ES", "PT", "NL", "BE"]},
            "whose country is “FR”, “DE”, “IT”, “ES” or 3 others",
        ),
        (
            {"named": "spending_level", "is": "high"},
            "whose spending level is high (whose total value of “purchase” events in the last 12 months is at least "
            "500)",
        ),
    ],
)
def test_a_criterion_reads_as_english(asked: Any, sentence: str) -> None:
    assert describe(parse(asked), {VIPS: "VIPs"}) == f"Contacts {sentence}."
