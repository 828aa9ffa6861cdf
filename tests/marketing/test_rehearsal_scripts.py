"""What the scripts of rehearsals can say."""

import json
import re
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from marketing.rehearsal_scripts import Act, ScriptedAct, act

ACT: TypeAdapter[Act] = TypeAdapter(ScriptedAct)


@pytest.mark.parametrize(
    ("sentence", "said"),
    [
        ("clicks welcome on day 2", {"at": "2 days", "event": "message.clicked", "message": "welcome"}),
        ("day 2: clicks welcome", {"at": "2 days", "event": "message.clicked", "message": "welcome"}),
        ("opens First letter after 3 hours", {"at": "3 hours", "event": "message.opened", "message": "First letter"}),
        ("opens", {"event": "message.opened"}),
        ("after 90 minutes: clicks", {"at": "90 minutes", "event": "message.clicked"}),
        ("unsubscribes on day 1", {"at": "1 day", "event": "contact.unsubscribed"}),
        ("unsubscribes on day 0", {"event": "contact.unsubscribed"}),
        (
            "purchases 49.90 EUR on day 10",
            {"at": "10 days", "event": "purchase", "value": Decimal("49.90"), "currency": "EUR"},
        ),
        ("purchases at once", {"event": "purchase"}),
        ("does cart.filled after 2 weeks", {"at": "2 weeks", "event": "cart.filled"}),
        (
            "Zoe@Example.com   clicks welcome on day 3",
            {"at": "3 days", "event": "message.clicked", "message": "welcome", "contact": "zoe@example.com"},
        ),
    ],
)
def test_a_sentence_says_what_json_can_say(sentence: str, said: dict[str, Any]) -> None:
    assert act(sentence).model_dump(exclude_defaults=True) == said
    as_json = {name: str(value) if name == "value" else value for name, value in said.items()}
    assert ACT.validate_python(sentence) == ACT.validate_python(as_json)


@pytest.mark.parametrize("sentence", ["dances on day 2", "on day 2", "", "does on day 2"])
def test_what_is_not_understood_is_answered_with_what_is(sentence: str) -> None:
    with pytest.raises(ValueError, match="not understood: write it such as 'clicks welcome on day 2'"):
        act(sentence)


@pytest.mark.parametrize(
    ("written", "path", "message"),
    [
        ({"event": "message.sent"}, "event", "Take an event of your own, or message.opened"),
        ({"event": "purchase", "message": "welcome"}, "", "message goes with message.opened"),
        ({"event": "purchase", "at": "soon"}, "at", ""),
        ({"event": "purchase", "contact": "nobody"}, "contact", ""),
    ],
)
def test_json_that_makes_no_sense_is_refused(written: dict[str, Any], path: str, message: str) -> None:
    with pytest.raises(ValidationError) as refused:
        ACT.validate_python(written)
    assert any(path in map(str, each["loc"]) or not path for each in refused.value.errors())
    assert message in str(refused.value)


def test_the_page_has_each_sentence_beside_the_json_that_says_the_same() -> None:
    page = (Path(__file__).parents[2] / "docs" / "rehearsal.md").read_text()
    rows = re.findall(r"^\| `([^`{]+)` \| `({[^`]+})` \|$", page, re.MULTILINE)
    assert len(rows) == 5
    for sentence, written in rows:
        assert act(sentence) == ACT.validate_python(json.loads(written))


@given(st.text(max_size=80))
def test_any_text_is_understood_or_refused(text: str) -> None:
    with suppress(ValueError):
        assert act(text).words
