"""How are things of several types told apart, and how do they say what is wrong with them?"""

from collections.abc import Callable, Mapping
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
    words = _TOLD.get(error["type"])
    if words:
        return words.format(**error.get("ctx", {}))
    return f"{str(error['msg']).removeprefix('Value error, ').rstrip('.')}."


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
    "datetime_from_date_parsing": "takes a moment such as 2026-11-02T09:30:00Z.",
    "timezone_aware": "takes a moment with its offset, such as 2026-11-02T09:30:00Z.",
    "time_parsing": "takes a time of the day such as 09:00.",
    "literal_error": "takes {expected}.",
}


def in_our_words(written: object, read: ValidatorFunctionWrapHandler) -> Any:
    """What is wrong, each in its place."""
    return _retold(written, read, lambda place, _: place)


def _apart(place: Place, kind: str) -> Place:
    return place[1:] or (("type",) if kind.startswith("union_tag") else ())


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


# Of a union: Pydantic names the type before what is in it, which is no part of what was written.
told_apart = WrapValidator(lambda written, read: _retold(written, read, _apart))
EventWhere = Annotated[Where, WrapValidator(_read_where)]
