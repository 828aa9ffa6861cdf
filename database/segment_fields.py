"""What is asked of one row, a contact's or an event's, as SQL."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cached_property, lru_cache
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo, available_timezones

import orjson

from marketing.segment_conditions import Condition
from marketing.segment_fields import Field, Kind
from marketing.segment_operands import OperandValue
from marketing.spans import WHEN, Span, days_in

A_DAY = timedelta(days=1)

_SIGNS = {"exactly": "=", "at_least": ">=", "at_most": "<=", "more_than": ">", "less_than": "<"}
_TURNED = {"is_not": "is", "not_in": "in", "contains_none": "contains_any"}


@dataclass
class Given:
    """The parameters of a statement: whatever somebody wrote is named in the SQL, and never in it."""

    prefix: str
    parameters: dict[str, Any] = field(default_factory=dict)

    def __call__(self, value: object, kind: str) -> str:
        name = f"{self.prefix}given_{len(self.parameters)}"
        self.parameters[name] = value
        return f"CAST(:{name} AS {kind})"

    def numeric(self, number: float) -> str:
        return self(Decimal(repr(number)), "numeric")

    def jsonb(self, value: object) -> str:
        return self(_json(value), "jsonb")

    def within(self, moment: str, span: Span) -> str:
        """SQL for whether a moment lies there."""
        bounds = [(">=", span.start), ("<", span.end)]
        return " AND ".join(f"{moment} {sign} {self(bound, 'timestamptz')}" for sign, bound in bounds if bound)


def _json(value: object) -> str:
    return orjson.dumps(value).decode()


@dataclass(frozen=True)
class Fields:
    """The fields of one table: `contacts`, or `events`."""

    table: str
    json: str  # the column of what has names of somebody's choice
    given: Given
    now: datetime

    def holds(self, condition: Condition) -> str:
        """SQL that is true where the condition holds, and false or NULL where it doesn't."""
        operator, operand = condition.operator, condition.operand
        if plain := _TURNED.get(operator):
            return f"({self._plain(condition, plain, operand)}) IS NOT TRUE"
        if operator == "exists":
            there = self._exists(condition.subject)
            return there if operand else f"({there}) IS NOT TRUE"
        return self._plain(condition, operator, operand)

    def _plain(self, condition: Condition, operator: str, operand: OperandValue) -> str:
        match condition.subject.kind:
            case Kind.TEXT:
                return self._text(self._column(condition.subject), operator, operand)
            case Kind.LIST:
                return self._list(operator, operand)
            case Kind.MOMENT:
                moment = self._column(condition.subject)
                if operator == "anniversary_within":
                    return self._anniversary(f"to_char({moment} AT TIME ZONE 'UTC', 'MM-DD')", str(operand))
                return self.given.within(moment, condition.span(self.now))
            case Kind.JSON:
                # PostgreSQL knows nothing of what is in there, and expects one in a thousand to be as asked: after a
                # few such questions it expects nobody and loops over a million. Of a CASE it expects a half.
                return f"CASE WHEN {self._of_json(condition, operator, operand)} THEN true END"
            case Kind.NUMBER:
                return self._number(self._column(condition.subject), operator, operand)
            case Kind.ID:
                return self._equal(self._column(condition.subject), operand, "uuid")
            case Kind.FLAG:
                return self._equal(self._column(condition.subject), operand, "boolean")
        raise AssertionError(condition)

    def _column(self, asked: Field) -> str:
        # The key of an address is its lower case, and has an index.
        return f"{self.table}.{'email_key' if asked.name == 'email' else asked.name}"

    def _exists(self, asked: Field) -> str:
        match asked.kind:
            case Kind.LIST:
                return f"{self.table}.tags <> '{{}}'"
            case Kind.JSON:
                return f"jsonb_typeof({self._found(asked.path).value}) <> 'null'"
        return f"{self._column(asked)} IS NOT NULL"

    def total(self, path: Sequence[str], operator: str, operand: OperandValue) -> str:
        """SQL for whether the sum of what is found there, or of the value, is as asked."""
        number = f"{self.table}.value"
        if path:
            value = self._found(path).value
            number = f"CASE WHEN jsonb_typeof({value}) = 'number' THEN CAST({value} AS numeric) END"
        return _amount(f"coalesce(sum({number}), 0)", operator, operand, self.given.numeric)

    # -- columns -----------------------------------------------------------------------------------------------------

    def _equal(self, column: str, operand: OperandValue, kind: str) -> str:
        if isinstance(operand, tuple):
            return f"{column} = ANY ({self.given(list(operand), f'{kind}[]')})"
        return f"{column} = {self.given(operand, kind)}"

    def _text(self, text: str, operator: str, operand: OperandValue) -> str:
        if operator in ("is", "in"):
            return self._equal(text, operand, "text")
        # As everywhere the same, whatever the database's collation: letter by letter (Unicode's simple mapping).
        text, piece = f"lower({text} COLLATE pg_c_utf8)", f"lower({self.given(operand, 'text')} COLLATE pg_c_utf8)"
        match operator:
            case "contains":
                return f"strpos({text}, {piece}) > 0"
            case "starts_with":
                return f"starts_with({text}, {piece})"
            case "ends_with":
                return f"right({text}, length({piece})) = {piece}"
        raise AssertionError(operator)

    def _number(self, number: str, operator: str, operand: OperandValue) -> str:
        match operator, operand:
            case (("is" | "exactly"), (int() | float())):
                return f"{number} = {self.given.numeric(operand)}"
            case "in", tuple():
                return f"{number} = ANY ({self.given([Decimal(repr(each)) for each in operand], 'numeric[]')})"
            case _:
                return _amount(number, operator, operand, self.given.numeric)

    def _list(self, operator: str, operand: OperandValue) -> str:
        tags = f"{self.table}.tags"
        if not isinstance(operand, tuple):
            # `@>` would do as well, but not as it is not leak-proof, so the account would be looked at first.
            return f"{self.given(operand, 'text')} = ANY ({tags})"
        return f"{tags} {'@>' if operator == 'contains_all' else '&&'} {self.given(list(operand), 'text[]')}"

    # -- attributes and properties -----------------------------------------------------------------------------------

    def _found(self, path: Sequence[str]) -> "_Found":
        *way, last = (self.given(name, "text") for name in path)
        inside = " -> ".join([f"{self.table}.{self.json}", *way])
        return _Found(f"({inside} -> {last})", f"({inside} ->> {last})")

    def _of_json(self, condition: Condition, operator: str, operand: OperandValue) -> str:
        """What is of another type than the operator asks about is not as asked, and nothing is cast that can't be."""
        path = condition.subject.path
        if operator == "is":
            # As fast as `->>` with `=`, and "5" is not 5.
            nested: object = operand
            for name in reversed(path):
                nested = {name: nested}
            return f"{self.table}.{self.json} @> {self.given.jsonb(nested)}"
        value, text = self._found(path)
        match operator:
            case "in":
                return f"{value} = ANY ({self._several(operand)})"
            case "contains":
                member = f"jsonb_typeof({value}) = 'array' AND {value} @> {self.given.jsonb(operand)}"
                piece = f"jsonb_typeof({value}) = 'string' AND {self._text(text, operator, operand)}"
                return f"({member} OR {piece})" if isinstance(operand, str) else member
            case "contains_any":
                return f"jsonb_typeof({value}) = 'array' AND {value} @> ANY ({self._several(operand)})"
            case "contains_all":
                return f"jsonb_typeof({value}) = 'array' AND {value} @> {self.given.jsonb(operand)}"
            case "starts_with" | "ends_with":
                return f"jsonb_typeof({value}) = 'string' AND {self._text(text, operator, operand)}"
            case "anniversary_within":
                return self._if_moment(value, text, self._anniversary(f"substr({text}, 6, 5)", str(operand)), "true")
        if operator in _SIGNS or (isinstance(operand, tuple) and not isinstance(operand[0], date)):
            return f"jsonb_typeof({value}) = 'number' AND {_amount(value, operator, operand, self.given.jsonb)}"
        span = condition.span(self.now)
        # Times in ISO 8601 sort as they follow each other, but for their offsets of up to 15 hours. To ask that first
        # spares most of them the regular expression, which takes ten times as long.
        bounds = [(">=", span.start and span.start - A_DAY), ("<", span.end and span.end + 2 * A_DAY)]
        near = [f'{text} COLLATE "C" {sign} {self.given(f"{day:%Y-%m-%d}", "text")}' for sign, day in bounds if day]
        return self._if_moment(value, text, " AND ".join(near), self.given.within(f"CAST({text} AS timestamptz)", span))

    def _if_moment(self, value: str, text: str, near: str, holds: str) -> str:
        """What holds of a text that is a time; `near`, which tells most of the others, is asked first."""
        return f"""CASE WHEN {near} AND jsonb_typeof({value}) = 'string' AND {text} ~ {self.given(WHEN, "text")}
            AND pg_input_is_valid({text}, 'timestamptz') THEN {holds} END"""

    def _several(self, values: OperandValue) -> str:
        assert isinstance(values, tuple)
        return self.given([_json(each) for each in values], "jsonb[]")

    # -- anniversaries -----------------------------------------------------------------------------------------------

    def _anniversary(self, day: str, duration: str) -> str:
        """`day` is SQL for month and day, such as 02-29. A contact's day begins when it does where the contact lives;
        an event has no such place."""
        most = days_in(duration)
        today, elsewhere = self._days_of_zones
        if self.table != "contacts" or not elsewhere:
            return self._coming(day, today, most)
        cases = " ".join(
            f"WHEN {_ZONE} = ANY ({zones}) THEN {self._coming(day, their, most)}" for their, zones in elsewhere.items()
        )
        # Zones are compared for those few alone whose day it is somewhere.
        first, last = min(today, *elsewhere), max(today, *elsewhere)
        anywhere = self._coming(day, first, most + (last - first).days)
        return f"{anywhere} AND CASE {cases} ELSE {self._coming(day, today, most)} END"

    @cached_property
    def _days_of_zones(self) -> tuple[date, dict[date, str]]:
        """Which day it is in UTC, and the parameter of the zones in which it is another one: hundreds, once for all
        conditions that ask. PostgreSQL would not take a zone that it doesn't know."""
        today = self.now.astimezone(UTC).date()
        elsewhere: dict[date, list[str]] = {}
        for name, zone in _zones().items():
            if (their := self.now.astimezone(zone).date()) != today:
                elsewhere.setdefault(their, []).append(name)
        return today, {their: self.given(zones, "text[]") for their, zones in elsewhere.items()}

    def _coming(self, day: str, today: date, most: int) -> str:
        """Whether a day lies from today to so many days after it."""
        first, last = coming(today, most)
        low, high = (
            f'{day} COLLATE "C" {sign} {self.given(one, "text")}' for sign, one in ((">=", first), ("<=", last))
        )
        return f"({low} {'AND' if first <= last else 'OR'} {high})"


class _Found(NamedTuple):
    """Something in JSON, as JSON and as text."""

    value: str
    text: str


_ZONE = "coalesce(contacts.timezone, (SELECT default_timezone FROM accounts WHERE accounts.id = current_account()))"


def _amount(number: str, operator: str, operand: OperandValue, given: Callable[[Any], str]) -> str:
    if isinstance(operand, tuple):
        low, high = operand
        return f"{number} BETWEEN {given(low)} AND {given(high)}"
    return f"{number} {_SIGNS[operator]} {given(operand)}"


def coming(today: date, most: int) -> tuple[str, str]:
    """The month and day of today and of so many days after it, such as 02-29; past the end of a year the second comes
    before the first, and what lies there is all but what lies between them."""
    if most >= 365:
        return "01-01", "12-31"
    last = today + most * A_DAY
    # Whose day is the 29th of February has it on the 28th in most years.
    ends_february = last.month == 2 and (last + A_DAY).month == 3
    return f"{today:%m-%d}", "02-29" if ends_february else f"{last:%m-%d}"


@lru_cache(maxsize=1)
def _zones() -> dict[str, ZoneInfo]:
    return {name: ZoneInfo(name) for name in sorted(available_timezones())}
