"""How each experiment stands, what was counted of its variants, and who got which share of a bandit's shards."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import select, text, update
from sqlalchemy.dialects.postgresql import insert

from database import campaigns, conversions, counters
from database.assignment import bucket, cell, cells
from database.conversions import Sums
from database.engine import Connection
from database.schema_experiments import allocations, experiments
from marketing.assignment import HOLDOUT, REST, shared_out
from marketing.deliveries import SkipReason
from marketing.experiment_decisions import Verdict
from marketing.experiment_results import Metric, VariantCounts

_MOST_MONEY = 1e15  # that results show, see `experiment_results`
_MOST_SQUARES = 1e30


@dataclass(frozen=True)
class Standing:
    """How an experiment stands.

    Args:
        rest_shard: the first shard of those who wait for the winner; None until they are planned.
        winner: None also of one that is decided, where nobody waits for a winner and none can be believed.
        decision: the whole analysis at the last look, or at the moment of the decision; None before.
    """

    campaign_id: UUID
    state: str
    rest_shard: int | None
    winner: str | None
    decided_by: str | None
    reason: str
    decision: dict[str, Any] | None
    test_began_at: datetime | None
    test_sent_at: datetime | None
    decided_at: datetime | None


async def read(tx: Connection, campaign_id: UUID, *, lock: bool = False) -> Standing | None:
    """With `lock` nobody else decides until this transaction ends. None: it was not launched, or is no experiment."""
    query = _STANDINGS.where(experiments.c.campaign_id == campaign_id)
    row = (await tx.execute(query.with_for_update() if lock else query)).mappings().one_or_none()
    return Standing(**row) if row else None


async def several(tx: Connection, campaign_ids: Sequence[UUID]) -> dict[UUID, Standing]:
    """Of those that were launched."""
    rows = (await tx.execute(_STANDINGS.where(experiments.c.campaign_id.in_(campaign_ids)))).mappings()
    return {row["campaign_id"]: Standing(**row) for row in rows}


_STANDINGS = select(*(experiments.c[name] for name in Standing.__annotations__))


async def may_send(tx: Connection, campaign_id: UUID, shard: int, *, is_bandit: bool) -> tuple[bool, str]:
    """Whether anything of a shard may leave, by the record, and the winner if there is one.

    Nothing of the rest before the decision, nothing of a bandit's test before that or before it was shared out, and
    nothing at all of one that was stopped.
    """
    row = (await tx.execute(_GATE, {"campaign_id": campaign_id, "shard": shard})).one()
    if row.is_rest:
        return row.state == "decided", row.winner or ""
    may = row.state != "stopped" and (row.is_shared_out or row.state == "decided" or not is_bandit)
    return may, row.winner or ""


_GATE = text("""
    SELECT state, winner, :shard >= rest_shard AS is_rest,
        EXISTS (SELECT FROM allocations WHERE campaign_id = :campaign_id AND shard = :shard) AS is_shared_out
    FROM experiments WHERE campaign_id = :campaign_id
