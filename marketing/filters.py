"""Which Liquid filters may an author use, and what does each cost?

python-liquid's own filters, but for three: `date` there reads the clock and understands formats that allocate
gigabytes, `strip_html` is quadratic, and `safe` lets a contact's data become HTML when an author trusts it too much.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from inspect import Signature, signature

from liquid import Environment, RenderContext
from liquid.builtin.expressions.arguments import KeywordArgument
from liquid.builtin.expressions.filtered import Filter
from liquid.exceptions import FilterArgumentError
from liquid.filter import liquid_filter, string_filter, with_context

BITS = 20_000  # of a number

_TAGS = re.compile(r"<[^<>]*+>")
_DATE_FORMAT = re.compile(r"(?:[^%]|%[-_0^#]?[a-zA-Z%])*+")


@string_filter
def _strip_html(value: str) -> str:
    """The text without its tags."""
    return _TAGS.sub("", value)


@with_context
@liquid_filter
def _date(value: object, form: object = "", *, context: RenderContext) -> str:
    """An ISO 8601 date or time, seconds since 1970 or “now” in a `strftime` form; anything else stays as it is."""
    if value in ("now", "today"):
        value = context.resolve("now", default=None)
    if not isinstance(form, str) or len(form) > 200 or not _DATE_FORMAT.fullmatch(form):
        raise FilterArgumentError("date understands forms such as “%d %B %Y”", token=None)
    moment = _moment(value)
    return str(value or "") if moment is None or not form else moment.strftime(str(form))


def _moment(value: object) -> datetime | None:
    try:
        match value:
            case datetime():
                return value
            case bool():
                return None
            case int() | float():
                return datetime.fromtimestamp(value, UTC)
            case str() if len(value) <= 40:
                return datetime.fromtimestamp(int(value), UTC) if value.isdecimal() else datetime.fromisoformat(value)
    except (ValueError, OverflowError, OSError):
        pass
    return None


def install(environment: Environment) -> None:
    environment.add_filter("date", _date)
    environment.add_filter("strip_html", _strip_html)
    del environment.filters["safe"]


def check(used: Filter, environment: Environment) -> None:
    """Refuse a filter that doesn't exist, or can't take what it is given.

    Raises:
        LiquidError: which, and where.
    """
    used.validate_filter_arguments(environment)
    takes, given = _signature(environment.filters[used.name])
    named = {argument.name for argument in used.args if isinstance(argument, KeywordArgument)}
    unnamed = [argument for argument in used.args if not isinstance(argument, KeywordArgument)]
    try:
        if named & given.keys():  # ours to give
            raise TypeError(f"got an unexpected keyword argument '{min(named)}'")
        takes.bind(None, *unnamed, **dict.fromkeys(named), **given)
    except TypeError as error:
        raise FilterArgumentError(f"{used.name}: {error}", token=used.token) from error


@cache
def _signature(found: Callable[..., object]) -> tuple[Signature, dict[str, None]]:
    known = signature(found)
    return known, {name: None for name in ("context", "environment") if name in known.parameters}


def weight(value: object) -> int:
    """The characters and elements in a value, as the work that it makes.

    Raises:
        FilterArgumentError: a number of more than `BITS` bits.
    """
    match value:
        case str():
            return len(value)
        case bool() | None:
            return 1
        case int():
            if value.bit_length() > BITS:
                raise FilterArgumentError("the number is too large", token=None)
            return 1
        case range():
            return len(value)
        case Mapping():
            return 1 + 2 * len(value) + sum(weight(key) + weight(item) for key, item in value.items())
        case Sequence():
            return 1 + len(value) + sum(map(weight, value))
        case _:
            return 1


def cost(name: str, value: object, arguments: Sequence[object]) -> int:
    """What calling a filter will cost at most, known before it is called."""
    size = weight(value)
    total = size + sum(map(weight, arguments))
    first = arguments[0] if arguments else ""
    match name:
        case "replace" if len(arguments) == 2:
            return total + str(value).count(str(first)) * weight(arguments[1])
        case "join":
            return total + size * weight(first)
        case "uniq":
            return total + size * size
        case "sort" | "sort_natural":
            return total + size * size.bit_length()
    return total
