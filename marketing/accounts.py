"""What does an account say about itself and about what its contacts shall not be put through?"""

import re
from datetime import datetime, time
from typing import Annotated, Literal
from uuid import UUID
from zoneinfo import available_timezones

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, WithJsonSchema

from marketing.moments import written
from marketing.text import Printable

ChannelName = Literal["email", "sms", "whatsapp"]
Role = Literal["owner", "editor", "viewer"]

_ZONES = available_timezones()
_DOMAIN = r"([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z][A-Za-z0-9-]{1,62}"


def checked_zone(name: str) -> str:
    """The name itself, if there is such an IANA time zone."""
    if name not in _ZONES:
        raise ValueError(f"{name!r} is no IANA time zone; give one such as 'Europe/Paris'")
    return name


def _domain(name: str) -> str:
    name = name.strip().lower()
    if not re.fullmatch(_DOMAIN, name):
        raise ValueError(f"{name!r} is no domain; give one such as 'news.example.com'")
    return name


def _email(address: str) -> str:
    from marketing.contacts import normal_email  # which needs this module

    return normal_email(address)


Timezone = Annotated[str, AfterValidator(checked_zone), Field(json_schema_extra={"examples": ["Europe/Paris"]})]
Domain = Annotated[
    str, AfterValidator(_domain), Field(max_length=253, json_schema_extra={"pattern": rf"^\s*{_DOMAIN}\s*$"})
]
Email = Annotated[str, AfterValidator(_email), Field(json_schema_extra={"format": "email"})]


class FrequencyCap(BaseModel):
    """At most `messages` to one contact in any `hours` hours."""

    model_config = ConfigDict(extra="forbid")

    messages: int = Field(ge=1, le=1000)
    hours: int = Field(ge=1, le=24 * 366)


def _local(moment: time) -> time:
    if moment.tzinfo is not None:
        raise ValueError("give the local time without an offset, such as '21:00'; it holds in each contact's own zone")
    return moment


LOCAL_TIME = r"([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,6})?)?"
LocalTime = Annotated[
    time,
    BeforeValidator(written),
    AfterValidator(_local),
    WithJsonSchema({"type": "string", "pattern": f"^{LOCAL_TIME}$", "examples": ["21:00"]}),
]


class QuietHours(BaseModel):
    """No message leaves between `start` and `end`, in the contact's own zone; `end` may be on the next day."""

    model_config = ConfigDict(extra="forbid")

    start: LocalTime
    end: LocalTime


class Topic(BaseModel):
    """Something that contacts can agree to, or not, by itself."""

    model_config = ConfigDict(extra="forbid")

    key: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
    name: Printable = Field(min_length=1, max_length=200)
    description: Printable = Field("", max_length=1000)


class AccountSettings(BaseModel):
    """What an owner may change."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "name": "Example Outfitters",
                "sender_domains": ["example.com"],
                "default_timezone": "Europe/Paris",
                "default_locale": "en",
                "postal_address": "1 Example Street, 75001 Paris, France",
                "error_threshold": 0.05,
                "frequency_caps": {"email": {"messages": 3, "hours": 24}},
                "quiet_hours": {"start": "21:00", "end": "08:00"},
                "topics": [{"key": "news", "name": "Newsletter", "description": "Once a month"}],
                "create_unknown_contacts": True,
                "event_retention_days": 730,
                "notification_emails": ["marketing@example.com"],
            }
        },
    )

    name: Printable = Field(min_length=1, max_length=200)
    sender_domains: list[Domain] = Field([], max_length=100, description="Domains that campaigns may send from.")
    default_timezone: Timezone = "UTC"
    default_locale: str = Field("en", pattern=r"^[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8})*$")
    postal_address: Printable = Field("", max_length=500, description="`{{ account.postal_address }}` in footers.")
    error_threshold: float = Field(
        0.05,
        ge=0.001,
        le=1,
        description="Share of failures among the last 1,000 messages at which a campaign pauses itself.",
    )
    frequency_caps: dict[ChannelName, FrequencyCap] = {}
    quiet_hours: QuietHours | None = None
    topics: list[Topic] = Field([], max_length=200)
    create_unknown_contacts: StrictBool = Field(
        True, description="Add those of whom events tell and who are not known yet."
    )
    event_retention_days: int = Field(
        730, ge=30, le=3650, description="How long events are kept, from the moment they were received."
    )
    notification_emails: list[Email] = Field(
        [], max_length=20, description="Who is told when something of an automation needs a person."
    )


class Account(AccountSettings):
    """An account as it is read."""

    id: UUID
    created_at: datetime
    updated_at: datetime
