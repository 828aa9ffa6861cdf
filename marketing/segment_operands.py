"""What do the operators of a criterion take?"""

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date
from typing import Any
from uuid import UUID

from marketing.events import EVENT_NAME
from marketing.spans import A_DAY, DURATION, WHEN, first_moment, first_moment_after, when
from marketing.text import PRINTABLE, printable

LONGEST_TEXT = 1_000
MOST_OPERANDS = 1_000
LARGEST_NUMBER = 2**63 - 1  # and its negative
ID = r"[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"

Scalar = str | int | float | bool
Single = Scalar | date | UUID
OperandValue = Single | tuple[Single, ...]


class Misfit(ValueError):
    """The operator does not take this; `place` says which of the things in it."""

    def __init__(self, message: str, *place: int) -> None:
        super().__init__(message)
        self.place = place


@dataclass(frozen=True)
class Operand:
    """One kind of thing that operators take.

    Args:
        one, many: what it is called, such as "a number" and "numbers".
        schema: the same in JSON Schema.
        keep: the thing in the form that we keep, None if it is something else. Raises ValueError with the reason.
    """

    one: str
    many: str
    schema: dict[str, Any]
    keep: Callable[[object], OperandValue | None]

    def read(self, value: object) -> OperandValue:
        """The thing in the form that we keep.

        Raises:
            Misfit: it is something else.
        """
        try:
            kept = self.keep(value)
        except Misfit:
            raise
        except ValueError as error:
            raise Misfit(str(error)) from None
        if kept is None:
            raise Misfit(f"takes {self.one}")
        return kept


def _text(value: object) -> str | None:
    if not isinstance(value, str):
        return None
    if len(value) > LONGEST_TEXT:
        raise ValueError(f"is longer than {LONGEST_TEXT:,} characters")
    return printable(value)


def _number(value: object) -> int | float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if -LARGEST_NUMBER <= value <= LARGEST_NUMBER else None  # which NaN is not


def _scalar(value: object) -> Scalar | None:
    if isinstance(value, bool):
        return value
    return _text(value) if isinstance(value, str) else _number(value)


def _when(value: object) -> date | None:
    return when(value) if isinstance(value, str) else None


def _day(value: object) -> date | None:
    return when(value) if isinstance(value, str) and len(value) == len("2026-11-02") else None


def _id(value: object) -> UUID | None:
    return UUID(value) if isinstance(value, str) and re.fullmatch(ID, value) else None


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


_TEXT_SCHEMA = {"type": "string", "maxLength": LONGEST_TEXT, "pattern": PRINTABLE}
_SOME_TEXT_SCHEMA = {**_TEXT_SCHEMA, "minLength": 1}
_NUMBER_SCHEMA = {"type": "number", "minimum": -LARGEST_NUMBER, "maximum": LARGEST_NUMBER}
_WHEN_SCHEMA = {"type": "string", "pattern": WHEN}

TEXT = Operand("a text of at most 1,000 characters", "texts", _TEXT_SCHEMA, _text)
PIECE = Operand(
    "a text of 1 to 1,000 characters", "texts", _SOME_TEXT_SCHEMA, lambda value: _text(value) if value else None
)
NUMBER = Operand("a number of at most 64 bits", "numbers of at most 64 bits", _NUMBER_SCHEMA, _number)
FLAG = Operand("true or false", "true or false", {"type": "boolean"}, _flag)
TRUE = Operand(
    "true; else leave it out",
    "true",
    {"const": True},
    lambda value: value if isinstance(value, bool) and value else None,
)
SCALAR = Operand(
    "a text, a number, true or false",
    "texts, numbers, true or false",
    {"anyOf": [_TEXT_SCHEMA, _NUMBER_SCHEMA, FLAG.schema]},
    _scalar,
)
MOMENT = Operand(
    "a day such as 2026-11-02, or a moment such as 2026-11-02T09:30:00Z", "days or moments", _WHEN_SCHEMA, _when
)
DAY = Operand("a day such as 2026-11-02", "days such as 2026-11-02", {"type": "string", "pattern": f"^{A_DAY}$"}, _day)
IDENTIFIER = Operand("an id", "ids", {"type": "string", "format": "uuid", "pattern": f"^{ID}$"}, _id)


