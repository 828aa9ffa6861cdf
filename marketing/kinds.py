"""How are things of several types told apart, and how do they say what is wrong with them?"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any

from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from marketing.segment_conditions import Where
from marketing.segment_nodes import Node, Place, refuse
from marketing.segments import measure


def part(default: Any = None, **more: Any) -> Any:
    """A part that may be left out; then it is not written either."""
    return Field(default, exclude_if=lambda value: value == default, **more)


def told(error: Mapping[str, Any]) -> str:
    """Pydantic's own words in ours."""
    return words(error) or f"{str(error['msg']).removeprefix('Value error, ').rstrip('.')}."


def words(error: Mapping[str, Any]) -> str:
    """Ours, for what Pydantic has words of its own for; empty if we have none, or whoever raised it told it already."""
    kind, about = error["type"], error.get("ctx", {})
    if kind == "string_pattern_mismatch":
        return _SPELLED.get(about["pattern"], "")
    if kind in ("too_short", "too_long") and about["field_type"] == "Value":  # a text that we look at first
        kind = f"string_{kind}"
    bounds = {name: f"{about[name]:,.15g}" for name in _BOUNDS if isinstance(about.get(name), int | float)}
    return _TOLD.get(kind, "").format(**{**about, **bounds})


STEP_ID = r"[a-z0-9][a-z0-9_-]{0,62}"
MAYBE_STEP_ID = f"^({STEP_ID})?$"
CODE = r"^[A-Za-z][A-Za-z0-9_-]{0,99}$"
ACTIVITY = r"^[A-Za-z_][A-Za-z0-9_.:-]*$"
_WORD = "takes up to 63 small letters, digits, _ and -, the first a letter or a digit."
_SPELLED = {
    f"^{STEP_ID}$": _WORD,
    MAYBE_STEP_ID: _WORD,
    CODE: "takes up to 100 letters, digits, _ and -, the first a letter.",
    ACTIVITY: "takes letters, digits, and any of _ . : -, the first a letter or _.",
    "^[A-Z]{3}$": "takes the three capital letters of a currency, such as EUR.",
}
_BOUNDS = ("gt", "ge", "lt", "le")
_TOLD = {
    "union_tag_not_found": "is missing. Say it.",
    "union_tag_invalid": "takes one of {expected_tags}.",
    "model_attributes_type": "takes an object.",
    "model_type": "takes an object.",
    "dict_type": "takes an object.",
    "extra_forbidden": "is not understood here. Take it out.",
    "missing": "is missing. Say it.",
    "too_short": "needs at least {min_length}.",
    "too_long": "takes at most {max_length}.",
    "tuple_type": "takes a list.",
    "list_type": "takes a list.",
    "string_type": "takes a text.",
    "string_too_short": "is empty.",
    "string_too_long": "is longer than {max_length:,} characters.",
    "int_type": "takes a whole number.",
    "int_from_float": "takes a whole number.",
    "bool_type": "takes true or false.",
    "float_type": "takes a number.",
    "finite_number": "takes a number.",
    "greater_than": "takes more than {gt}.",
    "greater_than_equal": "takes {ge} or more.",
    "less_than": "takes less than {lt}.",
    "less_than_equal": "takes {le} or less.",
    "datetime_from_date_parsing": "takes a moment such as 2026-11-02T09:30:00Z.",
    "timezone_aware": "takes a moment with its offset, such as 2026-11-02T09:30:00Z.",
    "time_parsing": "takes a time of the day such as 09:00.",
    "literal_error": "takes {expected}.",
    "enum": "takes {expected}.",
}


def in_our_words(written: object, read: ValidatorFunctionWrapHandler) -> Any:
    """What is wrong, each in its place."""
    return _retold(written, read, lambda place, _: place)


def _apart(name: str, place: Place, kind: str) -> Place:
    return place[1:] or ((name,) if kind.startswith("union_tag") else ())


def _in_where(place: Place, kind: str) -> Place:
    match place:
        case (_, "not", *rest):
            return ("not", *_in_where(tuple(rest), kind))
        case ("all" | "any" as several, _, int(number), *rest):
            return (several, number, *_in_where(tuple(rest), kind))
    return place[1:]


def _retold(written: object, read: ValidatorFunctionWrapHandler, at: Callable[[Place, str], Place]) -> Any:
    try:
        return read(written)
    except ValidationError as error:
        found = [(at(each["loc"], each["type"]), each) for each in error.errors(include_url=False, include_input=False)]
    # To Pydantic, a list whose only item is bad is empty as well.
    within = {place[:length] for place, _ in found for length in range(len(place))}
    return refuse(*((place, told(each)) for place, each in found if each["type"] != "too_short" or place not in within))


def _read_where(written: object, read: ValidatorFunctionWrapHandler) -> Any:
    if not isinstance(written, Node):
        measure(written)
    return _retold(written, read, _in_where)


def told_apart_by(name: str) -> WrapValidator:
    """Of a union: Pydantic names the type before what is in it, which is no part of what was written."""
    return WrapValidator(lambda written, read: _retold(written, read, partial(_apart, name)))


told_apart = told_apart_by("type")
EventWhere = Annotated[Where, WrapValidator(_read_where)]
