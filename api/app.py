"""The control API: how are its rooms put together?"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from temporalio.client import Client

from api import accounts, errors, health, keys, subscriptions, templates, tracking
from api.auth import FailedAttempts
from database.engine import Database
from marketing.tracking import Tokens

ROUTERS = [accounts.router, keys.router, templates.router]


def create_app(database: Database, temporal: Client, *, public_url: str, secret_key: bytes) -> FastAPI:
    """The application, with everything it needs handed in.

    Args:
        database: closed when the application ends.
        temporal: a connected client.
        public_url: the start of every link in a message.
        secret_key: signs tracking and unsubscribe links.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await app.state.hits.close()
        await database.close()

    app = FastAPI(
        title="Carillon",
        summary="Durable campaign orchestration: every message accounted for.",
        version="0.1.0",
        lifespan=lifespan,
        docs_url="/docs",
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    app.state.database = database
    app.state.temporal = temporal
    app.state.public_url = public_url
    app.state.secret_key = secret_key
    app.state.tokens = Tokens(secret_key)
    app.state.hits = tracking.Hits(database)
    app.state.failed_attempts = FailedAttempts()
    errors.install(app)
    app.include_router(health.router)
    app.include_router(tracking.router)
    app.include_router(subscriptions.router)
    for router in ROUTERS:
        app.include_router(router, responses=errors.PROBLEMS)
    return app
