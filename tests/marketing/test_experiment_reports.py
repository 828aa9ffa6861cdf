"""What does a report say in English, and does it say no more than is known?"""

from datetime import UTC, datetime
from typing import Any

import pytest

from marketing.campaigns import CampaignState
from marketing.experiment_analysis import analyse
from marketing.experiment_reports import how_it_stands, incrementality, variant_figures
from marketing.experiment_results import Metric, Results, VariantCounts
from marketing.reports import Engagement, Figures

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)
PAID = Metric.REVENUE_PER_RECIPIENT


def shown() -> Results:
    return analyse([VariantCounts(name=name, recipients=1_000, successes=100) for name in "AB"], Metric.CLICK_RATE)


@pytest.mark.parametrize(
    ("state", "decided_by", "reason", "sentence"),
    [
        ("decided", "person", "It is nicer.", "The winner is “A”. A person chose it: It is nicer."),
        ("decided", "person", "A person chose “A”. So it is.", "The winner is “A”. A person chose “A”. So it is."),
        ("decided", "time", "A is better.", "The winner is “A”. A is better."),
        (
            "asking",
            None,
            "Choose one. Nobody has clicked so far.",
            "No winner could be believed when it was time, so choose one. 10.0 % of those who",
        ),
        ("decided", "person", "It is nicer", "The winner is “A”. A person chose it: It is nicer."),
        ("stopped", None, "Is it?", "It was stopped: Is it? 10.0 % of those who"),
        ("stopped", None, "no", "It was stopped: no. 10.0 % of those who"),
        ("stopped", None, "No need.", "It was stopped: No need. 10.0 % of those who"),
        (
            "testing",
            None,
            "",
            "The test is out, and is decided by 2026-11-27 12:00 UTC at the latest. 10.0 % of those who",
        ),
    ],
)
def test_how_it_stands_is_one_or_two_sentences(state: str, decided_by: str | None, reason: str, sentence: str) -> None:
    told = how_it_stands(state, "A", decided_by, reason, shown(), is_out=True, decides_at=NOON)
    assert told.startswith(sentence)


def test_without_a_winner_for_whom_nobody_waits_it_says_what_is_known_now() -> None:
    told = how_it_stands("decided", None, None, "No winner. Nobody has clicked.", shown(), is_out=True, decides_at=None)
    assert told.startswith("Nobody waits for a winner, so it ended without one. 10.0 % of those who")


def test_while_it_goes_out_or_waits_for_a_person_it_says_so() -> None:
    args: tuple[Any, ...] = ("testing", None, None, "", shown())
    assert how_it_stands(*args, is_out=False, decides_at=None).startswith("The test is still going out. ")
    assert how_it_stands(*args, is_out=True, decides_at=None).startswith("The test is out, and waits for a person")


@pytest.mark.parametrize(
    ("status", "is_out", "sentence"),
    [
        ("scheduled", False, "The test has not begun: the campaign is scheduled for later. 10.0 %"),
        ("paused", False, "The test is paused while it goes out. 10.0 %"),
        (
            "paused",
            True,
            "The test is out, and is decided by 2026-11-27 12:00 UTC at the latest. "
            "The campaign is paused, so nobody gets the winner before it is resumed. 10.0 %",
        ),
    ],
)
def test_what_is_scheduled_or_paused_is_not_told_to_be_going_out(status: str, is_out: bool, sentence: str) -> None:
    args: tuple[Any, ...] = ("testing", None, None, "", shown())
    told = how_it_stands(*args, is_out=is_out, decides_at=NOON, status=CampaignState(status))
    assert told.startswith(sentence)


@pytest.mark.parametrize("state", ["testing", "asking"])
@pytest.mark.parametrize(("status", "ended"), [("cancelled", "was cancelled"), ("failed", "has failed")])
def test_of_a_campaign_that_has_ended_nothing_is_promised(state: str, status: str, ended: str) -> None:
    args: tuple[Any, ...] = (state, None, None, "Choose one.", shown())
    told = how_it_stands(*args, is_out=True, decides_at=NOON, status=CampaignState(status))
    assert told.startswith(f"The campaign {ended} before there was a winner. 10.0 % of those who")


def test_what_sending_brought_is_told_with_its_doubt() -> None:
    held = VariantCounts(name="holdout", recipients=1_000, successes=20)
    sent = VariantCounts(name="all", recipients=9_000, successes=400)
    brought = incrementality(sent, held, Metric.CONVERSION_RATE, 0.95)
    assert brought and brought.sentence.startswith(
        "4.4 % of the contacts who were sent the campaign converted, 2.0 % of those held out: 2.4 points more"
    )
    assert brought.sentence.endswith("which sending made.")
    same = incrementality(sent.model_copy(update={"successes": 190}), held, Metric.CONVERSION_RATE, 0.95)
    assert same and same.sentence.endswith("and too early to say whether sending made that.") and "−" in same.sentence
    nobody = VariantCounts(name="holdout", recipients=0)
    assert incrementality(sent, nobody, Metric.CONVERSION_RATE, 0.95) is None
    assert incrementality(sent, VariantCounts(name="holdout", recipients=1), PAID, 0.95) is None


def test_what_sending_did_not_bring_is_told_as_less() -> None:
    held = VariantCounts(name="holdout", recipients=1_000, successes=400)
    sent = VariantCounts(name="all", recipients=1_000, successes=199)
    brought = incrementality(sent, held, Metric.CONVERSION_RATE, 0.95)
    assert brought and ": 20.1 points fewer (95 % interval 1" in brought.sentence and "−" not in brought.sentence
    money = [each.model_copy(update={"revenue": each.successes * 10}) for each in (sent, held)]
    paid = incrementality(money[0], money[1], PAID, 0.95)
    assert paid and ": 2.01 less (" in paid.sentence


def test_what_sending_brought_is_believed_only_if_it_may_be_at_any_time() -> None:
    """Results are asked for again and again: one look would find as much by luck in 3 % of cases, many in far more."""
    held = VariantCounts(name="holdout", recipients=1_000, successes=100)
    sent = VariantCounts(name="all", recipients=1_000, successes=131)
    brought = incrementality(sent, held, Metric.CONVERSION_RATE, 0.95)
    assert brought and brought.comparison.test.p < 0.05
    assert brought.sentence.endswith("and too early to say whether sending made that.")


def test_rates_are_of_messages_that_may_have_arrived_and_of_the_holdout_of_those_kept_back() -> None:
    class Sums:
        converted, conversions, revenue = 5, 6, 30.0

    sent = Figures(planned=120, sent=90, uncertain=10, opened=Engagement(total=50, unique=40, machine=9))
    told = variant_figures("A", 0.5, sent, Sums())
    assert (told.open_rate, told.conversion_rate, told.revenue_per_recipient) == (0.4, 0.05, 0.3)
    kept = Figures(planned=60, skipped=60, skipped_by_reason={"holdout": 50, "unsubscribed": 10})
    held = variant_figures("holdout", None, kept, Sums())
    assert (held.open_rate, held.conversion_rate) == (None, 0.1)
    assert variant_figures("A", 0.5, sent, None).converted is None
