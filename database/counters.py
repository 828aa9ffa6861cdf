"""Live figures: one row per campaign, hour, channel, step, variant and name, changed once per set of messages."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

from sqlalchemy import text

from database.engine import Connection, after_commit
from telemetry import metrics

_STATES = frozenset({"planned", "sent", "skipped", "failed", "uncertain"})  # the other figures are of what people did

_ADD = text("""
    INSERT INTO counters (account_id, campaign_id, hour, channel, step, variant, name, n)
    SELECT :account_id, :campaign_id, date_trunc('hour', CAST(:now AS timestamptz), 'UTC'), :channel, :step,
           added.variant, added.name, added.n
    FROM unnest(CAST(:variants AS text[]), CAST(:names AS text[]), CAST(:amounts AS bigint[]))
        AS added (variant, name, n)
    ORDER BY added.variant, added.name  -- always in the same order, so that two sets never wait for each other
    ON CONFLICT (campaign_id, hour, channel, step, variant, name) DO UPDATE SET n = counters.n + EXCLUDED.n
""")

_READ = text("""
    SELECT hour, channel, step, variant, name, n FROM counters WHERE campaign_id = :campaign_id
    ORDER BY hour, channel, step, variant, name
""")

_PACE = timedelta(days=28)
# By source, for their figures are kept by source; of automations all, which have no end.
_SENT = text("""
    SELECT coalesce(sum(counted.n), 0)::bigint AS sent, min(counted.hour) AS since FROM (
        SELECT id FROM campaigns WHERE launched_at IS NOT NULL AND (finished_at IS NULL OR finished_at >= :since)
        UNION ALL SELECT id FROM automations
    ) AS sources
    JOIN counters AS counted ON campaign_id = sources.id AND hour >= :since AND counted.name = 'sent' AND n > 0
""")


@dataclass(frozen=True)
class Counted:
    """One figure of one hour, channel, step and variant."""

    hour: datetime
    channel: str
    step: str
    variant: str
    name: str
    n: int


async def add(
    tx: Connection,
    account_id: UUID,
    campaign_id: UUID,
    amounts: Mapping[str, int],
    *,
    now: datetime,
    channel: str,
    step: str = "",
    variant: str = "",
) -> None:
    """Add to a campaign's figures; `amounts` may be negative (a click that turned out to be a machine's)."""
    named = {(variant, name): amount for name, amount in amounts.items()}
    await add_to_variants(tx, account_id, campaign_id, named, now=now, channel=channel, step=step)


async def add_to_variants(
    tx: Connection,
    account_id: UUID,
    campaign_id: UUID,
    amounts: Mapping[tuple[str, str], int],
    *,
    now: datetime,
    channel: str,
    step: str = "",
    told: bool = True,
) -> None:
    """The same for several variants at once: `{("A", "sent"): 12, ("B", "sent"): 13}`.

    Args:
        told: to the metrics too; not if messages have moved from one variant to another.
    """
    changed = {figure: amount for figure, amount in amounts.items() if amount}
    if not changed:
        return
    if told:
        after_commit(tx, partial(_tell, channel, changed))
    await tx.execute(
        _ADD,
        {
            "account_id": account_id,
            "campaign_id": campaign_id,
            "now": now,
            "channel": channel,
            "step": step,
            "variants": [variant for variant, _ in changed],
            "names": [name for _, name in changed],
            "amounts": list(changed.values()),
        },
    )


def _tell(channel: str, changed: Mapping[tuple[str, str], int]) -> None:
    for (_, name), amount in changed.items():
        state, _, reason = name.partition(":")
        if state in _STATES and amount > 0:  # a message that leaves a state was counted when it came
            metrics.messages.labels(channel, state, reason).inc(amount)


async def read(tx: Connection, campaign_id: UUID) -> list[Counted]:
    """All figures of a campaign, per hour, channel, step and variant."""
    rows = await tx.execute(_READ, {"campaign_id": campaign_id})
    return [Counted(row.hour, row.channel, row.step, row.variant, row.name, row.n) for row in rows]


async def sent_per_day(tx: Connection, now: datetime) -> float | None:
    """How many messages the account has sent a day in the last 28 days, or since its first one; None: nothing."""
    row = (await tx.execute(_SENT, {"since": now - _PACE})).one()
    if row.since is None:
        return None
    return float(row.sent / max((min(now - row.since, _PACE)) / timedelta(days=1), 1))
