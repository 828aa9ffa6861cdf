"""Whom criteria mean, of a million contacts who did five million things: our SQL beside what we'd write by hand."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from statistics import quantiles
from time import monotonic

import httpx
import psycopg
from sqlalchemy import text

from bench import population
from bench.bench import Bench
from bench.population import Loaded
from bench.questions import Question, questions
from bench.table import Aim, Row
from database import keys
from database.engine import Database
from database.segments import condition, plan_well
from marketing.segments import parse

EVENTS_EACH = 5
ROUNDS = 5  # of which the fastest counts: what the machine does besides is nobody's fault
LOOKS = 10


async def measure(bench: Bench) -> AsyncIterator[Row]:
    people = bench.sizes.million
    events = EVENTS_EACH * people
    with bench.bar(f"load {people:,} contacts and {events:,} events", people + events) as show:
        loaded = await population.load(bench.stack.database_url, people, events, show)
    database = Database(bench.stack.database_url)
    asked = questions(loaded.segment_id)
    with bench.bar("ten questions", len(asked)) as show:
        for number, question in enumerate(asked, 1):
            ours, by_hand = await beside_each_other(database, bench.stack.database_url, loaded, question)
            show(number)
            yield Row(
                f"segment: {question.what}",
                1000 * ours,
                "SQL by hand",
                1000 * by_hand,
                "ms",
                bench.aims(Aim("at most", 1.3, of="ratio")),
            )
    simple = [question for question in asked if question.of_attributes]
    with bench.bar("previews", LOOKS * len(simple)):
        looks = await previews(database, str(bench.stack.api.base_url), loaded, simple)
    await database.close()
    yield Row(
        f"preview by attributes over the API, p95 of {len(looks)}",
        1000 * quantiles(looks, n=20)[-1],
        "p50",
        1000 * quantiles(looks, n=2)[0],
        "ms",
        bench.aims(Aim("at most", 300)),
    )


async def beside_each_other(
    database: Database, owner_url: str, loaded: Loaded, question: Question
) -> tuple[float, float]:
    """Seconds for a count by our SQL, as the application's role, and by the best of the SQL by hand, as the owner of
    the tables, whom row-level security does not hold up. In turns, so that both have the same machine.

    Raises:
        AssertionError: they count differently; one of them answers another question.
    """
    now = datetime.now(UTC)
    given = {"account": loaded.account_id, "segment": loaded.segment_id, "now": now}
    ours: list[float] = []
    by_hand: list[float] = []
    counts: set[int] = set()
    async with await psycopg.AsyncConnection.connect(owner_url, autocommit=True) as owner:
        await owner.execute("SET work_mem = '64MB'")  # the half of what ours may use
        for _ in range(ROUNDS):
            count, seconds = await counted(database, loaded, question, now)
            ours.append(seconds)
            counts.add(count)
            for statement in question.by_hand:
                began = monotonic()
                (count,) = await (await owner.execute(statement, given)).fetchone() or (-1,)
                by_hand.append(monotonic() - began)
                counts.add(count)
    assert len(counts) == 1, f"{question.what}: {counts}"
    return min(ours), min(by_hand)


async def counted(database: Database, loaded: Loaded, question: Question, now: datetime) -> tuple[int, float]:
    """The count, and the seconds that its statement took."""
    criteria = parse(question.criteria)
    belongs, parameters = condition(criteria, now=now)
    counting = text(f"SELECT count(*) FROM contacts WHERE deleted_at IS NULL AND {belongs}")
    async with database.transaction(loaded.account_id) as tx:
        await plan_well(tx, criteria)
        began = monotonic()
        count = (await tx.execute(counting, parameters)).scalar_one()
        return int(count), monotonic() - began


async def previews(database: Database, api_url: str, loaded: Loaded, asked: Sequence[Question]) -> list[float]:
    """Seconds for each of many looks at whom these criteria mean."""
    secret = keys.new_secret()
    async with database.transaction(loaded.account_id) as tx:
        await keys.create(tx, loaded.account_id, "bench", "viewer", secret)
    seconds = []
    async with httpx.AsyncClient(base_url=api_url, headers={"Authorization": f"Bearer {secret}"}, timeout=60) as api:
        for question in [*asked] * LOOKS:
            began = monotonic()
            (await api.post("/api/segments/preview", json={"criteria": question.criteria})).raise_for_status()
            seconds.append(monotonic() - began)
    return seconds
