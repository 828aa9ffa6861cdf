"""A campaign's books: which word about its state is the last, and what is left of it when its workflow begins anew?"""

import asyncio
from typing import Any, Literal

import pytest
from sqlalchemy import text
from temporalio.testing import ActivityEnvironment

from activities.campaigns import Campaigns
from activities.inputs import FreezeInput, OpenShardsInput, ShardDue, StateAnswer, StateChange
from channels.base import Message
from marketing.campaigns import CampaignState
from tests.audience import people
from tests.broadcast import Broadcast, broadcast
from tests.conftest import PATIENCE, TestAccount
from tests.delivering import NOW, Provider, deliver, freeze


async def ask(
    sent: Broadcast, state: Literal["running", "paused", "cancelled", "completed", "failed"], *, final: bool = False
) -> StateAnswer:
    change = StateChange(account_id=sent.account.id, campaign_id=sent.id, state=state, reason="asked", final=final)
    return await ActivityEnvironment().run(Campaigns(sent.account.database).change_state, change)


async def test_a_pause_that_comes_when_nothing_is_left_does_not_keep_a_campaign_open(account: TestAccount) -> None:
    sent = await broadcast(account)
    await sent.set_state(CampaignState.PAUSED)
    assert (await ask(sent, "completed", final=True)).state == "completed"


async def test_a_cancellation_is_not_undone(account: TestAccount) -> None:
    sent = await broadcast(account)
    await sent.set_state(CampaignState.CANCELLED)
    assert (await ask(sent, "running")).state == "cancelled"
    assert (await ask(sent, "paused")).state == "cancelled"
    assert (await ask(sent, "completed", final=True)).state == "cancelled"


@pytest.mark.parametrize("end", ["completed", "cancelled", "failed"])
async def test_what_has_ended_stays_so(account: TestAccount, end: Literal["completed", "cancelled", "failed"]) -> None:
    sent = await broadcast(account)
    await ask(sent, end, final=True)
    for state in ("running", "paused", "cancelled", "completed", "failed"):
        assert (await ask(sent, state)).state == end


async def test_asking_twice_is_asking_once(account: TestAccount) -> None:
    sent = await broadcast(account)
    assert await ask(sent, "paused") == await ask(sent, "paused") == StateAnswer(state="paused", reason="asked")


async def test_a_workflow_that_begins_anew_is_told_only_of_what_is_left(account: TestAccount) -> None:
    await people(account, 30)
    sent = await broadcast(account)
    assert [(wave.first, wave.last) for wave in (await freeze(sent, shard_size=10)).waves] == [(0, 2)]
    await deliver(sent, Provider(_accept), shard=1)
    assert (await freeze(sent, shard_size=10)).waves == []
    asked = OpenShardsInput(account_id=account.id, campaign_id=sent.id)
    left = await ActivityEnvironment().run(Campaigns(account.database).open_shards, asked)
    assert left.shards == [ShardDue(shard=0, due=NOW), ShardDue(shard=2, due=NOW)]
    asked.below = 2
    left = await ActivityEnvironment().run(Campaigns(account.database).open_shards, asked)
    assert left.shards == [ShardDue(shard=0, due=NOW)]


async def test_an_audience_that_takes_long_is_not_taken_for_lost(account: TestAccount) -> None:
    await people(account, 3)
    sent = await broadcast(account)
    beats: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()
    environment = ActivityEnvironment()
    environment.on_heartbeat = lambda *details: beats.put_nowait(details)
    input = FreezeInput(account_id=account.id, campaign_id=sent.id, now=NOW, shard_size=10)
    async with account.transaction() as tx:  # which the freezing has to wait for
        await tx.execute(text("SELECT FROM campaigns WHERE id = :id FOR UPDATE"), {"id": sent.id})
        freezing = asyncio.create_task(environment.run(Campaigns(account.database).freeze_audience, input))
        async with asyncio.timeout(PATIENCE):
            for _ in range(2):
                await beats.get()
        assert not freezing.done()
    assert (await freezing).planned == 3


async def _accept(_: Message) -> None:
    return None
