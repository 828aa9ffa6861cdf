"""What if things happen at the same moment? Stand-in activities hold each other up until they do."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from temporalio import activity
from temporalio.client import Client
from temporalio.testing import TimeSkipper
from temporalio.worker import Worker

from activities.inputs import (
    CampaignRef,
    Delivered,
    DeliverInput,
    FreezeInput,
    Frozen,
    OpenShards,
    StateAnswer,
    StateChange,
    Totals,
    WaveOfShards,
)
from local_stack import EmbeddedTemporal
from tests.timers import timers
from workflows.campaigns import CampaignWorkflow
from workflows.connection import connect
from workflows.inputs import CampaignInput
from workflows.options import BULK, DELIVERY_EMAIL, ORCHESTRATION


@dataclass
class World:
    """Two shards. The first is told that the campaign stands still, and has to ask; the second ends meanwhile."""

    asked: asyncio.Event = field(default_factory=asyncio.Event)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    reads: int = 0
    deliveries: Counter[int] = field(default_factory=Counter)

    @activity.defn
    async def freeze_audience(self, input: FreezeInput) -> Frozen:
        return Frozen(planned=2, waves=[WaveOfShards(due=input.now, first=0, last=1)])

    @activity.defn
    async def deliver(self, input: DeliverInput) -> Delivered:
        self.deliveries[input.shard] += 1
        if input.shard == 0 and self.deliveries[0] == 1:
            return Delivered(totals=Totals(planned=2), next_due=input.now, stopped=True)
        if input.shard == 1:
            await self.asked.wait()
        return Delivered(totals=Totals(planned=2, sent=self.deliveries.total() - 1))

    @activity.defn
    async def read_state(self, _: CampaignRef) -> StateAnswer:
        self.reads += 1
        if self.reads == 2:  # the first one was at the start
            self.asked.set()
            await self.may_answer.wait()
        return StateAnswer(state="running")

    @activity.defn
    async def change_state(self, input: StateChange) -> StateAnswer:
        return StateAnswer(state=input.state)

    @activity.defn
    async def open_shards(self, _: CampaignRef) -> OpenShards:
        return OpenShards(shards=[])


@pytest.fixture
async def temporal() -> Any:
    """A server of our own: the task queues have the names that the real worker's have."""
    async with EmbeddedTemporal(durable=False) as server:
        yield await connect(server.address)


def worker(temporal: Client, queue: str, *activities: Callable[..., Any]) -> Worker:
    workflows = [CampaignWorkflow] if queue == ORCHESTRATION else []
    return Worker(temporal, task_queue=queue, workflows=workflows, activities=activities)


async def test_a_shard_is_never_delivered_twice_at_the_same_time(temporal: Client) -> None:
    world = World()
    input = CampaignInput(account_id=UUID(int=1), campaign_id=UUID(int=2))
    async with (
        worker(temporal, ORCHESTRATION, world.read_state, world.change_state, world.open_shards),
        worker(temporal, DELIVERY_EMAIL, world.deliver),
        worker(temporal, BULK, world.freeze_audience),
    ):
        run = await temporal.start_workflow(CampaignWorkflow.run, input, id="race", task_queue=ORCHESTRATION)
        await world.asked.wait()
        while (await run.query(CampaignWorkflow.progress)).totals.sent == 0:
            pass  # until the second shard's end has woken the workflow
        world.may_answer.set()
        assert await run.result() == Totals(planned=2, sent=2)
        assert world.deliveries == {0: 2, 1: 1}
        events = [event async for event in run.fetch_history_events()]
    names = [event.activity_task_scheduled_event_attributes.activity_type.name for event in events]
    second_delivery = [number for number, name in enumerate(names) if name == "deliver"][2]
    asking = [number for number, name in enumerate(names) if name == "read_state"][1]
    answered = next(
        number
        for number, event in enumerate(events)
        if event.activity_task_completed_event_attributes.scheduled_event_id == events[asking].event_id
    )
    assert answered < second_delivery


@dataclass
class Absence(World):
    """Four shards, none of which can reach the provider in the first three rounds."""

    @activity.defn
    async def freeze_audience(self, input: FreezeInput) -> Frozen:
        return Frozen(planned=4, waves=[WaveOfShards(due=input.now, first=0, last=3)])

    @activity.defn
    async def deliver(self, input: DeliverInput) -> Delivered:
        self.deliveries[input.shard] += 1
        if self.deliveries[input.shard] <= 3:
            return Delivered(totals=Totals(planned=4), next_due=input.now, unavailable=True)
        return Delivered(totals=Totals(planned=4, sent=4))


async def test_shards_that_miss_the_same_provider_at_once_wait_as_long_as_one(temporal: Client) -> None:
    world = Absence()
    world.may_answer.set()
    input = CampaignInput(account_id=UUID(int=1), campaign_id=UUID(int=3))
    async with (
        worker(temporal, ORCHESTRATION, world.read_state, world.change_state, world.open_shards),
        worker(temporal, DELIVERY_EMAIL, world.deliver),
        worker(temporal, BULK, world.freeze_audience),
    ):
        skipping = TimeSkipper(temporal).client
        run = await skipping.start_workflow(CampaignWorkflow.run, input, id="away", task_queue=ORCHESTRATION)
        await run.result()
        wound = timers(await run.fetch_history())
    assert world.deliveries == dict.fromkeys(range(4), 4)
    assert {timedelta(seconds=each) for each in (5, 10, 20)} <= set(wound) and max(wound) == timedelta(seconds=20)
