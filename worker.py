"""The worker: which workflows and activities run here, and what are they handed?"""

import asyncio
import gc
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

from prometheus_client import start_http_server
from temporalio.client import Client
from temporalio.worker import Worker

from activities.campaigns import Campaigns
from activities.deliveries import Deliveries
from activities.events import Events
from activities.imports import Imports
from activities.notifications import Notifications
from activities.samples import Samples
from activities.segments import Segments
from activities.sweeps import Sweeps
from channels.base import Channel
from channels.smtp import SmtpChannel
from database.engine import Database
from marketing.tracking import RecipientLinks, Tokens
from settings import Settings
from telemetry import tracing
from telemetry.sdk import measured_runtime
from workflows import events, segments, sweeps
from workflows.campaigns import CampaignWorkflow
from workflows.connection import connect
from workflows.events import EventRetentionWorkflow
from workflows.imports import ContactImportWorkflow
from workflows.notifications import NotificationsWorkflow
from workflows.options import BULK, DELIVERY_EMAIL, ORCHESTRATION, SEGMENTS
from workflows.samples import SampleWorkflow
from workflows.segments import RefreshWorkflow, SegmentSweepWorkflow, SegmentsWorkflow
from workflows.sweeps import SweepWorkflow

WORKFLOWS = [
    *(CampaignWorkflow, ContactImportWorkflow, EventRetentionWorkflow, SampleWorkflow, SweepWorkflow),
    *(SegmentsWorkflow, RefreshWorkflow, SegmentSweepWorkflow),
    NotificationsWorkflow,
]

# How long a worker that is asked to stop may take to finish the sets that it has begun.
PATIENCE = timedelta(seconds=30)


@asynccontextmanager
async def working(
    client: Client,
    database: Database,
    channels: Mapping[str, Channel],
    links: RecipientLinks,
    *,
    lease_seconds: float = 60.0,
    traced_share: float = 0.0,
) -> AsyncIterator[None]:
    """Work on every task queue until the block ends."""
    campaigns = Campaigns(database)
    importing = Imports(database)
    belonging = Segments(database)
    keeping = Events(database)
    delivery = Deliveries(database, channels, links, lease_seconds=lease_seconds, traced_share=traced_share)
    workers = [
        Worker(
            client,
            task_queue=ORCHESTRATION,
            workflows=WORKFLOWS,
            activities=[
                *(campaigns.change_state, campaigns.open_shards, campaigns.read_state),
                *(importing.fail_import, belonging.follow_changes),
            ],
            graceful_shutdown_timeout=PATIENCE,
        ),
        Worker(
            client,
            task_queue=DELIVERY_EMAIL,
            activities=[
                delivery.deliver,
                Samples(database, channels, links).send_sample,
                Notifications(database, channels).email_digests,
            ],
            max_concurrent_activities=20,
            graceful_shutdown_timeout=PATIENCE,
        ),
        Worker(
            client,
            task_queue=BULK,
            activities=[
                campaigns.freeze_audience,
                campaigns.skip_rest,
                Sweeps(database, client).find_unattended,
                keeping.make_partitions,
                keeping.forget_old_events,
                importing.examine_file,
                importing.stage_rows,
                importing.merge_people,
            ],
            max_concurrent_activities=4,
            graceful_shutdown_timeout=PATIENCE,
        ),
        Worker(
            client,
            task_queue=SEGMENTS,
            activities=[belonging.refresh, belonging.sweep],
            max_concurrent_activities=4,
            graceful_shutdown_timeout=PATIENCE,
        ),
    ]
    async with AsyncExitStack() as stack:
        for worker in workers:
            await stack.enter_async_context(worker)
        yield


async def run_worker(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT; then finish what has begun."""
    assert settings.database_url and settings.temporal_address and settings.secret_key, "cli checks this"
    stop = asyncio.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(each, stop.set)
    runtime = measured_runtime() if settings.worker_metrics_port else None
    if settings.worker_metrics_port:
        start_http_server(settings.worker_metrics_port, addr=settings.worker_metrics_host)
    api_key = settings.temporal_api_key
    client = await connect(
        settings.temporal_address,
        namespace=settings.temporal_namespace,
        api_key=api_key.get_secret_value() if api_key else None,
        tls=settings.temporal_tls,
        interceptors=tracing.configure(settings.otel_exporter_otlp_endpoint, service=settings.otel_service_name),
        runtime=runtime,
    )
    database = Database(settings.database_url, pool_size=settings.database_pool_size)
    email = SmtpChannel(
        settings.smtp_url.get_secret_value(),
        connections=settings.smtp_connections,
        messages_per_connection=settings.smtp_messages_per_connection,
        timeout=settings.smtp_timeout_seconds,
    )
    links = RecipientLinks(settings.public_url, Tokens(settings.secret_key.get_secret_value().encode()))
    await events.ensure_schedule(client)
    await sweeps.ensure_schedule(client)
    await segments.ensure_schedules(client, timedelta(seconds=settings.segment_sweep_seconds))
    await segments.ensure_following(client)
    # A cohort's contacts are objects by the hundred thousand: to look for garbage among them, and among all that is
    # loaded, was half of what its workflow cost.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000)
    async with working(
        client,
        database,
        {"email": email},
        links,
        lease_seconds=settings.lease_seconds,
        traced_share=settings.traces_message_share,
    ):
        await stop.wait()
    await email.close()
    await database.close()
