"""Does a campaign carry out its plan, whatever comes between?"""

import asyncio
from datetime import datetime, timedelta

import pytest
from sqlalchemy import text
from temporalio.client import Client, WorkflowHandle
from temporalio.testing import TimeSkipper

from activities.inputs import Totals
from channels.sink import Sink
from marketing.campaigns import CampaignState
from marketing.schedules import Schedule
from tests.audience import people
from tests.broadcast import Broadcast, arrived, broadcast, broadcast_in_two_parts, come, taken
from tests.conftest import TestAccount
from workflows.campaigns import CampaignWorkflow, campaign_workflow_id, search_attributes
from workflows.inputs import CampaignInput, Command, Progress
from workflows.options import ORCHESTRATION

Run = WorkflowHandle[CampaignWorkflow, Totals]


async def start(
    temporal: Client,
    sent: Broadcast,
    *,
    shard_size: int = 2000,
    most_events: int = 1500,
    starts_at: datetime | None = None,
) -> Run:
    input = CampaignInput(
        account_id=sent.account.id,
        campaign_id=sent.id,
        name="Test",
        shard_size=shard_size,
        most_events=most_events,
        starts_at=starts_at,
    )
    return await temporal.start_workflow(
        CampaignWorkflow.run,
        input,
        id=campaign_workflow_id(sent.id),
        task_queue=ORCHESTRATION,
        search_attributes=search_attributes(input, "running"),
    )


async def test_everybody_gets_one_message_and_the_figures_add_up(
    temporal: Client, worker: None, sink: Sink, account: TestAccount
) -> None:
    await people(account, 300)
    sent = await broadcast(account)
    run = await start(temporal, sent, shard_size=100)
    assert await run.result() == Totals(planned=300, sent=300)
    assert len(set(arrived(sink, account))) == len(arrived(sink, account)) == 300
    assert await sent.ledger() == {"sent": 300}
    assert await sent.state() == (CampaignState.COMPLETED, "")
    stats = await sent.stats()
    assert (stats.planned, stats.sent, stats.pending) == (300, 300, 0)
    assert stats.reconciles


async def test_an_empty_audience_completes_at_once(temporal: Client, worker: None, account: TestAccount) -> None:
    sent = await broadcast(account)
    assert await (await start(temporal, sent)).result() == Totals()
    assert (await sent.state())[0] is CampaignState.COMPLETED


async def test_operators_see_the_figures(temporal: Client, worker: None, account: TestAccount) -> None:
    await people(account, 20)
    run = await start(temporal, await broadcast(account))
    await run.result()
    progress = await run.query(CampaignWorkflow.progress)
    assert progress == Progress(
        state="completed", reason="", totals=Totals(planned=20, sent=20), pending=0, shards_under_way=0
    )
    description = await run.describe()
    attributes = {pair.key.name: pair.value for pair in description.typed_search_attributes}
    assert attributes["State"] == "completed"
    assert attributes["AccountId"] == str(account.id)


async def paused_after_a_few(temporal: Client, sent: Broadcast, sink: Sink) -> tuple[Run, int]:
    """A campaign, paused after ten messages or more, and how many have left once nothing is in flight."""
    run = await start(temporal, sent)
    await come(sink, sent.account, 10)
    progress = await run.execute_update(CampaignWorkflow.pause, Command(reason="Wrong price"))
    assert progress.state == "paused"
    while (await run.query(CampaignWorkflow.progress)).shards_under_way:
        pass
    return run, len(arrived(sink, sent.account))


async def skip_a_day(temporal: Client, run: Run) -> None:
    """Or what is left of it, if the campaign is over before."""
    await TimeSkipper(temporal).fast_forward(run, timedelta(days=1))


async def test_a_pause_holds_and_resuming_sends_only_the_rest(
    temporal: Client, worker: None, sink: Sink, account: TestAccount
) -> None:
    sent = await broadcast_in_two_parts(account, 60, 40, rate_limit_per_second=40)
    run, at_pause = await paused_after_a_few(temporal, sent, sink)
    await skip_a_day(temporal, run)
    assert await sent.state() == (CampaignState.PAUSED, "Wrong price")
    assert len(arrived(sink, account)) == at_pause
    await run.execute_update(CampaignWorkflow.resume, Command())
    totals = await run.result()
    assert totals == Totals(planned=100, sent=100)
    assert at_pause < 100
    assert len(set(arrived(sink, account))) == len(arrived(sink, account)) == 100


async def test_a_cancelled_campaign_skips_the_rest_and_says_so(
    temporal: Client, worker: None, sink: Sink, account: TestAccount
) -> None:
    sent = await broadcast_in_two_parts(account, 60, 140, rate_limit_per_second=40)
    run, _ = await paused_after_a_few(temporal, sent, sink)
    await run.execute_update(CampaignWorkflow.cancel, Command(reason="Sold out"))
    totals = await run.result()
    assert totals.planned == totals.sent + totals.skipped == 200
    assert await sent.state() == (CampaignState.CANCELLED, "Sold out")
    assert await sent.ledger() == {"sent": totals.sent, "skipped:cancelled": totals.skipped}
    assert len(arrived(sink, account)) == totals.sent < 200


