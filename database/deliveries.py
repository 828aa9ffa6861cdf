"""The delivery ledger: every message is planned, leased, and its outcome recorded, exactly once each."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from database import campaigns, counters, leases
from database.eligibility import Rules
from database.engine import Connection, Database
from database.events import facts
from marketing.campaigns import CampaignState
from marketing.deliveries import MOST_SENDINGS, ErrorWindow, SkipReason


async def open_shards(
    tx: Connection, campaign_id: UUID, *, limit: int, below: int | None = None
) -> list[tuple[int, datetime]]:
    """Shards with messages that are planned or under way, and when the first of them falls due or its lease ends.

    Args:
        below: those from this one on are not asked for.
    """
    rows = await tx.execute(
        text("""
            -- Two looks, because each state has an index of its own.
            SELECT shard, min(due) AS due FROM (
                SELECT shard, not_before AS due FROM deliveries
                WHERE campaign_id = :campaign_id AND state = 'planned'
                UNION ALL
                SELECT shard, lease_until FROM deliveries WHERE campaign_id = :campaign_id AND state = 'sending'
            ) AS open WHERE CAST(:below AS int) IS NULL OR shard < :below GROUP BY shard ORDER BY due LIMIT :limit
        """),
        {"campaign_id": campaign_id, "limit": limit, "below": below},
    )
    return [(row.shard, row.due) for row in rows]


# -- recording -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one leased message. `state` 'planned' puts it back, to be tried again after `delay`."""

    id: UUID
    state: str
    reason: str | None = None
    reply: str = ""
    delay: timedelta = timedelta(0)
    attempt: bool = True  # False if the provider never saw the message
    suppress: str | None = None  # the address, if nobody should write to it again


@dataclass
class Recorded:
    """What a record did: how many rows it changed, per `state` or `state:reason`."""

    changed: Counter[str]
    lease: leases.Lease  # what it took beside
    paused: bool  # the campaign, because of its errors


async def record(
    tx: Connection,
    campaign_id: UUID,
    token: UUID,
    outcomes: Sequence[Outcome],
    *,
    rules: Rules,
    wanted: leases.NextSet | None = None,
    step: str = "",
    metered: bool = True,
) -> Recorded:
    """Write down what became of a set, its figures and the error window, in one transaction.

    Rows whose lease is no longer ours are left alone. A campaign whose errors pass the account's threshold is paused.

    Args:
        wanted: a set to take in the same transaction. Its lease is empty if the campaign is paused here.
        metered: whether there is a budget and an error window.
    """
    rows = await tx.execute(
        _RECORD,
        {
            "now": rules.now,
            "token": token,
            "ids": [outcome.id for outcome in outcomes],
            "states": [outcome.state for outcome in outcomes],
            "reasons": [outcome.reason for outcome in outcomes],
            "replies": [outcome.reply[:500].replace("\0", "") for outcome in outcomes],
            "delays": [outcome.delay.total_seconds() for outcome in outcomes],
            "attempts": [int(outcome.attempt) for outcome in outcomes],
        },
    )
    recorded = rows.all()
    changed = Counter(_figure(row.state, row.reason) for row in recorded)
    of_variants = Counter((row.variant, _figure(row.state, row.reason)) for row in recorded)
    await _suppress(tx, outcomes, rules)
    # What all shards change comes last, so that they wait for each other as shortly as can be. And the meter before
    # the counters, as in the lease: whoever waits for one never holds what the other waits for.
    lease = await leases.take(tx, campaign_id, wanted, rules) if wanted else leases.Lease()
    paused = False
    if metered:
        await leases.refund(tx, campaign_id, sum(row.state == "planned" and row.attempts == 0 for row in recorded))
        paused = await _watch_errors(tx, campaign_id, changed, rules)
    if paused and wanted and lease.messages:
        await leases.release(tx, campaign_id, wanted.shard, wanted.token)
    await _count(tx, campaign_id, of_variants + lease.figures, rules, step)
    return Recorded(changed, lease, paused)


