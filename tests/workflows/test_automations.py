"""From what happens to a contact to what an automation does: on the real parts."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from temporalio.client import Client
from temporalio.testing import ActivityEnvironment

from activities.due import DueContacts
from activities.journey_inputs import SourceRef
from activities.routing import as_formed
from activities.routing_inputs import DueInput
from channels.sink import Sink
from database import automations, cohorts, sources
from database.enrolling import Candidate, enroll
from marketing.automations import AutomationState
from tests.automating import LONG, ON_ORDER, SEND, Automating, routed, routing, sweep
from tests.conftest import TestAccount
from tests.segments import of_contacts
from tests.stopwatch import Stopwatch
from workflows.automations import AutomationWorkflow, cohort_input, start_options, wake
from workflows.cohorts import CohortWorkflow
from workflows.cohorts import start_options as cohort_options
from workflows.inputs import Command
from workflows.journey_inputs import AutomationInput
from workflows.options import AUTOMATIONS

NOW = datetime.now(UTC)


@pytest.fixture
async def automating(
    account: TestAccount, api: httpx.AsyncClient, temporal: Client, worker: None, sink: Sink
) -> AsyncIterator[Automating]:
    async with routed(account, temporal):
        yield Automating(account, api, temporal, sink)


async def test_an_event_lets_a_contact_in_who_gets_the_first_message_and_completes(automating: Automating) -> None:
    automation = await automating.activated(SEND)
    zoe = await automating.somebody()
    await automating.happens("order.placed", zoe)
    await automating.gets(zoe)
    await automating.until_passes(automation, zoe, ("completed", None))
    assert await automating.figures(automation) == {"enrolled": 1, "completed": 1}


async def test_what_is_told_in_one_list_with_the_trigger_is_waited_for_or_the_goal(automating: Automating) -> None:
    waited = {"type": "wait_for", "event": "purchase", "within": "1 day", "then": [SEND], "else": []}
    waiting = await automating.activated(waited)
    seeking = await automating.activated(LONG, SEND, goal={"event": "purchase"})
    before = await automating.activated(LONG, goal={"event": "looked"}, exit_on=[{"event": "looked"}])
    zoe = await automating.somebody()
    told = [{"name": name, "contact": {"id": str(zoe)}} for name in ("looked", "order.placed", "purchase")]
    answer = await automating.api.post("/api/events", json=told)
    assert answer.is_success, answer.text
    await automating.gets(zoe)
    await automating.until_passes(waiting, zoe, ("completed", None))
    await automating.until_passes(seeking, zoe, ("exited", "goal"))
    await automating.until_passes(before, zoe, ("active", None))


async def test_a_goal_that_is_set_during_a_pause_is_looked_for_at_once(automating: Automating) -> None:
    automation = await automating.activated(LONG)
    zoe = await automating.somebody()
    await automating.happens("order.placed", zoe)
    await automating.until_it_waits(automation, zoe)
    path = f"/api/automations/{automation}"
    assert (await automating.api.post(f"{path}/deactivate")).is_success
    changed = {"name": "Changed", "trigger": ON_ORDER, "steps": [LONG], "goal": {"event": "purchase"}}
    assert (await automating.api.put(path, json=changed)).is_success
    await automating.happens("purchase", zoe)
    await automating.until_passes(automation, zoe, ("exited", "goal"))


async def test_whoever_comes_while_a_cohort_is_young_joins_it(automating: Automating) -> None:
    automation = await automating.activated(SEND, LONG)
    first, second, third = [await automating.somebody(name=name) for name in ("first", "second", "third")]
    for each in (first, second, third):
        await automating.happens("order.placed", each)
        await automating.gets(each)
    progress = await automating.workflow(automation).query(AutomationWorkflow.progress)
    assert progress.cohorts == 1


async def test_a_cohort_that_is_over_is_not_joined(automating: Automating) -> None:
    automation = await automating.activated(SEND)
    for name in ("first", "second"):
        each = await automating.somebody(name=name)
        await automating.happens("order.placed", each)
        await automating.until_passes(automation, each, ("completed", None))
    assert await automating.figures(automation) == {"enrolled": 2, "completed": 2}


async def test_whoever_unsubscribes_during_a_wait_leaves_within_a_second_and_gets_nothing_more(
    automating: Automating,
) -> None:
    automation = await automating.activated(SEND, LONG, SEND)
    zoe = await automating.somebody()
    await automating.happens("order.placed", zoe)
    await automating.gets(zoe)
    changed = {"subscriptions": [{"channel": "email", "status": "unsubscribed"}]}
    answer = await automating.api.patch(f"/api/contacts/{zoe}", json=changed)
    assert answer.is_success, answer.text
    since = Stopwatch()
    await automating.until_passes(automation, zoe, ("exited", "unsubscribed"))
    assert since.read() < 1
    await automating.cohort(automation).result()
    assert await automating.messages(zoe) == 1


async def test_whoever_is_deleted_leaves(automating: Automating) -> None:
    automation = await automating.activated(SEND, LONG, SEND)
    zoe = await automating.somebody()
    await automating.happens("order.placed", zoe)
    await automating.gets(zoe)
    assert (await automating.api.delete(f"/api/contacts/{zoe}")).is_success
    await automating.until_passes(automation, zoe, ("exited", "contact_deleted"))


async def test_whoever_reaches_the_goal_leaves_and_counts_as_converted(automating: Automating) -> None:
    goal = {"event": "purchase", "where": {"field": "value", "at_least": 50}}
    automation = await automating.activated(SEND, LONG, goal=goal)
    zoe = await automating.somebody()
    await automating.happens("order.placed", zoe)
    await automating.gets(zoe)
    await automating.happens("purchase", zoe, value=49)
    await automating.happens("purchase", zoe, value=50)
    await automating.until_passes(automation, zoe, ("exited", "goal"))
    assert await automating.figures(automation) == {"enrolled": 1, "exited:goal": 1, "converted": 1}


async def test_whoever_waits_for_an_event_goes_on_when_it_happens(automating: Automating) -> None:
    where = {"field": "properties.plan", "is": "pro"}
    awaited = {"type": "wait_for", "event": "upgraded", "where": where, "within": "30 days", "then": [SEND]}
    automation = await automating.activated(SEND, awaited)
    zoe = await automating.somebody()
    await automating.happens("order.placed", zoe)
    await automating.gets(zoe)
    await automating.happens("upgraded", zoe, properties={"plan": "free"})
    await automating.happens("upgraded", zoe, properties={"plan": "pro"})
    await automating.gets(zoe, 2)
    await automating.until_passes(automation, zoe, ("completed", None))


async def test_whoever_waits_twice_goes_on_by_two_events_of_one_list_and_not_by_one(automating: Automating) -> None:
    again: dict[str, Any] = {"type": "wait_for", "event": "looked", "within": "30 days", "then": [SEND], "else": []}
    automation = await automating.activated({**again, "then": [again]})
    zoe = await automating.somebody()
    await automating.happens("order.placed", zoe)
    await automating.until_it_waits(automation, zoe)
    looked = {"name": "looked", "contact": {"id": str(zoe)}, "occurred_at": datetime.now(UTC).isoformat()}
    assert (await automating.api.post("/api/events", json=[looked, looked])).is_success
    await automating.gets(zoe)
    await automating.until_passes(automation, zoe, ("completed", None))


@pytest.mark.parametrize(
    ("reentry", "passes"),
    [("once", 1), ("always", 2), ({"after": "1 day"}, 1)],
)
async def test_a_contact_passes_through_again_as_the_author_allows(
    automating: Automating, reentry: Any, passes: int
) -> None:
    automation = await automating.activated(SEND, reentry=reentry)
    zoe = await automating.somebody()
    for number in range(2):
        await automating.happens("order.placed", zoe)
        await automating.until_passes(automation, zoe, *[("completed", None)] * min(number + 1, passes))
    if passes == 1:
        another = await automating.somebody(name="another")  # whoever comes later comes after what was refused
        await automating.happens("order.placed", another)
        await automating.gets(another)
        assert (await automating.figures(automation))["refused:once"] == 1
    assert await automating.messages(zoe) == passes


async def test_what_happened_long_before_it_is_told_lets_nobody_in(automating: Automating) -> None:
    automation = await automating.activated(SEND)
    early, late = await automating.somebody(name="early"), await automating.somebody(name="late")
    then = datetime.now(UTC) - timedelta(hours=73)
    await automating.happens("order.placed", early, occurred_at=then.isoformat())
    await automating.happens("order.placed", late)
    await automating.gets(late)
    assert await automating.passes(automation, early) == []
    assert (await automating.figures(automation))["refused:old"] == 1


async def test_a_paused_automation_sends_nothing_and_lets_nobody_in_until_it_is_resumed(
    automating: Automating,
) -> None:
    awaited = {"type": "wait_for", "event": "opened.door", "within": "30 days", "then": [SEND]}
    automation = await automating.activated(SEND, awaited)
    zoe, late = await automating.somebody(), await automating.somebody(name="late")
    await automating.happens("order.placed", zoe)
    await automating.gets(zoe)
    paused = await automating.workflow(automation).execute_update(AutomationWorkflow.pause, Command(reason="Wait."))
    assert (paused.state, paused.reason) == ("paused", "Wait.")
    await automating.happens("opened.door", zoe)
    await automating.happens("order.placed", late)
    resumed = await automating.workflow(automation).execute_update(AutomationWorkflow.resume, Command())
    assert resumed.state == "active"
    await automating.gets(zoe, 2)
    await automating.until_passes(automation, zoe, ("completed", None))


async def test_whoever_a_short_pause_held_up_goes_on_when_it_ends(automating: Automating) -> None:
    awaited = {"type": "wait_for", "event": "opened.door", "within": "30 days", "then": [SEND]}
    automation = await automating.activated(SEND, awaited)
    zoe, late = await automating.somebody(), await automating.somebody(name="late")
    await automating.happens("order.placed", zoe)
    await automating.until_it_waits(automation, zoe)
    handle = automating.workflow(automation)
    async with automating.account.transaction() as tx:  # so long it takes in the next one, and tells nobody anything
        await tx.execute(text("SELECT FROM cohorts WHERE source_id = :id FOR UPDATE"), {"id": automation})
        before = await automating.so_far(handle)
        await automating.happens("order.placed", late)
        await automating.until_asked(handle, "form_cohort", before)
        await handle.execute_update(AutomationWorkflow.pause, Command())
        await automating.happens("opened.door", zoe)
        await automating.until_answered(automating.cohort(automation), "send", 2)
        await handle.execute_update(AutomationWorkflow.resume, Command())
    await automating.gets(zoe, 2)


async def test_whoever_was_held_by_a_pause_that_no_workflow_has_heard_of_goes_on_when_it_ends(
    automating: Automating,
) -> None:
    awaited = {"type": "wait_for", "event": "opened.door", "within": "30 days", "then": [SEND]}
    automation = await automating.activated(SEND, awaited)
    zoe = await automating.somebody()
    await automating.happens("order.placed", zoe)
    await automating.until_it_waits(automation, zoe)
    async with automating.account.transaction() as tx:
        await automations.move(tx, automation, AutomationState.PAUSED)
    await automating.happens("opened.door", zoe)
    await automating.until_answered(automating.cohort(automation), "send", 2)
    assert (await automating.api.post(f"/api/automations/{automation}/activate")).is_success
    await automating.gets(zoe, 2)


async def test_whoever_was_told_of_a_pause_is_told_of_its_end_by_a_workflow_that_knows_of_none(
    automating: Automating,
) -> None:
    awaited = {"type": "wait_for", "event": "opened.door", "within": "30 days", "then": [SEND]}
    automation = await automating.activated(SEND, awaited)
    zoe = await automating.somebody()
    await automating.happens("order.placed", zoe)
    await automating.until_it_waits(automation, zoe)
    cohort = automating.cohort(automation)
    assert (await automating.api.post(f"/api/automations/{automation}/pause")).is_success
    await automating.until_state(cohort, "paused")
    await automating.workflow(automation).terminate()
    assert (await automating.api.post(f"/api/automations/{automation}/activate")).is_success
    await automating.until_state(cohort, "running")


async def test_a_cancelled_automation_has_everybody_leave(automating: Automating) -> None:
    automation = await automating.activated(SEND, LONG, SEND)
    zoe = await automating.somebody()
    await automating.happens("order.placed", zoe)
    await automating.gets(zoe)
    await automating.workflow(automation).execute_update(AutomationWorkflow.cancel, Command(reason="Wrong price"))
    progress = await automating.workflow(automation).result()
    assert progress.state == "over"
    await automating.until_passes(automation, zoe, ("cancelled", "Wrong price"))
    assert await automating.messages(zoe) == 1


async def test_whoever_is_inside_when_it_is_cancelled_is_out_also_if_it_is_activated_at_once(
    automating: Automating,
) -> None:
    awaited = {"type": "wait_for", "event": "opened.door", "within": "30 days", "then": [SEND]}
    automation = await automating.activated(SEND, awaited, reentry="always")
    zoe, max_ = await automating.somebody(name="zoe"), await automating.somebody(name="max")
    await automating.happens("order.placed", zoe)
    await automating.until_it_waits(automation, zoe)
    for verb in ("cancel", "activate"):
        assert (await automating.api.post(f"/api/automations/{automation}/{verb}")).is_success
    await automating.happens("opened.door", zoe)
    await automating.happens("order.placed", max_)
    await automating.until_passes(automation, zoe, ("cancelled", "cancelled"))
    await automating.until_it_waits(automation, max_)
    await automating.happens("opened.door", zoe, max_)
    await automating.until_passes(automation, max_, ("completed", None))
    assert (await automating.messages(zoe), await automating.messages(max_)) == (1, 2)
    assert await automating.figures(automation) == {"enrolled": 2, "cancelled": 1, "completed": 1}


# -- whatever becomes of its workflow --------------------------------------------------------------------------------


async def test_nobody_is_lost_when_the_workflow_continues_as_new(automating: Automating) -> None:
    automation = await automating.activated(SEND, LONG)
    handle = automating.workflow(automation)
    await handle.terminate()
    input = AutomationInput(account_id=automating.account.id, source_id=automation, most_events=20)
    first = await automating.temporal.start_workflow(
        AutomationWorkflow.run, input, task_queue=AUTOMATIONS, **start_options(input)
    )
    those = [await automating.somebody(name=f"person{n}") for n in range(5)]
    for each in those:
        await automating.happens("order.placed", each)
        await automating.gets(each)
    assert (await handle.describe()).run_id != first.first_execution_run_id
    assert await automating.figures(automation) == {"enrolled": 5}


async def test_an_automation_whose_workflow_was_lost_is_begun_again_by_whoever_comes_next(
    automating: Automating,
) -> None:
    automation = await automating.activated(SEND, LONG)
    before, after = await automating.somebody(name="before"), await automating.somebody(name="after")
    await automating.happens("order.placed", before)
    await automating.gets(before)
    await automating.workflow(automation).terminate()
    await automating.happens("order.placed", after)
    await automating.gets(after)
    assert await automating.messages(before) == 1


async def test_what_nobody_is_at_work_on_is_found(automating: Automating) -> None:
    automation, intact = await automating.activated(SEND, LONG), await automating.activated(SEND, LONG)
    lost, carried = await automating.somebody(name="lost"), await automating.somebody(name="carried")
    await automating.happens("order.placed", lost, carried)
    for each in (lost, carried):
        await automating.gets(each, 2)
    await automating.until_it_waits(automation, lost)
    await automating.workflow(automation).terminate()
    await automating.cohort(automation).terminate()
    await automating.long_ago()
    found = await ActivityEnvironment().run(routing(automating.account, automating.temporal).find_lost)
    assert automation in {each.source_id for each in found.sources}
    assert intact not in {each.source_id for each in found.sources}
    # Where they stood, nobody knows: one who was sent the first message must not get it twice.
    assert await automating.passes(automation, lost) == [("failed", None)]
    assert await automating.passes(intact, lost) == [("active", None)]


async def test_a_cohort_that_was_formed_and_never_begun_is_begun(automating: Automating) -> None:
    automation = await automating.activated(SEND)
    zoe = await automating.somebody()
    await automating.workflow(automation).terminate()
    source = SourceRef(account_id=automating.account.id, source_id=automation)
    async with automating.account.transaction() as tx:
        found = await sources.read(tx, [automation])
        await enroll(tx, automating.account.id, found[automation], [Candidate(zoe, "launch")], now=datetime.now(UTC))
        await cohorts.form(tx, automating.account.id, automation, "automation", None, joins=False, limit=1000, now=NOW)
    await automating.long_ago()
    lost = await ActivityEnvironment().run(routing(automating.account, automating.temporal).find_lost)
    (again,) = [each for each in lost.cohorts if each.source_id == automation]
    input = cohort_input(source, await routing(automating.account, automating.temporal).read_lost(again))
    await automating.temporal.start_workflow(CohortWorkflow.run, input, task_queue=AUTOMATIONS, **cohort_options(input))
    await automating.gets(zoe)


async def test_a_lost_cohort_that_can_not_be_read_keeps_no_other_from_being_begun(automating: Automating) -> None:
    account = automating.account
    made = [await automating.activated(SEND) for _ in range(3)]
    those = [await automating.somebody(name=f"lost-{each}") for each in range(3)]
    for automation, contact in zip(made, those, strict=True):
        await automating.workflow(automation).terminate()
        async with account.transaction() as tx:
            found = await sources.read(tx, [automation])
            await enroll(tx, account.id, found[automation], [Candidate(contact, "launch")], now=datetime.now(UTC))
            await cohorts.form(tx, account.id, automation, "automation", None, joins=False, limit=1000, now=NOW)
    await automating.long_ago()
    async with account.transaction() as tx:
        for table in ("enrollments", "cohorts"):  # there is no such version
            await tx.execute(text(f"UPDATE {table} SET version = 7 WHERE source_id = :id"), {"id": made[1]})
    await sweep(automating.temporal)
    for contact in (those[0], those[2]):
        await automating.gets(contact)
    assert await automating.messages(those[1]) == 0
    async with account.transaction() as tx:
        await tx.execute(text("UPDATE cohorts SET state = 'ended' WHERE source_id = :id"), {"id": made[1]})
    await automating.workflow(made[1]).terminate()


async def test_a_contact_that_leaves_while_its_cohort_is_being_begun_is_told_again(automating: Automating) -> None:
    automation = await automating.activated(SEND, LONG, goal={"event": "purchase"})
    await automating.workflow(automation).terminate()
    zoe = await automating.somebody()
    account, router = automating.account, routing(automating.account, automating.temporal)
    async with account.transaction() as tx:
        found = await sources.read(tx, [automation])
        await enroll(tx, account.id, found[automation], [Candidate(zoe, "launch")], now=datetime.now(UTC))
        formed = await cohorts.form(tx, account.id, automation, "automation", None, joins=False, limit=1000, now=NOW)
    await automating.happens("purchase", zoe)
    assert await router.take_turn(account.id) == 0  # nobody is there who could be told
    assert formed
    input = cohort_input(SourceRef(account_id=account.id, source_id=automation), as_formed(formed))
    await automating.temporal.start_workflow(CohortWorkflow.run, input, task_queue=AUTOMATIONS, **cohort_options(input))
    await automating.until_passes(automation, zoe, ("exited", "goal"))


# -- the clock -------------------------------------------------------------------------------------------------------


async def test_the_clock_lets_in_all_of_a_segment_while_the_automation_is_active(automating: Automating) -> None:
    zoe = await automating.somebody()
    segment = await of_contacts(automating.api, [zoe])
    trigger = {"type": "schedule", "cron": "0 9 1 1 *", "timezone": "Europe/Paris", "segment": segment}
    automation = await automating.activated(SEND, trigger=trigger)
    schedule = automating.temporal.get_schedule_handle(f"automation-{automation}/times")
    await automating.until_known(schedule)
    await schedule.trigger()
    await automating.gets(zoe)
    times = (await schedule.describe()).schedule
    assert (times.spec.time_zone_name, times.policy.overlap.name) == ("Europe/Paris", "SKIP")
    await automating.workflow(automation).execute_update(AutomationWorkflow.pause, Command())
    await automating.until_known(schedule, False)


async def test_a_birthday_lets_in_once_however_often_it_is_looked_for(automating: Automating) -> None:
    born = datetime.now(UTC) - timedelta(minutes=5)
    trigger = {"type": "date", "field": "attributes.birthday", "at": f"{born:%H:%M}"}
    automation = await automating.activated(SEND, trigger=trigger, reentry="always")
    zoe, another = await automating.somebody(), await automating.somebody(name="another")
    for contact, year in ((zoe, 1990), (another, 2010)):
        attributes = {"attributes": {"birthday": f"{year}-{born:%m-%d}"}}
        assert (await automating.api.patch(f"/api/contacts/{contact}", json=attributes)).is_success
        due = DueContacts(automating.account.database, partial(wake, automating.temporal))
        input = DueInput(account_id=automating.account.id, source_id=automation, moment=datetime.now(UTC))
        found = [await ActivityEnvironment().run(due.enroll_due, input) for _ in range(2)]
        assert [each.enrolled for each in found] == [1, 0]
        assert found[0].until == input.moment
        await automating.gets(contact)
        await automating.until_passes(automation, contact, ("completed", None))


async def test_whoever_was_to_join_a_cohort_that_is_over_is_carried_by_another_run_of_it(
    automating: Automating,
) -> None:
    automation = await automating.activated(SEND, LONG)
    first, second = await automating.somebody(name="first"), await automating.somebody(name="second")
    await automating.happens("order.placed", first)
    await automating.gets(first)
    await automating.cohort(automation).terminate()
    await automating.happens("order.placed", second)
    await automating.gets(second)
    progress = await automating.workflow(automation).query(AutomationWorkflow.progress)
    assert progress.cohorts == 1
    assert await automating.messages(first) == 1
