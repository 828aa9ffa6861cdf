"""What the steps of journeys ask and change, for a whole group of contacts at once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import text

from database import counters
from database.engine import Connection, plan_anew
from database.segments import condition, plan_well
from marketing.contacts import merged_attributes, told_of_change
from marketing.segments import parse

# -- questions -------------------------------------------------------------------------------------------------------


async def matching(
    tx: Connection, criteria: Mapping[str, Any], contacts: Sequence[UUID], *, now: datetime, prune: bool
) -> set[UUID]:
    """Those of these contacts of whom the criteria hold.

    Raises:
        InvalidCriteria: they are none.
    """
    parsed = parse(criteria)
    await plan_well(tx, parsed)
    holds, parameters = condition(parsed, now=now, prefix="criteria_", among="among", prune=prune)
    query = text(f"SELECT contacts.id FROM contacts WHERE deleted_at IS NULL AND {holds}")
    return set((await tx.execute(query, {**parameters, "among": list(contacts)})).scalars())


@dataclass(frozen=True, slots=True)
class Engaged:
    """What a contact did with the messages of a source: how many it got, opened, clicked."""

    sent: int = 0
    opened: int = 0
    clicked: int = 0


async def engagement(
    tx: Connection, source_id: UUID, enrollments: Sequence[UUID], *, since: datetime | None, prune: bool
) -> dict[UUID, Engaged]:
    """By contact, since they entered or since a moment; whoever got nothing is left out. Machines do not count."""
    pruned = "AND events.id >= uuidv7_floor(asked.since - interval '1 hour')" if prune else ""
    rows = await tx.execute(
        text(f"""
            SELECT asked.contact_id, sent, opened, clicked FROM (
                SELECT contact_id, coalesce(CAST(:since AS timestamptz), entered_at) AS since FROM enrollments
                WHERE id = ANY (CAST(:enrollments AS uuid[]))
            ) AS asked CROSS JOIN LATERAL (
                SELECT count(DISTINCT delivery_id) FILTER (WHERE name = 'message.sent') AS sent,
                       count(DISTINCT delivery_id) FILTER (WHERE name = 'message.opened') AS opened,
                       count(DISTINCT delivery_id) FILTER (WHERE name = 'message.clicked') AS clicked
                FROM events WHERE events.contact_id = asked.contact_id
                AND name IN ('message.sent', 'message.opened', 'message.clicked') AND occurred_at >= asked.since
                AND campaign_id = :source_id AND NOT machine {pruned}
            ) AS done
        """),
        {"source_id": source_id, "enrollments": list(enrollments), "since": since},
    )
    return {row.contact_id: Engaged(row.sent, row.opened, row.clicked) for row in rows}


# -- what is known of contacts ---------------------------------------------------------------------------------------

FIELDS = ("first_name", "last_name", "country", "locale", "timezone")

_LOCK = text(f"""
    SELECT id, {", ".join(FIELDS)}, attributes, tags FROM contacts
    WHERE id = ANY (CAST(:contacts AS uuid[])) AND deleted_at IS NULL ORDER BY id FOR NO KEY UPDATE
""")

_CHANGE = text(f"""
    WITH news AS (
        SELECT * FROM jsonb_to_recordset(CAST(:news AS jsonb)) AS news (
            id uuid, {", ".join(f"{name} text" for name in FIELDS)}, attributes jsonb, tags text[], told jsonb
        )
    ), changed AS (
        UPDATE contacts SET {", ".join(f"{name} = news.{name}" for name in (*FIELDS, "attributes", "tags"))},
            updated_at = :now
        FROM news WHERE contacts.id = news.id
    )
    INSERT INTO events (account_id, name, contact_id, occurred_at, properties)
    SELECT :account_id, 'contact.changed', id, :now, told FROM news
