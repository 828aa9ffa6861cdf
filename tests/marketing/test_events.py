"""Which events do we take, and what is wrong with the others?"""

import json
import math
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema_rs import is_valid

from marketing.contacts import normal_email, normal_text
from marketing.events import BEYOND_VALUES, OURS, NewEvent, Refusal, read
from marketing.text import UNPRINTABLE

NOW = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
ZOE: dict[str, Any] = {"email": "zoe@example.com"}
ID = UUID("01a1c000-0000-7000-8000-00000000dddd")


def told(**changed: Any) -> NewEvent | Refusal:
    return read({"contact": ZOE, "name": "purchase", **changed}, NOW)


def refused(**changed: Any) -> tuple[str, str]:
    """The first fault of an event that is refused."""
    refusal = told(**changed)
    assert isinstance(refusal, Refusal), refusal
    path, detail = refusal.faults[0]
    return path, detail


def taken(**changed: Any) -> NewEvent:
    event = told(**changed)
    assert isinstance(event, NewEvent), event
    return event


@pytest.mark.parametrize(
    "name", ["purchase", "x", "Order Completed", "cart.item:added", "a/b-c_d", "messages", "Message.sent", "a" * 100]
)
def test_a_name_is_kept_as_it_is(name: str) -> None:
    assert taken(name=name).name == name


@pytest.mark.parametrize(
    "name", ["", " ", "7up", "_x", "été", "a\n", "a ", "a.", "a\tb", "a\0", "a\ud800", "a" * 101, "a'b", "a;b", 5, None]
)
def test_a_name_of_another_form_is_refused(name: Any) -> None:
    assert refused(name=name)[0] == "name"


@pytest.mark.parametrize("prefix", OURS)
def test_nobody_else_tells_what_carillon_tells_itself(prefix: str) -> None:
    path, detail = refused(name=f"{prefix}.sent")
    assert path == "name"
    assert detail == f"'{prefix}.…' are events that Carillon itself tells of. Give yours another name"


def test_a_contact_is_kept_in_normal_form() -> None:
    assert taken(contact={"email": " Zoe@EXAMPLE.com"}).contact.email == "zoe@example.com"
    assert taken(contact={"external_id": " crm  1 "}).contact.external_id == "crm 1"
    assert taken(contact={"id": str(ID).upper()}).contact.id == ID
    assert taken(contact={"id": None, "email": "zoe@example.com"}).contact.email == "zoe@example.com"


@pytest.mark.parametrize(
    ("contact", "path"),
    [
        ({}, "contact"),
        ({"email": None}, "contact"),
        ({**ZOE, "external_id": "crm-1"}, "contact"),
        ({"id": str(ID), **ZOE}, "contact"),
        ({"id": 5}, "contact.id"),
        ({"email": ""}, "contact.email"),
        ({"email": "zoe"}, "contact.email"),
        ({"external_id": " "}, "contact.external_id"),
        ({"external_id": "x" * 251}, "contact.external_id"),
        ({"external_id": "a\0"}, "contact.external_id"),
        ({"phone": "+33612345678"}, "contact.phone"),
        ("zoe@example.com", "contact"),
        (None, "contact"),
    ],
)
def test_whom_it_is_about_is_told_in_exactly_one_way(contact: Any, path: str) -> None:
    assert refused(contact=contact)[0] == path


@given(st.text() | st.emails())
@example("İ@example.com")
def test_a_contact_is_normalised_as_everywhere(text: str) -> None:
    for name, normal in (("email", normal_email), ("external_id", normal_text)):
        event = told(contact={name: text})
        if isinstance(event, NewEvent):
            assert getattr(event.contact, name) == normal(text) != ""
        elif not UNPRINTABLE.search(text) and normal_text(text):
            with pytest.raises(ValueError):  # noqa: PT011 - the message is the library's own
                normal(text)


def test_what_occurs_may_be_ten_minutes_ahead_and_no_more() -> None:
    at = NOW + timedelta(minutes=10)
    assert taken(occurred_at=at.isoformat()).occurred_at == at
    assert taken(occurred_at="1999-12-31T23:59:59+01:00").occurred_at == datetime(1999, 12, 31, 22, 59, 59, tzinfo=UTC)
    assert taken().occurred_at is None
    late = refused(occurred_at=(at + timedelta(seconds=1)).isoformat())
    assert late == ("occurred_at", "has not come yet: it is more than 10 minutes ahead")


@pytest.mark.parametrize(
    "moment", [1_793_611_800, "1793611800", "2026-11-02T09:30:00", "yesterday", "1800-01-01T00:00Z"]
)
def test_a_moment_is_written_with_its_offset(moment: Any) -> None:
    assert refused(occurred_at=moment)[0] == "occurred_at"


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        (49.9, "49.9"),
        ("49.90", "49.90"),
        (0, "0"),
        ("-3", "-3"),
        (0.000001, "0.000001"),
        (123456789.123456, "123456789.123456"),
        (999_999_999_999_999, "999999999999999"),
        ("123456789012345.123456", "123456789012345.123456"),
    ],
)
def test_a_value_is_kept_to_the_digit(written: Any, kept: str) -> None:
    value = taken(value=written).value
    assert value is not None and f"{value:f}" == kept


@pytest.mark.parametrize(
    "written",
    ["123456789012345.123456", "1e-320", "0.30000000000000004", "1e-7", "1.2345678", "-99999999999999.97", "5e-324"],
)
def test_a_number_that_json_does_not_carry_to_the_digit_is_refused(written: str) -> None:
    path, detail = refused(value=json.loads(written))
    assert path == "value" and "15" in detail


