"""What is an experiment, what do its variants say, and what is wrong with one?"""

from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

from marketing.campaigns import CampaignDefinition
from marketing.content import EmailContent
from marketing.experiment_problems import experiment_problems
from marketing.experiment_results import Metric
from marketing.experiments import After, Conversion, Experiment, ExperimentVariant, WhenSignificant
from marketing.kinds import words
from marketing.problems import Severity

A, B = {"name": "A", "content": {"email": {"subject": "One"}}}, {"name": "B", "content": {"email": {"subject": "Two"}}}
EMAIL = {"subject": "Autumn", "html": "<p>Autumn</p>", "text": "Autumn", "from_email": "news@example.com"}
CAMPAIGN = EmailContent.model_validate(EMAIL)
TEMPLATE = UUID(int=1)


def experiment(**parts: Any) -> Experiment:
    return Experiment.model_validate({"variants": [A, B], "metric": "click_rate", **parts})


def definition(parts: dict[str, Any] | None = None, **more: Any) -> CampaignDefinition:
    written = {"variants": [A, B], "metric": "click_rate", **(parts or {})}
    whole = {"name": "x", "kind": "experiment", "content": {"email": EMAIL}, "experiment": written, **more}
    return CampaignDefinition.model_validate(whole)


def says(**email: Any) -> EmailContent:
    said = ExperimentVariant.model_validate({"name": "A", "content": {"email": email}}).says(CAMPAIGN)
    assert said
    return said


# -- what is meant ---------------------------------------------------------------------------------------------------


def test_what_is_left_out_has_its_usual_meaning() -> None:
    usual = experiment()
    assert (usual.tested, usual.holdout, usual.confidence, usual.control_name) == (0.2, 0, 0.95, "A")
    assert (usual.decide, usual.fallback, usual.weights) == (After(), "best_so_far", {"A": 1, "B": 1})
    assert (usual.window, usual.is_bandit) == ("4 hours", False)
    assert usual.minimum_sample.recipients == 1_000


def test_a_bandit_tests_on_everybody() -> None:
    assert experiment(allocation="bandit").tested == 1
    assert experiment(allocation="bandit", test_fraction=0.5).tested == 0.5
    assert experiment(allocation="bandit", holdout=0.1).cells.names == ["holdout", "", ""]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("open_rate", Metric.OPEN_RATE),
        ("HIGHEST_OPEN_RATE", Metric.OPEN_RATE),
        ("HIGHEST_CLICK_RATE", Metric.CLICK_RATE),
        ("HIGHEST_CONVERSION_RATE", Metric.CONVERSION_RATE),
        ("highest_revenue_per_recipient", Metric.REVENUE_PER_RECIPIENT),
        ("Click_Rate", Metric.CLICK_RATE),
    ],
)
def test_a_metric_may_be_spelled_in_several_ways(written: str, meant: Metric) -> None:
    assert experiment(metric=written).metric is meant


@pytest.mark.parametrize(
    ("decide", "meant", "window"),
    [
        ({"after": "1 day"}, After(after="1 day"), "1 day"),
        (
            {"when_significant": True, "no_later_than": "2 days"},
            WhenSignificant(when_significant=True, no_later_than="2 days"),
            "2 days",
        ),
        ("manual", "manual", None),
    ],
)
def test_a_decision_falls_after_a_time_when_there_is_evidence_or_by_hand(
    decide: Any, meant: Any, window: str | None
) -> None:
    written = experiment(decide=decide)
    assert (written.decide, written.window) == (meant, window)
    assert Experiment.model_validate(written.model_dump(mode="json", exclude_none=True)) == written


