"""Who belongs? Criteria: a tree of questions about a contact, what it has done, and how much of it.

What is asked of something that is missing, or of another type, does not hold; but `is_not`, `not_in` and
`contains_none` hold exactly if `is`, `in` and `contains_any` do not, and `not` turns everything round. So everybody is
on one side or the other of every criterion.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from hashlib import sha256
from typing import Annotated, Any, ClassVar, Literal, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    GetJsonSchemaHandler,
    Tag,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
    model_validator,
)
from pydantic import Field as Part
from pydantic_core import CoreSchema

from marketing.segment_fields import (
    AMOUNTS,
    CONTACT_FIELDS,
    COUNTS,
    EVENT_FIELDS,
    MOMENTS,
    Askable,
    Field,
    Kind,
    Operators,
    field_named,
)
from marketing.segment_names import (
    DaysWithoutActivity,
    Duration,
    Engagement,
    EventName,
    Named,
    SpendingLevel,
    SubscriptionTier,
)
from marketing.segment_nodes import Asking, Node, Place, optional, refuse
from marketing.segment_operands import MOMENT, Misfit
from marketing.spans import Span, ago, first_moment, first_moment_after, span
from marketing.text import UNPRINTABLE, Printable

DEEPEST, MOST_NODES = 20, 500
BUCKETS = 100


class InvalidCriteria(ValueError):
    """These are no criteria; `path` says where, such as `all[1].any[0].in`, and the message what to do."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(message)
        self.path = path


# -- what is asked of one contact, or of one event -------------------------------------------------------------------


class Condition(Asking):
    """`{"field": "country", "in": ["FR", "DE"]}`: what a contact is, or has."""

    ASKABLE: ClassVar[tuple[Askable, ...]] = CONTACT_FIELDS

    field: str

    @property
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


# -- what a contact has done -----------------------------------------------------------------------------------------


def _moment(written: object) -> object:
    if isinstance(written, date):
        return written
    try:
        return MOMENT.read(written)
    except Misfit as wrong:
        raise ValueError(f"{wrong}.") from None


When = Annotated[date | datetime, BeforeValidator(_moment), WithJsonSchema(MOMENT.schema)]


class Count(Asking):
    """How many there are: `{"at_least": 2}`."""

    OPERATORS: ClassVar[Operators] = COUNTS

    @property
    def range(self) -> tuple[int, int | None]:
        """The lowest and the highest number that it may be, both inclusive."""
        match self.operator, self.operand:
            case "exactly", int(number):
                return number, number
            case "at_least", int(number):
                return number, None
            case "more_than", int(number):
                return number + 1, None
            case "at_most", int(number):
                return 0, number
            case "less_than", int(number):
                return 0, number - 1
            case "between", (int(low), int(high)):
                return low, high
        raise AssertionError(self)


class Timing(Asking):
    """When the first or the last of them was: `{"within": "14 days"}`. There must be one."""

    OPERATORS: ClassVar[Operators] = MOMENTS

    def span(self, now: datetime) -> Span:
        reached = span(self.operator, self.operand, now)
        # What happened is not ahead of us but where clocks differ.
        return Span(reached.start) if self.operator == "within" else reached


class Event(Node):
    """`{"event": "purchase", "count": {"at_least": 2}, "within": "30 days"}`: what a contact did, at least once unless
    `count` or `never` says otherwise."""

    event: EventName
    count: Count | None = optional("How many of them.")
    within: Duration | None = optional("How far back.")
    after: When | None = optional()
    before: When | None = optional()
    where: "Where | None" = optional("What holds of each event.")
    first: Timing | None = optional("When the first of them was.")
    last: Timing | None = optional("When the last of them was.")
    never: Literal[True] | None = optional("There is none of them.")
    machines: Literal[True] | None = optional("Count what machines caused too, such as a scanner's clicks.")

    def span(self, now: datetime) -> Span:
        """When the events happened."""
        return _window(self, now)

    @model_validator(mode="after")
    def _never_stands_alone(self) -> Self:
        if self.never and (self.count or self.first or self.last):
            raise ValueError("`never` goes with none of count, first and last. Leave it out, or them")
        return self


TOTAL = re.compile(r"(.{1,200}?)\.(value|properties\.([^.\x00-\x1f\x7f]{1,100}(?:\.[^.\x00-\x1f\x7f]{1,100}){0,2}))")


def _total(written: str) -> str:
    if not TOTAL.fullmatch(written) or UNPRINTABLE.search(written):
        raise ValueError("is no number of an event. Write it such as purchase.value or purchase.properties.items")
    return written


def where_conditions(where: "Where | None") -> Iterator[WhereCondition]:
    """The conditions in it."""
    match where:
        case WhereAll(all=inner) | WhereAny(any=inner):
            for each in inner:
                yield from where_conditions(each)
        case WhereNot(not_=one):
            yield from where_conditions(one)
        case WhereCondition():
            yield where


