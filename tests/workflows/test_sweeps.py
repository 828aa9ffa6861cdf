"""Does the sweep find what nobody is at work on?"""

from datetime import timedelta
from uuid import uuid4

import httpx
import pytest
from temporalio.client import Client, ScheduleActionStartWorkflow, ScheduleOverlapPolicy
from temporalio.testing import ActivityEnvironment, TimeSkipper

from activities.imports import Imports
from activities.inputs import Totals
from channels.outbox import Outbox
from channels.sink import Sink
from database import campaigns, imports
from database.imports import GivenUp
from marketing.imports import Import, ImportState
from marketing.schedules import Schedule
from tests.audience import people
from tests.broadcast import arrived, broadcast, broadcast_in_two_parts, come
from tests.conftest import TestAccount
from tests.delivering import execute
from tests.journeys import steps
from tests.uploads import broken_upload, upload
from workflows.campaigns import CampaignWorkflow, campaign_workflow_id
from workflows.imports import import_workflow_id
from workflows.inputs import CampaignInput
from workflows.options import ORCHESTRATION
from workflows.search_attributes import keywords
from workflows.sweeps import SCHEDULE_ID, SweepWorkflow, ensure_schedule

pytestmark = pytest.mark.usefixtures("worker")


async def sweep(temporal: Client) -> None:
    await temporal.execute_workflow(SweepWorkflow.run, id=f"sweep-{uuid4()}", task_queue=ORCHESTRATION)


async def read(account: TestAccount, import_id: object) -> Import:
    async with account.transaction() as tx:
        (found,) = [each for each in await imports.page(tx, after=None, limit=10) if each.id == import_id]
    return found


async def test_an_import_of_which_temporal_was_never_told_is_started(temporal: Client, account: TestAccount) -> None:
    ref = await upload(account, b"Email\nzoe@example.com\n")
    await sweep(temporal)
    await temporal.get_workflow_handle(import_workflow_id(ref.import_id)).result()
    found = await read(account, ref.import_id)
    assert (found.status, found.counts.added) == (ImportState.COMPLETED, 1)


async def test_an_upload_that_broke_off_fails_and_nothing_of_its_file_is_kept(
    temporal: Client, account: TestAccount
) -> None:
    broken, slow = await broken_upload(account), await broken_upload(account, minutes=9)
    await sweep(temporal)
    found = await read(account, broken.import_id)
    assert (found.status, found.problem) == (ImportState.FAILED, "The upload broke off. Send the file again.")
    assert found.finished_at is not None
    assert (await read(account, slow.import_id)).status is ImportState.RECEIVING
    async with account.transaction() as tx:
        blocks = (await tx.exec_driver_sql("SELECT import_id FROM import_blocks")).scalars().all()
    assert blocks == [slow.import_id]


async def test_what_comes_after_an_upload_was_given_up_is_refused(temporal: Client, account: TestAccount) -> None:
    broken = await broken_upload(account)
    await sweep(temporal)
    with pytest.raises(GivenUp):
        async with account.transaction() as tx:
            await imports.add_block(tx, account.id, broken.import_id, 1, b"zoe@example.com\n")
    with pytest.raises(GivenUp):
        async with account.transaction() as tx:
            await imports.mark_received(tx, broken.import_id, 22)


async def test_an_upload_that_goes_on_is_left_alone(temporal: Client, account: TestAccount) -> None:
    upload = await broken_upload(account)
    async with account.transaction() as tx:
        await imports.add_block(tx, account.id, upload.import_id, 1, b"zoe@example.com\n")
    await sweep(temporal)
    assert (await read(account, upload.import_id)).status is ImportState.RECEIVING


async def test_an_import_that_temporal_has_forgotten_goes_on_where_it_stood(
    temporal: Client, account: TestAccount
) -> None:
    ref = await upload(account, b"Email\nzoe@example.com\n")
    await ActivityEnvironment().run(Imports(account.database).examine_file, ref)
    assert (await read(account, ref.import_id)).status is ImportState.READING
    await sweep(temporal)
    await temporal.get_workflow_handle(import_workflow_id(ref.import_id)).result()
    found = await read(account, ref.import_id)
    assert (found.status, found.counts.added) == (ImportState.COMPLETED, 1)


