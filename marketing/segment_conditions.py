"""What is asked of one contact, or of one event?"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import cached_property
from typing import Annotated, Any, ClassVar

from pydantic import Field as Part
from pydantic import GetJsonSchemaHandler, Tag
from pydantic_core import CoreSchema

from marketing.segment_fields import CONTACT_FIELDS, EVENT_FIELDS, Askable, Field, Kind, Operators, field_named
from marketing.segment_nodes import Asking, Node, by_key, refuse
from marketing.spans import Span, span


class Condition(Asking):
    """`{"field": "country", "in": ["FR", "DE"]}`: what a contact is, or has."""

    ASKABLE: ClassVar[tuple[Askable, ...]] = CONTACT_FIELDS

    field: str

    @cached_property
    def subject(self) -> Field:
        found = field_named(self.field, self.ASKABLE)
        assert found is not None  # it was when this was read
        return found

    def span(self, now: datetime) -> Span:
        """When the field must lie, for an operator that asks for a time."""
        reached = span(self.operator, self.operand, now)
        # What the record tells is not ahead of us but where clocks differ; what somebody wrote may be.
        ours = self.operator == "within" and self.subject.kind is Kind.MOMENT
        return Span(reached.start) if ours else reached

    @classmethod
    def operators(cls, written: Mapping[str, Any]) -> Operators:
        name = written.get("field")
        found = field_named(name, cls.ASKABLE) if isinstance(name, str) else None
        if found is None:
            known = ", ".join(each.written for each in cls.ASKABLE)
            refuse((("field",), f"There is no such field. There are {known}."))
        return found.operators

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"title": cls.__name__, "description": cls.__doc__, "anyOf": [_schema_of(each) for each in cls.ASKABLE]}


def _schema_of(asked: Askable) -> dict[str, Any]:
    field = {"type": "string", "pattern": asked.pattern} if asked.family else {"const": asked.written}
    return {
        "type": "object",
        "properties": {"field": field, **{name: operand.schema for name, operand in asked.operators.items()}},
        "required": ["field"],
        "minProperties": 2,
        "maxProperties": 2,
        "additionalProperties": False,
    }


class WhereCondition(Condition):
    """`{"field": "value", "at_least": 50}`: what an event is, or has."""

    ASKABLE = EVENT_FIELDS


class WhereAll(Node):
    """All of these hold of the event."""

    all: tuple["Where", ...] = Part(min_length=1)


class WhereAny(Node):
    """At least one of these holds of the event."""

    any: tuple["Where", ...] = Part(min_length=1)


class WhereNot(Node):
    """This does not hold of the event."""

    not_: "Where" = Part(alias="not")


Where = Annotated[
    Annotated[WhereAll, Tag("all")]
    | Annotated[WhereAny, Tag("any")]
    | Annotated[WhereNot, Tag("not")]
    | Annotated[WhereCondition, Tag("field")],
    by_key("all", "any", "not", "field"),
]
for _node in (WhereAll, WhereAny, WhereNot):
    _node.model_rebuild()


def where_conditions(where: Where | None) -> Iterator[WhereCondition]:
    """The conditions in it."""
    match where:
        case WhereAll(all=inner) | WhereAny(any=inner):
            for each in inner:
                yield from where_conditions(each)
        case WhereNot(not_=one):
            yield from where_conditions(one)
        case WhereCondition():
            yield where
