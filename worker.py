"""The worker: which workflows and activities run here, and what are they handed?"""

import asyncio
import gc
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial
from ipaddress import ip_network

import structlog
from prometheus_client import start_http_server
from temporalio.client import Client
from temporalio.worker import Worker

from activities.authors import Author
from activities.campaigns import Campaigns
from activities.deliveries import Deliveries
from activities.drips import Drips
from activities.due import DueContacts
from activities.events import Events
from activities.experiments import Experiments
from activities.imports import Imports
from activities.journals import Journals
from activities.journeys import Journeys
from activities.notifications import Notifications
from activities.outward import Outward
from activities.routing import Routing
from activities.samples import Samples
from activities.segments import Segments
from activities.sweeps import Sweeps
from channels.base import Channel
from channels.public_network import PublicNetwork
from channels.smtp import SmtpChannel
from channels.webhooks import Webhooks
from database import code_automations
from database.code_automations import InsideCode
from database.engine import Database
from marketing.tracking import RecipientLinks, Tokens
from marketing.webhooks import WebhookSecrets
from settings import Settings
from telemetry import tracing
from telemetry.sdk import measured_runtime
from workflows import automations, enrolling, events, journeys, notifications, segments, sweeps
from workflows.automations import AutomationWorkflow
from workflows.campaigns import CampaignWorkflow
from workflows.code import Loaded
from workflows.cohorts import CohortWorkflow
from workflows.connection import connect
from workflows.enrolling import EnrollWorkflow
from workflows.events import EventRetentionWorkflow
from workflows.experiments import ExperimentWorkflow
from workflows.imports import ContactImportWorkflow
from workflows.journeys import JourneySweepWorkflow, JourneysWorkflow
from workflows.notifications import NotificationsWorkflow
from workflows.options import AUTOMATIONS, BULK, DELIVERY_EMAIL, ORCHESTRATION, SEGMENTS
from workflows.samples import SampleWorkflow
from workflows.segments import RefreshWorkflow, SegmentSweepWorkflow, SegmentsWorkflow
from workflows.sweeps import SweepWorkflow
from workflows.turns import OneTurnAtATime

WORKFLOWS = [
    *(CampaignWorkflow, ExperimentWorkflow, ContactImportWorkflow, EventRetentionWorkflow, SampleWorkflow),
    SweepWorkflow,
    *(SegmentsWorkflow, RefreshWorkflow, SegmentSweepWorkflow),
    NotificationsWorkflow,
]
JOURNEYS = [AutomationWorkflow, CohortWorkflow, EnrollWorkflow, JourneysWorkflow, JourneySweepWorkflow]

log = structlog.get_logger()

# A cohort of a thousand contacts, each a coroutine, takes some megabytes.
MOST_CACHED = 100

# How long a worker that is asked to stop may take to finish the sets that it has begun.
PATIENCE = timedelta(seconds=30)


@asynccontextmanager
async def working(
    client: Client,
    database: Database,
    channels: Mapping[str, Channel],
    links: RecipientLinks,
    *,
    secrets: WebhookSecrets,
    webhooks: Webhooks | None = None,
    authors: Mapping[str, Author] | None = None,
    lease_seconds: float = 60.0,
    traced_share: float = 0.0,
) -> AsyncIterator[None]:
    """Work on every task queue until the block ends.

    Args:
        authors: activities that automations written in Python may call, by their names.
    """
    campaigns = Campaigns(database)
    importing = Imports(database)
    belonging = Segments(database)
    keeping = Events(database)
    delivery = Deliveries(database, channels, links, lease_seconds=lease_seconds, traced_share=traced_share)
    paused = partial(automations.wake, client, signal="follow")
    steps = Journeys(database, channels, links, lease_seconds=lease_seconds, traced_share=traced_share, paused=paused)
    tell = partial(notifications.tell, client)
    trying = Experiments(database, tell)
    journals = Journals(database)
    outward = Outward(database, webhooks or Webhooks(), secrets, authors or {}, tell)
    wake = partial(automations.wake, client)
    routing = Routing(database, client, wake, partial(enrolling.keep_times, client))
    dripping = Drips(database)
    workers = [
        Worker(
            client,
            task_queue=ORCHESTRATION,
            workflows=WORKFLOWS,
            workflow_runner=OneTurnAtATime(),
            activities=[
                *(campaigns.change_state, campaigns.open_shards, campaigns.read_state),
                *(trying.read_experiment, trying.mark_test_sent, trying.decide_winner, trying.choose_winner),
                *(trying.stop_experiment, trying.allocate_shard),
                *(importing.fail_import, belonging.follow_changes, dripping.close_drip),
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
                dripping.enroll_audience,
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
        Worker(
            client,
            task_queue=AUTOMATIONS,
            workflows=JOURNEYS,
            workflow_runner=OneTurnAtATime(),
            activities=[
                *(steps.send, steps.matches, steps.engagement, steps.add_to, steps.remove_from, steps.update_contact),
                *(steps.tag, steps.watch, steps.note, journals.keep_journal, journals.read_journal),
                *(outward.webhook, outward.notify, outward.create_campaign, outward.perform, outward.report_failures),
                *(routing.follow_journeys, routing.form_cohort, routing.tell_cohorts),
                *(routing.read_source, routing.change_source, routing.find_lost, routing.read_lost),
                DueContacts(database, wake).enroll_due,
            ],
            max_concurrent_activities=20,
            max_cached_workflows=MOST_CACHED,
            graceful_shutdown_timeout=PATIENCE,
        ),
    ]
    async with AsyncExitStack() as stack:
        for worker in workers:
            await stack.enter_async_context(worker)
        yield


async def missing(database: Database, code: Loaded) -> list[InsideCode]:
    """Who is inside a version that no file has any more."""
    return [
        each for each in await code_automations.inside(database) if (each.code, each.version) not in code.automations
    ]


async def run_worker(settings: Settings, code: Loaded) -> None:
    """Work until SIGTERM or SIGINT; then finish what has begun.

    Args:
        code: the automations that are written in Python; whatever becomes of their files, this worker runs these.
    """
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
    webhooks = Webhooks(
        PublicNetwork([ip_network(each.strip()) for each in settings.webhook_allow.split(",") if each.strip()])
    )
    links = RecipientLinks(settings.public_url, Tokens(settings.secret_key.get_secret_value().encode()))
    await events.ensure_schedule(client)
    await sweeps.ensure_schedule(client)
    await segments.ensure_schedules(client, timedelta(seconds=settings.segment_sweep_seconds))
    await segments.ensure_following(client)
    await journeys.ensure_schedule(client)
    await journeys.ensure_following(client)
    for waiting in await missing(database, code):
        log.warning("no file has this automation in this version: those inside wait", **vars(waiting))
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
        secrets=WebhookSecrets(settings.secret_key.get_secret_value().encode()),
        webhooks=webhooks,
        authors=code.activities,
        lease_seconds=settings.lease_seconds,
        traced_share=settings.traces_message_share,
    ):
        await stop.wait()
    await webhooks.close()
    await email.close()
    await database.close()
