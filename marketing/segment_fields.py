"""What may be asked of a contact and of an event, and with which operators?

The tables are the whole of it: a new operator is a line in one of them, a `case` in `database/segments.py` and a line
in `docs/segments.md`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple, get_args

from marketing.accounts import ChannelName
from marketing.contacts import (
    DEEPEST_ATTRIBUTES,
    SubscriptionStatus,
    normal_country,
    normal_locale,
    normal_phone,
    normal_text,
    normal_timezone,
)
from marketing.segment_operands import (
    DAY,
    FLAG,
    IDENTIFIER,
    MOMENT,
    NUMBER,
    PIECE,
    SCALAR,
    TIME,
    Operand,
    either,
    matching,
    one_of,
    pair,
    several,
    text_like,
    whole,
)
from marketing.spans import DAYS
from marketing.text import UNPRINTABLE

Operators = Mapping[str, Operand]
MOST = 1_000_000  # of what is counted


class Kind(StrEnum):
    """How a field is kept."""

    TEXT = "text"  # a column
    LIST = "list"  # the tags
    MOMENT = "moment"  # a column
    JSON = "json"  # in the contact's attributes or the event's properties
    SUBSCRIPTION = "subscription"
    SUPPRESSION = "suppression"
    NUMBER = "number"  # a column
    ID = "id"  # a column
    FLAG = "flag"  # a column


class Field(NamedTuple):
    """What is asked about: the column, the names on the way into the JSON, or channel and topic (maybe empty)."""

    name: str
    kind: Kind
    path: tuple[str, ...]
    operators: Operators


def _equality(one: Operand) -> Operators:
    return {"is": one, "is_not": one, "in": several(one), "not_in": several(one)}


_PRESENCE = {"exists": FLAG}
_PIECES = {"contains": PIECE, "starts_with": PIECE, "ends_with": PIECE}
_AMOUNTS = {"at_least": NUMBER, "at_most": NUMBER, "more_than": NUMBER, "less_than": NUMBER, "between": pair(NUMBER)}
_MOMENTS = {"before": MOMENT, "after": MOMENT, "within": TIME, "older_than": TIME}
_TIMES = {
    **_MOMENTS,
    "on": DAY,
    "between": pair(MOMENT),
    "within_next": TIME,
    "anniversary_within": matching("a number of days such as 7 days, at most 365", "numbers of days", DAYS),
}


def _lists(one: Operand) -> Operators:
    many = several(one)
    return {"contains": one, "contains_any": many, "contains_all": many, "contains_none": many}


def _lower(text: str) -> str:
    return text.strip().lower()


_E164 = re.compile(r"\+[1-9][0-9]{6,14}")


def _phone(text: str) -> str:
    """As contacts have it. What looks like that already is not looked up: that would take 0.1 ms for each of a list."""
    return text if _E164.fullmatch(text) else normal_phone(text)


def _digits(text: str) -> str:
    """A piece of a phone number as contacts have it, which is without what makes it readable."""
    if not (kept := re.sub(r"[\s()./-]", "", text)):
        raise ValueError("takes a piece of a phone number, such as +33 6")
    return kept


_DIGITS = dict.fromkeys(_PIECES, text_like("a piece of a phone number, such as +33 6", "pieces of them", _digits))


def _texts(normal: Callable[[str], str], one: str = "a text", many: str = "texts") -> Operators:
    return {**_equality(text_like(one, many, normal)), **_PIECES, **_PRESENCE}


_TAG = text_like("a tag", "tags", normal_text)
_STATUS = one_of(*get_args(SubscriptionStatus))
_CURRENCY = text_like("a currency such as EUR", "currencies such as EUR", str.upper)
_JSON = {
    **_equality(SCALAR),
    **_PIECES,
    **_lists(SCALAR),
    "contains": SCALAR,
    **_AMOUNTS,
    **_TIMES,
    "between": either(pair(NUMBER), pair(MOMENT)),
    **_PRESENCE,
}

_NAME = r"[^.\x00-\x1f\x7f]{1,100}"
PATH = rf"{_NAME}(\.{_NAME}){{0,{DEEPEST_ATTRIBUTES - 1}}}"
_CHANNELS = "|".join(get_args(ChannelName))


class Askable(NamedTuple):
    """A field, or all fields of a family, which have names of somebody's choice in them."""

    written: str
    kind: Kind
    operators: Operators
    family: str = ""  # the form of what follows the first dot

    @property
    def pattern(self) -> str:
        """What the whole looks like, as a regular expression of Python and of JSON Schema."""
        return rf"^{self.written.partition('.')[0]}\.({self.family})$" if self.family else f"^{self.written}$"

    def means(self, name: str) -> bool:
        """Whether it is this field, or one of the family."""
        return bool(re.search(self.pattern, name)) and name[-1] != "\n" and not UNPRINTABLE.search(name)


