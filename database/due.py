"""Whose time has come? Contacts that the clock leads into an automation."""

from collections import defaultdict
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from uuid import UUID
from zoneinfo import ZoneInfo, available_timezones

from sqlalchemy import text

from database.engine import Connection
from database.enrolling import Candidate
from marketing.local_times import moment
from marketing.triggers import OnDate, OnInactivity, OnSchedule

# What is meant by an activity if nobody says which.
ACTIVITY = ("message.opened", "message.clicked", "purchase")
_A_DAY = timedelta(days=1)


async def in_segment(trigger: OnSchedule, at: datetime, limit: int, tx: Connection, after: UUID) -> list[Candidate]:
    """The members of the segment behind `after`, by id."""
    query = text("""
        SELECT contact_id FROM segment_members WHERE segment_id = :segment_id AND contact_id > :after
        ORDER BY contact_id LIMIT :limit
    """)
    rows = await tx.execute(query, {"segment_id": trigger.segment, "after": after, "limit": limit})
    return [Candidate(contact_id, f"schedule:{at.isoformat()}") for contact_id in rows.scalars()]


# -- a day of their own ----------------------------------------------------------------------------------------------

_ON_DAY = """
    SELECT id FROM (
        SELECT contacts.id, {day} AS day FROM contacts JOIN accounts ON accounts.id = contacts.account_id
        WHERE deleted_at IS NULL AND contacts.id > :after
        AND coalesce(contacts.timezone, accounts.default_timezone) = ANY (CAST(:zones AS text[]))
    ) AS dated
    WHERE {falls} ORDER BY id LIMIT :limit
"""
_CREATED = (
    "to_char(contacts.created_at AT TIME ZONE coalesce(contacts.timezone, accounts.default_timezone), 'YYYY-MM-DD')"
)


async def on_day(
    trigger: OnDate, day: date, zones: list[str], limit: int, tx: Connection, after: UUID
) -> list[Candidate]:
    """Those behind `after`, in these zones, whose day has come on this one. Who was born on the 29th of February has
    a birthday on the 28th in most years."""
    meant = day - trigger.days * _A_DAY
    path = trigger.field.split(".")[1:]
    given = {"zones": zones, "after": after, "limit": limit, **({"path": path} if path else {})}
    if trigger.repeat == "once":
        falls, given["days"] = "substr(day, 1, 10) = ANY (CAST(:days AS text[]))", [meant.isoformat()]
    else:
        # Not on the day itself: the first anniversary comes a year after it.
        falls = "substr(day, 6, 5) = ANY (CAST(:days AS text[])) AND substr(day, 1, 10) < CAST(:meant AS text)"
        ends_february = meant.month == 2 and (meant + _A_DAY).month == 3
        given["days"] = [f"{meant:%m-%d}", *(["02-29"] if ends_february else [])]
        given["meant"] = meant.isoformat()
    named = "attributes #>> CAST(:path AS text[])" if path else _CREATED
    rows = await tx.execute(text(_ON_DAY.format(day=named, falls=falls)), given)
    return [Candidate(contact_id, f"date:{day.isoformat()}") for contact_id in rows.scalars()]


def days_between(at: time, since: datetime, until: datetime) -> dict[date, list[str]]:
    """The days on which it was so late after one moment and not after the other, and where that was."""
    found: dict[date, list[str]] = defaultdict(list)
    first, last = (since - 2 * _A_DAY).date(), (until + 2 * _A_DAY).date()
    for offset in range((last - first).days + 1):
        day = first + offset * _A_DAY
        for name, zone in _zones().items():
            if since < moment(day, at, zone) <= until:
                found[day].append(name)
    return found


@lru_cache(maxsize=1)
def _zones() -> dict[str, ZoneInfo]:
    return {name: ZoneInfo(name) for name in sorted(available_timezones())}


# -- nothing for so long ---------------------------------------------------------------------------------------------

# The last thing that they did lies in between, or they came then and have not done anything.
_INACTIVE = text("""
    SELECT id, since FROM (
        SELECT contact_id AS id, max(occurred_at) AS since FROM events
        WHERE name = ANY (CAST(:names AS text[])) AND NOT machine AND contact_id > :after
        AND occurred_at > :low AND occurred_at <= :high GROUP BY contact_id
        UNION ALL
        SELECT id, created_at FROM contacts WHERE id > :after AND created_at > :low AND created_at <= :high
        AND NOT EXISTS (SELECT FROM events WHERE contact_id = contacts.id AND name = ANY (CAST(:names AS text[]))
                        AND NOT machine AND occurred_at <= :high)
    ) AS last
    WHERE NOT EXISTS (SELECT FROM events WHERE contact_id = last.id AND name = ANY (CAST(:names AS text[]))
                      AND NOT machine AND occurred_at > :high)
    ORDER BY id LIMIT :limit
""")


async def inactive(
    trigger: OnInactivity, since: datetime, until: datetime, limit: int, tx: Connection, after: UUID
) -> list[Candidate]:
    """Those behind `after` who have done nothing for so many days, since a moment between these two."""
    given = {
        "names": [trigger.event] if trigger.event else list(ACTIVITY),
        "low": since - trigger.days * _A_DAY,
        "high": until - trigger.days * _A_DAY,
        "after": after,
        "limit": limit,
    }
    rows = await tx.execute(_INACTIVE, given)
    return [Candidate(row.id, f"inactive:{row.since.isoformat()}") for row in rows]
