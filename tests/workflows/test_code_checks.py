"""Is it said in an author's words which cohorts would break under the code on disk, and why?"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from temporalio import activity
from temporalio.client import Client
from temporalio.worker import Worker

from activities.journey_inputs import Answer, Member, NoteInput, StepCall
from workflows.code_checks import check, under_way
from workflows.code_files import load
from workflows.cohorts import CohortWorkflow, start_options
from workflows.journey_inputs import CohortInput

HEAD = """\
from workflows.journey import Contact, Journey, automation, on_request

@automation("{name}", trigger=on_request())
async def pondered(contact: Contact, journey: Journey) -> None:
"""
WRITTEN = """\
    await journey.send("one")
    await journey.tag("two")
    await journey.wait("3 days")
    await journey.send("three")
"""
TAGGED, WAITED = WRITTEN.splitlines(keepends=True)[1:3]


@dataclass
class StandIn:
    """Does every step, and hears when somebody waits."""

    waiting: asyncio.Event = field(default_factory=asyncio.Event)

    @activity.defn
    async def send(self, step: StepCall) -> list[Answer]:
        return [Answer(value={"state": "sent"}) for _ in step.callers]

    @activity.defn
    async def tag(self, step: StepCall) -> list[Answer]:
        return [Answer() for _ in step.callers]

    @activity.defn
    async def note(self, report: NoteInput) -> None:
        if any(note.kind == "wait" for note in report.notes):
            self.waiting.set()


class Inside:
    """Five contacts who wait in an automation, and its file."""

    def __init__(self, client: Client, folder: Path) -> None:
        self.client = client
        self.file = folder / "pondered.py"
        self.name = f"pondered-{uuid4().hex[:8]}"
        self.automation_id = uuid4()
        self.query = under_way([CohortWorkflow], self.automation_id)

    def write(self, body: str) -> None:
        self.file.write_text(HEAD.format(name=self.name) + body)
        load([self.file.parent])

    async def problem(self) -> str:
        (found,) = [each async for each in check(self.client, self.query, [CohortWorkflow], most=10)]
        assert found.workflow_id == f"automation-{self.automation_id}/cohort-1"
        return found.problem


@asynccontextmanager
async def inside(client: Client, folder: Path, *, runs: int = 1) -> AsyncIterator[Inside]:
    """They have taken two steps, in so many runs of their workflow, and wait."""
    found = Inside(client, folder)
    found.write(WRITTEN)
    input = CohortInput(
        account_id=uuid4(),
        source_id=found.automation_id,
        cohort=1,
        code=found.name,
        members=[Member(contact_id=uuid4(), zone="UTC", entered_at=datetime.now(UTC)) for _ in range(5)],
        most_events=8000 if runs == 1 else 25,
    )
    stand_in, queue = StandIn(), f"checks-{uuid4()}"
    activities: list[Callable[..., Any]] = [stand_in.send, stand_in.tag, stand_in.note]
    async with Worker(client, task_queue=queue, workflows=[CohortWorkflow], activities=activities):
        run = await client.start_workflow(CohortWorkflow.run, input, task_queue=queue, **start_options(input))
        await stand_in.waiting.wait()
        while runs > 1 and (await run.describe()).run_id == run.first_execution_run_id:
            pass
        await run.query(CohortWorkflow.progress)  # it has come as far
    while not await visible(client, found.query):
        pass
    yield found
    await run.terminate()


async def visible(client: Client, query: str) -> bool:
    return (await client.count_workflows(query)).count == 1


@pytest.fixture(scope="module")
async def waiting(temporal: Client, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Inside]:
    async with inside(temporal, tmp_path_factory.mktemp("automations")) as found:
        yield found


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (WRITTEN, ""),
        (WRITTEN + '    await journey.send("four")\n', ""),
        (WRITTEN.replace("three", "drei"), ""),
        (
            WRITTEN.replace(TAGGED, ""),
            "After “send:one”, 5 contacts took “tag:two”; the code on disk does not come to that.",
        ),
        (
            WRITTEN.replace(TAGGED, '    await journey.notify("two")\n'),
            "After “send:one”, 5 contacts took “tag:two”; the code on disk has “notify” for 5.",
        ),
        (
            WRITTEN.replace(WAITED, '    await journey.send("2a")\n' + WAITED),
            "After “tag:two”, contacts waited; the code on disk has “send:2a” there.",
        ),
        (
            WRITTEN.replace(WAITED, ""),
            "After “tag:two”, contacts waited; the code on disk has “send:three” there.",
        ),
        ("    pass\n", "First of all, 5 contacts took “send:one”; the code on disk does not come to that."),
        ("    1 / 0\n", "ZeroDivisionError: division by zero (pondered.py:5)"),
    ],
)
async def test_what_would_break_is_told_by_the_steps(waiting: Inside, body: str, problem: str) -> None:
    waiting.write(body)
    assert await waiting.problem() == problem


async def test_code_that_gives_nobody_a_turn_is_told_and_ends(waiting: Inside) -> None:
    waiting.write("    names = ['one']\n    while names:\n        names.append('more')\n        names.pop()\n")
    assert await waiting.problem() == "its code goes on for more than two seconds without awaiting a step"


async def test_those_who_stand_still_already_are_told(temporal: Client) -> None:
    lost, automation_id = "in-no-file", uuid4()
    input = CohortInput(account_id=uuid4(), source_id=automation_id, cohort=1, code=lost)
    async with Worker(temporal, task_queue=lost, workflows=[CohortWorkflow]):
        run = await temporal.start_workflow(CohortWorkflow.run, input, task_queue=lost, **start_options(input))
        async for event in run.fetch_history_events(wait_new_event=True):
            if event.HasField("workflow_task_failed_event_attributes"):
                break
    query = under_way([CohortWorkflow], automation_id)
    while not await visible(temporal, query):
        pass
    (found,) = [each async for each in check(temporal, query, [CohortWorkflow], most=10)]
    assert (found.problem, found.stands_still[:45]) == ("", "No file has the automation 'in-no-file' in ve")
    await run.terminate()


async def test_those_whose_version_no_file_has_are_told(waiting: Inside) -> None:
    waiting.write(WRITTEN)
    name, waiting.name = waiting.name, "renamed"
    waiting.write(WRITTEN)
    waiting.name = name
    assert f"No file has the automation '{name}' in version 1" in await waiting.problem()


async def test_what_earlier_runs_handed_over_is_looked_at_too(temporal: Client, tmp_path: Path) -> None:
    async with inside(temporal, tmp_path, runs=2) as found:
        assert await found.problem() == ""
        found.write(WRITTEN.replace("one", "uno"))
        assert await found.problem() == (
            "Step 1 of this pass was “send:one”, and the code takes “send:uno” there now. "
            "Give changed code a version of its own."
        )


async def test_no_more_are_looked_at_than_asked_for(waiting: Inside) -> None:
    assert [each async for each in check(waiting.client, waiting.query, [CohortWorkflow], most=0)] == []
