"""In which one form do we keep what is known of a contact?"""

import pytest
from email_validator import EmailNotValidError, validate_email
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from marketing.contacts import (
    Contact,
    ContactChanges,
    NewContact,
    merged_attributes,
    normal_country,
    normal_email,
    normal_locale,
    normal_phone,
    normal_tags,
    normal_text,
    normal_timezone,
    template_view,
)

# What addresses are made of, and what they must not be made of.
PIECES = st.sampled_from(
    ["a", "Z", "7", "-", "--", ".", "_", "+", "'", "@", '"', " ", "\n", "\0", "é", "İ", "ß", "例", "א", "K", "x" * 64]
) | st.sampled_from(
    ["xn--", "ab--", "example", "com", "test", "local", "onion", "localhost", "arpa", "invalid", "[1.2.3.4]"]
)
ADDRESSES = st.one_of(
    st.emails(),
    st.lists(PIECES, max_size=12).map("".join),
    st.tuples(st.lists(PIECES, max_size=6), st.lists(PIECES, max_size=6)).map(
        lambda sides: "".join(sides[0]) + "@" + "".join(sides[1])
    ),
    st.from_regex(r"\A[A-Za-z0-9.+_-]{1,70}@[A-Za-z0-9.-]{1,80}\Z"),
)


@settings(max_examples=1500)
@given(ADDRESSES)
@example("a@example.a1")
@example("a@x." + "a" * 63)
@example("a@x." + "a" * 64)
@example("a" * 242 + "@example.com")
@example("a" * 243 + "@example.com")
def test_an_address_is_what_the_library_says_in_lower_case(address: str) -> None:
    try:
        library = validate_email(address.strip().lower(), check_deliverability=False, test_environment=True).normalized
    except EmailNotValidError:
        with pytest.raises(ValueError):  # noqa: PT011 - the message is the library's own
            normal_email(address)
    else:
        assert normal_email(address) == library.lower()


NORMAL_FORMS = [
    (normal_email, ADDRESSES),
    (normal_text, st.text()),
    (normal_phone, st.from_regex(r"\A\+(33|1|44|49|39|81)[0-9 ]{6,12}\Z")),
    (normal_country, st.sampled_from(["fr", "FRA", "Germany", "États-Unis", "España", "UK", "Kosovo", "xx"])),
    (normal_locale, st.from_regex(r"\A[A-Za-z]{2,3}([-_][A-Za-z]{4})?([-_][A-Za-z]{2})?\Z")),
    (normal_timezone, st.sampled_from(["europe/paris", "UTC", "america/argentina/ushuaia", "Mars/Olympus"])),
]


@settings(max_examples=1000)
@given(st.sampled_from(NORMAL_FORMS).flatmap(lambda form: st.tuples(st.just(form[0]), form[1])))
def test_a_normal_form_stays_as_it_is(case) -> None:  # type: ignore[no-untyped-def]  # six callables and their texts
    normal, text = case
    try:
        once = normal(text)
    except ValueError:
        return
    assert normal(once) == once


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        (" Zoë.Durand@EXAMPLE.com\n", "zoë.durand@example.com"),
        ("ANN+News@Mail.Example.ORG", "ann+news@mail.example.org"),
        ("пётр@пример.test", "пётр@пример.test"),
        ("x@xn--r8jz45g.test", "x@例え.test"),
        ("info@BÜCHER.test", "info@bücher.test"),
    ],
)
def test_case_space_and_punycode_make_no_other_address(written: str, kept: str) -> None:
    assert normal_email(written) == kept


@pytest.mark.parametrize(
    "wrong", ["", "ann", "ann@example", "ann@@example.com", "ann@example..com", "a b@example.com", "ann@printer.local"]
)
def test_what_no_mail_can_reach_is_no_address(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        normal_email(wrong)


def test_phone_numbers_become_e164_with_the_help_of_the_country() -> None:
    assert normal_phone("+33 6 12 34 56 78") == "+33612345678"
    assert NewContact(phone="06 12 34 56 78", country="France").phone == "+33612345678"
    with pytest.raises(ValueError, match="with its country"):
        normal_phone("06 12 34 56 78")


def test_countries_locales_and_zones_are_understood_in_the_spellings_of_exports() -> None:
    assert [normal_country(name) for name in ("FR", "usa", "UK", "Deutschland", "Japan")] == [
        "FR",
        "US",
        "GB",
        "DE",
        "JP",
    ]
    assert [normal_locale(name) for name in ("pt_br", "EN", "zh-hant-tw", "French")] == [
        "pt-BR",
        "en",
        "zh-Hant-TW",
        "fr",
    ]
    assert normal_timezone("europe/PARIS") == "Europe/Paris"


def test_names_are_one_line_and_tags_are_there_once() -> None:
    assert normal_text("  Zoe\u0308\r\n Durand\u2028") == "Zoë Durand"
    assert normal_tags(["vip", " vip ", "", "Paris"]) == ["vip", "Paris"]
    with pytest.raises(ValueError, match="control"):
        normal_text("a\0b")


@pytest.mark.parametrize(
    "attributes",
    [
        {"a": {"b": {"c": {}}}},
        {"a": {"b": {"c": [1]}}},
        {"a": "nul\0"},
        {"nul\0": 1},
        {"": 1},
        {"a": float("nan")},
        {"a": 2**63},
        {"a": "x" * 40_000},
        {"a": "\ud800"},
    ],
)
def test_attributes_that_nobody_could_store_or_render_are_refused(attributes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ContactChanges(attributes=attributes)


def test_attributes_are_merged_name_by_name_and_null_forgets_one() -> None:
    assert ContactChanges(attributes={"a": {"b": {"c": 1}}, "list": [[1]]}).attributes is not None
    assert merged_attributes({"plan": "gold", "city": "Paris"}, {"city": None, "pets": 2}) == {
        "plan": "gold",
        "pets": 2,
    }


def test_only_what_was_said_is_changed() -> None:
    assert ContactChanges(first_name="", last_name=None).said() == {"first_name": None, "last_name": None}
    with pytest.raises(ValidationError, match="at least one of"):
        NewContact(first_name="Zoë")


def test_nobody_is_subscribed_without_saying_how_they_agreed() -> None:
    with pytest.raises(ValidationError, match="how this contact agreed"):
        NewContact.model_validate(
            {"email": "a@example.com", "subscriptions": [{"channel": "email", "status": "subscribed"}]}
        )


def test_a_template_sees_plain_data_and_nothing_of_ours() -> None:
    row = dict.fromkeys(Contact.model_fields) | {
        "id": 7,
        "tags": ["vip"],
        "attributes": {"plan": "gold"},
        "account_id": 1,
    }
    view = template_view(row)
    assert view["id"] == "7"
    assert view["tags"] == ["vip"]
    assert set(view) == {
        *("id", "email", "phone", "external_id", "first_name", "last_name"),
        *("country", "locale", "timezone", "tags", "attributes"),
    }
