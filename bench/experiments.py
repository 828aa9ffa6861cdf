"""What an experiment shows: ten variants with a million recipients each, from a question over the API to the answer."""

import asyncio
from collections.abc import AsyncIterator
from statistics import median
from time import monotonic
from typing import Any

import psycopg

from bench.bench import Bench
from bench.letter import CONTENT
from bench.stack import Running
from bench.table import Aim, Row

VARIANTS = 10
TAKING_PART = 20  # who are really sent something; the others are in the figures alone
HOURS = 48  # over which the figures are spread
CONVERTING = 0.03
LOOKS = 10


async def measure(bench: Bench) -> AsyncIterator[Row]:
    each = bench.sizes.million
    group = await bench.people(TAKING_PART)
    paid = int(CONVERTING * VARIANTS * each)
    conversion = {"conversion": {"event": "purchase"}}
    for metric, what, more in (
        ("click_rate", "clicks", {}),
        ("revenue_per_recipient", f"revenue, {paid:,} who paid", conversion),
    ):
        with bench.bar(f"an experiment of {VARIANTS} × {each:,}, {what}", LOOKS) as show:
            experiment = await started(bench.stack, group, {"metric": metric, **more})
            await filled(bench.stack, experiment, each, paid if more else 0)
            looks, bare = [], []
            for number in range(LOOKS):
                began = monotonic()
                told = (await bench.stack.api.get(f"/api/campaigns/ab-tests/{experiment}/results")).raise_for_status()
                looks.append(monotonic() - began)
                bare.append(await counted_in_seconds(bench.stack, experiment))
                show(number + 1)
            shown = told.json()["analysis"]["variants"]
            assert all(variant["recipients"] >= each for variant in shown), "all are to be in the analysis"
        yield Row(
            f"results of an experiment, {VARIANTS} × {each:,} recipients, {what}: the slowest of {LOOKS}",
            1000 * max(looks),
            "adding up its counters",
            1000 * median(bare),
            "ms",
            bench.aims(Aim("at most", 1000)),
        )


async def started(stack: Running, group: str, compared: dict[str, Any]) -> str:
    """The id of an experiment whose test is out."""
    variants = [{"name": f"variant {n}", "content": {"email": {"subject": f"Subject {n}"}}} for n in range(VARIANTS)]
    body = {
        "name": "Which?",
        "kind": "experiment",
        "content": {"email": CONTENT},
        "audience": {"tags": {"any": [group]}},
        "experiment": {"variants": variants, "test_fraction": 1, "decide": "manual", **compared},
    }
    made = (await stack.api.post("/api/campaigns", json=body)).raise_for_status().json()
    path = f"/api/campaigns/ab-tests/{made['id']}"
    (await stack.api.post(f"{path}/start")).raise_for_status()
    async with asyncio.timeout(60):
        while not (await stack.api.get(path)).raise_for_status().json()["test_sent_at"]:  # noqa: ASYNC110  # it calls nobody
            await asyncio.sleep(0.1)
    return str(made["id"])


async def filled(stack: Running, experiment: str, each: int, paid: int) -> None:
    """Its counters say that each variant went to so many; of all of them so many have paid."""
    of = {"account": stack.account_id, "experiment": experiment, "variants": VARIANTS, "hours": HOURS, "paid": paid}
    async with await psycopg.AsyncConnection.connect(stack.database_url, autocommit=True) as owner:
        await owner.execute(
            """
            INSERT INTO counters (account_id, campaign_id, hour, channel, step, variant, name, n)
            SELECT %(account)s, %(experiment)s, date_trunc('hour', now(), 'UTC') - n * interval '1 hour', 'email', '',
                   'variant ' || variant, name, greatest(1, %(each)s * share / %(hours)s + 1)
            FROM generate_series(1, %(hours)s) AS n, generate_series(0, %(variants)s - 1) AS variant,
                 (VALUES ('planned', 1.0), ('sent', 1.0), ('opened', 0.5), ('opened_unique', 0.3), ('clicked', 0.08),
                         ('clicked_unique', 0.05), ('opened_machine', 0.2)) AS names (name, share)
            """,
            {**of, "each": each},
        )
        await owner.execute(
            """
            INSERT INTO conversions (account_id, source_id, contact_id, variant, n, revenue, first_at, currencies)
            SELECT %(account)s, %(experiment)s, uuidv7(), 'variant ' || n %% %(variants)s, 1, 20 + n %% 97, now(),
                   '{EUR}'
            FROM generate_series(1, %(paid)s) AS n
            """,
            of,
        )
        await owner.execute("ANALYZE counters, conversions")


async def counted_in_seconds(stack: Running, experiment: str) -> float:
    """By the bare statement."""
    async with await psycopg.AsyncConnection.connect(stack.database_url) as owner:
        began = monotonic()
        await owner.execute(
            "SELECT variant, name, sum(n) FROM counters WHERE campaign_id = %s GROUP BY variant, name", [experiment]
        )
        return monotonic() - began
