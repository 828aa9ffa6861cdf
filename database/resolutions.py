"""Messages of which nobody knows whether they arrived: found, and resolved as a person decides."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text

from database import campaigns, counters
from database.engine import Connection
from database.events import facts
from marketing.campaigns import CampaignState
from marketing.resolutions import ACCEPTED_BY_HAND, RESENDING, Action, why_not

# An experiment that was stopped is completed, and skips whatever is left of it.
_STOPPED = """EXISTS (
        SELECT FROM experiments WHERE experiments.campaign_id = deliveries.campaign_id AND experiments.state = 'stopped'
    )"""

# Its counters are put right in the hour in which it became uncertain: there it is `sent` now, or open again.
_RESOLVE = """
    WITH chosen AS (
        SELECT deliveries.id, deliveries.reason, deliveries.finished_at
        FROM deliveries LEFT JOIN campaigns ON campaigns.id = deliveries.campaign_id
        WHERE {which} AND (:accept OR campaigns.state = ANY (:resending) AND campaigns.deleted_at IS NULL
            AND deliveries.enrollment_id IS NULL AND NOT {stopped})
        ORDER BY deliveries.id LIMIT :limit FOR UPDATE OF deliveries
    ), resolved AS (
        UPDATE deliveries SET {change} FROM chosen WHERE deliveries.id = chosen.id
        RETURNING deliveries.*, chosen.reason AS was, chosen.finished_at AS since
    ), told AS (
        INSERT INTO events (account_id, name, contact_id, campaign_id, delivery_id, properties)
        SELECT account_id, :event, contact_id, campaign_id, id,
            jsonb_build_object('was', was, 'api_key_id', CAST(:key_id AS text))
        FROM resolved
    ), sent AS ({facts})
    SELECT campaign_id, date_trunc('hour', since, 'UTC') AS hour, channel, step, variant, array_agg(id) AS ids
    FROM resolved GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5
