"""Automations at work, on the real parts: told over the API, routed for one account alone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any
from uuid import UUID, uuid4

import httpx
from sqlalchemy import text
from temporalio.client import Client, ScheduleHandle, WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from activities.routing import Routing
from channels.sink import Sink
from database import journey_touches
from tests.audience import EMAIL, people
from tests.conftest import PATIENCE, TestAccount
from workflows import automations, enrolling
from workflows.automations import AutomationWorkflow
from workflows.cohorts import CohortWorkflow
from workflows.journey_inputs import AutomationProgress, CohortProgress
from workflows.journeys import FOLLOWING_ID, JourneySweepWorkflow
from workflows.options import AUTOMATIONS

SEND: dict[str, Any] = {"type": "send", "content": EMAIL}
LONG: dict[str, Any] = {"type": "wait", "duration": "30 days"}
ON_ORDER: dict[str, Any] = {"type": "event", "event": "order.placed"}

Automation = WorkflowHandle[AutomationWorkflow, AutomationProgress]
Cohort = WorkflowHandle[CohortWorkflow, CohortProgress]


@dataclass(frozen=True)
class Automating:
    """An account with automations."""

    account: TestAccount
    api: httpx.AsyncClient
    temporal: Client
    sink: Sink

    async def activated(self, *steps: dict[str, Any], **terms: Any) -> UUID:
        """A new automation that lets contacts in; by an order, unless the terms say otherwise."""
        definition = {"name": f"Automation {monotonic()}", "trigger": ON_ORDER, "steps": list(steps), **terms}
        made = await self.api.post("/api/automations", json=definition)
        assert made.status_code == 201, made.text
        answer = await self.api.post(f"/api/automations/{made.json()['id']}/activate")
        assert answer.status_code == 202, answer.text
        return UUID(made.json()["id"])

    async def somebody(self, **fields: Any) -> UUID:
        (contact,) = await people(self.account, 1, **fields)
        return contact

    async def happens(self, name: str, *contacts: UUID, **parts: Any) -> None:
        for contact in contacts:
            told = {"name": name, "contact": {"id": str(contact)}, **parts}
            answer = await self.api.post("/api/events", json=told)
            assert answer.is_success, answer.text

    def workflow(self, automation: UUID) -> Automation:
        return self.temporal.get_workflow_handle_for(AutomationWorkflow.run, f"automation-{automation}")

    def cohort(self, automation: UUID, number: int = 1) -> Cohort:
        return self.temporal.get_workflow_handle_for(CohortWorkflow.run, f"automation-{automation}/cohort-{number}")

    async def address(self, contact: UUID) -> str:
        async with self.account.transaction() as tx:
            query = text("SELECT email FROM contacts WHERE id = :id")
            return str((await tx.execute(query, {"id": contact})).scalar_one())

    async def messages(self, contact: UUID) -> int:
        address = await self.address(contact)
        return sum(each.recipient == address for each in self.sink.received)

    async def gets(self, contact: UUID, count: int = 1) -> None:
        """Wait until so many messages have come."""
        async with asyncio.timeout(PATIENCE):
            while await self.messages(contact) < count:
                await self.sink.next_arrival()

    async def passes(self, automation: UUID, contact: UUID) -> list[tuple[str, str | None]]:
        """How each pass of the contact stands, and why it has left."""
        async with self.account.transaction() as tx:
            query = text("""
                SELECT state, reason FROM enrollments WHERE source_id = :source AND contact_id = :contact ORDER BY id
            """)
            rows = await tx.execute(query, {"source": automation, "contact": contact})
            return [(row.state, row.reason) for row in rows]

    async def until_passes(self, automation: UUID, contact: UUID, *wanted: tuple[str, str | None]) -> None:
        """Wait until its passes stand so."""
        async with asyncio.timeout(PATIENCE):
            while await self.passes(automation, contact) != list(wanted):  # noqa: ASYNC110  # the database calls nobody
                await asyncio.sleep(0.02)

    async def until_it_waits(self, automation: UUID, contact: UUID) -> None:
        """Wait until it is on record that the contact is at such a step."""
        query = text("SELECT step LIKE 'wait%' FROM enrollments WHERE source_id = :source AND contact_id = :contact")
        async with asyncio.timeout(PATIENCE):
            while True:
                async with self.account.transaction() as tx:
                    if (await tx.execute(query, {"source": automation, "contact": contact})).scalar_one_or_none():
                        return
                await asyncio.sleep(0.02)

    async def so_far(self, workflow: WorkflowHandle[Any, Any]) -> int:
        """The last event in its history."""
        return (await workflow.fetch_history()).events[-1].event_id

    async def until_asked(self, workflow: WorkflowHandle[Any, Any], activity: str, after: int) -> None:
        """Wait until a workflow asks for an activity after that event."""
        async with asyncio.timeout(PATIENCE):
            async for each in workflow.fetch_history_events(wait_new_event=True):
                asked = each.activity_task_scheduled_event_attributes.activity_type.name
                if asked == activity and each.event_id > after:
                    return

    async def until_answered(self, workflow: WorkflowHandle[Any, Any], activity: str, times: int) -> None:
        """Wait until an activity has been answered so often."""
        asked: set[int] = set()
        done: set[int] = set()
        async with asyncio.timeout(PATIENCE):
            async for each in workflow.fetch_history_events(wait_new_event=True):
                if each.activity_task_scheduled_event_attributes.activity_type.name == activity:
                    asked.add(each.event_id)
                done |= asked & {each.activity_task_completed_event_attributes.scheduled_event_id}
                if len(done) >= times:
                    return

    async def until_state(self, cohort: Cohort, state: str) -> None:
        """Wait until a cohort has been told to pause, or to go on."""
        async with asyncio.timeout(PATIENCE):
            while (await cohort.query(CohortWorkflow.progress)).state != state:  # noqa: ASYNC110  # it calls nobody
                await asyncio.sleep(0.02)

    async def long_ago(self) -> None:
        """All cohorts were formed some time ago."""
        async with self.account.transaction() as tx:
            await tx.execute(text("UPDATE cohorts SET started_at = started_at - interval '1 hour'"))

    async def until_known(self, schedule: ScheduleHandle, there: bool = True) -> None:
        """Wait until Temporal knows a schedule, or not any more."""
        async with asyncio.timeout(PATIENCE):
            while there != await _exists(schedule):  # noqa: ASYNC110  # Temporal calls nobody
                await asyncio.sleep(0.05)

    async def figures(self, automation: UUID) -> dict[str, int]:
        """Of passes as a whole."""
        async with self.account.transaction() as tx:
            query = text(
                "SELECT name, sum(n)::int AS n FROM step_counters WHERE source_id = :id AND step = '' GROUP BY 1"
            )
            return {row.name: row.n for row in await tx.execute(query, {"id": automation})}


async def _exists(schedule: ScheduleHandle) -> bool:
    try:
        await schedule.describe()
    except RPCError as error:
        return error.status is not RPCStatusCode.NOT_FOUND
    return True


def routing(account: TestAccount, temporal: Client) -> Routing:
    return Routing(
        account.database, temporal, partial(automations.wake, temporal), partial(enrolling.keep_times, temporal)
    )


async def sweep(temporal: Client) -> None:
    """Have what is lost found, as it is every minute.

    Somebody seems to tell what happens: whom the sweep started would go on with that, for all tests to come.
    """
    somebody = await temporal.start_workflow("Somebody", id=FOLLOWING_ID, task_queue="nobody's")
    try:
        await temporal.execute_workflow(JourneySweepWorkflow.run, id=f"sweep-{uuid4()}", task_queue=AUTOMATIONS)
    finally:
        await somebody.terminate()


@asynccontextmanager
async def routed(account: TestAccount, temporal: Client) -> AsyncIterator[None]:
    """Have what happens in one account routed, as `follow_journeys` does for all."""

    async def follow() -> None:
        router = routing(account, temporal)
        async with account.database.aside() as looking:
            while True:
                if account.id in await journey_touches.accounts(looking, 0, 1):
                    await router.take_turn(account.id)
                else:
                    await asyncio.sleep(0.02)

    async with asyncio.TaskGroup() as group:  # what fails here fails the test at once
        following = group.create_task(follow())
        yield
        following.cancel()
