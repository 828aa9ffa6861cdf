"""What leaving, coming back and choosing mean, whatever was agreed to before."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketing.accounts import Topic
from marketing.contacts import SubscriptionStatus
from marketing.subscriptions import EVERYTHING, Standing, masked

KEYS = ["news", "offers", "events"]
STATUSES: list[SubscriptionStatus] = ["subscribed", "unsubscribed", "pending"]
statuses = st.dictionaries(st.sampled_from([EVERYTHING, *KEYS]), st.sampled_from(STATUSES))


def standing(
    now: dict[str, SubscriptionStatus], about: str = "news", before: dict[str, SubscriptionStatus] | None = None
) -> Standing:
    return Standing("email", about, [Topic(key=key, name=key.title()) for key in KEYS], now, before or {})


def then(one: Standing, wanted: dict[str, SubscriptionStatus]) -> Standing:
    """How things stand once that is stored."""
    return Standing(one.channel, one.topic, one.topics, {**one.statuses, **wanted}, one.before)


@given(statuses, st.sampled_from(["", *KEYS]), st.booleans())
def test_who_leaves_no_longer_receives_it(now: dict[str, SubscriptionStatus], about: str, everything: bool) -> None:
    one = standing(now, about)
    left = then(one, dict(one.leaving(everything=everything)))
    assert left.has_left
    assert not left.receives(about)
    if everything or not about:
        assert not any(left.receives(key) for key in ["", *KEYS])
    else:
        assert [left.receives(key) for key in KEYS if key != about] == [
            one.receives(key) for key in KEYS if key != about
        ]


@given(statuses, st.sampled_from(KEYS), st.booleans())
def test_who_comes_back_receives_it_again(now: dict[str, SubscriptionStatus], about: str, everything: bool) -> None:
    one = standing(now, about)
    left = then(one, dict(one.leaving(everything=everything)))
    assert then(left, dict(left.returning())).receives(about)


@given(statuses, st.sets(st.sampled_from([*KEYS, "no such topic"])))
def test_who_chooses_receives_exactly_what_was_chosen(now: dict[str, SubscriptionStatus], chosen: set[str]) -> None:
    one = standing(now)
    assert {key for key in KEYS if then(one, dict(one.choosing(chosen))).receives(key)} == chosen & set(KEYS)


@given(statuses, st.sets(st.sampled_from(KEYS)))
def test_choosing_topics_is_never_a_consent_to_everything(now: dict[str, SubscriptionStatus], chosen: set[str]) -> None:
    one = standing(now)
    chose = then(one, dict(one.choosing(chosen)))
    assert one.receives(EVERYTHING) or not chose.receives(EVERYTHING)


def test_coming_back_restores_what_the_channel_was_before() -> None:
    left = standing({EVERYTHING: "unsubscribed"}, about="", before={EVERYTHING: "subscribed"})
    assert left.returning() == {EVERYTHING: "subscribed"}
    assert standing({EVERYTHING: "unsubscribed"}, about="").returning() == {EVERYTHING: "pending"}


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("anna.smith@example.com", "a…@example.com"),
        ("a@example.com", "a…@example.com"),
        ("дарья@пример.test", "д…@пример.test"),
        ("+4915112345678", "+49…78"),
        ('"a@b"@example.com', '"…@example.com'),
    ],
)
def test_an_address_is_shown_only_to_those_who_know_it(address: str, shown: str) -> None:
    assert masked(address) == shown
