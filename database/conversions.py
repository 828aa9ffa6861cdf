"""Who did what an experiment is about, how often and for how much?

There is a row for each of them, computed anew from all of that contact's events whenever there is a new one: done
twice, by whomever, it comes to the same. Once the events that made it are kept no longer, it stays as it is.
"""

from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import select, text

from database.engine import Connection
from database.schema_experiments import conversions
from marketing.assignment import HOLDOUT, REST
from marketing.experiment_revenue import MOST_VALUES
from marketing.experiments import Conversion

# Transactions that began before the last look may have been committed after it.
_OVERLAP = timedelta(minutes=10)


@dataclass(frozen=True)
class Sums:
    """Of one variant: how many have converted and paid, and sums over what each of them paid, 0 at least."""

    converted: int = 0
    conversions: int = 0
    paid: int = 0
    revenue: float = 0.0
    squares: float = 0.0
    logs: float = 0.0
    log_squares: float = 0.0


# The moment at which it was taken to be sent: nobody can have reacted before that. Of the uncertain
# some got it, and react.
_EXPOSED = f"""
    SELECT contact_id, variant, coalesce(leased_at, finished_at) AS at
    FROM told JOIN deliveries USING (contact_id)
    WHERE campaign_id = :source_id AND step = ''
    AND (state IN ('sent', 'delivered', 'bounced', 'complained', 'uncertain')
        OR state = 'skipped' AND reason = '{HOLDOUT}')
"""

# What occurred since `at` was received after it, but for clocks that are apart: so few months are looked into.
_DID = """
    SELECT count(*) FILTER (WHERE converts) AS n, coalesce(sum(value) FILTER (WHERE counts), 0) AS revenue,
           min(occurred_at) FILTER (WHERE converts) AS first_at, min(occurred_at) AS kept_from,
           coalesce(array_agg(DISTINCT currency) FILTER (WHERE counts AND value IS NOT NULL AND currency IS NOT NULL),
                    '{}') AS currencies
    FROM (
        SELECT *, NOT machine AND (currency = :currency OR CAST(:currency AS text) IS NULL) AS counts,
            NOT machine AND coalesce(value >= 0, true) AS converts  -- a refund is no conversion
        FROM events
        WHERE contact_id = exposed.contact_id AND name = :event
        AND occurred_at >= at AND occurred_at < at + least(CAST(:within AS interval), CAST(:reach AS interval))
        AND id >= uuidv7_floor(at - interval '1 hour')
    ) AS theirs
"""

_FOLD = text(f"""
    WITH experiment AS MATERIALIZED (
        SELECT test_began_at AS began, coalesce(folded_until - CAST(:overlap AS interval), test_began_at) AS since
        FROM experiments WHERE campaign_id = :source_id FOR UPDATE  -- two at once would wait for each other's rows
    ), told AS MATERIALIZED (  -- also by machines: one that was taken for a person a moment ago is counted no longer
        SELECT DISTINCT contact_id FROM events
        WHERE account_id = :account_id AND name = :event AND contact_id IS NOT NULL
        AND occurred_at >= (SELECT began FROM experiment)
        AND id >= uuidv7_floor((SELECT since FROM experiment))
    ), exposed AS MATERIALIZED ({_EXPOSED}),
    found AS MATERIALIZED (
        SELECT contact_id, variant, did.* FROM exposed CROSS JOIN LATERAL ({_DID}) AS did
        WHERE coalesce(kept_from, 'infinity') <= coalesce((
            -- else what was counted first is pruned, and what is left would say too little
            SELECT first_at FROM conversions
            WHERE source_id = :source_id AND step = '' AND conversions.contact_id = exposed.contact_id
        ), 'infinity')
    ), gone AS (
        DELETE FROM conversions
        WHERE source_id = :source_id AND step = ''
        AND contact_id = ANY (ARRAY(SELECT contact_id FROM found WHERE n = 0))
    )
    INSERT INTO conversions (account_id, source_id, contact_id, variant, n, revenue, first_at, currencies)
    SELECT :account_id, :source_id, contact_id, variant, n, revenue, first_at, currencies FROM found WHERE n > 0
    ON CONFLICT (source_id, step, contact_id) DO UPDATE
    SET n = EXCLUDED.n, revenue = EXCLUDED.revenue, first_at = EXCLUDED.first_at, currencies = EXCLUDED.currencies
    WHERE (conversions.n, conversions.revenue) <> (EXCLUDED.n, EXCLUDED.revenue)
""")

