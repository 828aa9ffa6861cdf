"""Who belongs, reckoned by hand: written criteria and one person, without SQL and without the product's own models."""

import calendar
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from hashlib import sha256
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

Written = Mapping[str, Any]
MISSING = object()


@dataclass
class Person:
    """Somebody, and all that is known of them."""

    id: UUID
    columns: dict[str, Any] = field(default_factory=dict)  # of `contacts`; moments are aware
    attributes: dict[str, Any] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    statuses: dict[tuple[str, str], str] = field(default_factory=dict)  # by channel and topic
    suppressed: set[str] = field(default_factory=set)  # channels
    events: list["Happening"] = field(default_factory=list)
    segments: set[str] = field(default_factory=set)
    default_zone: str = "UTC"  # of the account


@dataclass
class Happening:
    """What somebody did."""

    name: str
    occurred_at: datetime
    machine: bool = False
    value: Decimal | None = None
    currency: str | None = None
    campaign_id: UUID | None = None
    properties: dict[str, Any] = field(default_factory=dict)


def belongs(criteria: Written, person: Person, now: datetime) -> bool:
    if "named" in criteria:
        return _named(criteria, person, now)
    if "all" in criteria:
        return all(belongs(each, person, now) for each in criteria["all"])
    if "any" in criteria:
        return any(belongs(each, person, now) for each in criteria["any"])
    if "not" in criteria:
        return not belongs(criteria["not"], person, now)
    if "bucket" in criteria:
        low, high = criteria["bucket"]
        drawn = int(sha256((criteria.get("seed", "") + str(person.id)).encode()).hexdigest()[:8], 16) % 100
        return bool(low <= drawn < high)
    if "segment" in criteria:
        return criteria["segment"] in person.segments
    if "event" in criteria:
        return _did(criteria, person, now)
    if "total" in criteria:
        return _amounts_to(criteria, person, now)
    return _has(criteria, person, now)


# -- fields ----------------------------------------------------------------------------------------------------------


def _has(criteria: Written, person: Person, now: datetime) -> bool:
    root, _, rest = criteria["field"].partition(".")
    if root == "subscriptions":
        channel, _, topic = rest.partition(".")
        value: Any = person.statuses.get((channel, topic), MISSING)
    elif root == "suppressions":
        value = rest in person.suppressed
    elif root == "attributes":
        value = _inside(person.attributes, rest)
    elif root == "tags":
        value = person.tags or MISSING
    else:
        value = person.columns.get(root)
        value = MISSING if value is None else value
        if root == "email" and isinstance(value, str):
            value = value.lower()
    zone = ZoneInfo(person.columns.get("timezone") or person.default_zone)
    return _holds(criteria, value, now, now.astimezone(zone).date(), written=root == "attributes")


def _inside(json: Any, path: str) -> Any:
    for name in path.split("."):
        if not isinstance(json, dict) or name not in json:
            return MISSING
        json = json[name]
    return MISSING if json is None else json


def _holds(criteria: Written, value: Any, now: datetime, today: date, *, written: bool) -> bool:
    """Whether one value is as asked; `written` if it is of JSON, where a time is a text."""
    ((operator, operand),) = [(key, asked) for key, asked in criteria.items() if key != "field"]
    match operator:
        case "exists":
            return (value is not MISSING) is operand
        case "is":
            return _same(value, operand)
        case "is_not":
            return not _same(value, operand)
        case "in":
            return any(_same(value, each) for each in operand)
        case "not_in":
            return not any(_same(value, each) for each in operand)
        case "starts_with" | "ends_with":
            return _has_in_it(operator, value, operand)
        case "contains" if not isinstance(value, list):
            return _has_in_it(operator, value, operand)
        case "contains" | "contains_any" | "contains_all" | "contains_none":
            return _lists(operator, value, operand)
        case "between" if isinstance(operand[0], str):
            return _in_time(operator, operand, _moment(value, written), now, ahead_too=written)
        case "at_least" | "at_most" | "more_than" | "less_than" | "between":
            return _is_number(value) and _compares(operator, operand, Decimal(repr(value)))
        case "anniversary_within":
            return _anniversary(_day(value, written), today, operand)
    return _in_time(operator, operand, _moment(value, written), now, ahead_too=written)


def _has_in_it(operator: str, value: Any, operand: Any) -> bool:
    if not (isinstance(value, str) and isinstance(operand, str)):
        return False
    text, piece = _folded(value), _folded(operand)
    return {
        "contains": piece in text,
        "starts_with": text.startswith(piece),
        "ends_with": text.endswith(piece),
    }[operator]


