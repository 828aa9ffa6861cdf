"""Addresses and phone numbers in what others say."""

import phonenumbers
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from marketing.discretion import ADDRESS, PHONE, mask

WORDS = st.text("abc09._+-üß", min_size=1, max_size=20)


@given(
    WORDS, WORDS, st.sampled_from(["550 <{}> unknown", "(a, e)=(7, {}) exists", "?to={}&n=1", "'{}'", "{}", "x {}."])
)
@example("jo", "[127.0.0.1]", "<{}>")
@example('"jo doe"', "example.org", "to {} at last")
def test_no_address_is_left_wherever_it_stands(local: str, domain: str, words: str) -> None:
    for at in ("@", "%40"):
        masked = mask(words.format(f"{local}{at}{domain}"))
        assert at not in masked and ADDRESS in masked


@given(
    st.text().filter(
        lambda said: (
            "+" not in said
            and not {"@", "40", "64", "2B", "2b", "43"} & {said[i : i + n] for i in range(len(said)) for n in (1, 2)}
        )
    )
)
def test_a_text_without_addresses_stays_as_it_is(said: str) -> None:
    assert mask(said) == said


@pytest.mark.parametrize(
    "address",
    [
        "o'brien@example.org",
        "mary/hr@example.org",
        "tom&{jerry}?|!#$%^`~*@example.org",
        "bounce+alice=example.org@list.example",
        "SRS0=xx=yy=example.org=alice@fwd.example",
        "alice%2540example.org",
        "alice%252540example.org",
        "alice=40example.org",
        "alice&#64;example.org",
        "alice&#X40;example.org",
        "bounce+alice=40example.com@list.example",
        "alice@example.org/mary@example.com",
        "alice%40example.org;mary@example.com",
        "jo@[IPv6:2001:db8::1]",
        r'"jo \" doe"@example.org',
        '"jo@home"@example.org',
    ],
)
def test_nothing_is_left_of_an_address_however_it_is_written(address: str) -> None:
    assert mask(f"550 <{address}>, unknown") == f"550 <{ADDRESS}>, unknown"


@pytest.mark.parametrize(
    "said",
    [
        "GET /api/campaigns?limit=40&after=0198c0de-4040-7000-8000-000000000040",
        "smtp://mail.example.org:587 took 40.5 s, timeout=40.5",
        'File "/srv/api/watch.py", line 40, in <module>, retry=40, 100 %',
        "due 2026-11-21T09:00:00+01:00, not 2026-11-21 09:00:00.123456+0100 (UTC+0200), +1:30 h later",
        "+5,000,000 EUR, +12.50 EUR, +3.5 %, 1e+12345678, 2+33612345678",
    ],
)
def test_ids_numbers_and_urls_can_still_be_read(said: str) -> None:
    assert mask(said) == said


NUMBERS = [
    phonenumbers.format_number(number, form)
    for region in sorted(phonenumbers.SUPPORTED_REGIONS)
    for number in [phonenumbers.example_number_for_type(region, phonenumbers.PhoneNumberType.MOBILE)]
    for form in (0, 1, 3)  # E.164, international, and as links have it
    if number
]


@given(
    st.sampled_from(NUMBERS),
    st.sampled_from(
        ["550 <{}> unknown", "(a, p)=(7, {}) exists", "?to={}&n=1", "'{}'", "{}", "x {}.", "{} 2026-11-21"]
    ),
)
@example("+1 (415) 555-0123", "to {}, at 9")
@example("+33.6.12.34.56.78", "{}")
def test_no_phone_number_is_left_wherever_it_stands(number: str, words: str) -> None:
    for plus in ("+", "%2B", "%252b", "&#43;"):
        said = words.format(number.replace("+", plus))
        assert mask(said) == words.format(f"tel:{PHONE}" if "tel:" in number else PHONE)


@given(
    st.one_of(
        st.uuids().map(str),
        st.datetimes(timezones=st.timezones()).map(str),
        st.datetimes(timezones=st.timezones()).map(lambda moment: moment.isoformat()),
        st.integers().map(str),
        st.decimals(allow_nan=False, allow_infinity=False, places=2).map("{:,}".format),
        st.floats().map(str),
        st.integers(-9_999_999, 9_999_999).map("{:+,}".format),
    ),
    st.sampled_from(["{}", "id={}", "({}, {})", "/api/contacts/{}?limit=5", "{}..{}", "{} EUR"]),
)
def test_ids_moments_and_amounts_are_no_phone_numbers(thing: str, words: str) -> None:
    said = words.format(thing, thing)
    assert mask(said) == said


def test_masking_takes_time_in_proportion_to_the_text() -> None:
    for long in (
        "x" * 2_000_000 + "@ %40",
        "a@" * 500_000,
        '"' * 1_000_000 + "@",
        "%40x" * 300_000,
        "=40x" * 300_000,
        "%2525" * 300_000,
        "+1" * 500_000,
        "+1 2 3 4 " * 200_000,
        "+" + "1 " * 500_000,
        "+" + "1" * 1_000_000,
    ):
        mask(long)  # the square of these lengths would take hours: the time limit of the test fails it
