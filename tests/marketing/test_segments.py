"""Criteria: what is understood, what is refused and where, and what it depends on."""

import json
import random
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema_rs import validator_for
from pydantic import BaseModel, TypeAdapter, ValidationError

from marketing.segments import (
    Criteria,
    InvalidCriteria,
    bucket_of,
    depends_on_time,
    nodes,
    parse,
    segments_in,
    subjects,
    written,
)
from tests.marketing.criteria import SEGMENTS, criteria

SCHEMA = TypeAdapter(Criteria).json_schema()
SCHEMA_TAKES = validator_for(SCHEMA).is_valid
FRENCH = {"field": "country", "is": "FR"}
VIPS = UUID(SEGMENTS[0])
EVERYTHING = {
    "all": [
        {"field": "attributes.plan", "is": "pro"},
        {"any": [{"field": "country", "in": ["FR", "DE"]}, {"field": "tags", "contains": "vip"}]},
        {
            "event": "purchase",
            "count": {"at_least": 2},
            "within": "30 days",
            "where": {"field": "value", "at_least": 50},
        },
        {"not": {"event": "message.clicked", "within": "14 days"}},
        {"total": "purchase.value", "at_least": 100},
        {"segment": SEGMENTS[0]},
        {"bucket": [0, 10]},
        {"named": "days_without_activity", "at_least": 14},
    ]
}


def nested(depth: int, inner: Any = FRENCH) -> Any:
    for _ in range(depth - 1):
        inner = {"not": inner}
    return inner


