"""Every event of ours has a sentence, whatever it knows."""

from decimal import Decimal

import pytest

from marketing.deliveries import DeliveryState
from marketing.timelines import NAMES, Told, summary


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_name_has_a_sentence_even_if_nothing_more_is_known(name: str) -> None:
    sentence = summary(name, Told(properties={}))
    assert sentence[0].isupper() and sentence.endswith(".") and "{" not in sentence


def test_every_state_of_a_message_has_a_sentence() -> None:
    assert {f"message.{state}" for state in DeliveryState} <= NAMES


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        (Told(properties={}), "Order {0} shipped."),
        (Told(properties={}, value=Decimal("1E+3")), "Order {0} shipped: 1000."),
        (Told(properties={}, value=Decimal("49.90"), currency="EUR"), "Order {0} shipped: 49.90 EUR."),
    ],
)
def test_what_others_tell_is_said_as_they_call_it(told: Told, sentence: str) -> None:
    assert summary("order {0} shipped", told) == sentence


def test_what_a_program_did_is_told_as_such() -> None:
    assert summary("message.opened", Told(properties={}, machine=True, campaign="Au{tumn")) == (
        "A program opened “Au{tumn”."
    )
