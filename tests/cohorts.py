"""Cohorts whose steps are stood in for: what they ask for is kept, and answered as a test says."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4, uuid5

from temporalio import activity
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowHandle, WorkflowHistory
from temporalio.common import RawValue
from temporalio.testing import TimeSkipper
from temporalio.worker import Worker

from activities.journey_inputs import Answer, Caller, Failures, Happened, JournalPart, Member, NoteInput, StepCall
from workflows.code import know_function
from workflows.cohorts import CohortWorkflow, start_options
from workflows.journey import Way, automation, on_request
from workflows.journey_inputs import CohortInput, CohortProgress
from workflows.turns import OneTurnAtATime

Handle = WorkflowHandle[CohortWorkflow, CohortProgress]
SENT = Answer(value={"state": "sent", "reason": ""})


def as_usual(step: StepCall, _: Caller) -> Answer:
    """Messages are sent, no criteria hold, and nothing has happened."""
    match activity.info().activity_type:
        case "send":
            return SENT
        case "matches":
            return Answer(value=False)
        case "engagement":
            return Answer(value={"sent": 1})
        case "create_campaign":
            return Answer(value=str(UUID(int=step.now.microsecond)))
    return Answer()


@dataclass
class StandIn:
    """Does every kind of step, and reads every report."""

    answer: Callable[[StepCall, Caller], Answer] = as_usual
    before: Callable[[str, StepCall], Awaitable[None]] | None = None
    before_report: Callable[[NoteInput], Awaitable[None]] | None = None
    asked: list[tuple[str, StepCall]] = field(default_factory=list)
    last_looks: list[StepCall] = field(default_factory=list)  # for an event, when the wait for it is over
    reports: list[NoteInput] = field(default_factory=list)
    journal: dict[int, str] = field(default_factory=dict)
    before_keeping: Callable[[JournalPart], Awaitable[None]] | None = None
    failures: list[Failures] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    reporting: bool = False

    @activity.defn(dynamic=True)
    async def do(self, arguments: Sequence[RawValue]) -> list[Answer]:
        step = activity.payload_converter().from_payload(arguments[0].payload, StepCall)
        kind = activity.info().activity_type
        if step.until:
            self.last_looks.append(step)
        else:
            self.asked.append((kind, step))
        self.news.set()
        if self.before:
            await self.before(kind, step)
        return [self.answer(step, caller) for caller in step.callers]

    @activity.defn
    async def note(self, report: NoteInput) -> None:
        self.reporting = True
        self.news.set()
        if self.before_report:
            await self.before_report(report)
        self.reports.append(report)
        self.news.set()

    @activity.defn
    async def keep_journal(self, part: JournalPart) -> None:
        self.journal[part.part] = part.content
        self.news.set()
        if self.before_keeping:
            await self.before_keeping(part)

    @activity.defn
    async def read_journal(self, part: JournalPart) -> str:
        return self.journal[part.part]

    @activity.defn
    async def report_failures(self, failures: Failures) -> None:
        self.failures.append(failures)

    async def until(self, holds: Callable[[], object]) -> None:
        while not holds():
            self.news.clear()
            await self.news.wait()

    # -- what was asked ----------------------------------------------------------------------------------------------

    @property
    def steps(self) -> list[str]:
        """What was asked of activities, in order."""
        return [step.step for _, step in self.asked]

    def taken(self) -> dict[int, list[str]]:
        """By member, the steps that were asked of activities, in order."""
        found: dict[int, list[str]] = {}
        for _, step in self.asked:
            for caller in step.callers:
                found.setdefault(caller.member, []).append(step.step)
        return found

    def times(self) -> Counter[tuple[int, int, str]]:
        """How often each step of each member was asked of an activity."""
        return Counter((each.member, each.call, step.step) for _, step in self.asked for each in step.callers)

    # -- what was told -----------------------------------------------------------------------------------------------

    def noted(self, member: int = 0) -> list[tuple[str, str]]:
        """Each step of a member that has ended, with its outcome, in the order of the calls."""
        ended = {
            caller.call: (note.step, note.outcome)
            for report in self.reports
            for note in report.notes
            for caller in note.callers
            if caller.member == member and note.left_at
        }
        return [ended[call] for call in sorted(ended)]

    def is_in(self, step: str) -> int:
        """How many were told to have begun a step that takes its time."""
        notes = [note for report in self.reports for note in report.notes if note.step == step and not note.left_at]
        return sum(len(note.callers) for note in notes)

    def endings(self) -> dict[int, str]:
        """By member, how its pass ended."""
        found: dict[int, str] = {}
        for report in self.reports:
            for left in report.left:
                for member in left.members:
                    assert member not in found, "nobody leaves twice"
                    found[member] = ": ".join(filter(None, [left.state, left.reason, left.problem]))
        return found


@dataclass
class Carried:
    """A cohort at work."""

    stand_in: StandIn
    run: Handle
    client: Client

    async def progress(self) -> CohortProgress:
        return await self.run.query(CohortWorkflow.progress)

    async def skip(self, duration: timedelta) -> None:
        """Have so much of the cohort's time pass."""
        await TimeSkipper(self.client).fast_forward(self.run, duration)

    async def finish(self) -> CohortProgress:
        """Have all the time pass that it takes."""
        await TimeSkipper(self.client).fast_forward(self.client.get_workflow_handle(self.run.id))
        return await self.run.result()

    async def fill_history(self, events: int = 100) -> None:
        """Until another run takes over, although no time has passed."""
        await asyncio.gather(*(self.run.signal(CohortWorkflow.leave, []) for _ in range(events)))
        first = self.client.get_workflow_handle(self.run.id, run_id=self.run.first_execution_run_id)
        async for each in first.fetch_history_events(wait_new_event=True):
            if each.HasField("workflow_execution_continued_as_new_event_attributes"):
                return

    async def histories(self) -> list[WorkflowHistory]:
        """Of all runs, one after the other."""
        found, run_id = [], self.run.first_execution_run_id or ""
        while run_id:
            found.append(await self.client.get_workflow_handle(self.run.id, run_id=run_id).fetch_history())
            ended = found[-1].events[-1].workflow_execution_continued_as_new_event_attributes
            run_id = ended.new_execution_run_id
        return found


