"""Would automations set each other off for ever?"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple
from uuid import UUID

from marketing.automations import AutomationDefinition, trigger_subject
from marketing.segment_conditions import Where, WhereAll, WhereAny, WhereCondition, WhereNot
from marketing.steps import AddTo, CreateCampaign, RemoveFrom, Send, Step, Tag, UpdateContact, walk
from marketing.stored_segments import loop
from marketing.triggers import OnEvent

# What becomes of a message without anybody's doing; that somebody clicks is their own.
_OF_MESSAGES = ("message.sent", "message.failed", "message.uncertain")


class Effect(NamedTuple):
    """What a step makes happen: a subject as that of a trigger, and what is known of the event."""

    subject: str
    known: Mapping[str, str] = {}


def circle(
    start: UUID, automations: Mapping[UUID, AutomationDefinition], segments: Mapping[str, UUID] | None = None
) -> list[UUID]:
    """The way from an automation through those that it sets off back to itself, `[start, …, start]`; empty if there is
    none.

    Counted is what steps do for certain. Who enters or leaves a segment whose criteria decide, and what activities and
    other programs do, nobody knows beforehand; nor what automations do that are written in Python.

    Args:
        segments: the ids of those that steps call by their names.
    """
    ids = {name: str(each) for name, each in (segments or {}).items()}
    return loop(
        start,
        {
            one: [
                other
                for other, its in automations.items()
                if any(
                    _sets_off(effect, its) for _, step in walk(definition.steps) for effect in _effects(one, step, ids)
                )
            ]
            for one, definition in automations.items()
        },
    )


def _effects(source_id: UUID, step: Step, ids: Mapping[str, str]) -> Iterator[Effect]:
    match step:
        case Send():
            yield from (Effect(f"event:{name}", {"campaign_id": str(source_id)}) for name in _OF_MESSAGES)
        case CreateCampaign(launch=True):
            yield from (Effect(f"event:{name}") for name in _OF_MESSAGES)
        case AddTo() | RemoveFrom():
            name = "segment.entered" if isinstance(step, AddTo) else "segment.left"
            segment = ids.get(step.segment, step.segment)
            yield Effect(f"{name}:{segment}")
            yield Effect(f"event:{name}", {"properties.segment_id": segment})
        case Tag():
            yield from (Effect(f"tag:{tag}") for tag in step.add)
            yield Effect("event:contact.changed")
        case UpdateContact():
            changed = step.changes.model_dump()
            attributes = changed.pop("attributes", None) or {}
            yield from (Effect(f"contact.{name}") for name in changed)
            yield from (Effect(f"contact.attributes.{name}") for name in attributes)
            yield Effect("event:contact.changed")


def _sets_off(effect: Effect, automation: AutomationDefinition) -> bool:
    trigger = automation.trigger
    if trigger is None or trigger_subject(trigger) != effect.subject:
        return False
    where = trigger.where if isinstance(trigger, OnEvent) else None
    return where is None or _holds(where, effect.known) is not False


def _holds(where: Where, known: Mapping[str, str]) -> bool | None:
    """Whether it holds of such an event; None if that depends on what is not known."""
    match where:
        case WhereAll(all=inner):
            answers = {_holds(each, known) for each in inner}
            return False if False in answers else None if None in answers else True
        case WhereAny(any=inner):
            answers = {_holds(each, known) for each in inner}
            return True if True in answers else None if None in answers else False
        case WhereNot(not_=one):
            answer = _holds(one, known)
            return None if answer is None else not answer
        case WhereCondition(field=field, operator="is" | "is_not" | "in" | "not_in" as operator) if field in known:
            asked = where.operand if isinstance(where.operand, tuple) else (where.operand,)
            return (known[field] in map(str, asked)) == (operator in ("is", "in"))
    return None
