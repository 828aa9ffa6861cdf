"""Campaigns, measured from the launch to the last row recorded, and what a message of theirs costs."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any
from uuid import UUID

import psycopg

from bench import histories
from bench.letter import CONTENT
from bench.stack import Running

LOOK_SECONDS = 0.05
LOADED_AT_ONCE = 50_000


@dataclass(frozen=True)
class Run:
    """A campaign that is over."""

    campaign_id: UUID
    messages: int
    seconds: float  # from the launch to the last row recorded
    cpu: dict[str, float]  # seconds per program, until the campaign is completed
    memory_before: dict[int, int]  # bytes that each worker held before the launch, by its process id
    memory: dict[int, int]  # and at most since
    log_bytes: int  # that PostgreSQL wrote to its log (WAL)
    disk_bytes: int  # by which the database grew
    answers: list[float]  # how long the API took for each look at the campaign's figures, seconds
    kept: histories.Kept

    @property
    def per_second(self) -> float:
        return self.messages / self.seconds

    @property
    def cpu_milliseconds(self) -> float:
        """Per message, in all our programs."""
        return sum(map(self.cpu_milliseconds_of, self.cpu))

    def cpu_milliseconds_of(self, program: str) -> float:
        return 1000 * self.cpu[program] / self.messages

    @property
    def milliseconds(self) -> float:
        """Per message, by the clock on the wall."""
        return 1000 * self.seconds / self.messages

    @property
    def grown(self) -> tuple[int, int]:
        """What the worker that grew most held before, and its growth: the largest worker need not be the one."""
        growth = {pid: most - self.memory_before[pid] for pid, most in self.memory.items()}
        pid = max(growth, key=growth.__getitem__)
        return self.memory_before[pid], growth[pid]


@dataclass(frozen=True)
class Campaign:
    """A campaign, by the API."""

    stack: Running
    id: UUID

    async def post(self, command: str) -> None:
        (await self.stack.api.post(f"/api/campaigns/{self.id}/{command}")).raise_for_status()

    async def looks(self) -> AsyncIterator[tuple[dict[str, int], float]]:
        """Its figures again and again, ever less often, and how many seconds the API took to tell them."""
        began = monotonic()
        while True:
            asked = monotonic()
            stats: dict[str, int] = await self._get("/stats")
            yield stats, monotonic() - asked
            await asyncio.sleep(max(LOOK_SECONDS, (monotonic() - began) / 100))

    async def status(self) -> str:
        return str((await self._get(""))["status"])

    async def _get(self, what: str) -> Any:
        return (await self.stack.api.get(f"/api/campaigns/{self.id}{what}")).raise_for_status().json()


async def load_contacts(stack: Running, group: str, count: int, show: Callable[[int], None]) -> None:
    """Contacts who agreed to e-mail and have a tag, straight into the tables."""
    async with await psycopg.AsyncConnection.connect(stack.database_url, autocommit=True) as connection:
        for first in range(1, count + 1, LOADED_AT_ONCE):
            await connection.execute(
                """
                WITH made AS (
                    INSERT INTO contacts (account_id, email, first_name, timezone, attributes, tags)
                    SELECT %(account)s, 'person-' || n || '-of-' || %(count)s || '@example.org', 'Person ' || n,
                           'Europe/Paris', jsonb_build_object('city', 'Town ' || n %% 100, 'plan', 'yearly'),
                           ARRAY[%(group)s]
                    FROM generate_series(%(first)s::int, %(last)s::int) AS n RETURNING account_id, id
                )
                INSERT INTO subscriptions (account_id, contact_id, channel, status, consent_at, consent_how)
                SELECT account_id, id, 'email', 'subscribed', now(), 'bench' FROM made
                """,
                {
                    "account": stack.account_id,
                    "group": group,
                    "count": str(count),
                    "first": first,
                    "last": min(count, first + LOADED_AT_ONCE - 1),
                },
            )
            show(first + LOADED_AT_ONCE - 1)
        await connection.execute("VACUUM ANALYZE contacts, subscriptions")
    # What loading left to be written is no campaign's to pay.
    async with await psycopg.AsyncConnection.connect(
        stack.database_url, user="postgres", dbname="postgres", autocommit=True
    ) as connection:
        await connection.execute("CHECKPOINT")


async def contacts(stack: Running, group: str, count: int) -> list[UUID]:
    """The first of a group."""
    async with await psycopg.AsyncConnection.connect(stack.database_url) as connection:
        sql = "SELECT id FROM contacts WHERE account_id = %s AND tags = %s AND deleted_at IS NULL ORDER BY id LIMIT %s"
        return [row[0] for row in await (await connection.execute(sql, [stack.account_id, [group], count])).fetchall()]


async def send(stack: Running, group: str, messages: int, show: Callable[[int], None]) -> Run:
    """Launch a campaign to a group over the API and follow it to its end.

    Raises:
        AssertionError: not every message was sent; the figure would mean nothing.
    """
    cpu, memory = stack.cpu_seconds(), stack.worker_memory()
    log, disk = await stack.log_position(), await stack.database_size()
    most, answers, recorded = memory, [], 0.0
    async with _drafted(stack, group, messages) as campaign:
        began = monotonic()
        await campaign.post("launch")
        async for stats, took in campaign.looks():
            answers.append(took)
            most = {pid: max(most[pid], held) for pid, held in stack.worker_memory().items()}
            show(stats["planned"] - stats["pending"])
            if stats["planned"] and not stats["pending"]:
                recorded = recorded or monotonic()
                if await campaign.status() == "completed":
                    break
    assert stats["sent"] == messages, f"{messages:,} messages were to be sent: {stats}"
    return Run(
        campaign.id,
        messages,
        recorded - began,
        {name: used - cpu[name] for name, used in stack.cpu_seconds().items()},
        memory,
        most,
        await stack.log_position() - log,
        await stack.database_size() - disk,
        answers,
        await histories.of_campaign(stack.temporal, campaign.id),
    )


async def freeze(stack: Running, group: str, messages: int, show: Callable[[int], None]) -> float:
    """Seconds until the audience of a campaign is frozen, as its workflow sees it; the campaign is cancelled then.

    Raises:
        AssertionError: not everybody was in the audience.
    """
    async with _drafted(stack, group, messages) as campaign:
        await campaign.post("launch")
        frozen = False
        async for stats, _ in campaign.looks():
            if stats["planned"] and not frozen:
                assert stats["planned"] == messages, f"{messages:,} messages were to be planned: {stats}"
                await campaign.post("cancel")
                frozen = True
            show(stats["planned"] - stats["pending"])
            if frozen and not stats["pending"] and await campaign.status() == "cancelled":
                break
    return (await histories.of_campaign(stack.temporal, campaign.id)).freeze_seconds


@asynccontextmanager
async def _drafted(stack: Running, group: str, messages: int) -> AsyncIterator[Campaign]:
    """A campaign that has as much time as a machine of a tenth of our speed would need."""
    draft = {"name": f"Bench {group}", "content": {"email": CONTENT}, "audience": {"tags": {"any": [group]}}}
    created = (await stack.api.post("/api/campaigns", json=draft)).raise_for_status().json()
    campaign = Campaign(stack, UUID(created["id"]))
    async with asyncio.timeout(60 + messages / 300):
        yield campaign
