"""Where did the splits of an automation lead contacts, and did one way bring more to the goal than another?"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from math import gcd
from operator import attrgetter
from typing import Protocol

from pydantic import BaseModel, Field

from marketing.automations import AutomationDefinition, GoalEvent
from marketing.experiment_analysis import analyse
from marketing.experiment_results import Caution, Metric, Results, VariantCounts
from marketing.steps import Split, walk


class Led(Protocol):
    """How many a step has led one way, and how many of them converted afterwards."""

    @property
    def step(self) -> str: ...
    @property
    def variant(self) -> str: ...
    @property
    def contacts(self) -> int: ...
    @property
    def converted(self) -> int: ...
    @property
    def first_at(self) -> datetime: ...
    @property
    def last_at(self) -> datetime: ...


class SplitVariant(BaseModel):
    """One way."""

    name: str
    weight: int | None = Field(description="In the newest version; null: it is not in that one, or stands in code.")
    contacts: int = Field(description="Who came by here and was led this way, each counted once.")
    converted: int | None = Field(description="Who of them reached the goal in time; null: there is no goal.")
    first_at: datetime | None
    last_at: datetime | None


class SplitReport(BaseModel):
    """One split."""

    step: str
    variants: list[SplitVariant]
    results: Results | None = Field(description="What the figures show; null: the automation has no goal.")


class SplitReports(BaseModel):
    """Every split of an automation, those of earlier versions included."""

    goal: GoalEvent | None
    within: str = Field(description="How soon after the split the goal counts.")
    splits: list[SplitReport]


Weights = Mapping[str, int]


def split_reports(
    newest: AutomationDefinition, walked: Sequence[AutomationDefinition], led: Iterable[Led], within: str
) -> SplitReports:
    """All of them; `walked` are the versions in which anybody has been, `led` is in the order of steps."""
    goal = newest.goal
    known = _weights([newest]) | _weights(walked)  # shares that nobody came under have changed nothing
    by_step = {step: {each.variant: each for each in ways} for step, ways in groupby(led, attrgetter("step"))}
    splits = {step.id: step for _, step in walk(newest.steps) if isinstance(step, Split)}
    reports = []
    for step in dict.fromkeys([*known, *by_step]):
        ways, weights = by_step.get(step, {}), known.get(step, [])
        now = {name: each.weight for name, each in splits[step].variants.items()} if step in splits else {}
        names = list(dict.fromkeys([*now, *(name for each in weights for name in each), *ways]))
        shown = [_variant(name, now.get(name), ways.get(name), counts=goal is not None) for name in names]
        results = _results(shown, weights) if goal else None
        reports.append(SplitReport(step=step, variants=shown, results=results))
    return SplitReports(goal=goal, within=within, splits=reports)


def _weights(versions: Sequence[AutomationDefinition]) -> dict[str, list[Weights]]:
    """By step, the different weights that it has had, in lowest terms; in code they are not known."""
    found: dict[str, list[Weights]] = {}
    for definition in versions:
        for _, step in walk(definition.steps):
            if isinstance(step, Split) and step.id is not None:
                unit = gcd(*(each.weight for each in step.variants.values()))
                weights = {name: each.weight // unit for name, each in step.variants.items()}
                if weights not in found.setdefault(step.id, []):
                    found[step.id].append(weights)
    return found


def _variant(name: str, weight: int | None, led: Led | None, *, counts: bool) -> SplitVariant:
    return SplitVariant(
        name=name,
        weight=weight,
        contacts=led.contacts if led else 0,
        converted=(led.converted if led else 0) if counts else None,
        first_at=led.first_at if led else None,
        last_at=led.last_at if led else None,
    )


def _results(shown: Sequence[SplitVariant], weights: Sequence[Weights]) -> Results:
    counts = [VariantCounts(name=each.name, recipients=each.contacts, successes=each.converted or 0) for each in shown]
    if len(weights) == 1 and weights[0].keys() == {each.name for each in shown}:
        return analyse(counts, Metric.CONVERSION_RATE, weights=weights[0])
    return analyse(counts, Metric.CONVERSION_RATE, confounded=_caution(weights))


def _caution(weights: Sequence[Weights]) -> Caution:
    if not weights:
        message = (
            "The shares stand in code. If they have ever changed, those who went one way came at other times than "
            "those who went another, so neither is tested whether everybody got the right one, nor which is better."
        )
        return Caution(code="shares_unknown", message=message)
    message = (
        "The shares have changed from version to version, so those who went one way came at other times than those who "
        "went another: a difference between the times looks like one between the ways, and no winner is told."
    )
    return Caution(code="shares_changed", message=message)