"""

# What the machine sends again by itself is bounded (MOST_SENDINGS); this is a person's decision each time.
_CHANGE = {
    Action.ACCEPT: f"state = 'sent', reason = '{ACCEPTED_BY_HAND}'",
    Action.RESEND: "state = 'planned', reason = NULL, not_before = now(), finished_at = NULL, leased_at = NULL",
}
_EVENT = {Action.ACCEPT: "message.accepted", Action.RESEND: "message.put_back"}


class Overtaken(Exception):
    """A campaign was ended at this very moment: nothing may be put back into it."""


@dataclass(frozen=True)
class Which:
    """The messages meant: these, or all uncertain ones of a campaign."""

    delivery_ids: Sequence[UUID] | None = None
    campaign_id: UUID | None = None
    reason: str | None = None

    @property
    def condition(self) -> str:
        return " AND ".join(
            [
                "deliveries.state = 'uncertain'",
                *(["deliveries.id = ANY (:ids)"] if self.delivery_ids is not None else []),
                *(["deliveries.campaign_id = :campaign_id"] if self.campaign_id else []),
                *(["deliveries.reason = :reason"] if self.reason else []),
            ]
        )

    @property
    def parameters(self) -> dict[str, Any]:
        wanted = {"ids": self.delivery_ids, "campaign_id": self.campaign_id, "reason": self.reason}
        return {name: value for name, value in wanted.items() if value is not None}


@dataclass(frozen=True)
class Uncertain:
    """A message of which nobody knows whether it arrived."""

    delivery_id: UUID
    campaign_id: UUID  # or the id of an automation
    campaign_name: str
    contact_id: UUID
    email: str | None
    from_email: str | None  # which of an automation's message nobody has kept
    reason: str
    reply: str | None
    attempts: int
    leased_at: datetime | None
    uncertain_since: datetime


async def resolve(
    tx: Connection, account_id: UUID, action: Action, which: Which, *, key_id: UUID, limit: int
) -> dict[UUID, set[UUID]]:
    """Take up to `limit` uncertain messages as sent, or put them back to be sent; each is resolved once.

    A completed campaign is running again when messages were put back into it.

    Returns:
        the messages of each campaign that this call resolved.

    Raises:
        Overtaken: nothing of this transaction may stay.
    """
    rows = await tx.execute(
        text(_RESOLVE.format(which=which.condition, stopped=_STOPPED, change=_CHANGE[action], facts=facts("resolved"))),
        {
            **which.parameters,
            "accept": action is Action.ACCEPT,
            "resending": sorted(RESENDING),
            "event": _EVENT[action],
            "key_id": str(key_id),
            "limit": limit,
        },
    )
    done = defaultdict[UUID, set[UUID]](set)
    for row in rows:
        done[row.campaign_id].update(row.ids)
        n = len(row.ids)
        amounts = {"uncertain": -n} | ({"sent": n, "accepted": n} if action is Action.ACCEPT else {})
        kind = {"channel": row.channel, "step": row.step, "variant": row.variant}
        await counters.add(tx, account_id, row.campaign_id, amounts, now=row.hour, **kind)
    # The campaigns' rows come last, as everywhere: whoever waits for one never holds what the other waits for.
    for campaign_id, ids in sorted(done.items()):
        told = {"action": action, "messages": str(len(ids)), "api_key_id": str(key_id)}
        await campaigns.log(tx, account_id, campaign_id, "campaign.resolved", **told)
        if action is Action.RESEND and not await campaigns.reopen(tx, account_id, campaign_id):
            raise Overtaken
    return done


async def why_left(tx: Connection, action: Action, ids: Sequence[UUID]) -> dict[UUID, str]:
    """Why these were not resolved."""
    rows = await tx.execute(
        text(f"""
            SELECT deliveries.id, deliveries.state, campaigns.state AS campaign, campaigns.deleted_at,
                deliveries.enrollment_id, {_STOPPED} AS stopped
            FROM deliveries LEFT JOIN campaigns ON campaigns.id = deliveries.campaign_id
            WHERE deliveries.id = ANY (:ids)
        """),
        {"ids": list(ids)},
    )
    found = {
        row.id: why_not(
            action,
            row.state,
            CampaignState(row.campaign) if row.campaign else None,
            deleted=row.deleted_at is not None,
            of_a_journey=row.enrollment_id is not None,
            stopped=row.stopped,
        )
        for row in rows
    }
    return {each: found.get(each) or why_not(action, None, None, deleted=False) for each in ids}


async def is_automation(tx: Connection, source_id: UUID) -> bool:
    """Whether this is, or was, an automation."""
    query = text("SELECT EXISTS (SELECT FROM automations WHERE id = :id)")
    return bool((await tx.execute(query, {"id": source_id})).scalar_one())


async def count(tx: Connection, which: Which) -> int:
    """How many of them are uncertain."""
    query = text(f"SELECT count(*) FROM deliveries WHERE {which.condition}")
    found: int = (await tx.execute(query, which.parameters)).scalar_one()
    return found


async def page(
    tx: Connection, *, campaign_id: UUID | None, reason: str | None, after: tuple[UUID, UUID] | None, limit: int
) -> list[Uncertain]:
    """In the order of campaigns and of planning, behind `after`: the campaign and delivery of the page before."""
    which = Which(campaign_id=campaign_id, reason=reason)
    beyond = "AND (deliveries.campaign_id, deliveries.id) > (:after_campaign, :after_delivery)" if after else ""
    rows = await tx.execute(
        text(f"""
            SELECT deliveries.id AS delivery_id, deliveries.campaign_id,
                coalesce(campaigns.name, automations.name) AS campaign_name, deliveries.contact_id, contacts.email,
                coalesce(campaigns.plan #>> ARRAY['messages', deliveries.step, 'from_email'],
                    campaigns.plan #>> '{{email,from_email}}') AS from_email,
                deliveries.reason, deliveries.reply, deliveries.attempts, deliveries.leased_at,
                deliveries.finished_at AS uncertain_since
            FROM deliveries LEFT JOIN campaigns ON campaigns.id = deliveries.campaign_id
            LEFT JOIN automations ON automations.id = deliveries.campaign_id
            LEFT JOIN contacts ON contacts.id = deliveries.contact_id
            WHERE {which.condition} {beyond}
            ORDER BY deliveries.campaign_id, deliveries.id LIMIT :limit
        """),
        {
            **which.parameters,
            "limit": limit,
            **({"after_campaign": after[0], "after_delivery": after[1]} if after else {}),
        },
    )
    return [Uncertain(**row) for row in rows.mappings()]
