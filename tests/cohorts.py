"""Cohorts whose steps are stood in for: what they ask for is noted, and answered as a test says."""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4, uuid5

from temporalio import activity
from temporalio.client import Client, WorkflowHandle
from temporalio.common import RawValue
from temporalio.testing import TimeSkipper
from temporalio.worker import Worker

from activities.journey_inputs import Answer, Caller, Failures, Member, Note, NoteInput, StepCall
from workflows.code import know_function
from workflows.cohorts import CohortWorkflow, start_options
from workflows.journey import Way, automation, on_request
from workflows.journey_inputs import CohortInput, CohortProgress

Handle = WorkflowHandle[CohortWorkflow, CohortProgress]
Answering = Callable[[StepCall, Caller], Answer]
SENT = Answer(value={"state": "sent", "reason": ""})
ENTERED = datetime(2031, 3, 3, 12, tzinfo=UTC)


def as_usual(step: StepCall, caller: Caller) -> Answer:
    """Messages are sent, nothing holds, and nothing has happened."""
    match activity.info().activity_type:
        case "send":
            return SENT
        case "matches":
            return Answer(value=False)
    return Answer()


@dataclass
class StandIn:
    """Does every kind of step for one cohort at a time."""

    answering: Answering = as_usual
    steps: list[tuple[str, StepCall]] = field(default_factory=list)
    notes: list[NoteInput] = field(default_factory=list)
    failures: list[Failures] = field(default_factory=list)
    before: Callable[[StepCall], Coroutine[Any, Any, None]] | None = None

    def activities(self) -> list[Callable[..., Any]]:
        return [self.any, self.note, self.report_failures]

    @activity.defn(dynamic=True)
    async def any(self, arguments: Sequence[RawValue]) -> list[Answer]:
        step = activity.payload_converter().from_payload(arguments[0].payload, StepCall)
        self.steps.append((activity.info().activity_type, step))
        if self.before:
            await self.before(step)
        return [self.answering(step, caller) for caller in step.callers]

    @activity.defn
    async def note(self, note: NoteInput) -> None:
        self.notes.append(note)

    @activity.defn
    async def report_failures(self, failures: Failures) -> None:
        self.failures.append(failures)

    # -- what was asked ----------------------------------------------------------------------------------------------

    def taken(self) -> dict[int, list[str]]:
        """By member, the steps that were asked of activities, in order."""
        found: dict[int, list[str]] = {}
        for _, step in self.steps:
            for caller in step.callers:
                found.setdefault(caller.member, []).append(step.step)
        return found

    def times(self) -> Counter[tuple[int, int, str]]:
        """How often each step of each member was asked of an activity."""
        return Counter((each.member, each.call, step.step) for _, step in self.steps for each in step.callers)

    def endings(self) -> dict[int, str]:
        """By member, how its pass ended."""
        found = {}
        for note in self.notes:
            for left in note.left:
                for member in left.members:
                    assert member not in found, "nobody leaves twice"
                    found[member] = ": ".join(filter(None, [left.state, left.reason, left.problem]))
        return found

    def noted(self, member: int) -> list[Note]:
        """What people read of one member, in order."""
        return [
            note for told in self.notes for note in told.notes if any(each.member == member for each in note.callers)
        ]


def members(count: int, zones: Sequence[str] = ("UTC",), entered_at: datetime = ENTERED) -> list[Member]:
    return [
        Member(contact_id=uuid5(UUID(int=7), str(each)), zone=zones[each % len(zones)], entered_at=entered_at)
        for each in range(count)
    ]


def written(way: Way) -> str:
    """Make a function an automation that cohorts find; gives its name."""
    name = f"{way.__name__}-{uuid4().hex[:8]}"
    know_function(automation(name, trigger=on_request())(way))
    return name


@dataclass
class Carried:
    """A cohort at work."""

    stand_in: StandIn
    handle: Handle
    client: Client

    async def progress(self) -> CohortProgress:
        return await self.handle.query(CohortWorkflow.progress)


@asynccontextmanager
async def carrying(
    temporal: Client, way: Way, count: int = 1, stand_in: StandIn | None = None, *, skipping: bool = True, **more: Any
) -> AsyncIterator[Carried]:
    """A cohort of so many contacts, on a task queue of its own; time is skipped unless a test wants it to stand."""
    stand_in = stand_in or StandIn()
    queue = f"cohorts-{uuid4()}"
    client = TimeSkipper(temporal).client if skipping else temporal
    more.setdefault("members", members(count, entered_at=datetime.now(UTC)))
    input = CohortInput(account_id=uuid4(), source_id=uuid4(), cohort=1, code=written(way), **more)
    async with Worker(client, task_queue=queue, workflows=[CohortWorkflow], activities=stand_in.activities()):
        options = start_options(input)
        run = await client.start_workflow(CohortWorkflow.run, input, task_queue=queue, **options)
        yield Carried(stand_in, run, client)