CONTACT_FIELDS = (
    Askable("email", Kind.TEXT, _texts(_lower, "an e-mail address", "e-mail addresses")),
    Askable("phone", Kind.TEXT, {**_texts(_phone, "a phone number", "phone numbers"), **_DIGITS}),
    Askable("external_id", Kind.TEXT, _texts(normal_text)),
    Askable("first_name", Kind.TEXT, _texts(normal_text)),
    Askable("last_name", Kind.TEXT, _texts(normal_text)),
    Askable("country", Kind.TEXT, _texts(normal_country, "a country such as FR", "countries such as FR")),
    Askable("locale", Kind.TEXT, _texts(normal_locale, "a locale such as pt-BR", "locales such as pt-BR")),
    Askable("timezone", Kind.TEXT, _texts(normal_timezone, "a zone such as Europe/Paris", "zones")),
    Askable("tags", Kind.LIST, {**_lists(_TAG), **_PRESENCE}),
    Askable("created_at", Kind.MOMENT, _TIMES),
    Askable("updated_at", Kind.MOMENT, _TIMES),
    Askable("attributes.NAME", Kind.JSON, _JSON, PATH),
    Askable(
        "subscriptions.CHANNEL",
        Kind.SUBSCRIPTION,
        {**_equality(_STATUS), **_PRESENCE},
        rf"({_CHANNELS})(\.[^\x00-\x1f\x7f]{{1,63}})?",
    ),
    Askable("suppressions.CHANNEL", Kind.SUPPRESSION, {"is": FLAG}, _CHANNELS),
)
EVENT_FIELDS = (
    Askable("value", Kind.NUMBER, {**_equality(NUMBER), **_AMOUNTS, **_PRESENCE}),
    Askable("currency", Kind.TEXT, {**_equality(_CURRENCY), **_PRESENCE}),
    Askable("campaign_id", Kind.ID, {**_equality(IDENTIFIER), **_PRESENCE}),
    Askable("machine", Kind.FLAG, {"is": FLAG}),
    # Where it is somebody's birthday, an event has nothing to say.
    Askable(
        "properties.NAME",
        Kind.JSON,
        {name: operand for name, operand in _JSON.items() if name != "anniversary_within"},
        PATH,
    ),
)
# What may be asked of how many, how much and when.
COUNTS: Operators = {
    "exactly": whole(0, MOST),
    "at_least": whole(1, MOST),
    "at_most": whole(0, MOST),
    "more_than": whole(0, MOST),
    "less_than": whole(1, MOST),
    "between": pair(whole(0, MOST)),
}
AMOUNTS: Operators = {"exactly": NUMBER, **_AMOUNTS}
MOMENTS: Operators = _MOMENTS


def field_named(name: str, askable: Sequence[Askable]) -> Field | None:
    """The field that is written so, if it is one of these."""
    for each in askable:
        if each.means(name):
            return Field(name, each.kind, _way(name, each.kind), each.operators)
    return None


def _way(name: str, kind: Kind) -> tuple[str, ...]:
    first, *rest = name.split(".", 2 if kind is Kind.SUBSCRIPTION else -1)
    if kind is Kind.SUBSCRIPTION:
        return (*rest, "")[:2]
    return tuple(rest) or (first,)
