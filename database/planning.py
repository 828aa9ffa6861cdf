"""An audience is frozen: one delivery is planned for each contact, in shards in the order in which they fall due."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text

from database import assignment, audiences
from database.engine import Connection
from marketing.campaigns import CampaignPlan
from marketing.experiments import REST_SHARD, Experiment, experiment_key
from marketing.schedules import Schedule
from marketing.spans import ahead


@dataclass(frozen=True)
class Wave:
    """Shards `first` to `last` are due from `due` on."""

    due: datetime
    first: int
    last: int


async def freeze_audience(
    tx: Connection, campaign_id: UUID, plan: CampaignPlan, *, now: datetime, default_timezone: str, shard_size: int
) -> Counter[str]:
    """Plan one delivery for each contact of the audience as it stands now.

    Returns:
        how many were planned by this call, per variant; a second call plans nobody again.
    """
    condition, asked = await audiences.condition(tx, plan.audience, now)
    if plan.experiment is None:
        shares, schedules = _BROADCAST, {1: plan.schedule}
    else:
        shares, schedules = _experiment(plan.experiment), _schedules(plan.experiment, plan.schedule)
        asked |= _of_experiment(plan.experiment, campaign_id, now)
    moments = await _local_moments(tx, schedules, default_timezone)
    planned = await tx.execute(
        text(f"""
            WITH first AS MATERIALIZED (
                SELECT left(CAST(uuidv7() AS text), 24) AS front, random(0x100000000000, 0xEFFFFFFFFFFF) AS back
            )
            INSERT INTO deliveries (id, account_id, campaign_id, contact_id, channel, variant, shard, not_before)
            -- One UUIDv7 for all, its last 48 bits counted on from a random number (RFC 9562, section 6.2): calling
            -- uuidv7() for each took a quarter of the time.
            SELECT CAST(front || to_hex(back + place) AS uuid), account_id, :campaign_id, contact_id, 'email',
                   {shares.variant}, {shares.shard}, due
            FROM first, (
                SELECT *, row_number() OVER in_order AS place {shares.counted} FROM (
                    SELECT contacts.account_id, contacts.id AS contact_id, {shares.due} AS due {shares.columns}
                    FROM contacts {shares.joins}
                    LEFT JOIN unnest(CAST(:zones AS text[]), CAST(:cells AS int[]), CAST(:moments AS timestamptz[]))
                        AS local (zone, of_cell, due)
                        ON local.zone = coalesce(contacts.timezone, :default_timezone) AND {shares.scheduled}
                    WHERE {condition}
                ) AS audience
                WINDOW in_order AS (ORDER BY due, contact_id ROWS UNBOUNDED PRECEDING)
            ) AS ordered
            -- One look for all: ON CONFLICT would look once per contact, which takes a third longer.
            WHERE NOT EXISTS (SELECT FROM deliveries WHERE campaign_id = :campaign_id)
        """),
        {
            "campaign_id": campaign_id,
            "shard_size": shard_size,
            "now": now,
            "default_timezone": default_timezone,
            **moments,
            **asked,
        },
    )
    if plan.experiment is None:
        return Counter({"": planned.rowcount})
    await tx.execute(_BEGUN, {"campaign_id": campaign_id, "now": now, "rest_shard": REST_SHARD})
    found = await tx.execute(_PER_VARIANT, {"campaign_id": campaign_id})
    return Counter({row.variant: row.n for row in found})


async def mend_estimates(tx: Connection) -> bool:
    """Count the ledger anew if it was counted while an audience was being frozen, whose rows nobody saw; True if so.

    PostgreSQL then takes a full table for an empty one: leasing 50 messages of 100,000 took 6 s, until it counted again
    by itself a minute later.
    """
    if too_few := (await tx.execute(_TOO_FEW)).scalar_one():
        await tx.execute(text("ANALYZE deliveries"))
    return bool(too_few)


# A page holds about 45 rows. Never counted, which is -1, is no trouble: then it goes by the pages alone.
_TOO_FEW = text("""
    SELECT reltuples >= 0 AND reltuples < 5.0 * relpages FROM pg_class WHERE oid = CAST('deliveries' AS regclass)
""")


_BEGUN = text("""
    UPDATE experiments SET test_began_at = :now, rest_shard = :rest_shard WHERE campaign_id = :campaign_id
""")
_PER_VARIANT = text("""
    SELECT variant, count(*) AS n FROM deliveries WHERE campaign_id = :campaign_id AND state = 'planned'
    GROUP BY variant
""")


# -- who gets what, and when -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Shares:
    """The SQL by which an audience is shared out. A contact's `place` is that in the whole audience, from 1 on."""

    variant: str = "''"
    shard: str = "(place - 1) / :shard_size"
    counted: str = ""
    due: str = "coalesce(local.due, :now)"
    columns: str = ""
    joins: str = ""
    scheduled: str = "true"


_BROADCAST = _Shares()
_REST = "(cell = cardinality(CAST(:cell_names AS text[])))"


