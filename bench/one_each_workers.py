"""The workers of the reference: for each contact a row of a ledger, a message, and a look at what it did."""

import asyncio
import multiprocessing
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from uuid import UUID

import psycopg
import uvloop
from sqlalchemy import text
from temporalio import activity
from temporalio.worker import Worker

from activities.messages import Composer
from bench.automations.passing import CLICKED
from bench.letter import composer
from bench.one_each import TASK_QUEUE, OneEachWorkflow, Turn
from bench.relay import Relay
from bench.stack import Running
from channels.smtp import SmtpChannel
from database.eligibility import CONTACT_COLUMNS
from database.engine import Database
from database.segments import condition
from marketing.segments import parse
from workflows.connection import connect

# As few columns and indexes as a ledger may have: the reference is not to be slow for what it keeps.
_LEDGER = """
    CREATE TABLE one_each (
        id uuid DEFAULT uuidv7() PRIMARY KEY, contact_id uuid NOT NULL, step text NOT NULL,
        state text NOT NULL DEFAULT 'sending', sent_at timestamptz, UNIQUE (contact_id, step)
    ) WITH (fillfactor = 70);
    GRANT SELECT, INSERT, UPDATE ON one_each TO carillon_app
"""
_PLAN = f"""
    WITH planned AS (
        INSERT INTO one_each (contact_id, step) VALUES (:contact, :step) ON CONFLICT DO NOTHING RETURNING id
    )
    SELECT planned.id AS delivery_id, {", ".join(f"contacts.{name}" for name in CONTACT_COLUMNS)}
    FROM planned, contacts JOIN subscriptions ON contact_id = contacts.id
    WHERE contacts.id = :contact AND deleted_at IS NULL AND channel = 'email' AND status = 'subscribed'
"""


@dataclass
class Place:
    """Where everything is that such a worker needs."""

    temporal: str
    database_url: str
    smtp_url: str
    account_id: UUID
    connections: int


@dataclass
class OneEach:
    database: Database
    channel: SmtpChannel
    composer: Composer

    @activity.defn
    async def send(self, turn: Turn) -> None:
        account_id = self.composer.account_id
        async with self.database.transaction(account_id) as tx:
            found = await tx.execute(text(_PLAN), {"contact": turn.contact_id, "step": turn.step})
            planned = found.mappings().one_or_none()
        if planned is None:
            return
        await self.channel.send(self.composer.message(planned["delivery_id"], dict(planned), datetime.now(UTC)))
        async with self.database.transaction(account_id) as tx:
            sent = text("UPDATE one_each SET state = 'sent', sent_at = now() WHERE id = :id")
            await tx.execute(sent, {"id": planned["delivery_id"]})

    @activity.defn
    async def clicked(self, contact_id: UUID) -> bool:
        belongs, parameters = condition(parse(CLICKED), now=datetime.now(UTC))
        query = text(f"SELECT EXISTS (SELECT FROM contacts WHERE id = :contact AND {belongs})")
        async with self.database.transaction(self.composer.account_id) as tx:
            return bool((await tx.execute(query, {"contact": contact_id, **parameters})).scalar_one())


@asynccontextmanager
async def working(stack: Running, relay: Relay, workers: int, connections: int) -> AsyncIterator[list[int]]:
    """As many processes as the product has, at work until the block ends; their ids."""
    async with await psycopg.AsyncConnection.connect(stack.database_url, autocommit=True) as connection:
        await connection.execute(_LEDGER)
    address = stack.temporal.service_client.config.target_host
    place = Place(address, stack.database_url, relay.url, stack.account_id, connections)
    spawn = multiprocessing.get_context("spawn")  # a fork would inherit our event loop
    lines = [spawn.Pipe(duplex=False) for _ in range(workers)]
    processes = [spawn.Process(target=_work, args=(place, told), daemon=True) for _, told in lines]
    for process, (_, told) in zip(processes, lines, strict=True):
        process.start()
        told.close()  # ours: so that we hear of its end
    try:
        for line, _ in lines:
            await asyncio.to_thread(line.recv)
        yield [process.pid for process in processes if process.pid]
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _work(place: Place, told: Connection) -> None:
    uvloop.run(_work_for_ever(place, told))


async def _work_for_ever(place: Place, told: Connection) -> None:
    channel = SmtpChannel(place.smtp_url, connections=place.connections)
    activities = OneEach(Database(place.database_url), channel, composer(place.account_id))
    async with Worker(
        await connect(place.temporal),
        task_queue=TASK_QUEUE,
        workflows=[OneEachWorkflow],
        activities=[activities.send, activities.clicked],
    ):
        told.send(None)
        await asyncio.Event().wait()
