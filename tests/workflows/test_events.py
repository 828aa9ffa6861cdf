"""Does the daily run leave room for what comes, and nothing of what nobody keeps?"""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import text
from temporalio.client import Client, ScheduleOverlapPolicy

from tests.conftest import TestAccount
from tests.delivering import change_account, execute
from workflows.events import SCHEDULE_ID, EventRetentionWorkflow, ensure_schedule
from workflows.options import ORCHESTRATION


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


async def test_the_daily_run_is_set_up_once_and_says_what_happens_to_runs_that_were_missed(temporal: Client) -> None:
    await ensure_schedule(temporal)
    await ensure_schedule(temporal)
    handle = temporal.get_schedule_handle(SCHEDULE_ID)
    policy = (await handle.describe()).schedule.policy
    await handle.delete()
    assert (policy.overlap, policy.catchup_window) == (ScheduleOverlapPolicy.SKIP, timedelta(days=7))