@pytest.mark.parametrize(
    "wrong",
    [
        {"variants": [A]},
        {"variants": [{"name": str(n)} for n in range(11)]},
        {"variants": [A, {"name": ""}]},
        {"variants": [A, {"name": "holdout"}]},
        {"variants": [A, {"name": "rest"}]},
        {"variants": [A, {"name": "x" * 61}]},
        {"variants": [A, {"name": "a\0"}]},
        {"variants": [A, {**B, "content": {"email": {"subjet": "x"}}}]},
        {"variants": [A, {**B, "channel": "sms"}]},
        {"metric": "delivered"},
        {"allocation": "fair"},
        {"allocation": {"A": 0, "B": 1}},
        {"allocation": {"A": float("inf"), "B": 1}},
        {"allocation": {}},
        {"test_fraction": 0},
        {"test_fraction": 1.1},
        {"holdout": 0.51},
        {"decide": "later"},
        {"decide": {"after": "soon"}},
        {"decide": {"when_significant": True}},
        {"decide": {"when_significant": False, "no_later_than": "1 day"}},
        {"confidence": 0.5},
        {"fallback": "none"},
        {"batches": 1},
        {"conversion": {"event": "purchase", "currency": "euro"}},
    ],
)
def test_what_means_nothing_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        experiment(**wrong)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"test_fraction": 20}, "takes a share of 1: 20 % is 0.2"),
        ({"holdout": 5.5}, "takes a share of 1: 5.5 % is 0.055"),
        ({"confidence": 95}, "takes a share of 1: 95 % is 0.95"),
    ],
)
def test_a_percentage_is_told_what_it_is_as_a_share(wrong: dict[str, float], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        experiment(**wrong)


# -- what is said ----------------------------------------------------------------------------------------------------


def test_what_a_variant_does_not_say_comes_from_the_campaign() -> None:
    said = says(subject="One", from_name="Anna")
    assert said == CAMPAIGN.model_copy(update={"subject": "One", "from_name": "Anna"})
    assert says() == CAMPAIGN


def test_a_variant_may_say_that_there_is_nothing() -> None:
    assert says(text="").text == ""


@pytest.mark.parametrize("own", [{"html": "<p>Own</p>"}, {"mjml": "<mjml></mjml>"}, {"template_id": str(TEMPLATE)}])
def test_a_body_of_its_own_takes_the_place_of_the_campaigns_whatever_its_form(own: dict[str, str]) -> None:
    said = says(**own)
    assert {name: str(getattr(said, name)) for name in own} == own
    assert [getattr(said, name) for name in ("html", "mjml", "template_id") if name not in own] == [None, None]
    assert (said.text, said.subject) == (None, "Autumn")
    assert says(**own, text="Own").text == "Own"


def test_contents_are_those_of_the_variants_in_their_order() -> None:
    assert [each and each.subject for each in definition().contents] == ["One", "Two"]
    whole = {"variants": [{**A, "content": {"email": EMAIL}}, {"name": "B"}]}
    assert definition(whole, content={}).contents == [CAMPAIGN, None]
    assert definition(None, kind="broadcast").contents == [CAMPAIGN]


def test_a_goal_of_the_campaign_is_what_counts_as_a_conversion_unless_the_experiment_says_another() -> None:
    goals = [{"event": "purchase", "within_hours": 24}]
    assert definition(None, goals=goals).conversion == Conversion(event="purchase", within="24 hours")
    own = {"event": "signup", "currency": "EUR"}
    assert definition({"conversion": own}, goals=goals).conversion == Conversion(event="signup", currency="EUR")
    assert definition().conversion is None


# -- what is wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "code", "place"),
    [
        ({"variants": [A, B, A]}, "same_name", "experiment.variants.2.name"),
        ({"variants": [A, {**B, "name": "A "}]}, "same_name", "experiment.variants.1.name"),
        ({"decide": {"after": "100 years"}}, "too_long", "experiment.decide"),
        ({"decide": {"when_significant": True, "no_later_than": "91 days"}}, "too_long", "experiment.decide"),
        ({"allocation": {"A": 1, "B": 1, "C": 1}}, "unknown_variant", "experiment.allocation"),
        ({"allocation": {"A": 1}}, "no_weight", "experiment.allocation"),
        ({"control": "C"}, "unknown_variant", "experiment.control"),
        ({"metric": "conversion_rate"}, "no_conversion", "experiment.conversion"),
        ({"metric": "revenue_per_recipient"}, "no_conversion", "experiment.conversion"),
        ({"allocation": "bandit", "decide": "manual"}, "no_end", "experiment.decide"),
        (
            {"allocation": "bandit", "variants": [A, {**B, "schedule": {"send_at": "2126-11-27T09:00"}}]},
            "no_schedule",
            "experiment.variants.1.schedule",
        ),
    ],
)
def test_what_no_experiment_can_be_is_told_with_its_place(parts: dict[str, Any], code: str, place: str) -> None:
    found = [each for each in experiment_problems(definition(parts)) if each.severity is Severity.ERROR]
    assert [(each.code, each.part) for each in found] == [(code, place)]


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"allocation": {"A": 1, "B": 3}, "control": "B"},
        {"allocation": "bandit"},
        {"allocation": "bandit", "batches": 5},
        {"decide": {"after": "90 days"}},
        {"decide": {"after": "3 months"}},
        {"metric": "conversion_rate", "conversion": {"event": "purchase"}},
        {"variants": [A, {"name": "B", "content": A["content"], "schedule": {"send_at": "2126-11-27T09:00"}}]},
    ],
)
def test_with_others_nothing_is_wrong(parts: dict[str, Any]) -> None:
    assert experiment_problems(definition(parts)) == []


