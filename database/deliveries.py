"""The delivery ledger: every message is planned, leased, and its outcome recorded, exactly once each."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text

from database import audiences, campaigns, counters
from database.eligibility import CONTACT_COLUMNS, Rules
from database.engine import Connection
from marketing.campaigns import CampaignPlan, CampaignState
from marketing.deliveries import ErrorWindow

# Reserved slots of a rate limit lie at most this far ahead, so that a pause holds at once.
_AHEAD = timedelta(milliseconds=250)
_SET_SECONDS = 0.5  # one set of a rate-limited campaign takes at most this long


@dataclass(frozen=True)
class Wave:
    """Shards `first` to `last` are due from `due` on."""

    due: datetime
    first: int
    last: int


# -- planning --------------------------------------------------------------------------------------------------------


async def freeze_audience(
    tx: Connection, campaign_id: UUID, plan: CampaignPlan, *, now: datetime, default_timezone: str, shard_size: int
) -> int:
    """Plan one delivery for each contact of the audience as it stands now.

    Returns:
        how many were planned by this call; a second call plans nobody again.
    """
    condition, parameters = audiences.condition(plan.audience)
    zones, moments = await _local_moments(tx, plan, default_timezone)
    planned = await tx.execute(
        text(f"""
            INSERT INTO deliveries (account_id, campaign_id, contact_id, channel, shard, not_before)
            SELECT account_id, :campaign_id, id, 'email', (row_number() OVER (ORDER BY due, id) - 1) / :shard_size, due
            FROM (
                SELECT contacts.account_id, contacts.id, coalesce(local.due, :now) AS due
                FROM contacts
                LEFT JOIN unnest(CAST(:zones AS text[]), CAST(:moments AS timestamptz[])) AS local (zone, due)
                    ON local.zone = coalesce(contacts.timezone, :default_timezone)
                WHERE {condition}
            ) AS audience
            -- One look for all: ON CONFLICT would look once per contact, which takes a third longer.
            WHERE NOT EXISTS (SELECT FROM deliveries WHERE campaign_id = :campaign_id)
        """),
        {
            "campaign_id": campaign_id,
            "shard_size": shard_size,
            "now": now,
            "zones": zones,
            "moments": moments,
            "default_timezone": default_timezone,
            **parameters,
        },
    )
    return planned.rowcount


async def _local_moments(tx: Connection, plan: CampaignPlan, default_timezone: str) -> tuple[list[str], list[datetime]]:
    """When each zone that contacts live in reaches the scheduled local time; nothing if all are due together."""
    if plan.schedule is None or not plan.schedule.per_recipient:
        return [], []
    rows = await tx.execute(text("SELECT DISTINCT timezone FROM contacts WHERE timezone IS NOT NULL"))
    zones = sorted({default_timezone, *(row.timezone for row in rows)})
    return zones, [plan.schedule.moment_in(zone) for zone in zones]


async def waves(tx: Connection, campaign_id: UUID) -> list[Wave]:
    """Which shards there are, and when each falls due; shards of the same moment are told together."""
    rows = await tx.execute(
        text("""
            SELECT min(shard) AS first, max(shard) AS last, due FROM (
                SELECT shard, min(not_before) AS due FROM deliveries WHERE campaign_id = :campaign_id GROUP BY shard
            ) AS shards GROUP BY due ORDER BY first
        """),
        {"campaign_id": campaign_id},
    )
    return [Wave(row.due, row.first, row.last) for row in rows]


# -- leasing ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Leased:
    """One message to be sent now, with the contact as it is now."""

    id: UUID
    attempts: int
    contact: dict[str, Any]


@dataclass
class Lease:
    """What one set may do: `messages` are ours until the lease ends. `wait` says how long until there may be more."""

    messages: list[Leased] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    deferred: int = 0
    starts_in: float = 0.0  # seconds until the first slot of the rate limit that this set reserved
    wait: float | None = None  # seconds; set if the rate limit has no slot now

    @property
    def touched(self) -> int:
        """Rows that this lease did something with; 0 means that nothing is due in the shard now."""
        return len(self.messages) + self.skipped.total() + self.deferred


async def lease(
    tx: Connection,
    campaign_id: UUID,
    shard: int,
    plan: CampaignPlan,
    rules: Rules,
    *,
    token: UUID,
    seconds: float,
    limit: int,
) -> Lease:
    """Take up to `limit` due messages of a shard, judging each contact at this last moment.

    Those that may not be sent become `skipped` with their reason, those of contacts in quiet hours wait for their end.
    The taken ones are ours for `seconds`; after that they count as uncertain.
    """
    meter = None
    if plan.rate_limit_per_second or plan.max_messages:
        meter = await _meter(tx, campaign_id)
        if plan.rate_limit_per_second:
            if meter.slot_in > _AHEAD.total_seconds():
                # Come back a little before the slot, so that it is not lost to leasing and rendering.
                return Lease(wait=meter.slot_in - _AHEAD.total_seconds() / 2)
            limit = max(1, min(limit, int(plan.rate_limit_per_second * _SET_SECONDS)))
    if rules.capped:
        # Two campaigns that lease the same contact at the same moment must see each other's messages.
        await tx.execute(
            text("SELECT pg_advisory_xact_lock(hashtextextended(:account, 0))"), {"account": str(rules.account.id)}
        )
    left = None if plan.max_messages is None or meter is None else max(plan.max_messages - meter.leased, 0)
    rows = await tx.execute(
        text(_lease_statement(rules)),
        {
            **rules.parameters,
            "campaign_id": campaign_id,
            "shard": shard,
            "limit": limit,
            "token": token,
            "seconds": seconds,
            "budget_left": left,
        },
    )
    taken = Lease(starts_in=meter.slot_in if meter and plan.rate_limit_per_second else 0.0)
    for row in rows.mappings():
        if row["state"] == "sending":
            contact = {name: row[f"contact_{name}"] for name in CONTACT_COLUMNS}
            taken.messages.append(Leased(row["id"], row["attempts"], contact))
        elif row["state"] == "skipped":
            taken.skipped[row["reason"]] += 1
        else:
            taken.deferred += 1
    if meter and taken.messages:
        await _spend(tx, campaign_id, plan, taken)
    await counters.add(
        tx,
        rules.account.id,
        campaign_id,
        {f"skipped:{reason}": n for reason, n in taken.skipped.items()},
        now=rules.now,
        channel=rules.channel,
    )
    return taken


def _lease_statement(rules: Rules) -> str:
    contact = ", ".join(f"contacts.{name} AS contact_{name}" for name in CONTACT_COLUMNS)
    told = ", ".join(f"verdict.contact_{name}" for name in CONTACT_COLUMNS)
    # MATERIALIZED, for otherwise each mention of `why` and `later` judges the contact once more.
    return f"""
        WITH due AS (
            SELECT id, contact_id, attempts FROM deliveries
            WHERE campaign_id = :campaign_id AND shard = :shard AND state = 'planned'
            AND not_before <= CAST(:now AS timestamptz)
            ORDER BY not_before LIMIT :limit FOR UPDATE SKIP LOCKED
        ), judged AS MATERIALIZED (
            SELECT due.id AS delivery_id, due.attempts AS tried, {contact}, {rules.reason()} AS why,
                {rules.quiet_until()} AS later
            FROM due LEFT JOIN contacts ON contacts.id = due.contact_id {rules.joins()}
        ), verdict AS (
            -- Only a message that was never tried costs anything.
            SELECT *, CASE WHEN why IS NULL AND later IS NULL AND tried = 0
                AND row_number() OVER (PARTITION BY why IS NULL AND later IS NULL AND tried = 0)
                    > CAST(:budget_left AS bigint)
                THEN 'budget' ELSE why END AS reason_now
            FROM judged
        )
        UPDATE deliveries SET
            state = CASE WHEN reason_now IS NOT NULL THEN 'skipped' WHEN later IS NOT NULL THEN 'planned'
                ELSE 'sending' END,
            reason = reason_now,
            not_before = CASE WHEN reason_now IS NULL AND later IS NOT NULL THEN later ELSE not_before END,
            finished_at = CASE WHEN reason_now IS NOT NULL THEN CAST(:now AS timestamptz) END,
            lease = CASE WHEN reason_now IS NULL AND later IS NULL THEN CAST(:token AS uuid) END,
            lease_until = CASE WHEN reason_now IS NULL AND later IS NULL
                THEN clock_timestamp() + make_interval(secs => :seconds) END,
            leased_at = CASE WHEN reason_now IS NULL AND later IS NULL THEN CAST(:now AS timestamptz) END
        FROM verdict
        WHERE deliveries.id = verdict.delivery_id
        RETURNING deliveries.id, deliveries.state, deliveries.reason, deliveries.attempts, {told}
    """


@dataclass(frozen=True)
class _Meter:
    slot_in: float  # seconds from now until the next free slot of the rate limit, 0 if it is free already
    leased: int


async def _meter(tx: Connection, campaign_id: UUID) -> _Meter:
    row = (
        await tx.execute(
            text("""
                SELECT leased, CASE WHEN next_slot_at > clock_timestamp()
                    THEN extract(epoch FROM next_slot_at - clock_timestamp()) ELSE 0 END::float8 AS slot_in
                FROM campaign_meters WHERE campaign_id = :campaign_id FOR UPDATE
            """),
            {"campaign_id": campaign_id},
        )
    ).one()
    return _Meter(row.slot_in, row.leased)


async def _spend(tx: Connection, campaign_id: UUID, plan: CampaignPlan, taken: Lease) -> None:
    rate = plan.rate_limit_per_second
    await tx.execute(
        text("""
            UPDATE campaign_meters SET
                leased = leased + :first_tries,
                next_slot_at = greatest(next_slot_at, clock_timestamp()) + make_interval(secs => :seconds)
            WHERE campaign_id = :campaign_id
        """),
        {
            "campaign_id": campaign_id,
            "first_tries": sum(message.attempts == 0 for message in taken.messages),
            "seconds": len(taken.messages) / rate if rate else 0.0,
        },
    )


async def next_due(tx: Connection, campaign_id: UUID, shard: int) -> tuple[datetime | None, float | None]:
    """When is there more to do in a shard?

    Returns:
        the moment at which the next planned message falls due, and the seconds until the first lease of somebody else
        ends; None where there is no such message.
    """
    row = (
        await tx.execute(
            text("""
                SELECT
                    (SELECT min(not_before) FROM deliveries
                     WHERE campaign_id = :campaign_id AND shard = :shard AND state = 'planned') AS due,
                    (SELECT extract(epoch FROM min(lease_until) - clock_timestamp())::float8 FROM deliveries
                     WHERE campaign_id = :campaign_id AND shard = :shard AND state = 'sending') AS lease_ends_in
            """),
            {"campaign_id": campaign_id, "shard": shard},
        )
    ).one()
    return row.due, row.lease_ends_in


async def release(tx: Connection, campaign_id: UUID, shard: int, token: UUID) -> None:
    """Put back everything of a lease of which surely nothing was sent, such as one whose answer never reached us."""
    await tx.execute(
        text("""
            UPDATE deliveries SET state = 'planned', lease = NULL, lease_until = NULL, leased_at = NULL
            WHERE campaign_id = :campaign_id AND shard = :shard AND state = 'sending' AND lease = CAST(:token AS uuid)
        """),
        {"campaign_id": campaign_id, "shard": shard, "token": token},
    )


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


async def record(
    tx: Connection, campaign_id: UUID, token: UUID, outcomes: Sequence[Outcome], *, rules: Rules
) -> Counter[str]:
    """Write down what became of a set, its figures and the error window, in one transaction.

    Rows whose lease is no longer ours are left alone. A campaign whose errors pass the account's threshold is paused.

    Returns:
        how many rows were changed, per `state` or `state:reason`.
    """
    rows = await tx.execute(
        text("""
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
            RETURNING deliveries.state, deliveries.reason
        """),
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
    changed = Counter(_figure(row.state, row.reason) for row in rows)
    await _count(tx, campaign_id, changed, rules)
    await _suppress(tx, outcomes, rules)
    await _watch_errors(tx, campaign_id, changed, rules)
    return changed


def _figure(state: str, reason: str | None) -> str:
    return f"{state}:{reason}" if state in ("failed", "skipped") else state


async def _count(tx: Connection, campaign_id: UUID, changed: Counter[str], rules: Rules) -> None:
    final = {name: n for name, n in changed.items() if name != "planned"}
    await counters.add(tx, rules.account.id, campaign_id, final, now=rules.now, channel=rules.channel)


async def _suppress(tx: Connection, outcomes: Sequence[Outcome], rules: Rules) -> None:
    dead = [outcome for outcome in outcomes if outcome.suppress]
    if not dead:
        return
    await tx.execute(
        text("""
            INSERT INTO suppressions (account_id, channel, address, reason, detail)
            SELECT :account_id, :channel, lower(dead.address), 'hard_bounce', dead.reply
            FROM unnest(CAST(:addresses AS text[]), CAST(:replies AS text[])) AS dead (address, reply)
            ON CONFLICT DO NOTHING
        """),
        {
            "account_id": rules.account.id,
            "channel": rules.channel,
            "addresses": [outcome.suppress for outcome in dead],
            "replies": [outcome.reply[:500].replace("\0", "") for outcome in dead],
        },
    )


async def _watch_errors(tx: Connection, campaign_id: UUID, changed: Counter[str], rules: Rules) -> None:
    errors = sum(n for name, n in changed.items() if name.startswith("failed"))
    messages = errors + changed["sent"]
    if not messages:
        return
    query = text("SELECT recent FROM campaign_meters WHERE campaign_id = :campaign_id FOR UPDATE")
    recent = (await tx.execute(query, {"campaign_id": campaign_id})).scalar_one()
    window = ErrorWindow(sets=[(seen, wrong) for seen, wrong in recent])
    window.add(messages, errors)
    tripped = errors > 0 and window.trips(rules.account.error_threshold)
    await tx.execute(
        text("UPDATE campaign_meters SET recent = CAST(:recent AS jsonb) WHERE campaign_id = :campaign_id"),
        {"campaign_id": campaign_id, "recent": str([] if tripped else [list(each) for each in window.sets])},
    )
    if tripped:
        why = (
            f"{window.rate:.1%} of the last {window.seen:,} messages failed; "
            f"the account's threshold is {rules.account.error_threshold:.1%}."
        )
        await campaigns.change_state(tx, rules.account.id, campaign_id, CampaignState.PAUSED, why)


# -- after a crash, and after a cancellation -------------------------------------------------------------------------


async def settle_lost(tx: Connection, campaign_id: UUID, shard: int | None, *, resend: bool, rules: Rules) -> int:
    """Whatever was leased by somebody whose lease has ended is uncertain (RFC 1047), or planned again if so wished.

    Without a `shard` all of the campaign's are looked at.
    """
    rows = await tx.execute(
        text("""
            UPDATE deliveries SET
                state = CASE WHEN :resend THEN 'planned' ELSE 'uncertain' END,
                reason = CASE WHEN :resend THEN NULL ELSE 'worker_lost' END,
                reply = 'The worker ended after it took this message and before it recorded what became of it.',
                attempts = attempts + 1,
                finished_at = CASE WHEN :resend THEN NULL ELSE CAST(:now AS timestamptz) END,
                lease = NULL, lease_until = NULL
            WHERE id IN (
                SELECT id FROM deliveries WHERE campaign_id = :campaign_id AND state = 'sending'
                AND shard = coalesce(:shard, shard) AND lease_until < clock_timestamp() FOR UPDATE SKIP LOCKED
            )
            RETURNING state, reason
        """),
        {"campaign_id": campaign_id, "shard": shard, "resend": resend, "now": rules.now},
    )
    settled = Counter(_figure(row.state, row.reason) for row in rows)
    await _count(tx, campaign_id, settled, rules)
    return settled.total()


async def skip_rest(tx: Connection, campaign_id: UUID, *, limit: int, rules: Rules) -> int:
    """Skip up to `limit` messages of a cancelled campaign that nobody has taken yet; 0 when none is left."""
    rows = await tx.execute(
        text("""
            UPDATE deliveries SET state = 'skipped', reason = 'cancelled', finished_at = :now
            WHERE id IN (
                SELECT id FROM deliveries WHERE campaign_id = :campaign_id AND state = 'planned'
                LIMIT :limit FOR UPDATE SKIP LOCKED
            )
        """),
        {"campaign_id": campaign_id, "limit": limit, "now": rules.now},
    )
    skipped = Counter({"skipped:cancelled": rows.rowcount})
    await _count(tx, campaign_id, skipped, rules)
    return rows.rowcount


async def last_lease_ends_in(tx: Connection, campaign_id: UUID) -> float | None:
    """Seconds until no lease of the campaign is left; None if there is none."""
    query = text("""
        SELECT extract(epoch FROM max(lease_until) - clock_timestamp())::float8 FROM deliveries
        WHERE campaign_id = :campaign_id AND state = 'sending'
    """)
    ends: float | None = (await tx.execute(query, {"campaign_id": campaign_id})).scalar_one()
    return ends
