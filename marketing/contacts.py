"""Who is a contact, and in which one form do we keep what is known of them?

Every `normal_…` function turns one spelling into the one we keep, or raises `ValueError` with a sentence for people.
Each is idempotent: what it returned, it returns again.
"""

import math
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any, Literal, Self
from uuid import UUID
from zoneinfo import available_timezones

import orjson
import phonenumbers
from babel import Locale
from babel.core import get_global
from email_validator import EmailNotValidError, validate_email
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from marketing.accounts import ChannelName
from marketing.moments import Moment
from marketing.text import PRINTABLE, UNPRINTABLE, Printable, printable

Attributes = dict[str, JsonValue]
SubscriptionStatus = Literal["subscribed", "unsubscribed", "pending"]

LONGEST_TEXT = 250
LONGEST_TAG = 100
MOST_TAGS = 200
DEEPEST_ATTRIBUTES = 3
LARGEST_ATTRIBUTES = 32 * 1024


def normal_text(text: str) -> str:
    """A name or the like: composed (NFC), on one line, without space around it."""
    if not text.isascii() or not text.isprintable():  # what plain ASCII needs none of
        text = unicodedata.normalize("NFC", printable(text))
    text = " ".join(text.split())
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"is longer than {LONGEST_TEXT} characters")
    return text


# The addresses that nearly everybody has, for which the library's answer is known: valid, and the same in lower case.
# 1 µs instead of 27; a property test compares the two.
_ATOM = r"[a-z0-9_!#$%&'*+/=?^`{|}~-]+"
_LABEL = r"(?!..--)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_PLAIN_EMAIL = re.compile(
    rf"{_ATOM}(?:\.{_ATOM})*@(?:{_LABEL}\.)+"
    r"(?!-|..--|(?:arpa|invalid|local|localhost|onion)\Z)[a-z0-9-]{0,62}[a-z]"
)
LONGEST_EMAIL = 254


def normal_email(text: str) -> str:
    """The address in lower case, its domain as people read it (not in Punycode). Never asks the network.

    Case variants are one person: no provider of any size tells them apart. The reserved domains of RFC 2606 that tests
    and examples use are let through.
    """
    address = text.strip().lower()
    if len(address) <= LONGEST_EMAIL and _PLAIN_EMAIL.fullmatch(address):
        return address
    if len(address) > 2 * LONGEST_EMAIL:
        raise ValueError("The email address is too long.")
    try:
        known = validate_email(address, check_deliverability=False, test_environment=True).normalized.lower()
        # Once more, because a decoded domain may be written with letters that only now are in lower case.
        return validate_email(known, check_deliverability=False, test_environment=True).normalized
    except EmailNotValidError as error:
        raise ValueError(str(error)) from None


def normal_phone(text: str, region: str | None = None) -> str:
    """E.164, such as `+33612345678`.

    Args:
        region: two-letter country whose national form is understood too.
    """
    if len(text) > 40:
        raise ValueError("is too long for a phone number")
    try:
        number = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        hint = "" if region else "; write it with its country, such as +33 6 12 34 56 78"
        raise ValueError(f"{text!r} is no phone number{hint}") from None
    if not phonenumbers.is_valid_number(number):
        raise ValueError(f"{text!r} is no phone number that can exist")
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def _names(language: str, kind: Literal["territories", "languages"]) -> dict[str, str]:
    return {str(code): str(name) for code, name in getattr(Locale(language), kind).items()}


@lru_cache(maxsize=1)
def _countries() -> dict[str, str]:
    """Codes and names in the few languages that exports come in, to ISO 3166 alpha-2."""
    codes = {code for code in _names("en", "territories") if re.fullmatch("[A-Z]{2}", code)}
    codes -= {"EU", "EZ", "QO", "UN", "XA", "XB", "ZZ"}  # CLDR's own: regions, pseudo-locales, unknown
    names = {
        name.casefold(): code
        for language in ("es", "de", "fr", "en")
        for code, name in _names(language, "territories").items()
        if code in codes
    }
    aliases = {old: new[0] for old, new in get_global("territory_aliases").items() if len(new) == 1 and new[0] in codes}
    return names | {old.casefold(): new for old, new in aliases.items()} | {code.casefold(): code for code in codes}


@lru_cache(maxsize=4096)
def normal_country(text: str) -> str:
    """ISO 3166 alpha-2, from that, from alpha-3 or from the country's name in English, French, German or Spanish."""
    code = _countries().get(normal_text(text).casefold())
    if code is None:
        raise ValueError(f"{text!r} is no country we know; give a code such as FR")
    return code


_LOCALE = re.compile(r"([A-Za-z]{2,3})(?:[-_]([A-Za-z]{4}))?(?:[-_]([A-Za-z]{2}|\d{3}))?")


@lru_cache(maxsize=1)
def _languages() -> dict[str, str]:
    return {name.casefold(): code for code, name in _names("en", "languages").items() if _LOCALE.fullmatch(code)}