""")


# -- what its workflow goes through ----------------------------------------------------------------------------------


async def is_out(tx: Connection, campaign_id: UUID) -> bool:
    """Was every message of the test tried? Those that a provider has put off are not waited for."""
    query = text("""
        SELECT NOT EXISTS (
            SELECT FROM deliveries WHERE campaign_id = :campaign_id AND shard < rest_shard
            AND state = 'planned' AND attempts = 0
        ) AND NOT EXISTS (
            SELECT FROM deliveries WHERE campaign_id = :campaign_id AND shard < rest_shard AND state = 'sending'
        ) FROM experiments WHERE campaign_id = :campaign_id
    """)
    return bool((await tx.execute(query, {"campaign_id": campaign_id})).scalar_one())


async def mark_sent(tx: Connection, account_id: UUID, campaign_id: UUID, now: datetime) -> None:
    """The test is out; from now on its results are waited for."""
    statement = update(experiments).where(
        experiments.c.campaign_id == campaign_id, experiments.c.test_sent_at.is_(None)
    )
    if (await tx.execute(statement.values(test_sent_at=now))).rowcount:
        await campaigns.log(tx, account_id, campaign_id, "campaign.test_sent")


async def keep_look(tx: Connection, campaign_id: UUID, decision: Mapping[str, Any]) -> None:
    """For the next one: numbers that are always valid never get weaker again."""
    await tx.execute(update(experiments).where(experiments.c.campaign_id == campaign_id).values(decision=decision))


async def decide(
    tx: Connection, account_id: UUID, campaign_id: UUID, said: Verdict, decision: Mapping[str, Any], now: datetime
) -> bool:
    """From now on the rest gets the winner; without one, a person is asked. False: it was decided or stopped before.

    Args:
        decision: the whole analysis.
    """
    if said.winner is None:
        asked = await _move(tx, campaign_id, ("testing",), state="asking", reason=said.reason, decision=decision)
        if asked:
            await campaigns.log(tx, account_id, campaign_id, "campaign.winner_asked", reason=said.reason)
        return asked
    values = {"winner": said.winner, "decided_by": said.by, "reason": said.reason, "decided_at": now}
    decided = await _move(tx, campaign_id, ("testing", "asking"), state="decided", **values, decision=decision)
    if decided:
        told = {"winner": said.winner, "by": said.by, "reason": said.reason}
        await campaigns.log(tx, account_id, campaign_id, "campaign.winner_decided", **told)
    return decided


async def waits(tx: Connection, campaign_id: UUID) -> bool:
    """Is there anybody who gets what is decided?"""
    query = text("""
        SELECT EXISTS (
            SELECT FROM deliveries WHERE campaign_id = :campaign_id AND shard >= rest_shard AND state = 'planned'
        ) FROM experiments WHERE campaign_id = :campaign_id
    """)
    return bool((await tx.execute(query, {"campaign_id": campaign_id})).scalar_one())


async def conclude(
    tx: Connection,
    account_id: UUID,
    campaign_id: UUID,
    reason: str,
    now: datetime,
    *,
    decision: Mapping[str, Any] | None = None,
) -> bool:
    """Nobody waits for a winner, so there is nothing to ask: it is decided without one. What is left of the test still
    leaves. False: it was decided or stopped before."""
    found = {} if decision is None else {"decision": decision}
    values = {"reason": reason, "decided_at": now, **found}
    concluded = await _move(tx, campaign_id, ("testing", "asking"), state="decided", **values)
    if concluded:
        await campaigns.log(tx, account_id, campaign_id, "campaign.experiment_concluded", reason=reason)
    return concluded


async def stop(tx: Connection, account_id: UUID, campaign_id: UUID, *, reason: str) -> bool:
    """Nothing of it is sent any more; what was found out stays."""
    changed = await _move(tx, campaign_id, ("testing", "asking", "decided"), state="stopped", reason=reason)
    if changed:
        await campaigns.log(tx, account_id, campaign_id, "campaign.experiment_stopped", reason=reason)
    return changed


async def _move(tx: Connection, campaign_id: UUID, before: Sequence[str], **values: Any) -> bool:
    statement = update(experiments).where(experiments.c.campaign_id == campaign_id, experiments.c.state.in_(before))
    return (await tx.execute(statement.values(**values))).rowcount == 1


# -- what was counted ------------------------------------------------------------------------------------------------

# `failed:hard_bounce` and its like are one figure, as is what was skipped by a reason of the contact's own.
_FIGURES = text(f"""
    SELECT variant, CASE
        WHEN name IN ('skipped:{SkipReason.HOLDOUT}', 'skipped:{SkipReason.CANCELLED}', 'skipped:{SkipReason.STOPPED}')
        THEN name ELSE split_part(name, ':', 1) END AS name, sum(n)::bigint AS n
    FROM counters WHERE campaign_id = :campaign_id GROUP BY 1, 2