@given(st.integers(0, 10**15 - 1), st.integers(0, 6), st.sampled_from(["", "-"]))
def test_a_number_of_fifteen_digits_is_kept_as_it_is_written(digits: int, places: int, sign: str) -> None:
    exact = Decimal(f"{sign}{digits}") / 10**places
    assert taken(value=json.loads(f"{exact:f}")).value == exact


@pytest.mark.parametrize(
    "value",
    [True, "x", "", "1e3", " 1", "1.2345678", "٣", "9" * 16, math.nan, math.inf, "NaN", 10**15, -1e15, [1], {}],
)
def test_a_value_is_a_finite_number_within_bounds(value: Any) -> None:
    assert refused(value=value)[0] == "value"


@pytest.mark.parametrize("currency", ["eur", "EURO", "", "EUR\n", "€", 978])
def test_a_currency_is_three_capital_letters(currency: Any) -> None:
    assert refused(value=1, currency=currency)[0] == "currency"


@pytest.mark.parametrize("key", ["", "x" * 256, "a\nb", "a\tb", "a\0", "a\ud800", 7])
def test_an_idempotency_key_is_a_line_of_text(key: Any) -> None:
    assert refused(idempotency_key=key)[0] == "idempotency_key"


@pytest.mark.parametrize(
    "properties", [{"a": {"b": {"c": {}}}}, {"": 1}, {"a": "\0"}, {"a": 2**63}, [], {"a": "x" * 33_000}]
)
def test_properties_are_bounded_as_attributes_are(properties: Any) -> None:
    path, detail = refused(properties=properties)
    assert path == "properties" and "ttribute" not in detail


WRONG: dict[str, Any] = {
    "contact": [
        None,
        "zoe",
        [],
        {"id": 5},
        {"id": "x"},
        {"email": 5},
        {"external_id": 5},
        {"external_id": "x" * 251},
        {},
    ],
    "name": [None, 5, "", [], {}],
    "occurred_at": [5, "yesterday", "2026-02-30T00:00:00Z", "2026-11-02T09:30:00", "1800-01-01T00:00:00Z", [], True],
    "properties": [None, [], "x", 5],
    "value": ["x", [], {}, True],
    "currency": ["eur", 5, []],
    "idempotency_key": ["", "x" * 256, "a\nb", 5, []],
    "colour": ["red"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_what_is_wrong_is_told_in_plain_words(name: str, value: Any) -> None:
    _, detail = refused(**{name: value})
    plain_words_only(detail)


def plain_words_only(detail: str) -> None:
    library = (
        "Input",
        "input",
        "Field",
        "String should",
        "should match",
        "instance",
        "dictionary",
        "Pydantic",
        "Extra",
    )
    assert not any(word in detail for word in library), detail


@pytest.mark.parametrize("told", [None, 5, "x", [], [{}], {}, {"name": "purchase"}, {"contact": ZOE}])
def test_what_is_missing_or_no_event_at_all_is_told_in_plain_words(told: Any) -> None:
    refusal = read(told, NOW)
    assert isinstance(refusal, Refusal)
    for fault in refusal.faults:
        plain_words_only(fault.detail)


def test_everything_that_is_wrong_is_told() -> None:
    refusal = read({"contact": {}, "name": "", "colour": "red"}, NOW)
    assert isinstance(refusal, Refusal)
    assert [fault.path for fault in refusal.faults] == ["contact", "name", "colour"]


@pytest.mark.parametrize("thing", [None, 5, "purchase", [], [{}]])
def test_what_is_no_event_is_refused_as_a_whole(thing: Any) -> None:
    refusal = read(thing, NOW)
    assert isinstance(refusal, Refusal) and refusal.faults[0].path == ""


SCHEMA = NewEvent.model_json_schema()
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**16), 10**16),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
    st.sampled_from(["purchase", "message.sent", "EUR", "49.90", str(ID), "2026-11-02T09:30:00Z", "a b", " "]),
)
THINGS = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abé\0"), inner, max_size=2)
)
EVENTS = st.fixed_dictionaries(
    {"name": st.sampled_from(["purchase", "Order Completed"]) | THINGS},
    optional={
        "contact": st.dictionaries(
            st.sampled_from(["id", "external_id", "phone"]), SCALARS | st.sampled_from([str(ID), "crm-1"]), max_size=2
        ),
        "properties": THINGS,
        "value": SCALARS,
        "currency": SCALARS,
        "idempotency_key": SCALARS,
        "other": st.none(),
    },
)


@settings(max_examples=500)
@given(EVENTS)
def test_the_schema_tells_what_is_taken(event: dict[str, Any]) -> None:
    refusal = read(event, NOW)
    beyond_a_schema = ("whole numbers beyond 64 bits", "more digits than a number may have")
    if isinstance(refusal, Refusal) and all(
        any(each in fault.detail for each in beyond_a_schema) for fault in refusal.faults
    ):
        return
    assert is_valid(SCHEMA, event, validate_formats=True) is isinstance(refusal, NewEvent), refusal


@given(st.decimals(1 - BEYOND_VALUES, BEYOND_VALUES - 1, places=6) | st.integers(1 - BEYOND_VALUES, BEYOND_VALUES - 1))
def test_every_number_within_bounds_may_be_written_as_text(value: Decimal | int) -> None:
    assert taken(value=f"{value:f}" if isinstance(value, Decimal) else str(value)).value == value
