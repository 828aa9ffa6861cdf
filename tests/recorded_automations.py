"""Runs of automations whose histories are recorded."""

from datetime import UTC, datetime
from typing import Any

from temporalio.client import Client, WorkflowHandle

from activities.journey_inputs import SourceRef
from channels.sink import Sink
from tests.audience import people
from tests.automating import LONG, SEND, routing
from tests.conftest import TestAccount
from tests.database.test_routing import automation, happens
from workflows.automations import AutomationWorkflow, start_options
from workflows.enrolling import EnrollWorkflow
from workflows.inputs import Command
from workflows.journey_inputs import AutomationInput
from workflows.journeys import FOLLOWING_ID, LANES, JourneySweepWorkflow, ensure_following
from workflows.options import AUTOMATIONS

Handle = WorkflowHandle[Any, Any]


async def cancelled(temporal: Client, account: TestAccount, sink: Sink) -> Handle:
    """One contact after the other joins; it is paused and resumed before."""
    source = SourceRef(account_id=account.id, source_id=await automation(account, steps=[SEND, LONG]))
    input = AutomationInput(**dict(source), name="Recorded")
    run = await temporal.start_workflow(AutomationWorkflow.run, input, task_queue=AUTOMATIONS, **start_options(input))
    router = routing(account, temporal)
    for contact in await people(account, 3):
        await happens(account, "order.placed", contact)
        before = sink.count
        await router.take_turn(account.id)
        while sink.count == before:
            await sink.next_arrival()
    await run.execute_update(AutomationWorkflow.pause, Command(reason="a look"))
    await run.execute_update(AutomationWorkflow.resume, Command())
    await run.execute_update(AutomationWorkflow.cancel, Command(reason="enough"))
    return run


async def joined(temporal: Client, account: TestAccount, sink: Sink) -> Handle:
    """Its cohort."""
    run = await cancelled(temporal, account, sink)
    return temporal.get_workflow_handle(f"{run.id}/cohort-1")


async def enrolled(temporal: Client, account: TestAccount, _: Sink) -> Handle:
    trigger = {"type": "date", "field": "created_at", "at": f"{datetime.now(UTC):%H:%M}"}
    source = SourceRef(account_id=account.id, source_id=await automation(account, trigger=trigger))
    return await temporal.start_workflow(EnrollWorkflow.run, source, id="enrolled", task_queue=AUTOMATIONS)


async def swept(temporal: Client, account: TestAccount, _: Sink) -> Handle:
    await automation(account)  # without a workflow
    return await temporal.start_workflow(JourneySweepWorkflow.run, id="journeys-swept", task_queue=AUTOMATIONS)


async def followed(temporal: Client, _: TestAccount, __: Sink) -> Handle:
    """Without end but for the terminating: an hour is too long to wait for."""
    await ensure_following(temporal)
    run = temporal.get_workflow_handle(FOLLOWING_ID)
    while len((await run.describe()).raw_description.pending_activities) < LANES:
        pass
    await run.terminate("recorded")
    return run
