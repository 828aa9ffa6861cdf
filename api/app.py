"""The control API: how are its rooms put together?"""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from temporalio.client import Client

from api import (
    accounts,
    automation_control,
    automations,
    campaign_checks,
    campaign_control,
    campaign_previews,
    campaign_reports,
    campaigns,
    contacts,
    deliveries,
    errors,
    events,
    executions,
    experiment_control,
    experiment_plans,
    experiment_reports,
    experiments,
    exposures,
    health,
    imports,
    keys,
    metrics,
    notifications,
    openapi,
    rehearsals,
    segment_members,
    segment_reports,
    segments,
    subscriptions,
    templates,
    tracking,
)
from api.auth import FailedAttempts, Keys
from api.idempotency import Idempotency
from api.limits import BodyLimit
from api.watch import Watch
from database.engine import Database
from marketing.tracking import RecipientLinks, Tokens
from marketing.webhooks import WebhookSecrets
from rehearsals.rehearse import MOST_SECONDS
from workflows.code import Loaded

ROUTERS = [
    accounts.router,
    keys.router,
    notifications.router,
    imports.router,
    contacts.router,
    events.router,
    segments.router,
    segment_reports.router,
    segment_members.router,
    templates.router,
    experiments.router,  # before campaigns, whose ids are no “ab-tests”
    experiment_reports.router,
    experiment_control.router,
    campaigns.router,
    campaign_checks.router,
    campaign_previews.router,
    campaign_control.router,
    campaign_reports.router,
    automations.router,
    automation_control.router,
    executions.router,
    experiment_plans.router,
    exposures.router,
    rehearsals.router,
    deliveries.router,
]


def create_app(
    database: Database,
    temporal: Client,
    *,
    public_url: str,
    secret_key: bytes,
    metrics_token: str | None = None,
    patience_seconds: float = 10.0,
    rehearsal_seconds: float = MOST_SECONDS,
    code: Loaded = Loaded({}, {}),
) -> FastAPI:
    """The application, with everything it needs handed in.

    Args:
        database: closed when the application ends.
        temporal: a connected client.
        public_url: the start of every link in a message.
        secret_key: signs tracking and unsubscribe links.
        metrics_token: opens `/metrics`; without one, only this machine may read it.
        patience_seconds: how long a pause, resume or cancel waits for the workflow's answer.
        rehearsal_seconds: after so long a rehearsal is given up.
        code: the automations that are written in Python.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # What is there by now stays. To look through it for garbage, again and again, took a fifth of the time.
        gc.collect()
        gc.freeze()
        yield
        await app.state.keys.close()
        await app.state.hits.close()
        await app.state.intake.close()
        await database.close()

    app = FastAPIOffline(  # the API page asks nobody else for its scripts
        title="Carillon",
        summary="Durable campaign orchestration: every message accounted for.",
        version="0.1.0",
        lifespan=lifespan,
        docs_url="/docs",
        redoc_url=None,
        separate_input_output_schemas=False,
        # To look for exporters took it 20 µs of each request, as long as all else that HTTP costs a click.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.database = database
    app.state.temporal = temporal
    app.state.tokens = Tokens(secret_key)
    app.state.webhook_secrets = WebhookSecrets(secret_key)
    app.state.links = RecipientLinks(public_url, app.state.tokens)
    app.state.hits = tracking.Hits(database)
    app.state.intake = events.Intake(database)
    app.state.waiting = metrics.Waiting(database)
    app.state.metrics_token = metrics_token
    app.state.patience_seconds = patience_seconds
    app.state.rehearsal_seconds = rehearsal_seconds
    app.state.code = code
    app.state.rehearsing = asyncio.Lock()
    app.state.keys = Keys(database)
    app.state.failed_attempts = FailedAttempts()
    errors.install(app)
    app.add_middleware(Idempotency)
    app.add_middleware(BodyLimit)
    app.add_middleware(Watch)
    app.add_middleware(tracking.Shortcut)  # the last one added is the first one asked
    app.include_router(health.router)
    app.include_router(metrics.router)
    app.include_router(subscriptions.router)
    for router in ROUTERS:
        app.include_router(router, responses=errors.PROBLEMS)
    openapi.describe(app)
    return app
