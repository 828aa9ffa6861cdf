"""Runs of cohorts whose histories are recorded; what activities would do is stood in for."""

from typing import Any

from temporalio.client import Client, WorkflowHandle

from activities.journey_inputs import Answer, Caller, Leave, StepCall
from channels.sink import Sink
from tests.cohorts import StandIn, as_usual, carrying
from tests.conftest import TestAccount
from workflows.cohorts import CohortWorkflow
from workflows.journey_inputs import Migration

Handle = WorkflowHandle[Any, Any]

FRENCH = {"field": "country", "is": "FR"}
SEND = {"type": "send", "id": "welcome", "template": "welcome"}
REST = {"type": "wait", "id": "rest", "duration": "3 days"}
CALL = {"type": "webhook", "id": "call", "url": "https://crm.example.com/leads"}
STEPS: list[dict[str, Any]] = [
    {"type": "wait", "id": "a-moment", "duration": "5 minutes"},
    SEND,
    {
        "type": "wait_for",
        "id": "click",
        "event": "message.clicked",
        "within": "1 day",
        "else": [SEND | {"id": "nudge"}],
    },
    {"type": "wait_until", "id": "morning", "at": "09:00"},
    {"type": "branch", "id": "french", "if": FRENCH, "then": [CALL], "else": [REST]},
    {
        "type": "split",
        "id": "way",
        "variants": {"a": {"weight": 1, "steps": [CALL | {"id": "again"}]}, "b": {"weight": 1}},
    },
    SEND | {"id": "bye"},
]


def mixed(step: StepCall, caller: Caller) -> Answer:
    """Each third contact differs, the webhook answers the third time, and a message waits for the morning."""
    if step.step == "french":
        return Answer(value=caller.member % 3 == 0)
    if step.step == "call" and step.attempt < 3:
        return Answer(error="503")
    if step.step == "nudge" and step.now.hour < 12 and caller.member % 3 == 1:
        return Answer(later=step.now.replace(hour=12))
    return as_usual(step, caller)


async def handed_over(temporal: Client, _: TestAccount, __: Sink) -> Handle:
    """The first of several runs."""
    async with carrying(temporal, {"steps": STEPS}, 12, StandIn(mixed), most_events=60) as cohort:
        await cohort.run.result()
    return temporal.get_workflow_handle(cohort.run.id, run_id=cohort.run.first_execution_run_id)


async def taken_over(temporal: Client, _: TestAccount, __: Sink) -> Handle:
    """The last of several runs."""
    async with carrying(temporal, {"steps": STEPS}, 12, StandIn(mixed), most_events=60) as cohort:
        await cohort.run.result()
    return temporal.get_workflow_handle(cohort.run.id)


async def told(temporal: Client, _: TestAccount, __: Sink) -> Handle:
    """Some leave, others migrate; it is paused and resumed."""
    stand_in = StandIn()
    async with carrying(temporal, {"steps": [SEND, REST]}, 6, stand_in, skipping=False) as cohort:
        await stand_in.until(lambda: stand_in.is_in("rest") == 6)
        await cohort.run.signal(CohortWorkflow.pause)
        await cohort.run.signal(CohortWorkflow.leave, [Leave(member=1, reason="goal", converted=True)])
        await cohort.run.signal(CohortWorkflow.resume)
        definition = {"steps": [REST, SEND | {"id": "bye"}]}
        await cohort.run.signal(CohortWorkflow.migrate, Migration(version=2, definition=definition))
        await cohort.finish()
    return temporal.get_workflow_handle(cohort.run.id)
