"""docs/campaigns.md explains every state, reason and field."""

import re
from enum import StrEnum
from pathlib import Path

import pytest

from marketing.campaigns import CampaignDefinition, CampaignState
from marketing.deliveries import MOST_ATTEMPTS, DeliveryState, FailReason, SkipReason, UncertainReason
from marketing.resolutions import Action

PAGE = (Path(__file__).parent.parent / "docs" / "campaigns.md").read_text()
EXPLAINED = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)


@pytest.mark.parametrize("words", [CampaignState, DeliveryState, SkipReason, FailReason, UncertainReason, Action])
def test_every_state_and_reason_is_explained(words: type[StrEnum]) -> None:
    assert {each.value for each in words} <= set(EXPLAINED)


def test_every_field_of_a_campaign_is_explained() -> None:
    assert set(CampaignDefinition.model_fields) <= set(EXPLAINED)


def test_nothing_else_is() -> None:
    known = {
        each.value
        for words in (CampaignState, DeliveryState, SkipReason, FailReason, UncertainReason, Action)
        for each in words
    }
    assert set(EXPLAINED) == known | set(CampaignDefinition.model_fields)
    assert f"{MOST_ATTEMPTS} times" in PAGE
