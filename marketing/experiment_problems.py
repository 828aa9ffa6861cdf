"""What is wrong with an experiment?"""

from collections.abc import Iterator
from datetime import UTC, datetime
from unicodedata import category, normalize

from marketing.campaigns import CampaignDefinition
from marketing.experiment_results import Metric
from marketing.experiments import USUAL_BATCHES, Experiment
from marketing.problems import Problem, Severity
from marketing.spans import ahead

LONGEST_WINDOW = "90 days"
_SOME_DAY = datetime(2001, 2, 1, tzinfo=UTC)  # from which three months are no more than that
# Default_Ignorable_Code_Point of Unicode 17 (DerivedCoreProperties.txt), which unicodedata does not know, without the
# category Cf, and without what NFKC makes of others.
_NOT_SHOWN = (
    range(0x034F, 0x0350),  # combining grapheme joiner
    range(0x115F, 0x1161),  # fillers of Hangul
    range(0x17B4, 0x17B6),  # inherent vowels of Khmer
    range(0x180B, 0x1810),  # Mongolian variation selectors
    range(0x2065, 0x2066),
    range(0xFE00, 0xFE10),  # variation selectors
    range(0xFFF0, 0xFFF9),
    range(0xE0000, 0xE1000),  # tags and more variation selectors
)


def experiment_problems(definition: CampaignDefinition) -> list[Problem]:
    """What can't be launched so; what its variants say, others look at."""
    if not definition.is_experiment:
        message = 'Only experiments compare variants. Say "kind": "experiment", or take it out.'
        return [_error("only_experiments", "experiment", message)] if definition.experiment else []
    if definition.experiment is None:
        return [_error("no_experiment", "experiment", "Say what is compared: give at least two variants and a metric.")]
    return [
        *_of_names(definition.experiment),
        *_of_contents(definition, definition.experiment),
        *_of_the_decision(definition, definition.experiment),
    ]


def _of_names(experiment: Experiment) -> Iterator[Problem]:
    names = experiment.names
    read = [_seen(name) for name in names]
    for number, name in enumerate(read):
        if not name:
            yield _error("no_name", f"experiment.variants.{number}.name", "Nobody can see this name. Give it letters.")
        elif name in read[:number]:
            yield _error("same_name", f"experiment.variants.{number}.name", f"There are two variants called {name!r}.")
    known = ", ".join(repr(name) for name in names)
    if isinstance(experiment.allocation, dict):
        for name in experiment.allocation:
            if name not in names:
                message = f"There is no variant {name!r}. There are {known}."
                yield _error("unknown_variant", "experiment.allocation", message)
        if missing := [name for name in dict.fromkeys(names) if name not in experiment.allocation]:
            message = f"{', '.join(map(repr, missing))} has no weight. Give one to each variant, or leave them all out."
            yield _error("no_weight", "experiment.allocation", message)
    if experiment.control is not None and experiment.control not in names:
        message = f"There is no variant {experiment.control!r}. There are {known}."
        yield _error("unknown_variant", "experiment.control", message)


def _seen(name: str) -> str:
    """What people see of it: no space around it, and nothing that takes no room."""
    shown = (each for each in normalize("NFKC", name) if category(each) not in ("Cf", "Cc"))
    return "".join(each for each in shown if not any(ord(each) in few for few in _NOT_SHOWN)).strip()


def _of_contents(definition: CampaignDefinition, experiment: Experiment) -> Iterator[Problem]:
    said = [(each.says(definition.content.email), each.schedule or definition.schedule) for each in experiment.variants]
    for number, each in enumerate(said):
        if each in said[:number]:
            message = f"{experiment.names[number]!r} says what {experiment.names[said.index(each)]!r} says."
            yield _warning("same_variant", f"experiment.variants.{number}", message)


def _of_the_decision(definition: CampaignDefinition, experiment: Experiment) -> Iterator[Problem]:
    paid = experiment.metric in (Metric.CONVERSION_RATE, Metric.REVENUE_PER_RECIPIENT)
    if paid and definition.conversion is None:
        message = "Say which event is a conversion: here, or as the campaign's goal."
        yield _error("no_conversion", "experiment.conversion", message)
    if experiment.holdout and definition.conversion is None:
        message = "No event is a conversion, so nobody will know what sending brings. Say one, or take the holdout out."
        yield _warning("nothing_to_compare", "experiment.holdout", message)
    if experiment.window and ahead(_SOME_DAY, experiment.window) > ahead(_SOME_DAY, LONGEST_WINDOW):
        message = f"An experiment is decided within {LONGEST_WINDOW}. Say a shorter time, or that you decide: `manual`."
        yield _error("too_long", "experiment.decide", message)
    for number, variant in enumerate(experiment.variants):
        if variant.schedule and definition.schedule and variant.schedule.starts_at() < definition.schedule.starts_at():
            message = "This is before the campaign begins. Give a later moment, or take the campaign's schedule out."
            yield _error("schedule_too_early", f"experiment.variants.{number}.schedule", message)
    if experiment.tested == 1 and (experiment.decide == "manual" or experiment.fallback == "ask"):
        part = "decide" if experiment.decide == "manual" else "fallback"
        message = (
            "Everybody takes part in the test, so nobody waits for a winner, and no person is asked: it ends with what "
            "it has found. Give a `test_fraction` below 1 if others are to get the winner."
        )
        yield _warning("nobody_waits", f"experiment.{part}", message)
    if not experiment.is_bandit:
        if experiment.batches != USUAL_BATCHES:
            message = 'Only the test of a bandit leaves in batches. Say "allocation": "bandit", or take them out.'
            yield _warning("only_bandits", "experiment.batches", message)
        return
    if experiment.decide == "manual":
        message = "A bandit shares out its test over a time. Say `after` or `no_later_than`."
        yield _error("no_end", "experiment.decide", message)
    for number, variant in enumerate(experiment.variants):
        if variant.schedule:
            message = "Who gets which variant of a bandit is decided as its batches leave. Take the schedule out."
            yield _error("no_schedule", f"experiment.variants.{number}.schedule", message)


def _error(code: str, part: str, message: str) -> Problem:
    return Problem(code=code, message=message, part=part)


def _warning(code: str, part: str, message: str) -> Problem:
    return Problem(code=code, severity=Severity.WARNING, message=message, part=part)
