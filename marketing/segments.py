"""Who belongs? Criteria: a tree of questions about a contact, what it has done, and how much of it.

What is asked of something that is missing, or of another type, does not hold; but `is_not`, `not_in` and
`contains_none` hold exactly if `is`, `in` and `contains_any` do not, and `not` turns everything round. So everybody is
on one side or the other of every criterion.
"""

from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Annotated, Any
from uuid import UUID

from pydantic import (
    AfterValidator,
    Tag,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
)
from pydantic import Field as Part

from marketing.segment_conditions import Condition, Where, WhereAll, WhereAny, WhereCondition, where_conditions
from marketing.segment_events import Event, Total
from marketing.segment_fields import Kind
from marketing.segment_names import NAMES, DaysWithoutActivity, Engagement, Named, SpendingLevel, SubscriptionTier
from marketing.segment_nodes import Node, Place, by_key, kept_by, refuse
from marketing.segment_operands import IDENTIFIER, whole, widening
from marketing.text import PRINTABLE, printable

DEEPEST, MOST_NODES, MOST_VALUES = 20, 500, 10_000
_ELSEWHERE = "Put some of it into a segment of its own."
BUCKETS = 100
# What tells criteria apart; the name first, for a named criterion may have an event too.
CONTACT_KEYS = ("named", "all", "any", "not", "field", "event", "total", "bucket", "segment")
_TWO_BUCKETS = widening(whole(0, BUCKETS))


class InvalidCriteria(ValueError):
    """These are no criteria; `path` says where, such as `all[1].any[0].in`, and the message what to do."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(message)
        self.path = path


class Bucket(Node):
    """`{"bucket": [0, 10]}`: chance, ten of a hundred, always the same people; others with another `seed`."""

    bucket: Annotated[tuple[int, int], kept_by(_TWO_BUCKETS), WithJsonSchema(_TWO_BUCKETS.schema)]
    seed: Annotated[str, Part(max_length=100, json_schema_extra={"pattern": PRINTABLE}), AfterValidator(printable)] = (
        Part("", exclude_if=lambda seed: not seed)
    )


def bucket_of(contact_id: UUID, seed: str = "") -> int:
    """0 to 99: the first four bytes of the SHA-256 of seed and id, as in `database/segments.py`."""
    return int.from_bytes(sha256(f"{seed}{contact_id}".encode()).digest()[:4], "big") % BUCKETS


class InSegment(Node):
    """`{"segment": "0198…"}`: who belongs to another segment."""

    segment: Annotated[UUID, kept_by(IDENTIFIER), WithJsonSchema(IDENTIFIER.schema)]


class AllOf(Node):
    """`{"all": […]}`: all of these hold."""

    all: tuple["Criterion", ...] = Part(min_length=1)


class AnyOf(Node):
    """`{"any": […]}`: at least one of these holds."""

    any: tuple["Criterion", ...] = Part(min_length=1)


class Not(Node):
    """`{"not": …}`: this does not hold."""

    not_: "Criterion" = Part(alias="not")


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
    by_key(*CONTACT_KEYS),
]
for _node in (AllOf, AnyOf, Not):
    _node.model_rebuild()


def measure(written: object) -> None:
    """Refuse what is too deep or too large before anything else looks at it."""
    found = values = 0
    waiting: list[tuple[object, Place]] = [(written, ())]
    while waiting:
        node, place = waiting.pop()
        if not isinstance(node, dict):
            continue
        found += 1
        if sum(isinstance(each, str) for each in place) >= DEEPEST:
            refuse((place, f"Criteria are at most {DEEPEST} levels deep. {_ELSEWHERE}"))
        if found > MOST_NODES:
            refuse((place, f"Criteria have at most {MOST_NODES} nodes. {_ELSEWHERE}"))
        for key in ("where", "not", "any", "all"):
            inner = node.get(key)
            several = [*enumerate(inner[: MOST_NODES + 1])] if isinstance(inner, list) else []
            waiting += [(each, (*place, key, number)) for number, each in reversed(several)] or [(inner, (*place, key))]
        values += sum(len(each) for key, each in node.items() if isinstance(each, list) and key not in ("any", "all"))
        if values > MOST_VALUES:
            refuse((place, f"Criteria have at most {MOST_VALUES:,} values in their lists. {_ELSEWHERE}"))


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
    measure(written)
    try:
        criteria = read(written)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)[:20]
        told = [_told(_place(each["loc"]), each["type"], each["msg"], each.get("ctx", {})) for each in found]
        # To Pydantic, a list whose only item is bad is empty as well.
        places = {place[: len(place) - cut] for place, _ in told for cut in range(1, len(place) + 1)}
        refuse(*(each for each in told if each[0] not in places))
    if sum(1 for _ in nodes(criteria)) > MOST_NODES:
        refuse(((), f"Criteria have at most {MOST_NODES} nodes, those behind names included."))
    return criteria


_TOLD = {
    "extra_forbidden": "is not understood here. Take it out.",
    "missing": "is missing. Say it.",
    "too_short": "needs at least one.",
    "too_long": "takes at most {max_length}.",
    "tuple_type": "takes a list.",
    "string_type": "takes a text.",
    "string_too_long": "is longer than {max_length:,} characters.",
    "string_pattern_mismatch": "takes the name of an attribute, without dots and of 100 characters at most.",
    "greater_than": "takes a number of more than {gt}.",
}


def _told(place: Place, kind: str, message: str, context: Mapping[str, Any]) -> tuple[Place, str]:
    """Pydantic's own words in ours."""
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return (*place, "named"), f"takes one of {', '.join(NAMES)}."
    if told := _TOLD.get(kind):
        return place, told.format(**context)
    return place, f"{message.removeprefix('Value error, ').rstrip('.')}."


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
    """Such as `all.1.any.0.in`, as in answers of the API."""
    return ".".join(map(str, place))


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


def follows(criteria: Criterion, segment: UUID) -> bool:
    """Whether they ask, by its id, for the events of entering or leaving this segment."""
    return any(
        isinstance(node, Event | Total)
        and node.event in ("segment.entered", "segment.left")
        and str(segment) in _segment_ids(node.where)
        for node in nodes(criteria)
    )


def _segment_ids(where: Where | None) -> Iterator[object]:
    """The ids of segments of which the event may be; what is under a `not` says of which it is not."""
    match where:
        case WhereAll(all=inner) | WhereAny(any=inner):
            for each in inner:
                yield from _segment_ids(each)
        case WhereCondition(field="properties.segment_id", operator="is", operand=one):
            yield one
        case WhereCondition(field="properties.segment_id", operator="in", operand=tuple(several)):
            yield from several


def campaigns_in(criteria: Criterion) -> frozenset[UUID]:
    """The campaigns of which events must be."""
    wheres = (node.where for node in nodes(criteria) if isinstance(node, Event | Total))
    asked = (each.operand for where in wheres for each in where_conditions(where) if each.subject.kind is Kind.ID)
    several = (operand if isinstance(operand, tuple) else (operand,) for operand in asked)
    return frozenset(each for operands in several for each in operands if isinstance(each, UUID))


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
