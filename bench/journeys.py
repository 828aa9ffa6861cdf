"""Contacts through automations, in cohorts, beside a workflow for each; and how soon an event is answered."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from time import monotonic
from typing import Any, LiteralString
from uuid import UUID, uuid4

import psycopg
from temporalio.client import WorkflowHandle

from activities.journey_inputs import SourceRef
from bench import campaigns, one_each_workers
from bench.arrivals import evenly, followed, p50_and_p99
from bench.automations.passing import CLICKED, TEMPLATE, WAIT_SECONDS
from bench.bench import Bench
from bench.histories import runs_of
from bench.letter import CONTENT
from bench.one_each import TASK_QUEUE, OneEachWorkflow, Pass
from bench.stack import Running
from bench.table import Aim, Row
from workflows.journey_inputs import cohort_workflow_id

STEPS = 4  # send, wait, branch, send
STARTING = 50  # workflows that are being started at the same time
EXECUTED_AT_ONCE = 1_000  # contacts of one request
AWAITED_PER_SECOND = 50  # events, on average
LOOK_SECONDS = 0.1

SEND: dict[str, Any] = {"type": "send", "template": TEMPLATE}
UNLESS_CLICKED: dict[str, Any] = {"type": "branch", "if": CLICKED, "then": [], "else": [SEND]}
WELCOME, CONFIRMED = "bench.joined", "bench.confirmed"
SENT: LiteralString = (
    "SELECT contact_id FROM deliveries WHERE campaign_id = %s AND contact_id = ANY (%s) AND state = 'sent'"
)
SENT_TWICE: LiteralString = SENT + " GROUP BY contact_id HAVING count(*) = 2"
COMPLETED: LiteralString = "SELECT count(*) FROM enrollments WHERE source_id = %s AND state = 'completed'"


@dataclass(frozen=True)
class Passed:
    """Contacts who have taken all four steps."""

    contacts: int
    seconds: float  # from the first one who is enrolled to the last message on record
    cpu_seconds: float  # of all programs, until all is noted

    @property
    def per_second(self) -> float:
        return STEPS * self.contacts / self.seconds

    @property
    def cpu_milliseconds(self) -> float:
        """For one step of one contact."""
        return 1000 * self.cpu_seconds / self.contacts / STEPS


async def measure(bench: Bench) -> AsyncIterator[Row]:
    many = bench.sizes.visits
    few, waiting = many // 100, many // 25
    group = await bench.people(many)
    people = await campaigns.contacts(bench.stack, group, many)
    template = {"name": TEMPLATE, **CONTENT}
    (await bench.stack.api.post("/api/templates", json=template)).raise_for_status()
    async with one_each_workers.working(bench.stack, bench.relay, bench.workers, bench.connections) as pids:
        stack = replace(bench.stack, programs={**bench.stack.programs, **{f"reference {pid}": pid for pid in pids}})
        with bench.bar(f"{few:,} contacts, a workflow for each", few) as show:
            alone = await _one_each(stack, people[:few], show)
        events_alone = await _events_of_one(stack, people[few])
    with bench.bar(f"{many:,} contacts, in cohorts", many) as show:
        together = await _in_cohorts(bench.stack, people, show)
    what, beside = f"{many:,} contacts through send, wait, branch, send", f"a workflow each, {few:,} contacts"
    fast = bench.aims(Aim("at least", 100, of="ratio"))
    yield Row(what, together.per_second, beside, alone.per_second, "contact-steps/s", fast)
    cpu = together.cpu_milliseconds, beside, alone.cpu_milliseconds
    yield Row("CPU per contact-step", *cpu, "ms, all programs")
    async for row in _answers(bench, people):
        yield row
    seconds = waiting / AWAITED_PER_SECOND
    with bench.bar(f"{waiting:,} contacts, each waiting for its event", waiting) as show:
        events = await _events_per_contact(bench.stack, people[:waiting], seconds, show)
    yield Row(
        f"history events per contact, {waiting:,} awaited events at random moments of {seconds:g} s",
        events,
        "a workflow each",
        events_alone,
        "events",
    )


# -- the reference ---------------------------------------------------------------------------------------------------


async def _one_each(stack: Running, contacts: Sequence[UUID], show: Callable[[int], None]) -> Passed:
    free = asyncio.Semaphore(STARTING)

    async def start(contact: UUID) -> WorkflowHandle[OneEachWorkflow, None]:
        async with free:
            return await _start_one(stack, contact, WAIT_SECONDS)

    before, began = sum(stack.cpu_seconds().values()), monotonic()
    handles = await asyncio.gather(*map(start, contacts))
    await _until(stack, "SELECT count(*) FROM one_each WHERE state = 'sent'", [], 2 * len(contacts), show)
    seconds = monotonic() - began
    for handle in handles:
        await handle.result()
    return Passed(len(contacts), seconds, sum(stack.cpu_seconds().values()) - before)


async def _events_of_one(stack: Running, contact: UUID) -> float:
    """Of the history of a contact who was told, by a signal, what it waited for."""
    handle = await _start_one(stack, contact, None)
    await _until(stack, "SELECT count(*) FROM one_each WHERE contact_id = %s AND state = 'sent'", [contact], 1)
    await handle.signal(OneEachWorkflow.happened)
    await handle.result()
    return len((await handle.fetch_history()).events)


async def _start_one(stack: Running, contact: UUID, wait: float | None) -> WorkflowHandle[OneEachWorkflow, None]:
    return await stack.temporal.start_workflow(
        OneEachWorkflow.run, Pass(contact, wait), id=f"one-each-{uuid4()}", task_queue=TASK_QUEUE
    )


# -- the product -----------------------------------------------------------------------------------------------------


async def _in_cohorts(stack: Running, contacts: Sequence[UUID], show: Callable[[int], None]) -> Passed:
    automation = await _automation(stack, code="bench")
    before, began = sum(stack.cpu_seconds().values()), monotonic()
    await _enter(stack, automation, contacts)
    sent: LiteralString = "SELECT coalesce(sum(n), 0) FROM counters WHERE campaign_id = %s AND name = 'sent'"
    await _until(stack, sent, [automation], 2 * len(contacts), lambda messages: show(messages // 2))
    seconds = monotonic() - began
    await _until(stack, COMPLETED, [automation], len(contacts))
    return Passed(len(contacts), seconds, sum(stack.cpu_seconds().values()) - before)


async def _answers(bench: Bench, people: Sequence[UUID]) -> AsyncIterator[Row]:
    """From an event to the first message that follows from it."""
    automation = await _automation(bench.stack, trigger={"type": "event", "event": WELCOME}, steps=[SEND])
    many = bench.sizes.visits // 25
    few, rate = max(many // 100, 2), 200.0
    answering = partial(followed, bench.stack, {"name": WELCOME}, seen_by=SENT, source=automation)
    with bench.bar(f"{few:,} events, 1 per second, until all are answered", few) as show:
        alone = p50_and_p99(await answering(people[:few], evenly(few, 1.0), show=show))
    with bench.bar(f"{many:,} events, {rate:g} per second, until all are answered", many) as show:
        busy = p50_and_p99(await answering(people[few : few + many], evenly(many, rate), show=show))
    for name, among, beside in zip(("p50", "p99"), busy, alone, strict=True):
        yield Row(f"from an event to its first message, {rate:g} events/s, {name}", among, "1 event/s", beside, "s")


async def _events_per_contact(
    stack: Running, contacts: Sequence[UUID], seconds: float, show: Callable[[int], None]
) -> float:
    """Of all histories of an automation whose contacts wait for an event, which comes at a random moment."""
    confirmed = {"type": "wait_for", "event": CONFIRMED, "within": "1 hour", "then": [UNLESS_CLICKED]}
    automation = await _automation(stack, trigger={"type": "api"}, steps=[SEND, confirmed])
    await _enter(stack, automation, contacts)
    await _until(stack, "SELECT count(*) FROM enrollment_waits WHERE source_id = %s", [automation], len(contacts))
    chance = random.Random(7)
    moments = sorted(chance.uniform(0, seconds) for _ in contacts)
    shuffled = chance.sample(contacts, len(contacts))
    await followed(stack, {"name": CONFIRMED}, shuffled, moments, SENT_TWICE, automation, show)
    await _until(stack, COMPLETED, [automation], len(contacts))
    source = SourceRef(account_id=stack.account_id, source_id=automation)
    async with await psycopg.AsyncConnection.connect(stack.database_url) as connection:
        found = await connection.execute("SELECT number FROM cohorts WHERE source_id = %s", [automation])
        cohorts = [cohort_workflow_id(source, row[0]) for row in await found.fetchall()]
    kept = [len(run) for cohort in cohorts async for run in runs_of(stack.temporal, cohort)]
    return sum(kept) / len(contacts)


async def _enter(stack: Running, automation: UUID, contacts: Sequence[UUID]) -> None:
    for first in range(0, len(contacts), EXECUTED_AT_ONCE):
        asked = [{"id": str(contact)} for contact in contacts[first : first + EXECUTED_AT_ONCE]]
        answer = await stack.api.post(f"/api/automations/{automation}/execute", json={"contacts": asked})
        answer.raise_for_status()


async def _automation(stack: Running, **written: object) -> UUID:
    """An active one."""
    named = {"name": f"Bench {uuid4()}", **written}
    made = (await stack.api.post("/api/automations", json=named)).raise_for_status().json()
    (await stack.api.post(f"/api/automations/{made['id']}/activate")).raise_for_status()
    return UUID(made["id"])


async def _until(
    stack: Running, counting: LiteralString, given: list[Any], enough: int, show: Callable[[int], None] = lambda _: None
) -> None:
    """Look again and again until the query counts enough."""
    async with (
        asyncio.timeout(60 + enough),
        await psycopg.AsyncConnection.connect(stack.database_url, autocommit=True) as connection,
    ):
        while True:
            (count,) = await (await connection.execute(counting, given)).fetchone() or (0,)
            show(int(count))
            if count >= enough:
                return
            await asyncio.sleep(LOOK_SECONDS)
