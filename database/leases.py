"""Leases: who may send which messages now, and for how long?"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import lru_cache
from time import monotonic
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy import text

from database import counters
from database.eligibility import CONTACT_COLUMNS, Rules
from database.engine import Connection
from marketing.assignment import HOLDOUT
from marketing.deliveries import SkipReason

# Reserved slots of a rate limit lie at most this far ahead, so that a pause holds at once.
_AHEAD = timedelta(milliseconds=250)
_SET_SECONDS = 0.5  # one set of a rate-limited campaign takes at most this long
# What recording and leasing take between two sets is made up for, up to this.
_CATCH_UP = timedelta(milliseconds=20)


@dataclass(frozen=True)
class Leased:
    """One message to be sent now, with the contact as it is now."""

    id: UUID
    attempts: int
    contact: dict[str, Any]
    variant: str = ""


@dataclass
class Lease:
    """What one set may do: `messages` are ours until the lease ends. `wait` says how long until there may be more."""

    messages: list[Leased] = field(default_factory=list)
    skipped: Counter[tuple[str, str]] = field(default_factory=Counter)  # by variant and reason
    deferred: int = 0
    first_slot: float = 0.0  # of those of the rate limit that this set has: its moment on the clock `monotonic`
    wait: float | None = None  # seconds; set if the rate limit has no slot now

    @property
    def figures(self) -> Counter[tuple[str, str]]:
        """What to count, by variant and name."""
        return Counter({(variant, f"skipped:{reason}"): n for (variant, reason), n in self.skipped.items()})

    @property
    def touched(self) -> int:
        """Rows that this lease did something with; 0 means that nothing is due in the shard now."""
        return len(self.messages) + self.skipped.total() + self.deferred


class Bounds(Protocol):
    """What may bound the messages of a source as a whole."""

    @property
    def rate_limit_per_second(self) -> float | None: ...

    @property
    def max_messages(self) -> int | None: ...


async def lease(
    tx: Connection,
    campaign_id: UUID,
    shard: int,
    plan: Bounds,
    rules: Rules,
    *,
    token: UUID,
    seconds: float,
    limit: int,
) -> Lease:
    """Take up to `limit` due messages of a shard: see `lease_set`."""
    return await lease_set(tx, campaign_id, NextSet(shard, token, seconds, limit), plan, rules)


async def lease_set(
    tx: Connection, source_id: UUID, wanted: "NextSet", bounds: Bounds, rules: Rules, *, step: str = ""
) -> Lease:
    """Take due messages, judging each contact at this last moment.

    Those that may not be sent become `skipped` with their reason, those of contacts in quiet hours wait for their end.
    The taken ones are ours for so many seconds; after that they count as uncertain.
    """
    meter = None
    if bounds.rate_limit_per_second or bounds.max_messages:
        meter = await _meter(tx, source_id)
        if bounds.rate_limit_per_second:
            if (slot_in := meter.slot - monotonic()) > _AHEAD.total_seconds():
                # Come back a little before the slot, so that it is not lost to leasing and rendering.
                return Lease(wait=slot_in - _AHEAD.total_seconds() / 2)
            wanted = replace(wanted, limit=most_at_once(bounds, wanted.limit))
    if rules.capped and not rules.rehearsed:
        # Two campaigns that lease the same contact at the same moment must see each other's messages.
        await tx.execute(
            text("SELECT pg_advisory_xact_lock(hashtextextended(:account, 0))"), {"account": str(rules.account.id)}
        )
    left = None if bounds.max_messages is None or meter is None else max(bounds.max_messages - meter.leased, 0)
    taken = await take(tx, source_id, wanted, rules, budget_left=left)
    if meter:
        taken.first_slot = meter.slot
    if meter and taken.messages:
        await _spend(tx, source_id, bounds, taken)
    await counters.add_to_variants(
        tx, rules.account.id, source_id, taken.figures, now=rules.now, channel=rules.channel, step=step
    )
    return taken


def is_free(bounds: Bounds, rules: Rules) -> bool:
    """Does nothing bound the source that its shards share, so that `take` is all there is to a lease?"""
    return not (bounds.rate_limit_per_second or bounds.max_messages or rules.capped)


def most_at_once(bounds: Bounds, limit: int) -> int:
    """A set, of at most `limit` messages, that does not keep its slots of the rate limit for long."""
    rate = bounds.rate_limit_per_second
    return max(1, min(limit, int(rate * _SET_SECONDS))) if rate else limit


@dataclass(frozen=True)
class NextSet:
    """The set to take: up to `limit` messages of a shard, ours by `token` for `seconds`; of a journey's, `ids` only."""

    shard: int
    token: UUID
    seconds: float
    limit: int
    ids: Sequence[UUID] | None = None


async def take(
    tx: Connection, campaign_id: UUID, wanted: NextSet, rules: Rules, *, budget_left: int | None = None
) -> Lease:
    """The lease without what shards share: neither meter nor counters. Its `figures` are the caller's to count."""
    named = wanted.ids is not None
    rows = await tx.execute(
        _prepared(_lease_statement(rules, named=named)),
        {
            **rules.parameters,
            **({"ids": wanted.ids} if named else {}),
            "campaign_id": campaign_id,
            "shard": wanted.shard,
            "limit": wanted.limit,
            "token": wanted.token,
            "seconds": wanted.seconds,
            "budget_left": budget_left,
        },
    )
    taken = Lease()
    for id, state, reason, attempts, variant, *contact in rows:
        if state == "sending":
            taken.messages.append(Leased(id, attempts, dict(zip(CONTACT_COLUMNS, contact, strict=True)), variant))
        elif state == "skipped":
            taken.skipped[variant, reason] += 1
        else:
            taken.deferred += 1
    return taken


