"""Does a rate limit hold, however many workers lease at once?"""

import asyncio
from datetime import UTC, datetime
from time import monotonic
from uuid import uuid4

import pytest
from temporalio.client import Client

from activities.campaigns import email_rules
from activities.inputs import Totals
from channels.sink import Sink
from database import campaigns, leases
from database.leases import Lease
from tests.audience import people
from tests.broadcast import Broadcast, broadcast, taken
from tests.conftest import TestAccount
from tests.delivering import freeze
from workflows.campaigns import CampaignWorkflow, campaign_workflow_id
from workflows.inputs import CampaignInput
from workflows.options import ORCHESTRATION


async def lease(sent: Broadcast, shard: int) -> Lease:
    async with sent.account.transaction() as tx:
        plan = await campaigns.load_plan(tx, sent.id)
        rules = await email_rules(tx, sent.account.id, None, datetime.now(UTC))
        return await leases.lease(tx, sent.id, shard, plan, rules, token=uuid4(), seconds=60, limit=50)


@pytest.mark.parametrize("rate", [0.01, 20, 400])
async def test_workers_that_lease_at_once_share_the_slots_of_less_than_a_second(
    account: TestAccount, rate: float
) -> None:
    await people(account, 1000)
    sent = await broadcast(account, rate_limit_per_second=rate)
    await freeze(sent, now=datetime.now(UTC), shard_size=100)
    began = monotonic()
    asked = await asyncio.gather(*(lease(sent, shard) for shard in range(10) for _ in range(3)))
    seconds = monotonic() - began
    taken = sum(len(each.messages) for each in asked)
    waiting = [each for each in asked if each.wait is not None]
    # A slot is given at most a quarter of a second ahead, to a set that lasts half a second, while we are at it.
    assert 1 <= taken <= 1 + rate * (0.75 + seconds)
    assert waiting or seconds > 1000 / rate - 1, "only in so much time there are slots for all"
    assert all(0.1 < each.wait <= max(1 / rate, 0.75) for each in waiting if each.wait is not None)


async def test_a_set_that_missed_its_slots_crowds_nobody(account: TestAccount) -> None:
    await people(account, 100)
    sent = await broadcast(account, rate_limit_per_second=0.001)
    await freeze(sent, now=datetime.now(UTC), shard_size=100)
    first = await lease(sent, 0)
    async with account.transaction() as tx:
        again = await leases.take_new_slots(tx, sent.id, 1000)
        behind = await leases.take_new_slots(tx, sent.id, 2000)
    assert len(first.messages) == 1
    assert again - first.first_slot == pytest.approx(1000, rel=0.1)
    assert behind - again == pytest.approx(1000, rel=0.1)


async def test_a_campaign_is_no_faster_than_its_rate(
    temporal: Client, worker: None, sink: Sink, account: TestAccount
) -> None:
    await people(account, 120)
    sent = await broadcast(account, rate_limit_per_second=60)
    input = CampaignInput(account_id=account.id, campaign_id=sent.id, shard_size=15)
    totals = await temporal.execute_workflow(
        CampaignWorkflow.run, input, id=campaign_workflow_id(sent.id), task_queue=ORCHESTRATION
    )
    assert totals == Totals(planned=120, sent=120)
    moments = sorted(each.at for each in taken(sink, account))
    assert moments[-1] - moments[0] >= 119 / 60 * 0.95
