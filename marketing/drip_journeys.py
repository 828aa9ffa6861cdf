"""What does a drip come to, as an automation, and what is wrong with it?"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any
from uuid import UUID

from marketing.automations import Subject
from marketing.campaigns import CampaignDefinition
from marketing.drips import MOST_MESSAGES, is_over, steps
from marketing.exits import exit_subjects
from marketing.problems import Problem
from marketing.segments import Criterion, InvalidCriteria, parse, written

# Of one contact's pass: longer than any drip that makes sense.
TIME_LIMIT = "50 years"


def as_automation(definition: CampaignDefinition) -> dict[str, Any]:
    """The automation of the same meaning: its steps, who may join, and who leaves before the end."""
    entry = _entry(definition)
    return {
        "steps": steps(definition),
        "entry": written(entry) if entry else None,
        "reentry": "once",
        "goals": [{"event": goal.event} for goal in definition.goals],
        "exit_on": [each.model_dump(mode="json") for each in definition.exit_on],
        "topic": definition.topic,
        "time_limit": TIME_LIMIT,
    }


def _entry(definition: CampaignDefinition) -> Criterion | None:
    """What must hold of whoever enters one of the segments later on; None: nothing more."""
    audience = definition.audience
    if audience is None:
        return None
    parts: list[Any] = [{"not": {"segment": str(each)}} for each in audience.exclude_segments or ()]
    parts += [written(audience.filter)] if audience.filter else []
    return parse({"all": parts} if len(parts) > 1 else parts[0]) if parts else None


def _joining(definition: CampaignDefinition) -> list[UUID]:
    """The segments whose new members join."""
    if definition.enroll == "snapshot" or definition.audience is None:
        return []
    return definition.audience.segments or []


def subjects(definition: CampaignDefinition) -> frozenset[Subject]:
    """What must happen to a contact to concern the drip, and in which role (`automation_subjects`)."""
    found: set[Subject] = {(subject, "exit") for subject in exit_subjects(definition.exit_on)}
    found |= {(f"event:{goal.event}", "goal") for goal in definition.goals}
    found |= {(f"segment.entered:{each}", "trigger") for each in _joining(definition)}
    return frozenset(found)


def drip_problems(definition: CampaignDefinition, now: datetime) -> list[Problem]:
    """What can't be launched so; what is said in the messages, others look at."""
    return list(_of_a_drip(definition, now) if definition.is_drip else _of_a_broadcast(definition))


def _of_a_broadcast(definition: CampaignDefinition) -> Iterator[Problem]:
    for part in ("messages", "calendar", "exit_on"):
        if getattr(definition, part):
            yield _error("only_drips", part, f'Only drips have {part}. Say "kind": "drip", or take it out.')
    if definition.enroll == "continuous":
        yield _error("only_drips", "enroll", 'Only drips let contacts join later. Say "kind": "drip".')


def _of_a_drip(definition: CampaignDefinition, now: datetime) -> Iterator[Problem]:
    if not definition.messages:
        yield _error("no_messages", "messages", f"A drip has 1 to {MOST_MESSAGES} messages. Give the first.")
    if definition.content.email is not None:
        yield _error("two_contents", "content.email", "A drip says what stands in its messages. Put it there.")
    if definition.schedule is not None:
        yield _error("no_schedule", "schedule", "A drip begins with its launch. Say in `calendar` when messages leave.")
    if definition.on_uncertain == "resend":
        yield _error("no_resending", "on_uncertain", "A drip goes on: what may have arrived is not sent again.")
    for number, message in enumerate(definition.messages):
        where = f"messages.{number}"
        if message.template is not None and message.content is not None:
            yield _error("two_contents", where, "Give a template or content, not both.")
        if message.after is not None and definition.calendar is not None:
            yield _error("after_and_calendar", f"{where}.after", "The calendar says when. Take `after` out.")
    try:
        _entry(definition)
    except InvalidCriteria as error:
        yield _error("criteria_too_large", "audience", f"With those segments excluded there is too much in it: {error}")
    if is_over(definition.calendar, now):
        yield _error("calendar_over", "calendar.until", "The last day of the calendar has passed. Give one to come.")
    if definition.enroll == "continuous" and not (definition.audience and definition.audience.segments):
        yield _error(
            "nothing_to_enter", "audience", "To join later is to enter a segment. Name segments in the audience."
        )


def _error(code: str, part: str, message: str) -> Problem:
    return Problem(code=code, message=message, part=part)