@lru_cache(maxsize=4096)
def normal_locale(text: str) -> str:
    """A BCP 47 tag such as `pt-BR` or `zh-Hant-TW`, from that (with `-` or `_`) or a language's English name."""
    text = normal_text(text)
    tag = _LOCALE.fullmatch(_languages().get(text.casefold(), text))
    if tag is None:
        raise ValueError(f"{text!r} is no locale; give one such as fr or pt-BR")
    language, script, region = tag.groups()
    return "-".join(filter(None, (language.lower(), script and script.title(), region and region.upper())))


@lru_cache(maxsize=1)
def _zones() -> dict[str, str]:
    return {name.lower(): name for name in available_timezones() - {"Factory", "localtime"}}


@lru_cache(maxsize=4096)
def normal_timezone(text: str) -> str:
    """The IANA name in its own spelling, such as `Europe/Paris`."""
    zone = _zones().get(text.strip().lower())
    if zone is None:
        raise ValueError(f"{text!r} is no IANA time zone; give one such as Europe/Paris")
    return zone


def normal_tags(tags: Sequence[str]) -> list[str]:
    """Each tag once, in the order given."""
    once = list(dict.fromkeys(filter(None, map(normal_text, tags))))
    if any(len(tag) > LONGEST_TAG for tag in once):
        raise ValueError(f"A tag has at most {LONGEST_TAG} characters")
    if len(once) > MOST_TAGS:
        raise ValueError(f"A contact has at most {MOST_TAGS} tags")
    return once


def checked_attributes(attributes: Attributes) -> Attributes:
    """The attributes as they are, if the database and templates can live with them."""
    checked_json(attributes)
    if len(orjson.dumps(attributes)) > LARGEST_ATTRIBUTES:
        raise ValueError(f"takes more than {LARGEST_ATTRIBUTES // 1024} KiB")
    return attributes


def checked_json(value: JsonValue, deepest: int = DEEPEST_ATTRIBUTES) -> JsonValue:
    """The value itself, if the database and templates can live with it."""
    _check_json(value, deepest, deepest)
    return value


def _check_json(value: JsonValue, levels: int, deepest: int) -> None:
    match value:
        case str() if "\0" in value or UNPRINTABLE.search(value):
            raise ValueError("has control characters in it")
        case float() if not math.isfinite(value):
            raise ValueError("has NaN or infinity in it: JSON has neither")
        case bool():
            pass
        case int() if not -(2**63) <= value < 2**63:
            raise ValueError("has whole numbers beyond 64 bits in it: write them as text")
        case dict() | list() if levels == 0:
            raise ValueError(f"is more than {deepest} levels deep")
        case dict():
            for key, inner in value.items():
                if not 0 < len(key) <= LONGEST_TAG:
                    raise ValueError(f"has a name in it that is empty or longer than {LONGEST_TAG} characters")
                _check_json(key, 0, deepest)
                _check_json(inner, levels - 1, deepest)
        case list():
            for inner in value:
                _check_json(inner, levels - 1, deepest)


def merged_attributes(known: Attributes, news: Attributes) -> Attributes:
    """What is known with the news laid over it, name by name; a null forgets the name."""
    return {name: value for name, value in {**known, **news}.items() if value is not None}


def _attributes_schema(levels: int = DEEPEST_ATTRIBUTES) -> dict[str, Any]:
    """What `checked_json` lets through, in JSON Schema."""
    name = {"minLength": 1, "maxLength": LONGEST_TAG, "pattern": PRINTABLE}
    return {"type": "object", "propertyNames": name, "additionalProperties": json_schema(levels - 1)}


def json_schema(levels: int) -> dict[str, Any]:
    """Any value of so many levels that `checked_json` lets through, in JSON Schema."""
    values: list[dict[str, Any]] = [
        {"type": ["boolean", "null", "number"]},
        {"type": "string", "pattern": PRINTABLE},
    ]
    if levels:
        inner = _attributes_schema(levels)
        values += [inner, {"type": "array", "items": inner["additionalProperties"]}]
    return {"anyOf": values}


CheckedAttributes = Annotated[Attributes, AfterValidator(checked_attributes), WithJsonSchema(_attributes_schema())]


def _optional(normal: Callable[[str], str]) -> AfterValidator:
    """An empty text says that there is none."""
    return AfterValidator(lambda text: (normal(text) if text.strip() else None) if text is not None else None)


Line = Annotated[Printable | None, Field(max_length=LONGEST_TEXT), _optional(normal_text)]
Tags = Annotated[
    list[Annotated[Printable, Field(max_length=LONGEST_TAG)]], Field(max_length=MOST_TAGS), AfterValidator(normal_tags)
]


class Consent(BaseModel):
    """The proof of an agreement or of its withdrawal: when, how and from where."""

    model_config = ConfigDict(extra="forbid")

    at: Moment | None = None
    how: Printable = Field("", max_length=500, description="Such as `form`, `import`, `one-click`.")
    where: Printable = Field("", max_length=500, description="The page, or the address it came from.")
    proof: CheckedAttributes = {}


