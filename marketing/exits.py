"""What makes a contact leave an automation or a drip before its end?"""

from collections.abc import Iterable, Iterator
from typing import Annotated

from pydantic import Field, Tag

from marketing.kinds import EventWhere, part, told_apart
from marketing.segment_conditions import Condition
from marketing.segment_events import Event, Total
from marketing.segment_fields import Kind
from marketing.segment_names import EventName
from marketing.segment_nodes import Node, by_key
from marketing.segments import Criteria, Criterion, InSegment, nodes


class ExitEvent(Node):
    """Whoever this happens to leaves."""

    event: EventName
    where: EventWhere | None = part(description="What holds of the event.")


class ExitIf(Node):
    """Whoever meets these criteria leaves."""

    if_: Criteria = Field(alias="if", description="Criteria as those of segments.")


Exit = Annotated[
    Annotated[ExitEvent, Tag("event")] | Annotated[ExitIf, Tag("if")],
    by_key("event", "if"),
    told_apart,
]


# Whoever refuses our messages, or is deleted, leaves everything.
ALWAYS = frozenset({"unsubscribed", "contact.deleted"})


def exit_subjects(exit_on: Iterable[ExitEvent | ExitIf]) -> frozenset[str]:
    """What must happen to a contact for one of these to be looked at."""
    found = set(ALWAYS)
    for each in exit_on:
        if isinstance(each, ExitEvent):
            found.add(f"event:{each.event}")
        else:
            found |= set(_criteria_subjects(each.if_))
    return frozenset(found)


def _criteria_subjects(criteria: Criterion) -> Iterator[str]:
    for node in nodes(criteria):
        match node:
            case Condition() if node.subject.kind is Kind.JSON:
                yield f"contact.attributes.{node.subject.path[0]}"
            case Condition() if node.subject.kind in (Kind.TEXT, Kind.LIST):
                yield f"contact.{node.subject.name}"
            case Event() | Total():
                yield f"event:{node.event}"
            case InSegment():
                yield f"segment.entered:{node.segment}"
                yield f"segment.left:{node.segment}"