async def test_a_campaign_whose_workflow_was_ended_goes_on_where_it_stood(
    temporal: Client, account: TestAccount, sink: Sink
) -> None:
    sent = await broadcast_in_two_parts(account, 40, 20, rate_limit_per_second=30)
    input = CampaignInput(account_id=account.id, campaign_id=sent.id)
    run = await temporal.start_workflow(
        CampaignWorkflow.run, input, id=campaign_workflow_id(sent.id), task_queue=ORCHESTRATION
    )
    await come(sink, account)
    await run.terminate("by a slip of the hand")
    await sweep(temporal)
    again = temporal.get_workflow_handle(campaign_workflow_id(sent.id))
    await TimeSkipper(temporal).fast_forward(again, timedelta(days=1))
    totals = Totals.model_validate(await again.result())
    assert (totals.planned, totals.sent) == (60, 60)
    assert len(arrived(sink, account)) == len(set(arrived(sink, account))) == 60


@pytest.mark.parametrize("begun", [False, True])
async def test_an_address_in_a_campaigns_name_or_in_a_reason_comes_into_no_history(
    temporal: Client, account: TestAccount, begun: bool
) -> None:
    sent = await broadcast(account, campaign_name="For jo@example.org")
    if begun:
        async with account.transaction() as tx:
            await campaigns.hold(tx, account.id, sent.id, "Restored, said jo@example.org.")
    sweeping = f"sweep-{uuid4()}"
    await temporal.execute_workflow(SweepWorkflow.run, id=sweeping, task_queue=ORCHESTRATION)
    run = temporal.get_workflow_handle(campaign_workflow_id(sent.id))
    described = await run.describe()
    assert await described.static_summary() == "For [address]"
    assert described.raw_info.priority.fairness_key == str(account.id)  # as if the API had started it
    for handle in (run, temporal.get_workflow_handle(sweeping)):
        history = str((await handle.fetch_history()).events)
        assert "For [address]" in history and "jo@" not in history
    await run.terminate()


@pytest.mark.parametrize("decision", ["resume", "cancel"])
async def test_a_campaign_that_may_have_begun_before_a_restore_waits_for_a_decision(
    temporal: Client, account: TestAccount, sink: Sink, api: httpx.AsyncClient, decision: str
) -> None:
    await people(account, 5)
    passed = Schedule.model_validate({"send_at": "2026-01-01T09:00"})
    sent = await broadcast(account, schedule=passed)
    async with account.transaction() as tx:
        await campaigns.hold(tx, account.id, sent.id, "Restored.")
    await sweep(temporal)
    run = temporal.get_workflow_handle(campaign_workflow_id(sent.id))
    while (progress := await run.query(CampaignWorkflow.progress)).totals.planned == 0:
        pass
    assert (progress.state, progress.reason, progress.totals.sent) == ("paused", "Restored.", 0)
    assert (await api.post(f"/api/campaigns/{sent.id}/{decision}")).status_code == 200
    await run.result()
    assert len(arrived(sink, account)) == (5 if decision == "resume" else 0)


async def test_the_sweep_is_set_up_once_and_never_runs_twice_at_a_time(temporal: Client) -> None:
    await ensure_schedule(temporal)
    await ensure_schedule(temporal)
    handle = temporal.get_schedule_handle(SCHEDULE_ID)
    schedule = (await handle.describe()).schedule
    await handle.delete()
    assert schedule.policy.overlap is ScheduleOverlapPolicy.SKIP
    assert isinstance(schedule.action, ScheduleActionStartWorkflow)
    assert schedule.action.typed_search_attributes == keywords(Kind="sweep")


async def test_what_a_lost_worker_had_of_a_journey_is_uncertain_though_its_contact_has_left(
    temporal: Client, account: TestAccount
) -> None:
    taken = await steps(account, 2, Outbox())
    await taken.send()
    await execute(account, "UPDATE enrollments SET left_at = now(), state = 'timed_out'")
    lost = "UPDATE deliveries SET state = 'sending', finished_at = NULL, lease_until = now() - CAST(:ago AS interval)"
    await execute(account, lost, ago="59 seconds")
    await sweep(temporal)  # somebody may be about to ask for it again
    assert await taken.ledger() == {"sending": 2}
    await execute(account, lost, ago="61 seconds")
    await sweep(temporal)
    assert await taken.ledger() == {"uncertain:worker_lost": 2}
