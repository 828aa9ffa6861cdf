"""Openings and clicks, each on record before it is answered, beside forged ones, which take HTTP alone."""

import asyncio
import random
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import psycopg

from bench.bench import Bench
from bench.stack import Running
from bench.table import Aim, Row
from bench.visitors import Visits, visit
from marketing.tracking import Tokens

RATE = 5_000  # per second
CLICKS = 0.2  # of all visits
LINKS = 5
# Three of people's own programs, and the proxy that fetches pictures for readers of a fourth.
AGENTS = (
    "Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Thunderbird/140.3.0",
    "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)",
)


async def measure(bench: Bench) -> AsyncIterator[Row]:
    run, visits = await bench.sent(bench.sizes.many), bench.sizes.visits
    deliveries = await _delivered(bench.stack, run.campaign_id)
    genuine = requests(bench.stack.account_id, deliveries, Tokens(bench.stack.secret_key), visits)
    forger = Tokens(uuid4().bytes + uuid4().bytes)
    forged = requests(bench.stack.account_id, deliveries, forger, visits)
    known = await _on_record(bench.stack)
    refused, refusing = await _visit(bench, "forged openings and clicks", forged)
    taken, taking = await _visit(bench, "openings and clicks", genuine)
    at_rate, _ = await _visit(bench, f"{RATE:,} of them per second", genuine, RATE)
    beside, _ = await _visit(bench, f"{RATE:,} forged ones per second", forged, RATE)
    assert set(refused.statuses + beside.statuses) == {404}, f"forged: {refused.statuses}, {beside.statuses}"
    assert set(taken.statuses + at_rate.statuses) == {200, 302}, f"genuine: {taken.statuses}, {at_rate.statuses}"
    stored = await _on_record(bench.stack) - known
    assert stored == 2 * visits, f"{2 * visits:,} visits were answered, {stored:,} are on record"
    what, against = f"{visits:,} openings and clicks", "forged ones, refused without the database"
    fast, soon = bench.aims(Aim("at least", RATE)), bench.aims(Aim("at most", 25))
    yield Row(f"{what}, on record when answered", taken.per_second, against, refused.per_second, "requests/s", fast)
    yield Row(f"answer to {RATE:,} of them per second, p99", at_rate.p99, against, beside.p99, "ms", soon)
    yield Row(f"answer to {RATE:,} of them per second, p50", at_rate.p50, against, beside.p50, "ms")
    yield Row("CPU per opening or click", 1000 * taking / visits, against, 1000 * refusing / visits, "ms, all programs")


def requests(account_id: UUID, deliveries: list[UUID], tokens: Tokens, visits: int) -> list[bytes]:
    """For the pixels and links of these messages, in an order of chance that is always the same."""
    chance = random.Random(7)

    def path(delivery: UUID) -> str:
        if chance.random() < CLICKS:
            return f"/t/c/{tokens.click(account_id, delivery, chance.randrange(LINKS))}"
        return f"/t/o/{tokens.open(account_id, delivery)}"

    return [_request(path(delivery), chance.choice(AGENTS)) for delivery in chance.choices(deliveries, k=visits)]


def _request(path: str, agent: str) -> bytes:
    return (
        f"GET {path} HTTP/1.1\r\nHost: news.example.com\r\nUser-Agent: {agent}\r\nAccept: image/avif,image/webp,*/*\r\n"
        "Accept-Language: fr,en;q=0.8\r\nAccept-Encoding: gzip, deflate, br\r\nConnection: keep-alive\r\n\r\n"
    ).encode()


async def _visit(bench: Bench, what: str, all_of_them: list[bytes], rate: float | None = None) -> tuple[Visits, float]:
    """What the visitors saw, and the CPU seconds that our programs took for them."""
    port = bench.stack.api.base_url.port
    assert port
    before = sum(bench.stack.cpu_seconds().values())
    with bench.bar(what, len(all_of_them)):
        seen = await asyncio.to_thread(visit, port, all_of_them, rate=rate)
    return seen, sum(bench.stack.cpu_seconds().values()) - before


async def _delivered(stack: Running, campaign_id: UUID) -> list[UUID]:
    async with await psycopg.AsyncConnection.connect(stack.database_url) as connection:
        sql = "SELECT id FROM deliveries WHERE campaign_id = %s AND state = 'sent' ORDER BY id"
        return [row[0] for row in await (await connection.execute(sql, [campaign_id])).fetchall()]


async def _on_record(stack: Running) -> int:
    async with await psycopg.AsyncConnection.connect(stack.database_url) as connection:
        row = await (
            await connection.execute("SELECT count(*) FROM events WHERE NOT properties ? 'implied'")
        ).fetchone()
    assert row
    return int(row[0])