class Total(Asking):
    """`{"total": "purchase.value", "at_least": 100}`: what a number of such events comes to; 0 if there is none."""

    OPERATORS: ClassVar[Operators] = AMOUNTS

    total: Annotated[str, AfterValidator(_total), WithJsonSchema({"type": "string", "pattern": f"^{TOTAL.pattern}$"})]
    within: Duration | None = optional("How far back.")
    after: When | None = optional()
    before: When | None = optional()
    where: "Where | None" = optional("What holds of each event.")
    machines: Literal[True] | None = optional("Count what machines caused too, such as a scanner's clicks.")

    def span(self, now: datetime) -> Span:
        """When the events happened."""
        return _window(self, now)

    @property
    def event(self) -> str:
        return self._parts[0]

    @property
    def path(self) -> tuple[str, ...]:
        """The names on the way into the properties; none for the value."""
        return tuple(self._parts[1].split(".")[1:])

    @property
    def _parts(self) -> tuple[str, str]:
        found = TOTAL.fullmatch(self.total)
        assert found is not None
        return found[1], found[2]


def _window(asked: Event | Total, now: datetime) -> Span:
    starts = [ago(now, asked.within)] if asked.within else []
    starts += [first_moment_after(asked.after)] if asked.after else []
    return Span(max(starts, default=None), first_moment(asked.before) if asked.before else None)


# -- others ----------------------------------------------------------------------------------------------------------


def _bucket(written: object) -> object:
    if isinstance(written, bool | str):
        raise ValueError("Give whole numbers")
    return written


_Bucket = Annotated[int, BeforeValidator(_bucket), Part(ge=0, le=BUCKETS)]


class Bucket(Node):
    """`{"bucket": [0, 10]}`: chance, ten of a hundred, always the same people; others with another `seed`."""

    bucket: tuple[_Bucket, _Bucket]
    seed: Annotated[Printable, Part(max_length=100)] = Part("", exclude_if=lambda seed: not seed)

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.bucket[0] >= self.bucket[1]:
            raise ValueError("`bucket` takes the lower number first: [0, 10] is a tenth of all")
        return self


def bucket_of(contact_id: UUID, seed: str = "") -> int:
    """0 to 99: the first four bytes of the SHA-256 of seed and id, as in `database/segments.py`."""
    return int.from_bytes(sha256(f"{seed}{contact_id}".encode()).digest()[:4], "big") % BUCKETS


class InSegment(Node):
    """`{"segment": "0198…"}`: who belongs to another segment."""

    segment: UUID


class AllOf(Node):
    """`{"all": […]}`: all of these hold."""

    all: tuple["Criterion", ...] = Part(min_length=1)


class AnyOf(Node):
    """`{"any": […]}`: at least one of these holds."""

    any: tuple["Criterion", ...] = Part(min_length=1)


class Not(Node):
    """`{"not": …}`: this does not hold."""

    not_: "Criterion" = Part(alias="not")


# -- the tree --------------------------------------------------------------------------------------------------------

# A named criterion may name an event too.
_CONTACT_KEYS = ("named", "all", "any", "not", "field", "event", "total", "bucket", "segment")
_EVENT_KEYS = ("all", "any", "not", "field")


def _tag(keys: tuple[str, ...]) -> Any:
    def tag(node: object) -> str | None:
        has = node if isinstance(node, dict) else node.__class__.model_fields if isinstance(node, Node) else ()
        return next((key for key in keys if key in has or f"{key}_" in has), None)

    return Discriminator(
        tag,
        custom_error_type="criteria",
        custom_error_message=f"Give an object with one of {', '.join(keys)}.",
    )


Where = Annotated[
    Annotated[WhereAll, Tag("all")]
    | Annotated[WhereAny, Tag("any")]
    | Annotated[WhereNot, Tag("not")]
    | Annotated[WhereCondition, Tag("field")],
    _tag(_EVENT_KEYS),
]
Criterion = Annotated[
    Annotated[AllOf, Tag("all")]
    | Annotated[AnyOf, Tag("any")]
    | Annotated[Not, Tag("not")]
    | Annotated[Condition, Tag("field")]
    | Annotated[Event, Tag("event")]
    | Annotated[Total, Tag("total")]
    | Annotated[Bucket, Tag("bucket")]
    | Annotated[InSegment, Tag("segment")]
    | Annotated[Named, Tag("named")],
    _tag(_CONTACT_KEYS),
]
for _node in (WhereAll, WhereAny, WhereNot, Event, Total, AllOf, AnyOf, Not):
    _node.model_rebuild()


def _measure(written: object) -> None:
    """Refuse what is too deep or too large before anything else looks at it."""
    found = 0
    open_: list[tuple[object, Place]] = [(written, ())]
    while open_:
        node, place = open_.pop()
        if not isinstance(node, dict):
            continue
        found += 1
        if sum(isinstance(each, str) for each in place) >= DEEPEST:
            refuse((place, f"Criteria are at most {DEEPEST} levels deep. Put some of it into a segment of its own."))
        if found > MOST_NODES:
            refuse((place, f"Criteria have at most {MOST_NODES} nodes. Put some of it into a segment of its own."))
        for key in ("where", "not", "any", "all"):
            inner = node.get(key)
            if isinstance(inner, list):
                open_ += [(each, (*place, key, number)) for number, each in reversed([*enumerate(inner)])]
            else:
                open_.append((inner, (*place, key)))


