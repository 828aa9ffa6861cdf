"""Takes a contact through the steps that somebody has written down as JSON."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from marketing.drips import turn
from marketing.spans import ahead
from workflows.journey import Contact, Journey

# As `marketing/steps.py` checked and wrote it. It is not read into models again: all contacts of a cohort share its
# very objects, and steps of earlier days are taken as they were written.
Step = Mapping[str, Any]


class _Over(Exception):
    """There is no more to come."""


async def interpret(definition: Mapping[str, Any], _: Contact, journey: Journey, start_at: str | None = None) -> None:
    """The steps of an automation, one after the other; from the step `start_at` on, which may be deep inside.

    Raises:
        LookupError: there is no such step to start at.
    """
    with suppress(_Over):
        await _walk(journey, definition["steps"], start_at)


async def _walk(journey: Journey, steps: Sequence[Step], start_at: str | None = None) -> None:
    if start_at is not None:
        steps = await _entered(journey, steps, start_at)
    for step in steps:
        await _take(journey, step)


async def _entered(journey: Journey, steps: Sequence[Step], start_at: str) -> Sequence[Step]:
    """Go to where the contact starts: no question on the way there is asked again. Gives the steps that are left."""
    for number, step in enumerate(steps):
        if step["id"] == start_at:
            return steps[number:]
        for way in _ways(step):
            if any(each["id"] == start_at for each in _all(way)):
                await _walk(journey, way, start_at)
                return steps[number + 1 :]
    raise LookupError(f"there is no step {start_at!r} to start at")


async def _take(journey: Journey, step: Step) -> None:
    kind, name = step["type"], step["id"]
    args = {each: value for each, value in step.items() if each not in ("type", "id", "then", "else")}
    match kind:
        case "branch":
            holds = await journey.matches(step["if"], step=name)
            await _walk(journey, step.get("then" if holds else "else", ()))
        case "wait_for":
            found = await journey.wait_for(**args, step=name)
            await _walk(journey, step.get("then" if found else "else", ()))
        case "split":
            variants = step["variants"]
            weights = {each: variant["weight"] for each, variant in variants.items()}
            way = await journey.split(weights, step=name, by=step.get("by", ""))  # of rehearsed experiments
            await _walk(journey, variants[way].get("steps", ()))
        case "since_entry":  # of drips, as is the next
            await _reach(journey, ahead(journey.entered_at, step["duration"]), name)
        case "turn":
            await _reach(journey, turn(step["calendar"], journey.now, journey.contact.zone), name)
        case "tag":
            await journey.tag(*step.get("add", ()), remove=step.get("remove", ()), step=name)
        case "activity":
            await journey.activity(step["name"], step.get("input"), step=name)
        case "exit":
            journey.exit(**args)
        case _:  # the others are called as they are written
            await getattr(journey, kind)(**args, step=name)


async def _reach(journey: Journey, moment: datetime | None, name: str) -> None:
    """Wait for a moment, unless it has passed; if there is none, nothing comes any more."""
    if moment is None:
        raise _Over
    if moment > journey.now:
        await journey.wait(moment - journey.now, step=name)


def _ways(step: Step) -> Iterator[Sequence[Step]]:
    yield from (step[way] for way in ("then", "else") if way in step)
    yield from (variant.get("steps", ()) for variant in step.get("variants", {}).values())


def _all(steps: Sequence[Step]) -> Iterator[Step]:
    for step in steps:
        yield step
        for way in _ways(step):
            yield from _all(way)


def types(definition: Mapping[str, Any]) -> dict[str, str]:
    """By id, what kind of step each is."""
    return {step["id"]: step["type"] for step in _all(definition["steps"])}