""")


async def change(
    tx: Connection, account_id: UUID, contacts: Sequence[UUID], changes: Mapping[str, Any], *, now: datetime
) -> None:
    """Set these of `FIELDS`, and merge `attributes` name by name; null forgets."""

    def said(row: Mapping[str, Any]) -> dict[str, Any]:
        merged = merged_attributes(row["attributes"], changes.get("attributes") or {})
        return {name: changes[name] for name in FIELDS if name in changes} | {"attributes": merged}

    await _alter(tx, account_id, contacts, said, now)


async def tag(
    tx: Connection,
    account_id: UUID,
    contacts: Sequence[UUID],
    *,
    add: Sequence[str],
    remove: Sequence[str],
    now: datetime,
) -> None:
    """Take these tags away, and give those."""

    def said(row: Mapping[str, Any]) -> dict[str, Any]:
        return {"tags": list(dict.fromkeys([*(each for each in row["tags"] if each not in remove), *add]))}

    await _alter(tx, account_id, contacts, said, now)


async def _alter(
    tx: Connection,
    account_id: UUID,
    contacts: Sequence[UUID],
    said: Callable[[Mapping[str, Any]], dict[str, Any]],
    now: datetime,
) -> None:
    """As if each had been changed through the API; who is so already stays untouched."""
    news = []
    for found in (await tx.execute(_LOCK, {"contacts": list(contacts)})).mappings():
        row = dict(found)
        after = said(row)
        if told := told_of_change(row, after):
            news.append({**row, **after, "told": told})
    if news:
        given = {"account_id": account_id, "news": orjson.dumps(news).decode(), "now": now}
        await tx.execute(_CHANGE, given)


_STATIC_SEGMENT = text("""
    SELECT id FROM segments WHERE (CAST(id AS text) = :named OR name = :named) AND kind = 'static'
    AND deleted_at IS NULL ORDER BY id LIMIT 2
""")


async def static_segments(tx: Connection, named: str) -> list[UUID]:
    """Those of this id or name; no more than two."""
    return list((await tx.execute(_STATIC_SEGMENT, {"named": named})).scalars())


# -- messages --------------------------------------------------------------------------------------------------------

_PLAN = text("""
    INSERT INTO deliveries (account_id, campaign_id, step, contact_id, channel, shard, not_before, enrollment_id, call)
    SELECT :account_id, :source_id, :step, contact_id, :channel, :cohort, :now, enrollment_id, call
    FROM unnest(CAST(:enrollments AS uuid[]), CAST(:contacts AS uuid[]), CAST(:calls AS int[]))
        AS asked (enrollment_id, contact_id, call)
    ORDER BY enrollment_id, call
    ON CONFLICT DO NOTHING
    RETURNING id
""")


@dataclass(frozen=True, slots=True)
class Asked:
    """A message of a journey: for whom, and as which step of their pass."""

    enrollment_id: UUID
    contact_id: UUID
    call: int


@dataclass(frozen=True, slots=True)
class Message:
    """How one of them stands in the ledger."""

    id: UUID
    state: str
    reason: str | None
    reply: str | None  # of its provider, or what is wrong with it
    not_before: datetime
    lease_ends_in: float | None  # seconds


async def plan_messages(
    tx: Connection,
    account_id: UUID,
    source_id: UUID,
    cohort: int,
    asked: Sequence[Asked],
    *,
    step: str,
    channel: str,
    now: datetime,
) -> list[UUID]:
    """Put each into the ledger once; the ids of those that were not there yet."""
    given = {
        "account_id": account_id,
        "source_id": source_id,
        "step": step,
        "channel": channel,
        "cohort": cohort,
        "now": now,
        "enrollments": [each.enrollment_id for each in asked],
        "contacts": [each.contact_id for each in asked],
        "calls": [each.call for each in asked],
    }
    await plan_anew(tx)
    planned = list((await tx.execute(_PLAN, given)).scalars())
    await counters.add(tx, account_id, source_id, {"planned": len(planned)}, now=now, channel=channel, step=step)
    return planned


_LEDGER = text("""
    SELECT enrollment_id, call, id, state, reason, reply, not_before,
           extract(epoch FROM lease_until - clock_timestamp())::float8 AS lease_ends_in
    FROM deliveries WHERE enrollment_id = ANY (CAST(:enrollments AS uuid[])) AND call = ANY (CAST(:calls AS int[]))
    AND channel = :channel
""")


async def messages(tx: Connection, asked: Sequence[Asked], *, channel: str) -> dict[tuple[UUID, int], Message]:
    """How these stand, by enrollment and call."""
    given = {
        "enrollments": [each.enrollment_id for each in asked],
        "calls": list({each.call for each in asked}),
        "channel": channel,
    }
    await plan_anew(tx)
    return {(row[0], row[1]): Message(*row[2:]) for row in await tx.execute(_LEDGER, given)}


_TRIGGERS = text("SELECT contact_id, trigger FROM enrollments WHERE id = ANY (CAST(:enrollments AS uuid[]))")


async def triggers(tx: Connection, enrollments: Sequence[UUID]) -> dict[UUID, dict[str, Any]]:
    """By contact, the properties of what their pass began with."""
    return {row[0]: row[1] for row in await tx.execute(_TRIGGERS, {"enrollments": list(enrollments)})}