""")
_TRIED = ("sent", "failed", "uncertain")

_SINCE = text("""
    SELECT greatest(now() - coalesce(test_sent_at, finished_at), '0')
    FROM experiments JOIN campaigns ON campaigns.id = campaign_id WHERE campaign_id = :campaign_id
""")

_SOON = """
    SELECT variant, count(*) FROM deliveries
    WHERE campaign_id = :campaign_id AND {did} - coalesce(leased_at, finished_at) <= CAST(:reach AS interval)
    GROUP BY variant
"""
_HELD_OF_SHARED_OUT = text(f"""
    SELECT count(*) FROM deliveries JOIN allocations USING (campaign_id, shard)
    WHERE campaign_id = :campaign_id AND variant = '{HOLDOUT}' AND state = 'skipped' AND reason = '{SkipReason.HOLDOUT}'
""")
_ENGAGED = {
    Metric.OPEN_RATE: ("opened_unique", text(_SOON.format(did="opened_at"))),
    Metric.CLICK_RATE: ("clicked_unique", text(_SOON.format(did="clicked_at"))),
}


async def time_for_all(tx: Connection, campaign_id: UUID) -> timedelta:
    """How long each message of the test has been out at least; none while some may still leave."""
    since: timedelta | None = (await tx.execute(_SINCE, {"campaign_id": campaign_id})).scalar_one()
    return since or timedelta(0)


async def counted(
    tx: Connection,
    campaign_id: UUID,
    names: Sequence[str],
    metric: Metric,
    converted: Mapping[str, Sums] | None = None,
    reach: timedelta | None = None,
) -> list[VariantCounts]:
    """Of these variants. From counters and, of conversions, as they were folded: a few milliseconds, however many.

    Of whom nobody knows whether the message arrived, they take part: some react.

    Args:
        converted: what the conversions add up to, if it is known: 0.2 s for 300,000 of them.
        reach: count only who opened or clicked so soon after the message; None: whenever. From the ledger, which takes
            as long as `converted`.
    """
    figures = await _figures(tx, campaign_id)
    converted = await conversions.sums(tx, campaign_id) if converted is None else converted
    engaged, soon = _ENGAGED.get(metric, (None, None))
    if engaged and soon is not None and reach is not None:
        rows = await tx.execute(soon, {"campaign_id": campaign_id, "reach": reach})
        figures |= {(name, engaged): 0 for name in names} | {(variant, engaged): n for variant, n in rows}
    return [
        counts(
            name,
            figures.get((name, "sent"), 0) + figures.get((name, "uncertain"), 0),
            metric,
            figures.get((name, engaged), 0) if engaged else None,
            converted.get(name, Sums()),
            waiting=figures.get((name, "planned"), 0)
            - sum(figures.get((name, how), 0) for how in (*_TRIED, "skipped")),
        )
        for name in names
    ]


async def treated_and_held(
    tx: Connection,
    campaign_id: UUID,
    names: Sequence[str],
    metric: Metric,
    converted: Mapping[str, Sums] | None = None,
    *,
    is_bandit: bool = False,
) -> tuple[VariantCounts, VariantCounts]:
    """All to whom the test went, whichever variant, and those who got nothing on purpose: what did sending bring?

    Both had the same time. Of a bandit only those count as held out whose batch was shared out: who else is in one that
    was not, as it was decided before, is part of the rest. Whoever could not be reached counts among those whom it went
    to: among those who were kept back nobody knows who could have been.

    `metric` is one of conversions, which were folded; `converted` as of `counted`.
    """
    figures = await _figures(tx, campaign_id)
    converted = await conversions.sums(tx, campaign_id) if converted is None else converted
    tried = {name: sum(figures.get((name, how), 0) for how in _TRIED) for name in names}
    sent = [counts(name, tried[name], metric, None, converted.get(name, Sums())) for name in names]
    if is_bandit:
        held = (await tx.execute(_HELD_OF_SHARED_OUT, {"campaign_id": campaign_id})).scalar_one()
    else:
        held = figures.get((HOLDOUT, "skipped:holdout"), 0)
    return together("treated", sent), counts(HOLDOUT, held, metric, None, converted.get(HOLDOUT, Sums()))


async def _figures(tx: Connection, campaign_id: UUID) -> dict[tuple[str, str], int]:
    return {(row.variant, row.name): row.n for row in await tx.execute(_FIGURES, {"campaign_id": campaign_id})}


def counts(
    variant: str, recipients: int, metric: Metric, engaged: int | None, converted: Sums, *, waiting: int = 0
) -> VariantCounts:
    """
    Args:
        engaged: how many opened or clicked; None where the metric is about conversions.
        waiting: how many have not been tried yet, or never will, as it was cancelled or stopped.
    """
    if engaged is not None:
        did = engaged
    else:
        did = converted.paid if metric is Metric.REVENUE_PER_RECIPIENT else converted.converted
    return VariantCounts(
        name=variant,
        recipients=recipients,
        waiting=max(waiting, 0),
        successes=min(max(did, 0), recipients),  # also whom somebody has taken off the record since
        revenue=min(converted.revenue, _MOST_MONEY),
        revenue_squares=min(converted.squares, _MOST_SQUARES),
        log_revenue=converted.logs,
        log_revenue_squares=converted.log_squares,
    )


def together(name: str, parts: Sequence[VariantCounts]) -> VariantCounts:
    """All of them as one."""
    amounts = [field for field in VariantCounts.model_fields if field != "name"]
    sums = {field: sum(getattr(each, field) for each in parts) for field in amounts}
    most = {"revenue": _MOST_MONEY, "revenue_squares": _MOST_SQUARES}
    return VariantCounts(name=name, **sums | {field: min(sums[field], limit) for field, limit in most.items()})


# -- bandits ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Allocation:
    """How a shard was shared out, and what was known then."""

    shard: int
    weights: dict[str, float]
    seen: dict[str, dict[str, float]]
    seed: int
    allocated_at: datetime


# Who is held out stays so. `state` and `shard` have an index.
_SHARE_OUT = text(f"""
    WITH changed AS (
        UPDATE deliveries SET variant = {cell(bucket("contact_id"))}
        WHERE campaign_id = :campaign_id AND shard = :shard AND state = 'planned' AND variant = '{REST}'
        RETURNING variant
    )
    SELECT variant, count(*) AS n FROM changed GROUP BY variant ORDER BY variant