# The same few statements again and again: to look for the parameters in one takes 0.1 ms.
_prepared = lru_cache(64)(text)


def _lease_statement(rules: Rules, *, named: bool) -> str:
    """
    Args:
        named: of a journey, these messages alone, and nothing for whom has left it.
    """
    # Told of the shard too, the planner would not know that the primary key finds them at once.
    which = "id = ANY (CAST(:ids AS uuid[]))" if named else "campaign_id = :campaign_id AND shard = :shard"
    inside, reason = "", rules.reason()
    if named:
        inside = "LEFT JOIN enrollments ON enrollments.id = due.enrollment_id"
        reason = f"CASE WHEN enrollments.left_at IS NOT NULL THEN '{SkipReason.LEFT}' ELSE {reason} END"
    else:  # last, so that who is held out is as many as would have got a message
        reason = f"coalesce({reason}, CASE WHEN due.variant = '{HOLDOUT}' THEN '{SkipReason.HOLDOUT}' END)"
    contact = ", ".join(f"contacts.{name} AS contact_{name}" for name in CONTACT_COLUMNS)
    told = ", ".join(f"verdict.contact_{name}" for name in CONTACT_COLUMNS)
    # MATERIALIZED, for otherwise each mention of `why` and `later` judges the contact once more.
    return f"""
        WITH due AS (
            SELECT id, contact_id, attempts, enrollment_id, variant FROM deliveries
            WHERE {which} AND state = 'planned'
            AND not_before <= CAST(:now AS timestamptz)
            ORDER BY not_before LIMIT :limit FOR UPDATE SKIP LOCKED
        ), judged AS MATERIALIZED (
            SELECT due.id AS delivery_id, due.attempts AS tried, {contact}, {reason} AS why,
                {rules.quiet_until()} AS later
            FROM due LEFT JOIN contacts ON contacts.id = due.contact_id {rules.joins()} {inside}
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
        RETURNING deliveries.id, deliveries.state, deliveries.reason, deliveries.attempts, deliveries.variant, {told}
    """


@dataclass(frozen=True)
class _Meter:
    slot: float  # the next free one of the rate limit, on the clock `monotonic`; now, if it is free already
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
    return _Meter(monotonic() + row.slot_in, row.leased)


async def _spend(tx: Connection, campaign_id: UUID, bounds: Bounds, taken: Lease) -> None:
    rate = bounds.rate_limit_per_second
    await tx.execute(
        text("""
            UPDATE campaign_meters SET
                leased = leased + :first_tries,
                next_slot_at = greatest(next_slot_at, clock_timestamp() - CAST(:catch_up AS interval))
                    + make_interval(secs => :seconds)
            WHERE campaign_id = :campaign_id
        """),
        {
            "campaign_id": campaign_id,
            "first_tries": sum(message.attempts == 0 for message in taken.messages),
            "seconds": len(taken.messages) / rate if rate else 0.0,
            "catch_up": _CATCH_UP,
        },
    )


async def take_new_slots(tx: Connection, campaign_id: UUID, seconds: float) -> float:
    """More slots of the rate limit, for a set that has missed some of its own.

    Args:
        seconds: how long they last.

    Returns:
        the first one, on the clock `monotonic`.
    """
    meter = await _meter(tx, campaign_id)
    query = text("""
        UPDATE campaign_meters
        SET next_slot_at = greatest(next_slot_at, clock_timestamp()) + make_interval(secs => :seconds)
        WHERE campaign_id = :campaign_id
    """)
    await tx.execute(query, {"campaign_id": campaign_id, "seconds": seconds})
    return meter.slot


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
    rows = await tx.execute(
        text("""
            UPDATE deliveries SET state = 'planned', lease = NULL, lease_until = NULL, leased_at = NULL
            WHERE campaign_id = :campaign_id AND shard = :shard AND state = 'sending' AND lease = CAST(:token AS uuid)
            RETURNING attempts
        """),
        {"campaign_id": campaign_id, "shard": shard, "token": token},
    )
    await refund(tx, campaign_id, sum(row.attempts == 0 for row in rows))


async def refund(tx: Connection, campaign_id: UUID, messages: int) -> None:
    """Give back to the budget what messages had taken that nobody was asked to carry."""
    if messages:
        query = text("UPDATE campaign_meters SET leased = leased - :messages WHERE campaign_id = :campaign_id")
        await tx.execute(query, {"campaign_id": campaign_id, "messages": messages})


async def last_lease_ends_in(tx: Connection, campaign_id: UUID) -> float | None:
    """Seconds until no lease of the campaign is left; None if there is none."""
    query = text("""
        SELECT extract(epoch FROM max(lease_until) - clock_timestamp())::float8 FROM deliveries
        WHERE campaign_id = :campaign_id AND state = 'sending'
    """)
    ends: float | None = (await tx.execute(query, {"campaign_id": campaign_id})).scalar_one()
    return ends
