"""At which local time, and in whose zone?"""

from datetime import UTC, datetime, timedelta
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, WithJsonSchema

from marketing.accounts import LOCAL_TIME
from marketing.drips import RECIPIENT, ZoneOrRecipient
from marketing.local_times import next_moment
from marketing.moments import kept_moment, written

# The first place on Earth where a local hour strikes is UTC+14, the last UTC-12.
_EARLIEST = timedelta(hours=14)


def _local(moment: datetime) -> datetime:
    if moment.tzinfo is not None:
        raise ValueError("give the local time without an offset, such as '2026-11-27T09:00', and its 'timezone'")
    kept_moment(moment)  # with years to spare, for it strikes up to 14 hours earlier and later elsewhere
    return moment


LocalMoment = Annotated[
    datetime,
    BeforeValidator(written),
    AfterValidator(_local),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": f"^2[01][0-9]{{2}}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T{LOCAL_TIME}$",
            "description": "Without an offset.",
        }
    ),
]


class Schedule(BaseModel):
    """A local time, in one zone for all or in each recipient's own."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={"example": {"send_at": "2026-11-27T09:00", "timezone": "Europe/Paris"}},
    )

    send_at: LocalMoment
    timezone: ZoneOrRecipient = "UTC"

    @property
    def per_recipient(self) -> bool:
        return self.timezone == RECIPIENT

    def moment_in(self, zone: str) -> datetime:
        """When the local time strikes in a zone, in UTC.

        A local time that the clocks skip in spring means the moment it would have been without the change; of one
        that comes twice in autumn the first counts (`zoneinfo` with fold=0, PEP 495).
        """
        return self.send_at.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)

    def zone_of(self, recipient: str) -> str:
        """Which zone counts for somebody who lives in this one."""
        return recipient if self.per_recipient else self.timezone

    def next_in(self, zone: str, now: datetime) -> datetime:
        """The moment in a zone, in UTC; if it has passed, when the clock shows the same time next."""
        moment = self.moment_in(zone)
        return moment if moment > now else next_moment(now, ZoneInfo(zone), at=self.send_at.time())

    def starts_at(self) -> datetime:
        """The first moment at which anybody may be due, in UTC."""
        if self.per_recipient:
            return self.send_at.replace(tzinfo=UTC) - _EARLIEST
        return self.moment_in(self.timezone)

    def has_passed(self, now: datetime) -> bool:
        """True if the moment is over: for recipients' own zones, in the last of them."""
        if self.per_recipient:
            return self.send_at.replace(tzinfo=UTC) + timedelta(hours=12) <= now
        return self.starts_at() <= now
