"""Live figures of automations and drips: one row per source, version, day, step and name."""

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import text

from database.engine import Connection, after_commit
from telemetry import metrics

PASS = ""  # no step: what is counted is of the pass as a whole


class Amount(NamedTuple):
    """How many there were, and how long they took together."""

    n: int
    seconds: float = 0.0


_ADD = text("""
    INSERT INTO step_counters (account_id, source_id, version, day, step, name, n, seconds)
    SELECT :account_id, :source_id, :version, (CAST(:now AS timestamptz) AT TIME ZONE 'UTC')::date, added.*
    FROM unnest(CAST(:steps AS text[]), CAST(:names AS text[]), CAST(:amounts AS bigint[]), CAST(:seconds AS float8[]))
        AS added (step, name, n, seconds)
    ORDER BY added.step, added.name  -- always in the same order, so that two sets never wait for each other
    ON CONFLICT (source_id, version, day, step, name)
        DO UPDATE SET n = step_counters.n + EXCLUDED.n, seconds = step_counters.seconds + EXCLUDED.seconds
""")


async def add(
    tx: Connection,
    account_id: UUID,
    source_id: UUID,
    version: int,
    amounts: Mapping[tuple[str, str], Amount],
    *,
    now: datetime,
) -> None:
    """Add to figures, each by its step and name, in the day of `now`."""
    if not amounts:
        return
    given = {
        "account_id": account_id,
        "source_id": source_id,
        "version": version,
        "now": now,
        "steps": [step for step, _ in amounts],
        "names": [name for _, name in amounts],
        "amounts": [each.n for each in amounts.values()],
        "seconds": [each.seconds for each in amounts.values()],
    }
    after_commit(tx, partial(_tell, amounts))
    await tx.execute(_ADD, given)


_WALKED = text("""
    SELECT DISTINCT version FROM step_counters
    WHERE source_id = :source_id AND (step <> '' OR name NOT LIKE 'refused:%')
""")


async def walked(tx: Connection, source_id: UUID) -> list[int]:
    """The versions in which anybody has been."""
    return list((await tx.execute(_WALKED, {"source_id": source_id})).scalars())


def _tell(amounts: Mapping[tuple[str, str], Amount]) -> None:
    """Of passes alone, and without reasons, which are the authors' own words."""
    for (step, name), amount in amounts.items():
        if step == PASS:
            metrics.enrollments.labels(name.partition(":")[0]).inc(amount.n)
