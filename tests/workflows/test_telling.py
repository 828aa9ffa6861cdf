"""Does whoever comes have to wait while many cohorts are told something?"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from temporalio import activity
from temporalio.worker import Worker

from activities.journey_inputs import Formed, FormInput, SourceRef
from activities.routing_inputs import SourceStanding, TellInput
from local_stack import EmbeddedTemporal
from tests.conftest import PATIENCE
from workflows.automations import AutomationWorkflow, start_options
from workflows.connection import connect
from workflows.journey_inputs import AutomationInput
from workflows.options import AUTOMATIONS


@dataclass
class StandIn:
    """Takes note of who is taken in and what is told, and has told it when it may go on."""

    standing: SourceStanding = field(default_factory=lambda: SourceStanding(state="active", reason="", name="A"))
    taken_in: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    told: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    go_on: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    read: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    @activity.defn
    async def read_source(self, _: SourceRef) -> SourceStanding:
        self.read.release()
        return self.standing

    @activity.defn
    async def form_cohort(self, _: FormInput) -> Formed:
        self.taken_in.release()
        return Formed()

    @activity.defn
    async def tell_cohorts(self, _: TellInput) -> None:
        self.told.release()
        await self.go_on.acquire()


async def test_whoever_comes_is_taken_in_while_cohorts_are_told_and_these_are_told_what_changes_meanwhile() -> None:
    stand_in = StandIn()
    doing: list[Callable[..., Any]] = [stand_in.read_source, stand_in.form_cohort, stand_in.tell_cohorts]
    input = AutomationInput(account_id=uuid4(), source_id=uuid4(), name="Recorded")
    async with EmbeddedTemporal(durable=False) as server, asyncio.timeout(PATIENCE):
        temporal = await connect(server.address)
        async with Worker(temporal, task_queue=AUTOMATIONS, workflows=[AutomationWorkflow], activities=doing):
            run = await temporal.start_workflow(
                AutomationWorkflow.run, input, task_queue=AUTOMATIONS, **start_options(input)
            )
            await stand_in.told.acquire()
            for _ in range(2):
                await stand_in.taken_in.acquire()
                await run.signal(AutomationWorkflow.enrolled)
            stand_in.standing = SourceStanding(state="over", reason="", name="A")
            await run.signal(AutomationWorkflow.follow)
            for _ in range(2):
                await stand_in.read.acquire()
            assert stand_in.told.locked()  # one telling at a time
            stand_in.go_on.release()
            await stand_in.told.acquire()
            stand_in.go_on.release()
            assert (await run.result()).state == "over"
