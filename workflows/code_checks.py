"""Would those who are inside go on under the code on disk? The histories of their cohorts are replayed against it."""

import re
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from pydantic_core import from_json
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowExecution, WorkflowHistory
from temporalio.runtime import LoggingConfig, Runtime, TelemetryConfig, TelemetryFilter
from temporalio.worker import (
    Interceptor,
    Replayer,
    StartActivityInput,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowOutboundInterceptor,
)
from temporalio.workflow import ActivityHandle

from activities.journey_inputs import NoteInput, StepCall
from workflows.cohorts import CohortWorkflow
from workflows.connection import DATA_CONVERTER
from workflows.standstills import DEADLOCK, ENDLESS, last_failure, told
from workflows.turns import OneTurnAtATime

# Two seconds each, and then it is a deadlock: on a busy machine it may look like one.
ATTEMPTS = 2
NOT_LOADED = r"No file has .*? They wait until then\."


@dataclass(frozen=True)
class Checked:
    """One workflow that is under way."""

    workflow_id: str
    problem: str = ""  # what would break; empty if nothing would
    stands_still: str = (
        ""  # why its workflow task fails already, under the code at work; from there on nothing is known
    )


@dataclass(frozen=True)
class _Step:
    """A step that was asked of an activity."""

    activity: str
    name: str
    contacts: int
    event: int = 0  # its number in the history


@dataclass
class _Asked:
    """All that a cohort asks of activities."""

    steps: list[_Step] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)  # members who are reported to have failed, and why


def under_way(workflows: Iterable[type], automation_id: UUID | None = None) -> str:
    """Temporal's query for those that are not over; of one automation, or of all."""
    types = ", ".join(f"'{each.__name__}'" for each in workflows)
    of_one = f" AND AutomationId = '{automation_id}'" if automation_id else ""
    return f"WorkflowType IN ({types}) AND ExecutionStatus = 'Running'{of_one}"


async def check(client: Client, query: str, workflows: Sequence[type], most: int) -> AsyncIterator[Checked]:
    """Replay up to `most` of the runs that Temporal finds; nothing is changed, and none of them notices.

    Raises:
        RPCError: Temporal does not answer.
    """
    # Each that breaks is told in our words, and not in those of Temporal's core too.
    quiet = Runtime(
        telemetry=TelemetryConfig(logging=LoggingConfig(TelemetryFilter(core_level="ERROR", other_level="ERROR")))
    )
    async for run in client.list_workflows(query, limit=most):
        history = await client.get_workflow_handle(run.id, run_id=run.run_id).fetch_history()
        failure = last_failure(history.events)
        yield Checked(run.id, await _problem(history, workflows, run, quiet), told(failure) if failure else "")


async def _problem(
    history: WorkflowHistory, workflows: Sequence[type], run: WorkflowExecution, runtime: Runtime
) -> str:
    if not any(event.HasField("workflow_task_completed_event_attributes") for event in history.events):
        return ""  # it has not begun, and Temporal would wait for it to
    for _ in range(ATTEMPTS):
        witness = _Witness()
        replayer = Replayer(
            workflows=workflows,
            workflow_runner=OneTurnAtATime(),
            interceptors=[witness],
            data_converter=DATA_CONVERTER,
            namespace=run.namespace,
            runtime=runtime,
        )
        failure = (await replayer.replay_workflow(history, raise_on_replay_failure=False)).replay_failure
        if DEADLOCK not in str(failure):
            break
    else:
        return ENDLESS
    before, now = _asked(history.events), witness.asked
    if why := next((why for member, why in now.failed.items() if member not in before.failed), ""):
        return why
    if failure and run.workflow_type != CohortWorkflow.__name__:
        return f"This version of Carillon does not go on with it: {_first_line(failure)}"
    return _explained(before.steps, now.steps, failure) if failure else ""


def _explained(before: list[_Step], now: list[_Step], failure: Exception) -> str:
    """In the words of an author: which step came, and what the code has there."""
    if missing := re.search(NOT_LOADED, str(failure)):
        return missing[0]
    if "TMPRL1100" not in str(failure):  # Temporal's number for what differs from the history
        return _first_line(failure)
    for number, step in enumerate(before):
        instead = now[number] if number < len(now) else None
        if instead and (instead.activity, instead.contacts) == (step.activity, step.contacts):
            continue
        there = f"has “{instead.name}” for {instead.contacts:,}" if instead else "does not come to that"
        return f"{_after(before[:number])}, {step.contacts:,} contacts took “{step.name}”; the code on disk {there}."
    found = re.search(r"HistoryEvent\(id: (\d+)", str(failure))
    past = [step for step in before if not found or step.event < int(found[1])]
    there = f"has “{now[len(before)].name}” there" if len(now) > len(before) else "does not wait as they did"
    return f"{_after(past)}, contacts waited; the code on disk {there}."


def _first_line(failure: Exception) -> str:
    return str(failure).partition("\n")[0]


def _after(steps: list[_Step]) -> str:
    return f"After “{steps[-1].name}”" if steps else "First of all"


def _asked(events: Iterable[HistoryEvent]) -> _Asked:
    asked = _Asked()
    for event in events:
        scheduled = event.activity_task_scheduled_event_attributes
        said = from_json(scheduled.input.payloads[0].data) if scheduled.input.payloads else {}
        if "callers" in said:
            asked.steps.append(_Step(scheduled.activity_type.name, said["step"], len(said["callers"]), event.event_id))
        for left in said.get("left", ()):
            if left["state"] == "failed":
                asked.failed |= dict.fromkeys(left["members"], left.get("problem", ""))
    return asked


class _Witness(Interceptor):
    """Sees what a workflow asks of activities."""

    def __init__(self) -> None:
        self.asked = _Asked()

    def workflow_interceptor_class(self, _: WorkflowInterceptorClassInput) -> type[WorkflowInboundInterceptor]:
        asked = self.asked

        class Outbound(WorkflowOutboundInterceptor):
            def start_activity(self, input: StartActivityInput) -> ActivityHandle[Any]:
                for said in input.args:
                    if isinstance(said, StepCall):
                        asked.steps.append(_Step(input.activity, said.step, len(said.callers)))
                    if isinstance(said, NoteInput):
                        failed = [left for left in said.left if left.state == "failed"]
                        asked.failed |= {member: left.problem for left in failed for member in left.members}
                return super().start_activity(input)

        class Inbound(WorkflowInboundInterceptor):
            def init(self, outbound: WorkflowOutboundInterceptor) -> None:
                super().init(Outbound(outbound))

        return Inbound