_FOLDED = text("UPDATE experiments SET folded_until = now() WHERE campaign_id = :campaign_id")

_SUMS = """
    SELECT variant, count(*) AS converted, sum(n) AS conversions, count(*) FILTER (WHERE amount > 0) AS paid,
           sum(amount) AS revenue, sum(amount ^ 2) AS squares, sum(ln(1 + amount)) AS logs,
           sum(ln(1 + amount) ^ 2) AS log_squares
    FROM (
        SELECT variant, n, CAST(greatest(revenue, 0) AS float8) AS amount FROM {found}
    ) AS amounts GROUP BY variant
"""
_KEPT = "conversions WHERE source_id = :source_id AND step = ''"
_SUMS_OF_ALL = text(_SUMS.format(found=_KEPT))
# Who is held out of a bandit's batches that were never shared out has nobody to be compared with.
_SUMS_OF_SHARED_OUT = text(
    _SUMS.format(
        found=f"""{_KEPT} AND (variant <> '{HOLDOUT}' OR EXISTS (
            SELECT FROM deliveries JOIN allocations USING (campaign_id, shard)
            WHERE campaign_id = :source_id AND deliveries.contact_id = conversions.contact_id
        ))"""
    )
)
_SUMS_WITHIN = text(f"""
    WITH told AS MATERIALIZED (SELECT contact_id FROM {_KEPT}), exposed AS MATERIALIZED ({_EXPOSED})
    {_SUMS.format(found=f"exposed CROSS JOIN LATERAL ({_DID}) AS did WHERE did.n > 0")}
""")

_CURRENCIES = text("SELECT DISTINCT unnest(currencies) FROM conversions WHERE source_id = :source_id AND step = ''")


async def fold(tx: Connection, account_id: UUID, campaign_id: UUID, of: Conversion) -> None:
    """Have the rows say what has happened up to now."""
    told = {"account_id": account_id, "source_id": campaign_id, "overlap": _OVERLAP, "reach": None}
    await tx.execute(_FOLD, told | of.model_dump())
    await tx.execute(_FOLDED, {"campaign_id": campaign_id})


async def sums(tx: Connection, campaign_id: UUID, *, shared_out: bool = False) -> dict[str, Sums]:
    """By variant, as it was folded; also of `holdout` and, as '', of those who got the winner.

    Args:
        shared_out: of the holdout of a bandit only those whose batch was shared out.
    """
    query = _SUMS_OF_SHARED_OUT if shared_out else _SUMS_OF_ALL
    return {row.variant: Sums(*row[1:]) for row in await tx.execute(query, {"source_id": campaign_id})}


async def sums_within(tx: Connection, campaign_id: UUID, of: Conversion, reach: timedelta) -> dict[str, Sums]:
    """The same of what came so soon after each message, and by those who were folded."""
    told = {"source_id": campaign_id, "reach": reach, **of.model_dump()}
    return {row.variant: Sums(*row[1:]) for row in await tx.execute(_SUMS_WITHIN, told)}


async def currencies(tx: Connection, campaign_id: UUID) -> list[str]:
    """In which the revenue of a campaign was counted; with more than one its sums mean little."""
    return sorted((await tx.execute(_CURRENCIES, {"source_id": campaign_id})).scalars())


async def payments(tx: Connection, campaign_id: UUID) -> dict[str, list[float]] | None:
    """What each recipient who paid has paid, by variant; None if they are too many to be resampled."""
    query = (
        select(conversions.c.variant, conversions.c.revenue)
        .where(conversions.c.source_id == campaign_id, conversions.c.step == "", conversions.c.revenue > 0)
        .where(conversions.c.variant.not_in([REST, HOLDOUT]))
        .order_by(conversions.c.contact_id)  # so that a seed means something
        .limit(MOST_VALUES + 1)
    )
    rows = (await tx.execute(query)).all()
    if len(rows) > MOST_VALUES:
        return None
    paid: defaultdict[str, list[float]] = defaultdict(list)
    for row in rows:
        paid[row.variant].append(float(row.revenue))
    return paid