def _lists(operator: str, value: Any, operand: Any) -> bool:
    wanted = [operand] if operator == "contains" else operand
    found = [isinstance(value, list) and any(_same(each, one) for each in value) for one in wanted]
    if operator == "contains_none":
        return not any(found)
    return all(found) if operator == "contains_all" else any(found)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def _number(value: Any) -> Decimal:
    return value if isinstance(value, Decimal) else Decimal(repr(value))


def _same(value: Any, operand: Any) -> bool:
    """Of one type, and equal. To JSON, 5 and 5.0 are one number, and true is none."""
    if _is_number(value) and _is_number(operand):
        return _number(value) == _number(operand)
    if isinstance(value, UUID):
        return bool(str(value) == operand)
    return type(value) is type(operand) and bool(value == operand)


def _compares(operator: str, operand: Any, number: Decimal) -> bool:
    if operator == "between":
        low, high = operand
        return _number(low) <= number <= _number(high)
    bound = _number(operand)
    return {
        "exactly": number == bound,
        "at_least": number >= bound,
        "at_most": number <= bound,
        "more_than": number > bound,
        "less_than": number < bound,
    }[operator]


def _folded(text: str) -> str:
    """Letter by letter in lower case; İ is the only one that would become two."""
    return "".join("i" if letter == "İ" else letter.lower() for letter in text)


# -- times -----------------------------------------------------------------------------------------------------------

_ISO = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,6}))?)?(Z|[+-]\d\d:\d\d)?)?", re.ASCII
)


def _moment(value: Any, written: bool) -> datetime | None:
    if not written:
        return value if isinstance(value, datetime) else None
    found = _ISO.fullmatch(value) if isinstance(value, str) else None
    if not found:
        return None
    year, month, day, hour, minute, second = (int(part or 0) for part in found.groups()[:6])
    fraction, offset = int((found[7] or "").ljust(6, "0")), found[8] or "Z"
    ahead = timedelta(0)
    if offset != "Z":
        hours, minutes = int(offset[1:3]), int(offset[4:6])
        if hours > 14 or minutes > 59:
            return None
        ahead = timedelta(hours=hours, minutes=minutes) * (-1 if offset[0] == "-" else 1)
    try:
        moment = datetime(year, month, day, hour, minute, second, fraction, timezone(ahead))
    except ValueError:
        return None
    return moment if 1900 <= year < 2200 else None


def _day(value: Any, written: bool) -> date | None:
    """The day as it is written; of what we keep ourselves, in UTC."""
    moment = _moment(value, written)
    return moment.date() if moment and written else moment and moment.astimezone(UTC).date()


def _before(now: datetime, duration: str, sign: int = -1) -> datetime:
    number, unit = duration.split()
    amount = sign * int(number)
    unit = unit.rstrip("s")
    if unit in ("month", "year"):
        months = now.year * 12 + now.month - 1 + amount * {"month": 1, "year": 12}[unit]
        year, month = months // 12, months % 12 + 1
        return now.replace(year=year, month=month, day=min(now.day, calendar.monthrange(year, month)[1]))
    seconds = {"minute": 60, "hour": 3600, "day": 86_400, "week": 604_800}[unit]
    return now + timedelta(seconds=amount * seconds)


def _in_time(operator: str, operand: Any, moment: datetime | None, now: datetime, *, ahead_too: bool) -> bool:
    """`ahead_too`: what is asked about may lie ahead, so that it is not within the last days."""
    if moment is None:
        return False
    match operator:
        case "within":
            return _before(now, operand) <= moment and (moment <= now or not ahead_too)
        case "older_than":
            return moment < _before(now, operand)
        case "within_next":
            return now <= moment <= _before(now, operand, +1)
        case "between":
            return not _is_before(moment, operand[0]) and not _is_after(moment, operand[1])
        case "before":
            return _is_before(moment, operand)
        case "after":
            return _is_after(moment, operand)
        case "on":
            return not _is_before(moment, operand) and not _is_after(moment, operand)
    raise AssertionError(operator)


def _is_before(moment: datetime, written: str) -> bool:
    if len(written) == 10:
        return moment.astimezone(UTC).date() < date.fromisoformat(written)
    return moment < _absolute(written)


def _is_after(moment: datetime, written: str) -> bool:
    if len(written) == 10:
        return moment.astimezone(UTC).date() > date.fromisoformat(written)
    return moment > _absolute(written)


