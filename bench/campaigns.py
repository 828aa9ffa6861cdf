"""Campaigns, measured from the launch to the last row recorded, and what a message of theirs costs."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

import psycopg

from bench.letter import CONTENT
from bench.stack import Running

LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class Run:
    """A campaign that is over."""

    messages: int
    seconds: float  # from the launch to the last row recorded
    cpu: dict[str, float]  # seconds per program, until the campaign is completed
    memory: int  # bytes that the largest worker holds at the end

    @property
    def per_second(self) -> float:
        return self.messages / self.seconds

    @property
    def cpu_milliseconds(self) -> float:
        """Per message, in all our programs."""
        return 1000 * sum(self.cpu.values()) / self.messages

    @property
    def milliseconds(self) -> float:
        """Per message, by the clock on the wall."""
        return 1000 * self.seconds / self.messages


async def load_contacts(stack: Running, groups: dict[str, int]) -> None:
    """Contacts who agreed to e-mail, straight into the tables: the first n of them have the tag of each group."""
    async with await psycopg.AsyncConnection.connect(stack.database_url) as connection:
        await connection.execute(
            """
            WITH made AS (
                INSERT INTO contacts (account_id, email, first_name, timezone, attributes, tags)
                SELECT %(account)s, 'person-' || n || '@example.org', 'Person ' || n, 'Europe/Paris',
                       jsonb_build_object('city', 'Town ' || n %% 100, 'plan', 'yearly'),
                       (SELECT array_agg(tag) FROM unnest(%(tags)s::text[], %(sizes)s::int[]) AS g (tag, size)
                        WHERE n <= size)
                FROM generate_series(1, %(most)s) AS n RETURNING account_id, id
            )
            INSERT INTO subscriptions (account_id, contact_id, channel, status, consent_at, consent_how)
            SELECT account_id, id, 'email', 'subscribed', now(), 'bench' FROM made
            """,
            {
                "account": stack.account_id,
                "tags": list(groups),
                "sizes": list(groups.values()),
                "most": max(groups.values()),
            },
        )
    async with await psycopg.AsyncConnection.connect(stack.database_url, autocommit=True) as connection:
        await connection.execute("VACUUM ANALYZE contacts, subscriptions")


async def send(stack: Running, group: str, messages: int, show: Callable[[int], None]) -> Run:
    """Launch a campaign to a group over the API and follow it to its end.

    Raises:
        AssertionError: not every message was sent; the figure would mean nothing.
    """
    draft = {"name": f"Bench {group}", "content": {"email": CONTENT}, "audience": {"tags": {"any": [group]}}}
    created = (await stack.api.post("/api/campaigns", json=draft)).raise_for_status().json()
    campaign = f"/api/campaigns/{created['id']}"
    before, began = stack.cpu_seconds(), monotonic()
    (await stack.api.post(f"{campaign}/launch")).raise_for_status()
    recorded, status = None, ""
    async with asyncio.timeout(60 + messages / 100):
        while status != "completed":
            await asyncio.sleep(LOOK_SECONDS)
            stats = (await stack.api.get(f"{campaign}/stats")).raise_for_status().json()
            show(stats["planned"] - stats["pending"])
            if stats["planned"] and not stats["pending"]:
                recorded = recorded or monotonic()
                status = (await stack.api.get(campaign)).raise_for_status().json()["status"]
    after = stack.cpu_seconds()
    assert recorded and stats["sent"] == messages, f"{messages:,} messages were to be sent: {stats}"
    return Run(messages, recorded - began, {name: after[name] - before[name] for name in before}, stack.worker_memory())