def text_like(one: str, many: str, normal: Callable[[str], str]) -> Operand:
    """A text that is kept in the form in which contacts have it."""

    def keep(value: object) -> str | None:
        text = _text(value)
        return normal(text) if text else None

    return Operand(one, many, _SOME_TEXT_SCHEMA, keep)


def matching(one: str, many: str, pattern: str) -> Operand:
    """A text of this form."""

    def keep(value: object) -> str | None:
        text = _text(value)
        return text if text and re.search(pattern, text) and text[-1] != "\n" else None

    return Operand(one, many, {"type": "string", "pattern": pattern}, keep)


THE_EVENT = matching("the name of an event, such as purchase", "names of events", f"^{EVENT_NAME}$")
TIME = matching("a time such as 30 days, a minute at the least", "times such as 30 days", DURATION)


def one_of(*names: str) -> Operand:
    def keep(value: object) -> str | None:
        return value if isinstance(value, str) and value in names else None

    return Operand(f"one of {', '.join(names)}", f"any of {', '.join(names)}", {"enum": list(names)}, keep)


def whole(lowest: int, highest: int) -> Operand:
    def keep(value: object) -> int | None:
        number = _number(value)
        return int(number) if number is not None and number == int(number) and lowest <= number <= highest else None

    words = f"whole number{{}} from {lowest:,} to {highest:,}"
    schema = {"type": "integer", "minimum": lowest, "maximum": highest}
    return Operand(f"a {words.format('')}", words.format("s"), schema, keep)


def several(one: Operand) -> Operand:
    """A list of them."""
    what = f"a list of 1 to {MOST_OPERANDS:,} {one.many}"

    def keep(values: object) -> OperandValue | None:
        if not isinstance(values, list | tuple) or not 1 <= len(values) <= MOST_OPERANDS:
            return None
        return tuple(_item(one, values, place) for place in range(len(values)))

    return Operand(what, what, {"type": "array", "items": one.schema, "minItems": 1, "maxItems": MOST_OPERANDS}, keep)


def pair(one: Operand) -> Operand:
    """The lowest and the highest, of numbers or of times."""
    what = f"a list of two {one.many}, the lower first"

    def keep(values: object) -> OperandValue | None:
        if not isinstance(values, list | tuple) or len(values) != 2:
            return None
        low, high = _item(one, values, 0), _item(one, values, 1)
        return (low, high) if _in_order(low, high) else None

    return Operand(what, what, {"type": "array", "items": one.schema, "minItems": 2, "maxItems": 2}, keep)


def either(*operands: Operand) -> Operand:
    """The first of them that fits."""

    def keep(value: object) -> OperandValue | None:
        for operand in operands:
            with suppress(Misfit):
                return operand.read(value)
        return None

    return Operand(
        ", or ".join(each.one for each in operands),
        ", or ".join(each.many for each in operands),
        {"anyOf": [each.schema for each in operands]},
        keep,
    )


def widening(one: Operand) -> Operand:
    """Two of them, of which the first is less than the second."""
    two = pair(one)

    def keep(values: object) -> OperandValue | None:
        kept = two.keep(values)
        if isinstance(kept, tuple) and kept[0] == kept[1]:
            raise ValueError(f"has nothing in it: from {kept[0]} to below {kept[1]} there is none")
        return kept

    return replace(two, keep=keep)


def _item(one: Operand, values: list[object] | tuple[object, ...], place: int) -> Single:
    try:
        item = one.read(values[place])
    except Misfit as wrong:
        raise Misfit(str(wrong), place) from None
    assert not isinstance(item, tuple)  # nowhere are there lists of lists
    return item


def _in_order(low: Single, high: Single) -> bool:
    if isinstance(low, date) and isinstance(high, date):
        return first_moment(low) < first_moment_after(high)
    return isinstance(low, int | float) and isinstance(high, int | float) and low <= high