# -- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "path", "told"),
    [
        ([], "", "Give an object with one of"),
        ("country = 'FR'", "", "Give an object with one of"),
        ({}, "", "Give an object with one of"),
        ({"sql": "true"}, "", "Give an object with one of"),
        ({"all": []}, "all", "needs at least one"),
        ({"all": FRENCH}, "all", "takes a list"),
        ({"any": [FRENCH, 3]}, "any.1", "Give an object with one of"),
        ({"not": [FRENCH]}, "not", "Give an object with one of"),
        ({"all": [FRENCH], "any": [FRENCH]}, "any", "is not understood here"),
        ({"field": "id", "is": "1"}, "field", "There is no such field. There are email"),
        ({"field": ["country"], "is": "FR"}, "field", "There is no such field"),
        ({"field": "attributes.a.b.c.d", "is": 1}, "field", "There is no such field"),
        ({"field": "attributes.a\n", "is": 1}, "field", "There is no such field"),
        ({"field": "attributes.\ud800", "is": 1}, "field", "There is no such field"),
        ({"field": "subscriptions.fax", "is": "subscribed"}, "field", "There is no such field"),
        ({"field": "country"}, "", "Give exactly one of is, is_not"),
        ({"field": "country", "is": "FR", "not_in": ["DE"]}, "", "Give exactly one of is, is_not"),
        ({"field": "country", "at_least": 1}, "at_least", "is not understood here. Give one of is, is_not"),
        ({"field": "country", "operator": "is", "operand": "FR"}, "operator", "is not understood here"),
        ({"field": "country", "in": ["FR", "Atlantis"]}, "in.1", "'Atlantis' is no country we know"),
        ({"field": "country", "in": []}, "in", "takes a list of 1 to 1,000 countries"),
        ({"field": "country", "in": ["FR"] * 1001}, "in", "takes a list of 1 to 1,000 countries"),
        ({"field": "country", "in": [["FR"]]}, "in.0", "takes a country such as FR"),
        ({"field": "timezone", "is": "Mars"}, "is", "'Mars' is no IANA time zone"),
        ({"field": "first_name", "is": "a\0b"}, "is", "has control characters in it"),
        ({"field": "first_name", "contains": "x" * 1001}, "contains", "is longer than 1,000 characters"),
        ({"field": "attributes.a", "in": ["x", "x" * 1001]}, "in.1", "is longer than 1,000 characters"),
        ({"field": "attributes.a", "is": "a\0b"}, "is", "has control characters in it"),
        ({"field": "phone", "starts_with": " - "}, "starts_with", "takes a piece of a phone number"),
        ({"field": "first_name", "starts_with": ""}, "starts_with", "takes a text of 1 to 1,000 characters"),
        ({"field": "first_name", "exists": 1}, "exists", "takes true or false"),
        ({"field": "attributes.a", "is": None}, "is", "takes a text, a number, true or false"),
        ({"field": "attributes.a", "is": float("nan")}, "is", "takes a text, a number, true or false"),
        ({"field": "attributes.a", "is": 2**63}, "is", "takes a text, a number, true or false"),
        ({"field": "attributes.a", "at_least": "5"}, "at_least", "takes a number"),
        ({"field": "attributes.a", "at_least": True}, "at_least", "takes a number"),
        ({"field": "attributes.a", "at_least": float("inf")}, "at_least", "takes a number"),
        ({"field": "attributes.a", "between": [2, 1]}, "between", "the lower first"),
        ({"field": "attributes.a", "between": [1, "2026-01-01"]}, "between", "the lower first"),
        ({"field": "created_at", "on": "2026-02-30"}, "on", "'2026-02-30' is not in the calendar"),
        ({"field": "created_at", "on": "2026-02-03T09:00"}, "on", "takes a day such as 2026-11-02"),
        ({"field": "created_at", "after": 1_793_611_800}, "after", "takes a day such as 2026-11-02, or a moment"),
        ({"field": "created_at", "after": "yesterday"}, "after", "'yesterday' is no day and no moment"),
        ({"field": "created_at", "within": "-3 days"}, "within", "takes a time such as 30 days"),
        ({"field": "created_at", "within": "30 days\n"}, "within", "takes a time such as 30 days"),
        ({"field": "created_at", "within": "3 fortnights"}, "within", "takes a time such as 30 days"),
        ({"field": "created_at", "anniversary_within": "366 days"}, "anniversary_within", "at most 365"),
        ({"field": "subscriptions.email", "is": "yes"}, "is", "takes one of subscribed, unsubscribed, pending"),
        ({"field": "suppressions.email", "is": "true"}, "is", "takes true or false"),
        ({"event": ""}, "event", "takes the name of an event"),
        ({"event": ["purchase"]}, "event", "takes the name of an event"),
        ({"event": "purchase", "count": 2}, "count", "takes an object with one of exactly, at_least"),
        ({"event": "purchase", "count": {"at_least": 1.5}}, "count.at_least", "takes a whole number from 1"),
        ({"event": "purchase", "count": {"at_least": 1, "at_most": 2}}, "count", "Give exactly one of exactly"),
        ({"event": "purchase", "last": {"on": "2026-01-01"}}, "last.on", "is not understood here. Give one of before"),
        ({"event": "purchase", "within": 30}, "within", "takes a time such as 30 days"),
        ({"event": "purchase", "never": False}, "never", "takes true; else leave it out"),
        ({"event": "purchase", "machines": 1}, "machines", "takes true; else leave it out"),
        ({"event": "x", "after": "2026-02-01", "before": "2026-01-01"}, "", "nothing lies after `after` and before"),
        ({"event": "x", "after": "2026-01-01", "before": "2026-01-02"}, "", "nothing lies after `after` and before"),
        (
            {"total": "x.value", "at_least": 1, "after": "2026-01-01T09:00Z", "before": "2026-01-01"},
            "",
            "nothing lies after `after` and before",
        ),
        ({"event": "x", "count": {"less_than": 1}, "last": {"within": "1 day"}}, "", "of no events there is no first"),
        ({"event": "purchase", "never": True, "count": {"exactly": 1}}, "", "`never` goes with none of"),
        ({"event": "purchase", "where": FRENCH}, "where.field", "There is no such field. There are value"),
        ({"event": "purchase", "where": {"event": "x"}}, "where", "Give an object with one of all"),
        ({"event": "purchase", "where": {"all": [{"field": "value", "is": "9"}]}}, "where.all.0.is", "takes a number"),
        ({"event": "purchase", "where": {"not": {"field": "campaign_id", "is": "1"}}}, "where.not.is", "takes an id"),
        ({"event": "purchase", "when": "today"}, "when", "is not understood here. Take it out"),
        ({"total": "purchase", "at_least": 1}, "total", "takes a number of an event, such as purchase.value"),
        ({"total": "purchase.value"}, "", "Give exactly one of exactly, at_least"),
        ({"total": "purchase.value", "at_least": "100"}, "at_least", "takes a number"),
        ({"bucket": [10, 0]}, "bucket", "the lower first"),
        ({"bucket": [5, 5]}, "bucket", "has nothing in it: from 5 to below 5 there is none"),
        ({"bucket": [0, 5], "seed": "x" * 101}, "seed", "is longer than 100 characters"),
        ({"bucket": [0, 5], "seed": 7}, "seed", "takes a text"),
        ({"bucket": [0, 101]}, "bucket.1", "takes a whole number from 0 to 100"),
        ({"bucket": 10}, "bucket", "takes a list of two"),
        ({"segment": "vips"}, "segment", "takes an id"),
        ({"named": "whales"}, "named", "takes one of spending_level, engagement"),
        ({"named": "spending_level"}, "is", "is missing"),
        ({"named": "spending_level", "level": "high"}, "is", "is missing"),
        ({"named": "spending_level", "is": "huge"}, "is", "takes one of none, low, medium, high"),
        ({"named": "spending_level", "is": "high", "medium": 0}, "medium", "takes a number of more than 0"),
        ({"named": "engagement", "is": True}, "is", "takes one of engaged, cooling, dormant, unreached"),
        ({"named": "subscription_tier", "is": ""}, "is", "takes a text of 1 to 1,000"),
        ({"named": "subscription_tier", "is": 5}, "is", "takes a text"),
        ({"named": "subscription_tier", "is": "x", "attribute": "a.b"}, "attribute", "takes the name of an attribute"),
        ({"named": "days_without_activity", "at_least": 1, "events": ["x"] * 21}, "events", "takes at most 20"),
        ({"named": "days_without_activity", "at_least": 1, "events": []}, "events", "needs at least one"),
        ({"named": "days_without_activity", "at_least": 1, "events": "x"}, "events", "takes a list"),
        ({"named": "spending_level", "is": "high", "medium": 900}, "", "`medium` must be less than `high`"),
        ({"named": "engagement", "is": "engaged", "recent": "1 year"}, "", "`recent` must be shorter than `past`"),
        (
            {"all": [FRENCH, {"any": [{"field": "tags", "contains_any": ["x", 7]}]}]},
            "all.1.any.0.contains_any.1",
            "",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_place(bad: Any, path: str, told: str) -> None:
    with pytest.raises(InvalidCriteria) as caught:
        parse(bad)
    assert caught.value.path == path
    assert told in str(caught.value) and str(caught.value).endswith(".")


def test_contacts_and_criteria_spell_alike() -> None:
    assert written(parse({"field": "country", "in": ["france", "deu"]})) == {"field": "country", "in": ["FR", "DE"]}
    assert written(parse({"field": "email", "is": " Zoe@Example.COM"})) == {"field": "email", "is": "zoe@example.com"}
    assert written(parse({"field": "phone", "is": "+33 6 12 34 56 78"})) == {"field": "phone", "is": "+33612345678"}
    for operator in ("contains", "starts_with", "ends_with"):
        assert written(parse({"field": "phone", operator: "+33 (6)-12"})) == {"field": "phone", operator: "+33612"}
    assert written(parse({"field": "locale", "is": "pt_br"})) == {"field": "locale", "is": "pt-BR"}
    assert written(parse({"field": "tags", "contains": " a  b"})) == {"field": "tags", "contains": "a b"}
    assert written(parse({"field": "attributes.x", "is": " a  b"})) == {"field": "attributes.x", "is": " a  b"}


@given(criteria)
@settings(max_examples=300, deadline=None)
def test_what_is_written_down_is_read_as_the_same(asked: dict[str, Any]) -> None:
    assert SCHEMA_TAKES(asked)
    tree = parse(asked)
    again = json.loads(json.dumps(written(tree)))
    assert SCHEMA_TAKES(again)
    assert parse(again) == tree and written(parse(again)) == again


# -- bounds ----------------------------------------------------------------------------------------------------------


def test_criteria_are_as_deep_as_promised_and_no_deeper() -> None:
    assert sum(1 for _ in nodes(parse(nested(20)))) == 20
    for depth in (21, 1_000, 100_000):
        with pytest.raises(InvalidCriteria, match="at most 20 levels deep") as caught:
            parse(nested(depth))
        assert caught.value.path == ".".join(["not"] * 20)
    where = {"event": "purchase", "where": nested(19, {"field": "value", "at_least": 1})}
    assert parse(where)
    with pytest.raises(InvalidCriteria, match="at most 20 levels deep"):
        parse({"all": [where]})


def test_criteria_have_as_many_nodes_as_promised_and_no_more() -> None:
    assert parse({"any": [FRENCH] * 499})
    for number in (500, 1_000_000):
        with pytest.raises(InvalidCriteria, match="at most 500 nodes") as caught:
            parse({"any": [FRENCH] * number})
        assert caught.value.path == "any.499"


def test_criteria_have_as_many_values_as_promised_and_no_more() -> None:
    thousand = {"field": "phone", "in": [f"+3361234{number:04}" for number in range(1_000)]}
    assert parse({"any": [thousand] * 10})
    with pytest.raises(InvalidCriteria, match="at most 10,000 values") as caught:
        parse({"any": [*[thousand] * 10, FRENCH, {"field": "country", "in": ["FR"]}]})
    assert caught.value.path == "any.11"


def test_what_a_name_stands_for_counts_too() -> None:
    busy = {"named": "days_without_activity", "at_least": 1, "events": [f"e{n}" for n in range(20)]}
    with pytest.raises(InvalidCriteria, match="those behind names included"):
        parse({"any": [busy] * 30})


@pytest.mark.parametrize("deep", [{"field": "attributes.a", "is": nested(5_000)}, {"segment": nested(5_000)}])
def test_depth_where_there_should_be_none_is_refused_too(deep: Any) -> None:
    with pytest.raises(InvalidCriteria, match="takes"):
        parse(deep)


class Body(BaseModel):
    criteria: Criteria


def test_in_a_model_the_place_is_told_as_well() -> None:
    with pytest.raises(ValidationError) as caught:
        Body.model_validate({"criteria": {"all": [FRENCH, {"any": [{"field": "country", "in": ["FR", 5]}]}]}})
    (error,) = caught.value.errors()
    assert error["loc"] == ("criteria", "all", 1, "any", 0, "in", 1)
    assert error["msg"] == "takes a country such as FR."
    assert Body.model_validate({"criteria": EVERYTHING}).model_dump(mode="json", by_alias=True) == {
        "criteria": written(parse(EVERYTHING))
    }


# -- hostility -------------------------------------------------------------------------------------------------------

EVIL: list[Any] = [
    *(None, True, False, 0, -1, 1.5, 2**63, -(2**70), 1e308, float("nan"), float("inf")),
    *("", " ", "\0", "\ud800", "x" * 1001, [], {}, [[]], [None], {"": ""}),
    *(
        "'; DROP TABLE contacts; --",
        "') OR 1=1 --",
        "\\'; SELECT pg_sleep(9); --",
        "*/",
        "$$",
        "${x}",
        ":now",
        "%s",
        "{0}",
    ),
    *("(a+)+$", "country = 'FR'", "attributes.a'||'b", "attributes.a.b.c.d", "attributes.", "contacts.id"),
    *("1 day; 2 days", "9999 years", "0001-01-01", "infinity"),
    *({"$gt": ""}, {"sql": "true"}, {"all": []}, {"not": {}}, FRENCH, ["FR", FRENCH]),
]
KEYS = [
    *(
        "all",
        "any",
        "not",
        "field",
        "event",
        "total",
        "bucket",
        "segment",
        "named",
        "where",
        "operator",
        "operand",
        "is",
    ),
    *(
        "is_not",
        "in",
        "between",
        "within",
        "exists",
        "count",
        "first",
        "last",
        "never",
        "machines",
        "seed",
        "level",
        "not_",
    ),
    *("__class__", "", "\0", "is'; --", "constructor"),
]


def places(json: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield here
    if isinstance(json, dict | list):
        for key, inner in json.items() if isinstance(json, dict) else enumerate(json):
            yield from places(inner, (*here, key))


def spoiled(json: Any, chance: random.Random) -> Any:
    """The same with something evil somewhere: in the place of something, or beside it."""
    copy: Any = {"root": eval(repr(json), {"nan": float("nan"), "inf": float("inf")})}
    *way, last = ("root", *chance.choice(list(places(json))))
    inner = copy
    for step in way:
        inner = inner[step]
    if isinstance(inner[last], dict) and chance.random() < 0.4:
        inner[last][chance.choice(KEYS)] = chance.choice(EVIL)
    elif isinstance(inner[last], dict) and inner[last] and chance.random() < 0.3:
        key = chance.choice(list(inner[last]))
        inner[last][chance.choice(KEYS)] = inner[last].pop(key)
    else:
        inner[last] = chance.choice(EVIL)
    return copy["root"]


@given(st.lists(criteria, min_size=20, max_size=20), st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_whatever_is_sent_is_refused_with_a_place_or_means_what_the_schema_says(good: list[Any], seed: int) -> None:
    chance = random.Random(seed)
    for one in good:
        hostile = one
        for _ in range(15):  # 12,000 in all
            hostile = spoiled(hostile if chance.random() < 0.3 else one, chance)
            with suppress(InvalidCriteria):
                tree = parse(hostile)
                assert SCHEMA_TAKES(hostile), hostile
                assert parse(written(tree)) == tree


# -- what it depends on ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "looked_at", "time"),
    [
        (FRENCH, {"contact.country"}, False),
        ({"field": "attributes.a.b", "is": 1}, {"contact.attributes"}, False),
        ({"field": "created_at", "before": "2026-01-01"}, {"contact.created_at"}, False),
        ({"field": "created_at", "within": "1 day"}, {"contact.created_at"}, True),
        ({"field": "attributes.d", "older_than": "1 day"}, {"contact.attributes"}, True),
        ({"field": "attributes.d", "anniversary_within": "0 days"}, {"contact.attributes", "contact.timezone"}, True),
        ({"field": "subscriptions.email.news", "is": "pending"}, {"subscriptions"}, False),
        ({"field": "suppressions.email", "is": True}, {"suppressions", "contact.email"}, False),
        ({"field": "suppressions.whatsapp", "is": True}, {"suppressions", "contact.phone"}, False),
        ({"event": "purchase"}, {"event:purchase"}, False),
        ({"event": "purchase", "after": "2026-01-01"}, {"event:purchase"}, False),
        ({"not": {"event": "purchase", "within": "1 day"}}, {"event:purchase"}, True),
        ({"event": "purchase", "last": {"older_than": "1 day"}}, {"event:purchase"}, True),
        ({"event": "purchase", "first": {"after": "2026-01-01"}}, {"event:purchase"}, False),
        (
            {"event": "purchase", "where": {"not": {"any": [{"field": "properties.d", "within_next": "1 day"}]}}},
            {"event:purchase"},
            True,
        ),
        ({"total": "order.completed.value", "at_least": 1}, {"event:order.completed"}, False),
        ({"total": "order.completed.value", "at_least": 1, "within": "1 day"}, {"event:order.completed"}, True),
        ({"bucket": [0, 50]}, set(), False),
        ({"segment": SEGMENTS[0]}, {f"segment:{SEGMENTS[0]}"}, False),
        ({"named": "subscription_tier", "is": "pro"}, {"contact.attributes"}, False),
        (
            {"named": "days_without_activity", "at_least": 14},
            {"contact.created_at", "event:purchase", "event:message.opened", "event:message.clicked"},
            True,
        ),
    ],
)
def test_what_criteria_depend_on_is_known(asked: Any, looked_at: set[str], time: bool) -> None:
    tree = parse(asked)
    assert subjects(tree) == {"contact", *looked_at}
    assert depends_on_time(tree) is time


def test_the_segments_that_are_looked_into_are_known() -> None:
    both = {"any": [{"not": {"segment": SEGMENTS[0]}}, {"all": [{"segment": SEGMENTS[1]}, FRENCH]}]}
    assert segments_in(parse(both)) == {UUID(each) for each in SEGMENTS}
    assert segments_in(parse(EVERYTHING)) == {VIPS}


def test_chance_is_the_same_every_day_and_fair() -> None:
    someone = UUID("01990000-0000-7000-8000-000000000001")
    assert (bucket_of(someone), bucket_of(someone, "spring")) == (17, 47)
    drawn = [bucket_of(UUID(int=number)) for number in range(20_000)]
    counts = [drawn.count(bucket) for bucket in range(100)]
    # Chi-squared with 99 degrees of freedom: above 149 once in a thousand times.
    assert sum((count - 200) ** 2 / 200 for count in counts) < 149
