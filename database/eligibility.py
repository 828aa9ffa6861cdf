"""May we write to this contact, on this channel, about this topic, now? One answer for the lease and for reach."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from marketing.accounts import Account, ChannelName

# The column of `contacts` that holds the address of a channel, and how suppressions spell it.
ADDRESS = {"email": "contacts.email_key", "sms": "contacts.phone", "whatsapp": "contacts.phone"}

# What a message may say about its contact.
CONTACT_COLUMNS = (
    "id",
    "email",
    "phone",
    "external_id",
    "first_name",
    "last_name",
    "country",
    "locale",
    "timezone",
    "attributes",
    "tags",
)


@dataclass(frozen=True)
class Rules:
    """What decides, besides the contact itself.

    Args:
        now: the campaign's clock.
        rehearsed: all that follows is taken back in the end, so that nobody need wait for it.
    """

    channel: ChannelName
    topic: str | None
    account: Account
    now: datetime
    rehearsed: bool = False

    @property
    def parameters(self) -> dict[str, Any]:
        cap = self.account.frequency_caps.get(self.channel)
        quiet = self.account.quiet_hours
        return {
            "channel": self.channel,
            "topic": self.topic or "",
            "now": self.now,
            "default_timezone": self.account.default_timezone,
            **({"cap_messages": cap.messages, "cap_hours": cap.hours} if cap else {}),
            **({"quiet_start": quiet.start, "quiet_end": quiet.end} if quiet else {}),
        }

    @property
    def capped(self) -> bool:
        return self.channel in self.account.frequency_caps

    def joins(self) -> str:
        """What `reason` needs beside `contacts`, which must be in the FROM clause."""
        return """
            LEFT JOIN subscriptions AS whole
                ON whole.contact_id = contacts.id AND whole.channel = :channel AND whole.topic = ''
            LEFT JOIN subscriptions AS topical
                ON :topic <> '' AND topical.contact_id = contacts.id AND topical.channel = :channel
                AND topical.topic = :topic
        """

    def reason(self) -> str:
        """SQL for why this contact must not get the message, NULL if it may (marketing.deliveries.SkipReason).

        The first that holds is told: what is about the person before what is about the moment.
        """
        address = ADDRESS[self.channel]
        capped = f"WHEN {self._at_cap()} THEN 'frequency_cap'" if self.capped else ""
        return f"""CASE
            WHEN contacts.id IS NULL OR contacts.deleted_at IS NOT NULL THEN 'contact_deleted'
            WHEN {address} IS NULL THEN 'no_address'
            WHEN EXISTS (SELECT FROM suppressions AS dead WHERE dead.account_id = contacts.account_id
                         AND dead.channel = :channel AND dead.address = {address}) THEN 'suppressed'
            WHEN whole.status = 'unsubscribed' OR topical.status = 'unsubscribed' THEN 'unsubscribed'
            WHEN coalesce(topical.status, whole.status) IS DISTINCT FROM 'subscribed' THEN 'no_consent'
            {capped}
        END"""

    def _at_cap(self) -> str:
        # What is on its way counts too: `leased_at` is set when a message is taken and cleared when it is put back. The
        # message in question is planned, and so never counts against itself.
        return """(
            SELECT count(*) FROM deliveries AS earlier
            WHERE earlier.contact_id = contacts.id AND earlier.channel = :channel AND earlier.state <> 'planned'
            AND earlier.leased_at > CAST(:now AS timestamptz) - make_interval(hours => :cap_hours)
        ) >= :cap_messages"""

    def quiet_until(self) -> str:
        """SQL for the end of the contact's quiet hours if they are now, else NULL."""
        if self.account.quiet_hours is None:
            return "CAST(NULL AS timestamptz)"
        zone = "coalesce(contacts.timezone, :default_timezone)"
        local = f"(CAST(:now AS timestamptz) AT TIME ZONE {zone})"
        start, end = "CAST(:quiet_start AS time)", "CAST(:quiet_end AS time)"
        return f"""CASE
            WHEN {start} <= {end} AND NOT (CAST({local} AS time) >= {start} AND CAST({local} AS time) < {end}) THEN NULL
            WHEN {start} > {end} AND CAST({local} AS time) < {start} AND CAST({local} AS time) >= {end} THEN NULL
            WHEN CAST({local} AS time) < {end} THEN (CAST({local} AS date) + {end}) AT TIME ZONE {zone}
            ELSE (CAST({local} AS date) + 1 + {end}) AT TIME ZONE {zone}
        END"""