def _absolute(written: str) -> datetime:
    moment = datetime.fromisoformat(written)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _anniversary(day: date | None, today: date, duration: str) -> bool:
    if day is None:
        return False
    number, unit = duration.split()
    days = int(number) * (7 if unit.startswith("week") else 1)
    coming = [today + timedelta(days=ahead) for ahead in range(days + 1)]
    return any(
        (each.month, each.day) == (day.month, day.day)
        or ((day.month, day.day) == (2, 29) and (each.month, each.day) == (2, 28) and not calendar.isleap(each.year))
        for each in coming
    )


# -- events ----------------------------------------------------------------------------------------------------------


def _matching(criteria: Written, name: str, person: Person, now: datetime) -> list[Happening]:
    return [
        event
        for event in person.events
        if event.name == name
        and (criteria.get("machines") or not event.machine)
        and all(
            _in_time(operator, criteria[operator], event.occurred_at, now, ahead_too=False)
            for operator in ("within", "before", "after")
            if operator in criteria
        )
        and ("where" not in criteria or _is_such(criteria["where"], event, now))
    ]


def _is_such(where: Written, event: Happening, now: datetime) -> bool:
    if "all" in where:
        return all(_is_such(each, event, now) for each in where["all"])
    if "any" in where:
        return any(_is_such(each, event, now) for each in where["any"])
    if "not" in where:
        return not _is_such(where["not"], event, now)
    root, _, rest = where["field"].partition(".")
    if root == "properties":
        return _holds(where, _inside(event.properties, rest), now, now.astimezone(UTC).date(), written=True)
    value = getattr(event, root)
    return _holds_of_event(where, MISSING if value is None else value, now)


def _holds_of_event(where: Written, value: Any, now: datetime) -> bool:
    number = {key: asked for key, asked in where.items() if key in ("at_least", "at_most", "more_than", "less_than")}
    if number or "between" in where:
        ((operator, operand),) = [(key, asked) for key, asked in where.items() if key != "field"]
        return value is not MISSING and _compares(operator, operand, value)
    return _holds(where, value, now, now.date(), written=False)


def _did(criteria: Written, person: Person, now: datetime) -> bool:
    events = _matching(criteria, criteria["event"], person, now)
    if criteria.get("never"):
        return not events
    if "count" in criteria:
        ((operator, operand),) = criteria["count"].items()
        if not _compares(operator, operand, Decimal(len(events))):
            return False
    elif not events:
        return False
    moments = sorted(event.occurred_at for event in events)
    for which, place in (("first", 0), ("last", -1)):
        if which in criteria:
            ((operator, operand),) = criteria[which].items()
            if not moments or not _in_time(operator, operand, moments[place], now, ahead_too=False):
                return False
    return True


def _amounts_to(criteria: Written, person: Person, now: datetime) -> bool:
    name, _, path = criteria["total"].partition(".properties.")
    if not path:
        name = name.removesuffix(".value")
    total = Decimal(0)
    for event in _matching(criteria, name, person, now):
        value = _inside(event.properties, path) if path else event.value
        if _is_number(value):
            total += _number(value)
    ((operator, operand),) = [
        (key, asked)
        for key, asked in criteria.items()
        if key not in ("total", "within", "before", "after", "where", "machines")
    ]
    return _compares(operator, operand, total)


def _named(criteria: Written, person: Person, now: datetime) -> bool:
    def did_one_of(names: list[str], duration: str) -> bool:
        return any(_matching({"within": duration}, name, person, now) for name in names)

    level = criteria.get("is")
    match criteria["named"]:
        case "spending_level":
            events = _matching(criteria, criteria["event"], person, now)
            spent = sum((event.value for event in events if event.value is not None), Decimal(0))
            medium, high = _number(criteria["medium"]), _number(criteria["high"])
            of = "none" if spent <= 0 else "low" if spent < medium else "medium" if spent < high else "high"
            return of == level
        case "engagement":
            active = ["message.opened", "message.clicked"]
            if did_one_of(active, criteria["recent"]):
                return level == "engaged"
            if did_one_of(active, criteria["past"]):
                return level == "cooling"
            return level == ("dormant" if _matching({}, "message.sent", person, now) else "unreached")
        case "subscription_tier":
            return _same(_inside(person.attributes, criteria["attribute"]), level)
        case "days_without_activity":
            duration = f"{criteria['at_least']} days"
            known_since = person.columns["created_at"]
            return known_since < _before(now, duration) and not did_one_of(criteria["events"], duration)
    raise AssertionError(criteria)