def _place(places: Place) -> Place:
    """Where it is in what was written: Pydantic names the kind of each node too."""
    kept: list[str | int] = []
    rest = list(places)
    at_node = True
    while rest:
        if at_node:
            if rest.pop(0) == "named":
                del rest[:1]
            at_node = False
            continue
        kept.append(rest.pop(0))
        at_node = kept[-1] in ("not", "where") or (isinstance(kept[-1], int) and kept[-2] in ("all", "any"))
    return tuple(kept)


def _checked(written: object, read: ValidatorFunctionWrapHandler) -> Any:
    if isinstance(written, Node):
        return read(written)
    _measure(written)
    try:
        criteria = read(written)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)[:20]
        refuse(*((_place(each["loc"]), _told(each["type"], each["msg"])) for each in found))
    if sum(1 for _ in nodes(criteria)) > MOST_NODES:
        refuse(((), f"Criteria have at most {MOST_NODES} nodes, those behind names included."))
    return criteria


def _told(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return "is not understood here. Take it out."
    return f"{message.removeprefix('Value error, ').rstrip('.')}."


Criteria = Annotated[Criterion, WrapValidator(_checked)]
_CRITERIA: TypeAdapter[Criterion] = TypeAdapter(Criteria)


def parse(written: object) -> Criterion:
    """Criteria from what JSON holds.

    Raises:
        InvalidCriteria: they are none; the first that is wrong is told.
    """
    try:
        return _CRITERIA.validate_python(written)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise InvalidCriteria(path(first["loc"]), first["msg"]) from None


def path(place: Place) -> str:
    """Such as `all[1].any[0].in`."""
    return "".join(f"[{each}]" if isinstance(each, int) else f".{each}" for each in place).removeprefix(".")


def written(criteria: Criterion) -> dict[str, Any]:
    """The JSON that `parse` reads as these criteria."""
    found: dict[str, Any] = _CRITERIA.dump_python(criteria, mode="json")
    return found


# -- what follows from it --------------------------------------------------------------------------------------------


def nodes(criteria: Criterion) -> Iterator[Criterion]:
    """The criteria and everything in them; for a named one also what it stands for."""
    yield criteria
    match criteria:
        case AllOf(all=inner) | AnyOf(any=inner):
            for each in inner:
                yield from nodes(each)
        case Not(not_=one):
            yield from nodes(one)
        case SpendingLevel() | Engagement() | SubscriptionTier() | DaysWithoutActivity():
            yield from nodes(expanded(criteria))


def expanded(named: Named) -> Criterion:
    """What a named criterion asks exactly."""
    return parse(named.plain())


def segments_in(criteria: Criterion) -> frozenset[UUID]:
    """The segments that these criteria look into."""
    return frozenset(node.segment for node in nodes(criteria) if isinstance(node, InSegment))


def depends_on_time(criteria: Criterion) -> bool:
    """Whether somebody may enter or leave though nothing happens but that time passes."""
    return any(_depends_on_time(node) for node in nodes(criteria))


RELATIVE = frozenset({"within", "within_next", "older_than", "anniversary_within"})


def _depends_on_time(node: Criterion) -> bool:
    match node:
        case Condition():
            return node.operator in RELATIVE
        case Event():
            timings = (each.operator for each in (node.first, node.last) if each)
            return node.within is not None or not RELATIVE.isdisjoint(timings) or _is_relative(node.where)
        case Total():
            return node.within is not None or _is_relative(node.where)
    return False


def _is_relative(where: Where | None) -> bool:
    return any(condition.operator in RELATIVE for condition in where_conditions(where))


def subjects(criteria: Criterion) -> frozenset[str]:
    """What must change for somebody to enter or leave, time aside (`contact_touches.subjects`)."""
    found = {"contact"}
    for node in nodes(criteria):
        match node:
            case Condition():
                found |= _subjects_of(node)
            case Event() | Total():
                found.add(f"event:{node.event}")
            case InSegment():
                found.add(f"segment:{node.segment}")
    return frozenset(found)


def _subjects_of(condition: Condition) -> set[str]:
    field = condition.subject
    # An anniversary begins when the day does where the contact lives.
    zone = {"contact.timezone"} if condition.operator == "anniversary_within" else set()
    match field.kind:
        case Kind.SUBSCRIPTION:
            return {"subscriptions"}
        case Kind.SUPPRESSION:  # is of an address
            return {"suppressions", "contact.email" if field.path[0] == "email" else "contact.phone"}
        case Kind.JSON:
            return {"contact.attributes"} | zone
    return {f"contact.{field.name}"} | zone