def besides_tasks(history: WorkflowHistory) -> list[str]:
    """What it did, by kind. How many workflow tasks that took is the machine's affair: one that is slow needs more."""
    kinds = (EventType.Name(each.event_type).removeprefix("EVENT_TYPE_") for each in history.events)
    return [each for each in kinds if not each.startswith("WORKFLOW_TASK_")]


def contact_id(member: int) -> UUID:
    return uuid5(UUID(int=7), str(member))


def members(count: int, zones: Sequence[str] = ("UTC",)) -> list[Member]:
    now = datetime.now(UTC)
    return [Member(contact_id=contact_id(each), zone=zones[each % len(zones)], entered_at=now) for each in range(count)]


def event(member: int, call: int, name: str = "message.clicked") -> Happened:
    now = datetime.now(UTC)
    return Happened(member=member, call=call, event_id=contact_id(member), name=name, occurred_at=now)


def written(way: Way) -> str:
    """Make a function an automation that cohorts find; gives its name."""
    name = f"{way.__name__}-{uuid4()}"
    know_function(automation(name, trigger=on_request())(way))
    return name


@asynccontextmanager
async def carrying(
    temporal: Client,
    way: Way | dict[str, Any] | str,
    count: int = 1,
    stand_in: StandIn | None = None,
    *,
    skipping: bool = True,
    **more: Any,
) -> AsyncIterator[Carried]:
    """A cohort of so many contacts, on a task queue of its own. It skips time, unless a test wants to say when.

    Args:
        way: a function, the definition of steps, or the name of what is `written` already.
    """
    stand_in = stand_in or StandIn()
    queue = f"cohorts-{uuid4()}"
    more.setdefault("members", members(count))
    if isinstance(way, dict):
        more["definition"] = way
    else:
        more["code"] = way if isinstance(way, str) else written(way)
    input = CohortInput(account_id=uuid4(), source_id=uuid4(), cohort=1, **more)
    activities: list[Callable[..., Any]] = [
        *(stand_in.do, stand_in.note, stand_in.report_failures, stand_in.keep_journal, stand_in.read_journal)
    ]
    work = Worker(
        temporal,
        task_queue=queue,
        workflows=[CohortWorkflow],
        workflow_runner=OneTurnAtATime(),
        activities=activities,
    )
    async with work:
        client = TimeSkipper(temporal).client if skipping else temporal
        run = await client.start_workflow(CohortWorkflow.run, input, task_queue=queue, **start_options(input))
        yield Carried(stand_in, run, temporal)
        await run.result()
