"""What is a segment on record: a name, and criteria or a list of members?"""

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from marketing.segments import Criteria
from marketing.text import Printable


class SegmentKind(StrEnum):
    """Dynamic: its criteria say who belongs. Static: whoever was added, until they are removed."""

    DYNAMIC = "dynamic"
    STATIC = "static"


class SegmentState(StrEnum):
    """Building: its criteria are new, and membership is not settled yet. Ready: it is kept up to date."""

    BUILDING = "building"
    READY = "ready"


_EXAMPLE: dict[str, Any] = {
    "name": "Customers who come back",
    "criteria": {
        "all": [
            {"field": "country", "in": ["FR", "DE"]},
            {"event": "purchase", "count": {"at_least": 2}, "within": "30 days"},
            {"not": {"event": "message.clicked", "within": "14 days"}},
        ]
    },
}


class SegmentDefinition(BaseModel):
    """A segment as its author writes it."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "anyOf": [
                {
                    "required": ["criteria"],
                    "properties": {"kind": {"const": "dynamic"}, "criteria": {"type": "object"}},
                },
                {"required": ["kind"], "properties": {"kind": {"const": "static"}, "criteria": {"type": "null"}}},
            ],
            "example": _EXAMPLE,
        },
    )

    name: Printable = Field(min_length=1, max_length=200)
    kind: SegmentKind = SegmentKind.DYNAMIC
    criteria: Criteria | None = Field(None, description="Of dynamic segments; see docs/segments.md.")

    @model_validator(mode="after")
    def _criteria_belong_to_dynamic_segments(self) -> Self:
        if self.kind is SegmentKind.DYNAMIC and self.criteria is None:
            raise ValueError("a dynamic segment needs 'criteria'; one whose members are added by hand is 'static'")
        if self.kind is SegmentKind.STATIC and self.criteria is not None:
            raise ValueError("a static segment has no 'criteria': its members are added and removed")
        return self


def loop(start: UUID, looks_at: Mapping[UUID, Iterable[UUID]]) -> list[UUID]:
    """The way from a segment through those it looks at back to itself, `[start, …, start]`; empty if there is none."""
    came_from: dict[UUID, UUID] = {}
    waiting = [start]
    while waiting:
        segment = waiting.pop()
        for other in looks_at.get(segment, ()):
            if other == start:
                way = [start, segment]
                while way[-1] != start:
                    way.append(came_from[way[-1]])
                return way[::-1]
            if other not in came_from:
                came_from[other] = segment
                waiting.append(other)
    return []


def named_in(criteria: JsonValue, place: str = "") -> Iterator[tuple[str, UUID]]:
    """Each place in criteria, as JSON has them, at which another segment is named: `all.1.segment`."""
    match criteria:
        case {"segment": str(segment)}:
            yield f"{place}segment", UUID(segment)
        case dict():
            for name, inner in criteria.items():
                yield from named_in(inner, f"{place}{name}.")
        case list():
            for number, inner in enumerate(criteria):
                yield from named_in(inner, f"{place}{number}.")