""")


async def is_allocated(tx: Connection, campaign_id: UUID, shard: int) -> bool:
    query = select(allocations.c.shard).where(allocations.c.campaign_id == campaign_id, allocations.c.shard == shard)
    return (await tx.execute(query)).one_or_none() is not None


async def allocate(tx: Connection, account_id: UUID, campaign_id: UUID, wanted: Allocation, *, key: str) -> bool:
    """Give each contact of a shard its variant, by its place for `key`. False: that was done before, and stays."""
    row = {"account_id": account_id, "campaign_id": campaign_id, **vars(wanted)}
    kept = insert(allocations).values(row).on_conflict_do_nothing().returning(allocations.c.shard)
    if (await tx.execute(kept)).one_or_none() is None:
        return False
    shared = cells(shared_out(wanted.weights))
    given = await tx.execute(
        _SHARE_OUT, {"campaign_id": campaign_id, "shard": wanted.shard, "key": f"{key}:{wanted.shard}", **shared}
    )
    moved = Counter[tuple[str, str]]()
    for row_of in given:
        moved[row_of.variant, "planned"] += row_of.n
        moved[REST, "planned"] -= row_of.n
    now = wanted.allocated_at
    await counters.add_to_variants(tx, account_id, campaign_id, moved, now=now, channel="email", told=False)
    return True


async def all_allocations(tx: Connection, campaign_id: UUID) -> list[Allocation]:
    """In the order of shards."""
    columns = [allocations.c[name] for name in Allocation.__annotations__]
    query = select(*columns).where(allocations.c.campaign_id == campaign_id).order_by(allocations.c.shard)
    return [Allocation(**row) for row in (await tx.execute(query)).mappings()]