def test_a_variant_does_not_leave_before_its_campaign_begins() -> None:
    early = {"variants": [A, {**B, "schedule": {"send_at": "2126-11-27T09:00"}}]}
    (found,) = experiment_problems(definition(early, schedule={"send_at": "2126-11-27T09:01"}))
    assert (found.code, found.part) == ("schedule_too_early", "experiment.variants.1.schedule")
    assert experiment_problems(definition(early, schedule={"send_at": "2126-11-27T09:00"})) == []


def test_kind_and_experiment_belong_together() -> None:
    broadcast, bare = definition(None, kind="broadcast"), definition().model_copy(update={"experiment": None})
    assert [each.code for each in experiment_problems(broadcast)] == ["only_experiments"]
    assert [each.code for each in experiment_problems(bare)] == ["no_experiment"]
    assert experiment_problems(CampaignDefinition(name="x")) == []


def test_batches_of_what_is_no_bandit_are_worth_a_look() -> None:
    (found,) = experiment_problems(definition({"batches": 5}))
    assert (found.severity, found.part) == (Severity.WARNING, "experiment.batches")


@pytest.mark.parametrize(
    ("parts", "place"),
    [
        ({"test_fraction": 1, "decide": "manual"}, "decide"),
        ({"test_fraction": 1, "fallback": "ask"}, "fallback"),
        ({"allocation": "bandit", "fallback": "ask"}, "fallback"),
    ],
)
def test_to_ask_people_where_nobody_waits_is_worth_a_look(parts: dict[str, Any], place: str) -> None:
    (found,) = experiment_problems(definition(parts))
    assert (found.code, found.severity, found.part) == ("nobody_waits", Severity.WARNING, f"experiment.{place}")
    assert experiment_problems(definition({**parts, "test_fraction": 0.9})) == []


def test_two_variants_that_say_the_same_are_worth_a_look() -> None:
    same = {"variants": [A, B, {**A, "name": "C"}]}
    (found,) = experiment_problems(definition(same))
    assert (found.severity, found.part) == (Severity.WARNING, "experiment.variants.2")
    assert found.message == "'C' says what 'A' says."


# -- in plain words --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "path", "message"),
    [
        (
            {"decide": "auto"},
            ("decide",),
            'takes {"after": "4 hours"}, {"when_significant": true, "no_later_than": "24 hours"} or "manual"',
        ),
        (
            {"decide": {"when_significant": False, "no_later_than": "1 day"}},
            ("decide", "when_significant"),
            'takes true. To decide at one moment, say {"after": "4 hours"}.',
        ),
        (
            {"allocation": "even"},
            ("allocation",),
            'takes a weight for each variant, such as {"A": 2, "B": 1}, or "bandit"',
        ),
        (
            {"allocation": [1, 2]},
            ("allocation",),
            'takes a weight for each variant, such as {"A": 2, "B": 1}, or "bandit"',
        ),
        ({"allocation": {"A": 0, "B": 1}}, ("allocation", "A"), "takes more than 0."),
        (
            {"metric": "delivered"},
            ("metric",),
            "takes 'open_rate', 'click_rate', 'conversion_rate' or 'revenue_per_recipient'.",
        ),
        ({"holdout": 0.6}, ("holdout",), "takes 0.5 or less."),
        ({"test_fraction": "0.2"}, ("test_fraction",), "takes a number."),
        ({"test_fraction": 0}, ("test_fraction",), "takes more than 0."),
        ({"confidence": 95}, ("confidence",), "takes a share of 1: 95 % is 0.95"),
        ({"allocation": {"A": 1e9, "B": 1}}, ("allocation", "A"), "takes 1,000,000 or less."),
        ({"batches": 101}, ("batches",), "takes 100 or less."),
    ],
)
def test_what_is_malformed_is_told_with_what_is_taken(
    parts: dict[str, Any], path: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValidationError) as raised:
        experiment(**parts)
    (error,) = raised.value.errors()
    assert (error["loc"], words(error) or error["msg"].removeprefix("Value error, ")) == (path, message)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        *((name, "no_name") for name in (" ", "\u200b", "\u3164", "\u115f", "\uffa0", "\u00ad")),
        *((name, "same_name") for name in ("A\u200b", "Ａ", "A\ufe0f", "A\u034f", "\u180bA", "A\U000e0100")),
    ],
)
def test_names_that_nobody_can_see_or_tell_apart_are_wrong(name: str, code: str) -> None:
    found = experiment_problems(definition({"variants": [A, {**B, "name": name}]}))
    assert [(each.code, each.part) for each in found] == [(code, "experiment.variants.1.name")]


def test_a_holdout_without_a_conversion_has_nothing_to_be_compared_by() -> None:
    (found,) = experiment_problems(definition({"holdout": 0.1}))
    assert (found.code, found.severity, found.part) == ("nothing_to_compare", Severity.WARNING, "experiment.holdout")
    assert experiment_problems(definition({"holdout": 0.1, "conversion": {"event": "purchase"}})) == []
