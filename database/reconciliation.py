"""After the record was restored from an earlier moment: what may have been sent since then?"""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text

from database import campaigns, counters, sources
from database.campaigns import OpenCampaign
from database.engine import Connection, Database
from database.events import facts
from marketing.assignment import HOLDOUT
from marketing.campaigns import CampaignState
from marketing.deliveries import UncertainReason

# What was due may have been sent; what was not due yet can't have been. A message that was under way cost an attempt.
_DOUBT = text(f"""
    WITH doubtful AS (
        UPDATE deliveries SET
            state = 'uncertain',
            reason = '{UncertainReason.RESTORED}',
            reply = :reason,
            attempts = attempts + CASE WHEN state = 'sending' THEN 1 ELSE 0 END,
            finished_at = :now,
            leased_at = coalesce(leased_at, :now),
            lease = NULL, lease_until = NULL
        WHERE campaign_id = :campaign_id AND (state = 'sending' OR state = 'planned' AND not_before <= :now)
        AND variant <> '{HOLDOUT}'  -- to whom nothing was ever sent
        RETURNING *
    ), told AS ({facts("doubtful")})
    SELECT channel, step, variant, count(*) AS n FROM doubtful GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
""")


_PAUSE = text("""
    UPDATE automations SET state = 'paused', state_reason = :reason, updated_at = now()
    WHERE id = :id AND state = 'active'
""")


@dataclass(frozen=True)
class Held:
    """A campaign, or an automation, that was open when the record was written, and is paused now."""

    campaign_id: UUID
    begun: bool  # False: it may have begun since then, and to whom it went nobody here knows
    messages: int  # are uncertain now


async def others_connected(database: Database) -> int:
    """Connections to this database besides ours."""
    async with database.transaction(None) as tx:
        query = text("""
            SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND usename IS NOT NULL AND pid <> pg_backend_pid()
        """)
        found: int = (await tx.execute(query)).scalar_one()
        return found


async def hold(database: Database, reason: str, *, now: datetime) -> list[Held]:
    """Pause whatever may have gone on since the record was written, and doubt each of its due messages.

    A campaign that is scheduled for a moment to come can't have begun, and stays. Done twice, it changes nothing more.
    """
    held = []
    for campaign in await campaigns.open_campaigns(database):
        if campaign.state is CampaignState.CANCELLED:
            continue  # nothing of it was sent after that
        async with database.transaction(campaign.account_id) as tx:
            if found := await _hold(tx, campaign, reason, now):
                held.append(found)
    for source in await sources.open_sources(database):
        if source.kind == "drip" and source.state == CampaignState.CANCELLED:
            continue
        async with database.transaction(source.account_id) as tx:
            messages = await _doubt(tx, source.account_id, source.source_id, reason, now)
            why = f"{reason} Whoever entered or went on after it is where they were: they may get messages again."
            if source.kind == "drip":
                await campaigns.hold(tx, source.account_id, source.source_id, why)
            else:
                await tx.execute(_PAUSE, {"id": source.source_id, "reason": why})
            held.append(Held(source.source_id, True, messages))
    return held


async def _hold(tx: Connection, campaign: OpenCampaign, reason: str, now: datetime) -> Held | None:
    if campaign.state is CampaignState.SCHEDULED:
        schedule = (await campaigns.load_plan(tx, campaign.campaign_id)).schedule
        if schedule and schedule.starts_at() > now:
            return None
    begun = await campaigns.has_started(tx, campaign.campaign_id)
    messages = await _doubt(tx, campaign.account_id, campaign.campaign_id, reason, now)
    if not begun:
        reason += " If this campaign began after it, resuming sends everything twice: then cancel it."
    await campaigns.hold(tx, campaign.account_id, campaign.campaign_id, reason)
    return Held(campaign.campaign_id, begun, messages)


async def _doubt(tx: Connection, account_id: UUID, source_id: UUID, reason: str, now: datetime) -> int:
    """How many of its messages are uncertain now."""
    messages = 0
    for row in await tx.execute(_DOUBT, {"campaign_id": source_id, "reason": reason, "now": now}):
        messages += row.n
        amounts, kind = {"uncertain": row.n}, {"channel": row.channel, "step": row.step, "variant": row.variant}
        await counters.add(tx, account_id, source_id, amounts, now=now, **kind)
    return messages