class Subscription(BaseModel):
    """What a contact agreed to: a channel as a whole, or one topic on it."""

    model_config = ConfigDict(extra="forbid")

    channel: ChannelName
    topic: Printable = Field("", max_length=63, description="Empty: the channel as a whole.")
    status: SubscriptionStatus
    consent: Consent = Consent()


class SubscriptionChange(Subscription):
    """What a contact agrees to, or refuses, from now on."""

    model_config = ConfigDict(
        json_schema_extra={
            "if": {"required": ["status"], "properties": {"status": {"const": "subscribed"}}},
            "then": {
                "required": ["consent"],
                "properties": {"consent": {"required": ["how"], "properties": {"how": {"pattern": r"\S"}}}},
            },
        }
    )

    @model_validator(mode="after")
    def _consent_is_told(self) -> Self:
        if self.status == "subscribed" and not self.consent.how.strip():
            raise ValueError("say how this contact agreed: `consent.how`")
        return self


class ContactChanges(BaseModel):
    """What may be said of a contact. What is left out stays; null forgets it; attributes are merged name by name."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"example": {"first_name": "Zoë", "tags": ["vip"], "attributes": {"plan": "gold"}}},
    )

    email: Annotated[str | None, _optional(normal_email)] = None
    external_id: Line = None
    country: Annotated[Printable | None, _optional(normal_country)] = Field(
        None, description="ISO 3166, or its name in English, French, German or Spanish."
    )
    phone: str | None = Field(None, description="E.164, or the national form of `country`.")
    first_name: Line = None
    last_name: Line = None
    locale: Annotated[Printable | None, _optional(normal_locale)] = Field(
        None, description="Such as `pt-BR`, or a language's English name."
    )
    timezone: Annotated[Printable | None, _optional(normal_timezone)] = Field(
        None, description="IANA, such as `Europe/Paris`."
    )
    attributes: CheckedAttributes | None = None
    tags: Tags | None = Field(None, description="Replaces all tags.")
    subscriptions: list[SubscriptionChange] = Field([], max_length=100, description="Others stay as they are.")

    @field_validator("phone")
    @classmethod
    def _phone_in_country(cls, phone: str | None, info: ValidationInfo) -> str | None:
        return normal_phone(phone, info.data.get("country")) if phone and phone.strip() else None

    def said(self) -> dict[str, Any]:
        """The columns that were spoken of, by name."""
        return self.model_dump(exclude_unset=True, exclude={"subscriptions"})


class NewContact(ContactChanges):
    """A contact that may be known already, by `external_id`, `email` or `phone`: then these are changes."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": [name], "properties": {name: {"type": "string", "pattern": r"\S"}}}
                for name in ("email", "phone", "external_id")
            ],
            "example": {
                "email": "zoe@example.com",
                "phone": "+33612345678",
                "external_id": "crm-1001",
                "first_name": "Zoë",
                "last_name": "Durand",
                "country": "FR",
                "locale": "fr-FR",
                "timezone": "Europe/Paris",
                "attributes": {"plan": "gold", "orders": 3},
                "tags": ["vip"],
                "subscriptions": [
                    {
                        "channel": "email",
                        "status": "subscribed",
                        "consent": {"at": "2026-11-02T09:30:00Z", "how": "form", "where": "https://example.com/join"},
                    }
                ],
            },
        }
    )

    @model_validator(mode="after")
    def _can_be_found_again(self) -> Self:
        if not (self.email or self.phone or self.external_id):
            raise ValueError("give at least one of email, phone and external_id")
        return self


class Contact(BaseModel):
    """A contact as it is read."""

    id: UUID
    email: str | None
    phone: str | None
    external_id: str | None
    first_name: str | None
    last_name: str | None
    country: str | None
    locale: str | None
    timezone: str | None
    attributes: Attributes
    tags: list[str]
    subscriptions: list[Subscription] = []
    created_at: datetime
    updated_at: datetime


def told_of_change(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, list[str]] | None:
    """The names of what changed, attributes each by itself, and the tags that came and went; None if nothing did.

    Never what anything was or is: this is kept in events.
    """
    names = [name for name in after if name != "attributes" and after[name] != before[name]]
    if (attributes := after.get("attributes")) is not None:
        earlier = before["attributes"]
        changed = {name for name in {**earlier, **attributes} if earlier.get(name) != attributes.get(name)}
        names += [f"attributes.{name}" for name in changed]
    if not names:
        return None
    told = {"changed": sorted(names)}
    if "tags" in names:
        told["tags_added"] = sorted({*after["tags"]} - {*before["tags"]})
        told["tags_removed"] = sorted({*before["tags"]} - {*after["tags"]})
    return told


_IN_TEMPLATES = ("email", "phone", "external_id", "first_name", "last_name", "country", "locale", "timezone")


def template_view(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a template sees as `contact`: plain data, nothing of ours."""
    view = {name: row[name] for name in _IN_TEMPLATES}
    return {"id": str(row["id"]), **view, "tags": list(row["tags"]), "attributes": dict(row["attributes"])}
