"""Does the daily run leave room for what comes, and nothing of what nobody keeps?"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import text
from temporalio.client import Client, ScheduleActionStartWorkflow, ScheduleOverlapPolicy
from temporalio.testing import ActivityEnvironment

from activities.events import Events
from database.engine import Database
from tests.audience import people
from tests.belonging import follow, members, reconciled, segment
from tests.conftest import TestAccount
from tests.delivering import change_account, execute
from workflows.events import SCHEDULE_ID, EventRetentionWorkflow, ensure_schedule
from workflows.options import ORCHESTRATION
from workflows.search_attributes import keywords


@pytest.mark.usefixtures("worker")
async def test_what_arrived_without_a_month_gets_one_and_goes_with_it_in_its_time(
    temporal: Client, account: TestAccount, other_account: TestAccount
) -> None:
    await change_account(other_account, event_retention_days=3650)
    await change_account(account, event_retention_days=30)
    await execute(
        account,
        "INSERT INTO events (id, account_id, name, occurred_at) SELECT uuidv7(-age), :a, 'purchase', now() - age"
        " FROM unnest(ARRAY[interval '11 years', '35 days', '10 days']) AS age",
        a=account.id,
    )
    forgotten = await temporal.execute_workflow(
        EventRetentionWorkflow.run, id=f"event-retention-{uuid4()}", task_queue=ORCHESTRATION
    )
    assert (forgotten.months, forgotten.events) == (1, 1)
    async with account.transaction() as tx:
        rows = await tx.execute(text("SELECT to_char(uuid_extract_timestamp(id), 'YYYY-MM-DD') FROM events"))
        assert list(rows.scalars()) == [f"{datetime.now(UTC) - timedelta(days=10):%Y-%m-%d}"]


@pytest.mark.usefixtures("worker")
async def test_who_did_something_in_a_month_that_nobody_keeps_leaves_its_segments(
    temporal: Client, account: TestAccount
) -> None:
    old, young = await people(account, 2)
    did, never = await segment(account, {"event": "purchase"}), await segment(account, {"not": {"event": "purchase"}})
    await execute(
        account,
        "INSERT INTO events (id, account_id, name, contact_id, occurred_at)"
        " SELECT uuidv7(-age), :a, 'purchase', id, now() - age"
        " FROM (VALUES (CAST(:old AS uuid), interval '12 years'), (:young, interval '1 hour')) AS ages (id, age)",
        a=account.id,
        old=old,
        young=young,
    )
    await follow(account)
    assert await members(account, did) == {old, young}
    await temporal.execute_workflow(
        EventRetentionWorkflow.run, id=f"event-retention-{uuid4()}", task_queue=ORCHESTRATION
    )
    assert (await members(account, did), await members(account, never)) == ({young}, {old})
    assert await reconciled(account, did) and await reconciled(account, never)
    async with account.transaction() as tx:
        drift = await tx.execute(text("SELECT sum(drift) FROM segment_hours"))
        assert drift.scalar_one() == 0


async def test_months_that_a_lost_attempt_may_have_dropped_are_not_passed_over(database: Database) -> None:
    for attempt in (1, 2):
        env = ActivityEnvironment()
        env.info = replace(env.info, attempt=attempt)
        forgotten = await env.run(Events(database).forget_old_events)
        assert (forgotten.months, forgotten.silently) == (0, attempt > 1)


async def test_the_daily_run_is_set_up_once_and_says_what_happens_to_runs_that_were_missed(temporal: Client) -> None:
    await ensure_schedule(temporal)
    await ensure_schedule(temporal)
    handle = temporal.get_schedule_handle(SCHEDULE_ID)
    schedule = (await handle.describe()).schedule
    await handle.delete()
    policy, action = schedule.policy, schedule.action
    assert isinstance(action, ScheduleActionStartWorkflow)
    assert action.typed_search_attributes == keywords(Kind="event-retention")
    assert (policy.overlap, policy.catchup_window) == (ScheduleOverlapPolicy.SKIP, timedelta(days=7))