_RECORD = text(f"""
    WITH changed AS (
        UPDATE deliveries SET
            state = outcome.state,
            reason = outcome.reason,
            reply = outcome.reply,
            attempts = attempts + outcome.attempt,
            not_before = CASE WHEN outcome.state = 'planned'
                THEN CAST(:now AS timestamptz) + make_interval(secs => outcome.delay) ELSE not_before END,
            finished_at = CASE WHEN outcome.state <> 'planned' THEN CAST(:now AS timestamptz) END,
            leased_at = CASE WHEN outcome.state <> 'planned' AND outcome.state <> 'failed' THEN leased_at END,
            lease = NULL,
            lease_until = NULL
        FROM unnest(CAST(:ids AS uuid[]), CAST(:states AS text[]), CAST(:reasons AS text[]),
                    CAST(:replies AS text[]), CAST(:delays AS float8[]), CAST(:attempts AS int[]))
            AS outcome (id, state, reason, reply, delay, attempt)
        WHERE deliveries.id = outcome.id AND deliveries.lease = CAST(:token AS uuid)
        AND deliveries.state = 'sending'
        RETURNING deliveries.*
    ), told AS ({facts("changed")})
    SELECT state, reason, attempts, variant FROM changed
""")


def _figure(state: str, reason: str | None) -> str:
    return f"{state}:{reason}" if state in ("failed", "skipped") else state


async def _count(
    tx: Connection, campaign_id: UUID, changed: Counter[tuple[str, str]], rules: Rules, step: str = ""
) -> None:
    final = _final(changed)
    await counters.add_to_variants(
        tx, rules.account.id, campaign_id, final, now=rules.now, channel=rules.channel, step=step
    )


