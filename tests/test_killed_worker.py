"""What is lost, doubled or left in doubt when workers are killed in the middle of a campaign? Nothing is lost."""

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import text

from activities.deliveries import Deliveries
from channels.sink import Sink
from local_stack import EmbeddedTemporal
from tests.audience import people
from tests.broadcast import Broadcast, broadcast, taken
from tests.conftest import PUBLIC_URL, SECRET_KEY, TestAccount
from workflows.campaigns import CampaignWorkflow, campaign_workflow_id
from workflows.connection import connect
from workflows.inputs import CampaignInput
from workflows.options import ORCHESTRATION

MESSAGES = 5_000
LEASED_AT_MOST = CampaignInput.model_fields["window"].default * Deliveries.lanes * Deliveries.set_size


@asynccontextmanager
async def worker_process(**settings: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`carillon worker`, as an operator starts it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cli", "worker", env={**os.environ, **settings}, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()


async def arrivals(sink: Sink, count: int) -> None:
    while sink.count < count:
        await sink.next_arrival()


async def test_killed_workers_lose_nothing_and_send_nothing_twice(database_url: str, account: TestAccount) -> None:
    await people(account, MESSAGES)
    sent = await broadcast(account)
    async with Sink(keep=MESSAGES * 2) as sink, EmbeddedTemporal(durable=False) as server:
        settings = {
            "CARILLON_DATABASE_URL": database_url,
            "CARILLON_TEMPORAL_ADDRESS": server.address,
            "CARILLON_SECRET_KEY": SECRET_KEY.decode(),
            "CARILLON_PUBLIC_URL": PUBLIC_URL,
            "CARILLON_SMTP_URL": sink.url,
            "CARILLON_LEASE_SECONDS": "10",
        }
        temporal = await connect(server.address)
        input = CampaignInput(account_id=account.id, campaign_id=sent.id, shard_size=500)
        run = await temporal.start_workflow(
            CampaignWorkflow.run, input, id=campaign_workflow_id(sent.id), task_queue=ORCHESTRATION
        )
        for kill_at in (800, 2_500):
            async with worker_process(**settings) as victim:
                await arrivals(sink, kill_at)
                victim.kill()
        async with worker_process(**settings):
            totals = await run.result()

    states = await ledger_by_message(sent)
    # The workers' sweep also takes care of what other tests have left open in this database.
    at_sink = Counter(each.message_id.strip("<>").partition("@")[0] for each in taken(sink, account))
    assert [message for message, times in at_sink.items() if times > 1] == []
    lost = [message for message, state in states.items() if state == "sent" and message not in at_sink]
    assert lost == []
    unexplained = [message for message in at_sink if states[message] not in ("sent", "uncertain")]
    assert unexplained == []
    doubtful = sum(state == "uncertain" for state in states.values())
    assert 0 < doubtful <= 2 * LEASED_AT_MOST
    assert totals.planned == MESSAGES == totals.sent + totals.uncertain
    assert await sent.ledger() == {"sent": totals.sent, "uncertain:worker_lost": doubtful}


async def ledger_by_message(sent: Broadcast) -> dict[str, str]:
    """The state of each delivery, by its id as Message-IDs spell it."""
    async with sent.account.transaction() as tx:
        rows = await tx.execute(
            text("SELECT id, state FROM deliveries WHERE campaign_id = :campaign_id"), {"campaign_id": sent.id}
        )
        return {row.id.hex: row.state for row in rows}
