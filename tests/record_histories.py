"""Record a history of each workflow: `python -m tests.record_histories`, after changing the order of commands.

Histories that are there already stay: runs that began under the code that wrote them may still be open. Give a new
scenario a new name.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from temporalio.client import Client, WorkflowFailureError, WorkflowHandle

from activities.inputs import SegmentRef, SendSample
from channels.sink import Sink
from channels.smtp import SmtpChannel
from database import notifications
from database.engine import Database
from database.migrate import migrate
from local_stack import EmbeddedPostgres, EmbeddedTemporal
from marketing.keyed import keyed_id
from marketing.notifications import Notification, NotificationKind
from marketing.tracking import RecipientLinks, Tokens
from marketing.webhooks import WebhookSecrets
from tests import recorded_automations, recorded_cohorts, recorded_experiments
from tests.audience import people
from tests.belonging import segment
from tests.broadcast import broadcast
from tests.conftest import PUBLIC_URL, SECRET_KEY, TestAccount, new_account
from tests.delivering import change_account
from tests.uploads import broken_upload, upload
from worker import working
from workflows.campaigns import CampaignWorkflow
from workflows.connection import connect
from workflows.events import EventRetentionWorkflow
from workflows.inputs import CampaignInput, Command
from workflows.notifications import NotificationsWorkflow
from workflows.options import ORCHESTRATION
from workflows.samples import SampleWorkflow
from workflows.segments import FOLLOWING_ID, LANES, RefreshWorkflow, SegmentSweepWorkflow, ensure_following
from workflows.sweeps import SweepWorkflow

HISTORIES = Path(__file__).parent / "histories"

Handle = WorkflowHandle[Any, Any]


async def start(temporal: Client, workflow: Any, argument: Any, name: str) -> Handle:
    arguments = [] if argument is None else [argument]
    return await temporal.start_workflow(workflow, args=arguments, id=name, task_queue=ORCHESTRATION)


async def campaign(temporal: Client, account: TestAccount, name: str, shard_size: int = 40, **plan: Any) -> Handle:
    sent = await broadcast(account, **plan)
    input = CampaignInput(account_id=account.id, campaign_id=sent.id, name="Recorded", shard_size=shard_size)
    return await start(temporal, CampaignWorkflow.run, input, name)


async def delivered(temporal: Client, account: TestAccount, _: Sink) -> Handle:
    await people(account, 200)
    return await campaign(temporal, account, "delivered")


async def paused_and_resumed(temporal: Client, account: TestAccount, sink: Sink) -> Handle:
    await people(account, 60)
    run = await campaign(temporal, account, "paused-and-resumed", rate_limit_per_second=40)
    await sink.next_arrival()
    await run.execute_update(CampaignWorkflow.pause, Command(reason="a look"))
    await run.execute_update(CampaignWorkflow.resume, Command())
    return run


async def cancelled(temporal: Client, account: TestAccount, sink: Sink) -> Handle:
    await people(account, 100)
    run = await campaign(temporal, account, "cancelled", rate_limit_per_second=40)
    await sink.next_arrival()
    await run.execute_update(CampaignWorkflow.cancel, Command(reason="enough"))
    return run


async def put_back(temporal: Client, account: TestAccount, sink: Sink) -> Handle:
    await people(account, 60)
    run = await campaign(temporal, account, "put-back", rate_limit_per_second=40)
    await sink.next_arrival()
    await run.signal(CampaignWorkflow.look_again)
    return run


async def sample(temporal: Client, account: TestAccount, _: Sink) -> Handle:
    sent = await broadcast(account)
    input = SendSample(
        account_id=account.id,
        campaign_id=sent.id,
        contact_id=None,
        addresses=["colleague@example.com"],
        now=datetime.now(UTC),
    )
    return await start(temporal, SampleWorkflow.run, input, "sample")


async def swept(temporal: Client, account: TestAccount, _: Sink) -> Handle:
    await broadcast(account)  # launched on record, and without a workflow
    await upload(account, b"Email\nzoe@example.com\n")  # so is this import
    await broken_upload(account)
    return await start(temporal, SweepWorkflow.run, None, "swept")


async def kept(temporal: Client, _: TestAccount, __: Sink) -> Handle:
    return await start(temporal, EventRetentionWorkflow.run, None, "kept")


async def refreshed(temporal: Client, account: TestAccount, _: Sink) -> Handle:
    await people(account, 20)
    ref = SegmentRef(account_id=account.id, segment_id=await segment(account))
    run = await start(temporal, RefreshWorkflow.run, ref, "refreshed")
    await run.signal(RefreshWorkflow.again)
    return run


async def recomputed(temporal: Client, account: TestAccount, _: Sink) -> Handle:
    await segment(account)
    return await start(temporal, SegmentSweepWorkflow.run, True, "recomputed")


async def followed(temporal: Client, _: TestAccount, __: Sink) -> Handle:
    """Without end but for the terminating: an hour is too long to wait for."""
    await ensure_following(temporal)
    run = temporal.get_workflow_handle(FOLLOWING_ID)
    while len((await run.describe()).raw_description.pending_activities) < LANES:
        pass
    await run.terminate("recorded")
    return run


async def told(temporal: Client, account: TestAccount, _: Sink) -> Handle:
    await change_account(account, notification_emails=["owner@example.com"])
    about: dict[str, Any] = {"kind": NotificationKind.NOTE, "source_id": None, "text": "News", "emailed_at": None}
    now = datetime.now(UTC)
    async with account.transaction() as tx:
        await notifications.add(tx, account.id, [Notification(id=keyed_id(now), created_at=now, **about)])
    return await start(temporal, NotificationsWorkflow.run, account.id, "told")


SCENARIOS: dict[str, Callable[[Client, TestAccount, Sink], Awaitable[Handle]]] = {
    "AutomationWorkflow-cancelled": recorded_automations.cancelled,
    "CohortWorkflow-handed-over": recorded_cohorts.handed_over,
    "CohortWorkflow-joined": recorded_automations.joined,
    "CohortWorkflow-taken-over": recorded_cohorts.taken_over,
    "CohortWorkflow-told": recorded_cohorts.told,
    "EnrollWorkflow-enrolled": recorded_automations.enrolled,
    "JourneySweepWorkflow-swept": recorded_automations.swept,
    "JourneysWorkflow-under-way": recorded_automations.followed,
    "CampaignWorkflow-delivered": delivered,
    "CampaignWorkflow-paused-and-resumed": paused_and_resumed,
    "CampaignWorkflow-cancelled": cancelled,
    "CampaignWorkflow-put-back": put_back,
    "EventRetentionWorkflow-kept": kept,
    "ExperimentWorkflow-bandit": recorded_experiments.bandit,
    "ExperimentWorkflow-chosen": recorded_experiments.chosen,
    "ExperimentWorkflow-chosen-early": recorded_experiments.chosen_early,
    "ExperimentWorkflow-decided": recorded_experiments.decided,
    "ExperimentWorkflow-stopped": recorded_experiments.stopped,
    "NotificationsWorkflow-told": told,
    "RefreshWorkflow-asked-again": refreshed,
    "SampleWorkflow-sent": sample,
    "SegmentSweepWorkflow-by-night": recomputed,
    "SegmentsWorkflow-under-way": followed,
    "SweepWorkflow-swept": swept,
}


async def record() -> None:
    async with AsyncExitStack() as stack:
        postgres = await stack.enter_async_context(EmbeddedPostgres(durable=False))
        server = await stack.enter_async_context(EmbeddedTemporal(durable=False))
        sink = await stack.enter_async_context(Sink())
        await asyncio.to_thread(migrate, postgres.url)
        database = Database(postgres.url)
        stack.push_async_callback(database.close)
        temporal = await connect(server.address)
        links = RecipientLinks(PUBLIC_URL, Tokens(SECRET_KEY))
        channels = {"email": SmtpChannel(sink.url)}
        await stack.enter_async_context(
            working(temporal, database, channels, links, secrets=WebhookSecrets(SECRET_KEY))
        )
        for name, scenario in SCENARIOS.items():
            path = HISTORIES / f"{name}.json"
            if path.exists():
                continue
            run = await scenario(temporal, await new_account(database), sink)
            with suppress(WorkflowFailureError):  # that goes on for ever
                await run.result()
            path.write_text((await run.fetch_history()).to_json())
            print(f"recorded {path.name}")


if __name__ == "__main__":
    asyncio.run(record())