def _final(changed: Counter[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """What was put back was counted as planned when it was."""
    return {figure: n for figure, n in changed.items() if figure[1] != "planned"}


async def _suppress(tx: Connection, outcomes: Sequence[Outcome], rules: Rules) -> None:
    dead = [outcome for outcome in outcomes if outcome.suppress]
    if not dead:
        return
    await tx.execute(
        text("""
            INSERT INTO suppressions (account_id, channel, address, reason, detail)
            SELECT :account_id, :channel, lower(dead.address), 'hard_bounce', dead.reply
            FROM unnest(CAST(:addresses AS text[]), CAST(:replies AS text[])) AS dead (address, reply)
            ORDER BY 3
            ON CONFLICT DO NOTHING
        """),
        {
            "account_id": rules.account.id,
            "channel": rules.channel,
            "addresses": [outcome.suppress for outcome in dead],
            "replies": [outcome.reply[:500].replace("\0", "") for outcome in dead],
        },
    )


async def _watch_errors(tx: Connection, campaign_id: UUID, changed: Counter[str], rules: Rules) -> bool:
    """Pause the campaign if too much went wrong lately; True if so."""
    errors = sum(n for name, n in changed.items() if name.startswith("failed"))
    messages = errors + changed["sent"]
    if not messages:
        return False
    recent = (await tx.execute(_RECENT, {"campaign_id": campaign_id})).scalar_one()
    window = ErrorWindow(sets=[(seen, wrong) for seen, wrong in recent])
    window.add(messages, errors)
    tripped = errors > 0 and window.trips(rules.account.error_threshold)
    await tx.execute(
        _REMEMBER,
        {"campaign_id": campaign_id, "recent": str([] if tripped else [list(each) for each in window.sets])},
    )
    if tripped:
        why = (
            f"{window.rate:.1%} of the last {window.seen:,} messages failed; "
            f"the account's threshold is {rules.account.error_threshold:.1%}."
        )
        await campaigns.change_state(tx, rules.account.id, campaign_id, CampaignState.PAUSED, why)
    return tripped


_RECENT = text("SELECT recent FROM campaign_meters WHERE campaign_id = :campaign_id FOR UPDATE")
_REMEMBER = text("UPDATE campaign_meters SET recent = CAST(:recent AS jsonb) WHERE campaign_id = :campaign_id")


# -- after a crash, and after a cancellation -------------------------------------------------------------------------


async def settle_lost(tx: Connection, campaign_id: UUID, shard: int | None, *, resend: bool, rules: Rules) -> int:
    """Whatever was leased by somebody whose lease has ended is uncertain (RFC 1047), or planned again if so wished.

    Without a `shard` all of the campaign's are looked at.
    """
    rows = await tx.execute(
        text(f"""
            WITH changed AS (
                UPDATE deliveries SET
                    state = CASE WHEN :resend AND attempts + 1 < :most THEN 'planned' ELSE 'uncertain' END,
                    reason = CASE WHEN :resend AND attempts + 1 < :most THEN NULL ELSE 'worker_lost' END,
                    reply = 'The worker ended after it took this message and before it recorded what became of it.',
                    attempts = attempts + 1,
                    finished_at = CASE WHEN :resend AND attempts + 1 < :most THEN NULL
                        ELSE CAST(:now AS timestamptz) END,
                    leased_at = CASE WHEN :resend AND attempts + 1 < :most THEN NULL ELSE leased_at END,
                    lease = NULL, lease_until = NULL
                WHERE id IN (
                    SELECT id FROM deliveries WHERE campaign_id = :campaign_id AND state = 'sending'
                    AND shard = coalesce(:shard, shard) AND lease_until < clock_timestamp() FOR UPDATE SKIP LOCKED
                )
                RETURNING *
            ), told AS ({facts("changed")})
            SELECT channel, step, variant, state, reason FROM changed
        """),
        {
            "campaign_id": campaign_id,
            "shard": shard,
            "resend": resend,
            "most": MOST_SENDINGS,
            "now": rules.now,
        },
    )
    return await _count_each(tx, rules.account.id, campaign_id, rows, now=rules.now)


async def lost_of_journeys(database: Database) -> list[tuple[UUID, UUID]]:
    """The account and source of what a lost worker had in hand, and that nobody has asked for again."""
    async with database.transaction(None) as tx:
        return [(row[0], row[1]) for row in await tx.execute(text("SELECT * FROM lost_messages()"))]


async def skip_rest(tx: Connection, campaign_id: UUID, reason: SkipReason, *, limit: int, rules: Rules) -> int:
    """Skip up to `limit` messages of an ended campaign that nobody has taken yet; 0 when none is left."""
    rows = await tx.execute(
        text("""
            UPDATE deliveries SET state = 'skipped', reason = :reason, finished_at = :now
            WHERE id IN (
                SELECT id FROM deliveries WHERE campaign_id = :campaign_id AND state = 'planned'
                LIMIT :limit FOR UPDATE SKIP LOCKED
            )
            RETURNING channel, step, variant, state, reason
        """),
        {"campaign_id": campaign_id, "reason": reason, "limit": limit, "now": rules.now},
    )
    return await _count_each(tx, rules.account.id, campaign_id, rows, now=rules.now)


async def skip_of_left(
    tx: Connection, account_id: UUID, source_id: UUID, enrollments: Sequence[UUID], *, now: datetime
) -> int:
    """Skip what is planned for those who have left a journey; how many messages that were."""
    rows = await tx.execute(_SKIP_OF_LEFT, {"enrollments": list(enrollments), "now": now})
    return await _count_each(tx, account_id, source_id, rows, now=now)


_SKIP_OF_LEFT = text(f"""
    UPDATE deliveries SET state = 'skipped', reason = '{SkipReason.LEFT}', finished_at = :now
    WHERE enrollment_id = ANY (:enrollments) AND state = 'planned'
    RETURNING channel, step, variant, state, reason
""")


async def _count_each(
    tx: Connection, account_id: UUID, source_id: UUID, changed: Iterable[Row[Any]], *, now: datetime
) -> int:
    """Count what has become of messages of any channel and step; how many they are."""
    kinds: defaultdict[tuple[str, str], Counter[tuple[str, str]]] = defaultdict(Counter)
    for row in changed:
        kinds[row.channel, row.step][row.variant, _figure(row.state, row.reason)] += 1
    for (channel, step), figures in sorted(kinds.items()):
        final = _final(figures)
        await counters.add_to_variants(tx, account_id, source_id, final, now=now, channel=channel, step=step)
    return sum(figures.total() for figures in kinds.values())