async def test_what_has_ended_takes_no_commands(temporal: Client, worker: None, account: TestAccount) -> None:
    run = await start(temporal, await broadcast(account))
    await run.result()
    with pytest.raises(Exception, match=r"already completed|is completed already"):
        await run.execute_update(CampaignWorkflow.pause, Command())


async def test_a_pause_by_the_database_alone_is_followed(
    temporal: Client, worker: None, sink: Sink, account: TestAccount
) -> None:
    sent = await broadcast_in_two_parts(account, 40, 20, rate_limit_per_second=40)
    run = await start(temporal, sent)
    await come(sink, account)
    await sent.set_state(CampaignState.PAUSED)
    await run.signal(CampaignWorkflow.follow)
    while (await run.query(CampaignWorkflow.progress)).state != "paused":
        pass
    progress = await run.execute_update(CampaignWorkflow.resume, Command())
    assert progress.state == "running"
    await skip_a_day(temporal, run)
    assert await run.result() == Totals(planned=60, sent=60)


async def test_pauses_and_resumes_in_any_order_leave_nothing_behind(
    temporal: Client, worker: None, sink: Sink, account: TestAccount
) -> None:
    sent = await broadcast_in_two_parts(account, 100, 100, rate_limit_per_second=50)
    run = await start(temporal, sent, shard_size=25)
    while (count := len(taken(sink, account))) < 100:
        await come(sink, account, count + 1)
        commands = [CampaignWorkflow.pause, CampaignWorkflow.resume, CampaignWorkflow.pause, CampaignWorkflow.resume]
        await asyncio.gather(*(run.execute_update(command, Command()) for command in commands))
        await run.execute_update(CampaignWorkflow.resume, Command())
    await skip_a_day(temporal, run)
    assert await run.result() == Totals(planned=200, sent=200)
    assert len(set(arrived(sink, account))) == len(arrived(sink, account)) == 200
    assert await sent.state() == (CampaignState.COMPLETED, "")


async def test_the_state_survives_continuing_as_new(
    temporal: Client, worker: None, sink: Sink, account: TestAccount
) -> None:
    sent = await broadcast_in_two_parts(account, 40, 20, rate_limit_per_second=40)
    run = await start(temporal, sent, shard_size=1, most_events=20)
    newest: Run = temporal.get_workflow_handle(run.id)
    for count in (10, 20, 30):  # after ten shards it has gone on in another run
        await come(sink, account, count)
        await newest.execute_update(CampaignWorkflow.pause, Command(reason="a look"))
        assert (await newest.query(CampaignWorkflow.progress)).state == "paused"
        await newest.execute_update(CampaignWorkflow.resume, Command())
    await skip_a_day(temporal, newest)
    assert await run.result() == Totals(planned=60, sent=60)


async def test_a_long_campaign_continues_as_new_and_loses_nothing(
    temporal: Client, worker: None, sink: Sink, account: TestAccount
) -> None:
    await people(account, 60)
    sent = await broadcast(account)
    run = await start(temporal, sent, shard_size=1, most_events=100)
    assert await run.result() == Totals(planned=60, sent=60)
    assert len(set(arrived(sink, account))) == len(arrived(sink, account)) == 60
    first = await temporal.get_workflow_handle(run.id, run_id=run.first_execution_run_id).fetch_history()
    assert len(first.events) < 150
    assert first.events[-1].HasField("workflow_execution_continued_as_new_event_attributes")


async def test_each_contact_is_written_to_at_its_own_local_hour(
    temporal: Client, worker: None, sink: Sink, account: TestAccount
) -> None:
    for zone in ("Pacific/Auckland", "Europe/Paris", "America/New_York", None):
        await people(account, 1, name=f"lives-in-{(zone or 'utc').lower().replace('/', '-')}", timezone=zone)
    schedule = Schedule(send_at=datetime.fromisoformat("2031-03-09T09:00"), timezone="recipient")
    sent = await broadcast(account, schedule=schedule)
    skipping = TimeSkipper(temporal).client
    run = await start(skipping, sent, starts_at=schedule.starts_at())
    assert await run.result() == Totals(planned=4, sent=4)
    late = await lateness(sent, schedule)
    assert set(late) == {"Pacific/Auckland", "Europe/Paris", "America/New_York", "UTC"}
    assert all(timedelta(0) <= each < timedelta(minutes=1) for each in late.values()), late


async def lateness(sent: Broadcast, schedule: Schedule) -> dict[str, timedelta]:
    """By how much each zone's message left after its local moment."""
    async with sent.account.transaction() as tx:
        rows = await tx.execute(
            text("""
                SELECT coalesce(timezone, 'UTC') AS zone, finished_at FROM deliveries
                JOIN contacts ON contacts.id = contact_id WHERE campaign_id = :campaign_id
            """),
            {"campaign_id": sent.id},
        )
        return {row.zone: row.finished_at - schedule.moment_in(row.zone) for row in rows}