def _experiment(experiment: Experiment) -> _Shares:
    """The rest waits in shards of its own; a bandit's test leaves in batches, by chance, each a shard of its own."""
    # OFFSET 0, for otherwise each mention of `cell` hashes the contact once more.
    joins = f"CROSS JOIN LATERAL (SELECT {assignment.number(assignment.bucket('contacts.id'))} AS cell OFFSET 0) AS cut"
    columns, shard, due = ", cut.cell", "(place - waiting - 1) / :shard_size", _BROADCAST.due
    if experiment.is_bandit:
        batch = f"CAST(floor({assignment.bucket('contacts.id', ':batch_key')} * :batches) AS int)"
        joins += f" CROSS JOIN LATERAL (SELECT {batch} AS batch OFFSET 0) AS turn"
        columns, shard = f"{columns}, turn.batch", "batch"
        due += f" + CASE WHEN {_REST} THEN interval '0' ELSE turn.batch * CAST(:apart AS interval) END"
    return _Shares(
        variant="(CAST(:cell_names AS text[]))[cell]",
        shard=f"CASE WHEN {_REST} THEN {REST_SHARD} + (waiting - 1) / :shard_size ELSE {shard} END",
        # In the order of contacts all the same: sorted test first, each index entry of the rest would come between two
        # of the test's.
        counted=f", count(*) FILTER (WHERE {_REST}) OVER in_order AS waiting",
        due=due,
        columns=columns,
        joins=joins,
        scheduled="local.of_cell = cut.cell",
    )


def _of_experiment(experiment: Experiment, campaign_id: UUID, now: datetime) -> dict[str, Any]:
    key = experiment_key(campaign_id)
    asked = {"key": key, **assignment.cells(experiment.cells)}
    if experiment.is_bandit and experiment.window:
        apart = (ahead(now, experiment.window) - now) / experiment.batches
        asked |= {"batch_key": f"{key}:batch", "batches": experiment.batches, "apart": apart}
    return asked


def _schedules(experiment: Experiment, campaign: Schedule | None) -> dict[int, Schedule | None]:
    """Of each cell."""
    own = {each.name: each.schedule for each in experiment.variants}
    return {number: own.get(name) or campaign for number, name in enumerate(experiment.cells.names, 1)}


async def _local_moments(
    tx: Connection, schedules: Mapping[int, Schedule | None], default_timezone: str
) -> dict[str, Any]:
    """When each zone that contacts live in reaches the local time of a cell; nothing if all are due together."""
    found: list[tuple[str, int, datetime]] = []
    if len(set(schedules.values())) > 1 or any(each and each.per_recipient for each in schedules.values()):
        zones = await _zones(tx, default_timezone)
        found = [
            (zone, cell, schedule.moment_in(schedule.zone_of(zone)))
            for cell, schedule in schedules.items()
            if schedule
            for zone in zones
        ]
    return {
        "zones": [zone for zone, _, _ in found],
        "cells": [cell for _, cell, _ in found],
        "moments": [moment for _, _, moment in found],
    }


async def _zones(tx: Connection, default_timezone: str) -> list[str]:
    """Those in which contacts live."""
    rows = await tx.execute(text("SELECT DISTINCT timezone FROM contacts WHERE timezone IS NOT NULL"))
    return sorted({default_timezone, *(row.timezone for row in rows)})


async def put_off_rest(
    tx: Connection, campaign_id: UUID, schedule: Schedule, *, now: datetime, default_timezone: str
) -> None:
    """Have the rest of an experiment leave when the clock shows next what it showed those who got the winner."""
    zones = await _zones(tx, default_timezone)
    await tx.execute(
        text("""
            UPDATE deliveries SET not_before = local.due
            FROM contacts, unnest(CAST(:zones AS text[]), CAST(:moments AS timestamptz[])) AS local (zone, due)
            WHERE deliveries.campaign_id = :campaign_id AND shard >= :rest_shard AND state = 'planned'
            AND contacts.id = deliveries.contact_id AND local.zone = coalesce(contacts.timezone, :default_timezone)
        """),
        {
            "campaign_id": campaign_id,
            "rest_shard": REST_SHARD,
            "zones": zones,
            "moments": [schedule.next_in(schedule.zone_of(zone), now) for zone in zones],
            "default_timezone": default_timezone,
        },
    )


async def join_rest(tx: Connection, campaign_id: UUID, *, now: datetime) -> None:
    """Have those of a bandit's batches that were not shared out leave at once, as the rest does."""
    await tx.execute(
        text("""
            UPDATE deliveries SET not_before = :now
            WHERE campaign_id = :campaign_id AND shard < :rest_shard AND state = 'planned'
            AND NOT EXISTS (
                SELECT FROM allocations
                WHERE allocations.campaign_id = :campaign_id AND allocations.shard = deliveries.shard
            )
        """),
        {"campaign_id": campaign_id, "rest_shard": REST_SHARD, "now": now},
    )


# -- what is due -----------------------------------------------------------------------------------------------------


async def waves(tx: Connection, campaign_id: UUID) -> list[Wave]:
    """Which shards were just planned, and when each falls due; shards of the same moment are told together, but not
    those of an experiment's test with those of its rest."""
    rows = await tx.execute(
        text("""
            SELECT min(shard) AS first, max(shard) AS last, due FROM (
                SELECT shard, min(not_before) AS due FROM deliveries
                -- All are planned. Told so, the planner takes the index that has them in order: a million in 0.16 s.
                WHERE campaign_id = :campaign_id AND state = 'planned' GROUP BY shard
            ) AS shards GROUP BY due, shard >= :rest_shard ORDER BY first
        """),
        {"campaign_id": campaign_id, "rest_shard": REST_SHARD},
    )
    return [Wave(row.due, row.first, row.last) for row in rows]
