"""How do criteria read in English?"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from functools import partial
from uuid import UUID

from marketing.segment_conditions import Condition, Where, WhereAll, WhereAny, WhereCondition, WhereNot
from marketing.segment_events import Count, Event, Total
from marketing.segment_fields import Field, Kind
from marketing.segment_names import DaysWithoutActivity, Engagement, SpendingLevel, SubscriptionTier
from marketing.segment_operands import OperandValue
from marketing.segments import AllOf, AnyOf, Bucket, Criterion, InSegment, Not, expanded
from marketing.spans import said

Names = Mapping[UUID, str]

_LONGEST_QUOTE = 60
_MOST_NAMED = 5

_SMALLEST_WRITTEN_OUT = 1e-9

_LABELS = {
    "email": "e-mail address",
    "phone": "phone number",
    "external_id": "external id",
    "first_name": "first name",
    "last_name": "last name",
    "timezone": "time zone",
    "tags": "tag",
    "created_at": "creation",
    "updated_at": "last change",
    "campaign_id": "campaign",
}


def describe(criteria: Criterion, names: Names) -> str:
    """One sentence that says who belongs.

    Args:
        names: what the segments and campaigns that are asked about are called, as far as that is known.
    """
    return f"Contacts {_phrase(criteria, names, alone=True)}."


def describe_where(where: Where, names: Names) -> str:
    """What must hold of an event: “whose total is more than 5”."""
    return _where(where, names, alone=True)


def _phrase(node: Criterion, names: Names, *, alone: bool = False) -> str:
    """What follows “Contacts”; in brackets if it has several parts and is not `alone`."""
    inner = partial(_phrase, names=names)
    match node:
        case AllOf(all=parts):
            return _joined("and", parts, inner, alone=alone)
        case AnyOf(any=parts):
            return _joined("or", parts, inner, alone=alone)
        case Not(not_=one):
            return _negated(one, names, alone=alone)
        case Condition():
            return _condition(node, names, "who")
        case Event():
            return _event(node, names)
        case Total():
            what = " ".join(map(_quoted, node.path)) or "value"
            amount = _asked(node.operator, node.operand, names)
            return f"whose total {what} of {_events(node, names)} {amount}"
        case Bucket(bucket=(low, high), seed=seed):
            drawn = f" drawn with {_quoted(seed)}" if seed else ""
            return f"who are in the random buckets from {low} to below {high} of 100{drawn}"
        case InSegment(segment=segment):
            return f"who are in the segment {_named(segment, names)}"
        case SpendingLevel(level=level) | Engagement(level=level):
            return f"whose {node.named.replace('_', ' ')} is {level} ({inner(expanded(node), alone=True)})"
        case SubscriptionTier() | DaysWithoutActivity():
            return inner(expanded(node), alone=alone)


def _negated(node: Criterion, names: Names, *, alone: bool = False) -> str:
    match node:
        case InSegment(segment=segment):
            return f"who are not in the segment {_named(segment, names)}"
        case Event(count=None, first=None, last=None, never=None):
            return f"with no {_events(node, names)}"
        case AnyOf(any=parts):
            return _joined("and", parts, partial(_negated, names=names), alone=alone)
    return f"other than those {_phrase(node, names)}"


def _joined(
    word: str,
    parts: Sequence[Criterion] | Sequence[Where],
    phrase: Callable[..., str],
    *,
    alone: bool,
) -> str:
    if len(parts) == 1:
        return phrase(parts[0], alone=alone)
    joined = f", {word} ".join(phrase(part) for part in parts)
    return joined if alone else f"({joined})"


# -- fields ----------------------------------------------------------------------------------------------------------


def _condition(condition: Condition, names: Names, who: str) -> str:
    """What a field must be, of a contact (“who”) or an event (“that”)."""
    field, operator, operand = condition.subject, condition.operator, condition.operand
    if field.kind is Kind.SUPPRESSION:
        return f"{who} are {'' if operand else 'not '}suppressed on {field.path[0]}"
    if field.kind is Kind.FLAG:
        return f"{who} {'a' if operand else 'no'} machine caused"
    if field.kind is Kind.LIST and operator != "exists":
        return f"{who} {_tags(operator, operand, names)}"
    if field.kind is Kind.MOMENT and operator != "anniversary_within":
        return f"{who} were {_DONE[field.name]} {_asked(operator, operand, names).removeprefix('is ')}"
    label = _label(field)
    if operator == "exists" and field.kind in (Kind.JSON, Kind.SUBSCRIPTION):  # “unsubscribed” is known as well
        return f"whose {label} is {'' if operand else 'not '}known"
    if operator == "exists":
        article = "an" if label[0] in "aeiou" else "a"
        return f"{who} have {article if operand else 'no'} {label}"
    return f"whose {label} {_asked(operator, operand, names)}"


_DONE = {"created_at": "added", "updated_at": "last changed"}


def _tags(operator: str, operand: OperandValue, names: Names) -> str:
    told = _list("and", operand, names)
    if not isinstance(operand, tuple) or len(operand) == 1:
        return f"{'do not have' if operator == 'contains_none' else 'have'} the tag {told}"
    return f"have {operator.removeprefix('contains_')} of the tags {told}"


def _label(field: Field) -> str:
    match field.kind:
        case Kind.JSON:
            return " ".join(map(_quoted, field.path))
        case Kind.SUBSCRIPTION:
            channel, topic = field.path
            return f"subscription to {_quoted(topic)} on {channel}" if topic else f"subscription to {channel}"
    return _LABELS.get(field.name, field.name)


def _asked(operator: str, operand: OperandValue, names: Names) -> str:
    alone = not isinstance(operand, tuple) or len(operand) == 1
    one = _list("", operand, names) if alone else ""
    match operator:
        case "is" | "exactly" | "in":
            return f"is {_list('or', operand, names)}"
        case "is_not" | "not_in" if alone:
            return f"is not {one}"
        case "not_in":
            return f"is none of {_list('and', operand, names)}"
        case "contains_any" | "contains_all" | "contains_none":
            if alone:
                return f"does not contain {one}" if operator == "contains_none" else f"contains {one}"
            return f"contains {operator.removeprefix('contains_')} of {_list('and', operand, names)}"
        case "between" if isinstance(operand, tuple):
            low, high = operand
            return f"is between {_said(low, names)} and {_said(high, names)}"
        case "within":
            return f"is in the last {said(str(operand))}"
        case "within_next":
            return f"is in the next {said(str(operand))}"
        case "older_than":
            return f"is more than {said(str(operand))} ago"
        case "anniversary_within":
            return (
                "has its anniversary today"
                if operand in ("0 day", "0 days")
                else f"has its anniversary today or in the next {said(str(operand))}"
            )
        case "contains" | "starts_with" | "ends_with":
            return f"{operator.replace('_', ' ')} {one}"
        case "on" | "before" | "after":
            return f"is {operator} {one}"
    return f"is {operator.replace('_', ' ')} {one}"  # at least, at most, more than, less than


# -- events ----------------------------------------------------------------------------------------------------------


def _event(event: Event, names: Names) -> str:
    number, ending = "at least one", ""
    if event.never:
        number, ending = "no", "s"
    elif event.count:
        number, ending = _number(event.count), "" if event.count.operand == 1 else "s"
    timed = [
        f"the {which} of them {_asked(timing.operator, timing.operand, names).removeprefix('is ')}"
        for which, timing in (("first", event.first), ("last", event.last))
        if timing
    ]
    return ", ".join([f"with {number} {_events(event, names, ending)}", *timed])


def _number(count: Count) -> str:
    match count.operator, count.operand:
        case "between", (low, high):
            return f"{low:,} to {high:,}"
        case operator, number:
            return f"{operator.replace('_', ' ').replace('less', 'fewer')} {number:,}"
    raise AssertionError(count)


def _events(asked: Event | Total, names: Names, ending: str = "s") -> str:
    """Which events are looked at."""
    parts = [f"{_quoted(asked.event)} event{ending}"]
    parts += ["(machines' included)"] if asked.machines else []
    times = [f"in the last {said(asked.within)}"] if asked.within else []
    times += [f"after {_said(asked.after, names)}"] if asked.after else []
    times += [f"before {_said(asked.before, names)}"] if asked.before else []
    parts += [" and ".join(times)] if times else []
    parts += [_where(asked.where, names)] if asked.where else []
    return " ".join(parts)


def _where(node: Where, names: Names, *, alone: bool = False) -> str:
    inner = partial(_where, names=names)
    match node:
        case WhereAll(all=parts):
            return _joined("and", parts, inner, alone=alone)
        case WhereAny(any=parts):
            return _joined("or", parts, inner, alone=alone)
        case WhereNot(not_=one):
            return f"other than those {inner(one)}"
        case WhereCondition():
            return _condition(node, names, "that")


# -- words -----------------------------------------------------------------------------------------------------------


def _said(value: OperandValue, names: Names) -> str:
    match value:
        case bool():
            return str(value).lower()
        case int() | float() if value == int(value):
            return f"{int(value):,}"
        case float():
            return f"{Decimal(repr(value)):,f}" if abs(value) >= _SMALLEST_WRITTEN_OUT else repr(value)
        case datetime():
            return f"{value.day} {value:%B %Y %H:%M:%S} UTC".replace(":00 UTC", " UTC")
        case date():
            return f"{value.day} {value:%B %Y}"
        case UUID():
            return _named(value, names)
        case str():
            return _quoted(value)
    return _list("and", value, names)


def _list(word: str, values: OperandValue, names: Names) -> str:
    """“a”, “b” or “c”; of many only the first few."""
    several = values if isinstance(values, tuple) else (values,)
    each = [_said(value, names) for value in several]
    if len(each) > _MOST_NAMED:
        each = [*each[: _MOST_NAMED - 1], f"{len(each) - _MOST_NAMED + 1:,} others"]
    return f"{', '.join(each[:-1])} {word} {each[-1]}" if len(each) > 1 else each[0]


def _named(one: UUID, names: Names) -> str:
    return _quoted(names[one]) if one in names else str(one)


def _quoted(text: str) -> str:
    line = re.sub(r"\s", " ", text)  # and no fewer: “van ” is not “van”
    return f"“{line if len(line) <= _LONGEST_QUOTE else line[: _LONGEST_QUOTE - 1] + '…'}”"
