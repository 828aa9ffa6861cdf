"""The real parts, started once for all tests: PostgreSQL and Temporal. Each test gets an account of its own."""

import gc
import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
import pytest
import structlog
from fastapi import FastAPI
from hypothesis import settings as hypothesis_settings
from temporalio.client import Client

from api.app import create_app
from channels.sink import Sink
from channels.smtp import SmtpChannel
from database import accounts, keys
from database.engine import Connection, Database
from database.migrate import migrate
from local_stack import EmbeddedPostgres, EmbeddedTemporal
from marketing.accounts import AccountSettings, Role
from marketing.tracking import RecipientLinks, Tokens
from marketing.webhooks import WebhookSecrets
from worker import working
from workflows.connection import connect

SECRET_KEY = b"a secret key of the tests, 32 bytes or more"
PUBLIC_URL = "http://carillon.test"
# Seconds for what must come: where a test gets a twentieth of a processor, only what never comes takes so long.
PATIENCE = 300

# What is collected stays: to look for garbage meanwhile, nine times, was a fifth of the collection.
gc.set_threshold(50_000)

# An exception is told in plain lines, as by the programs. With rich at hand structlog draws each of its frames with all
# that is in it: 2 s of CPU for each that a test brings about, in which nothing else of its process goes on.
PLAIN = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
structlog.configure(processors=[*structlog.get_config()["processors"][:-1], PLAIN])

# How long one example takes says more of the machine than of the code. What must be quick has a bound of its own.
hypothesis_settings.register_profile("carillon", deadline=None)
hypothesis_settings.load_profile("carillon")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first: `make test` has several processes, and the rest fits in beside it."""
    items.sort(key=lambda item: [not any(item.iter_markers(name)) for name in ("chaos", "long")])


def pytest_collection_finish() -> None:
    """Never again look for garbage among all that was imported and collected, as the worker does: each look took 1.5 s
    of CPU, and a workflow's task of 2 s is taken for a deadlock."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Where several processes share the machine, all stand back for the one with the chaos tests: those measure, and
    their mail server must answer in time."""
    beside_others = "PYTEST_XDIST_WORKER" in os.environ
    if beside_others and not any(item.iter_markers("chaos")) and os.nice(0) == 0:
        os.nice(10)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A line for each fault that the chaos tests have done, whichever process did it."""
    reports = [each for when in ("passed", "failed") for each in terminalreporter.getreports(when)]
    told = [said for each in reports for name, said in each.user_properties if name == "fault"]
    if told:
        terminalreporter.section("what became of each fault")
        for line in told:
            terminalreporter.write_line(str(line))


@pytest.fixture(scope="session")
async def database_url() -> AsyncIterator[str]:
    """A migrated database on a real PostgreSQL."""
    async with EmbeddedPostgres(durable=False) as postgres:
        migrate(postgres.url)
        yield postgres.url


@pytest.fixture(scope="session")
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url, pool_size=20)
    yield database
    await database.close()


@pytest.fixture(scope="session")
async def temporal_server() -> AsyncIterator[EmbeddedTemporal]:
    async with EmbeddedTemporal(durable=False) as server:
        yield server


@pytest.fixture(scope="session")
async def temporal(temporal_server: EmbeddedTemporal) -> Client:
    return await connect(temporal_server.address)


@pytest.fixture(scope="session")
def carillon_database_url(database_url: str) -> str:
    """For `rehearse`, the fixture that comes with Carillon."""
    return database_url


@pytest.fixture(scope="session")
def carillon_temporal_address(temporal_server: EmbeddedTemporal) -> str:
    return temporal_server.address


@pytest.fixture(scope="session")
async def app(database: Database, temporal: Client) -> FastAPI:
    patient: dict[str, Any] = {"patience_seconds": PATIENCE, "rehearsal_seconds": PATIENCE}
    return create_app(database, temporal, public_url=PUBLIC_URL, secret_key=SECRET_KEY, **patient)


@dataclass(frozen=True)
class TestAccount:
    """An account with an owner key, alone in its rows."""

    __test__ = False

    id: UUID
    key: str
    database: Database

    def transaction(self) -> AbstractAsyncContextManager[Connection]:
        return self.database.transaction(self.id)

    async def key_for(self, role: Role) -> str:
        secret = keys.new_secret()
        async with self.transaction() as tx:
            await keys.create(tx, self.id, f"a {role}", role, secret)
        return secret


@pytest.fixture
async def account(database: Database) -> TestAccount:
    return await new_account(database)


@pytest.fixture
async def other_account(database: Database) -> TestAccount:
    return await new_account(database)


async def new_account(database: Database) -> TestAccount:
    settings = AccountSettings(
        name="Example Outfitters", sender_domains=["example.com"], postal_address="1 Example Street, Paris"
    )
    account_id = await accounts.create(database, settings)
    secret = keys.new_secret()
    async with database.transaction(account_id) as tx:
        await keys.create(tx, account_id, "owner", "owner", secret)
    return TestAccount(account_id, secret, database)


def client_for(app: FastAPI, key: str | None) -> httpx.AsyncClient:
    """An HTTP client that speaks to the application within this process."""
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app, client=("127.0.0.1", 50_000)),
        base_url=PUBLIC_URL,
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=60,
    )


@pytest.fixture
async def api(app: FastAPI, account: TestAccount) -> AsyncIterator[httpx.AsyncClient]:
    """The control API, asked with the owner key of `account`."""
    async with client_for(app, account.key) as client:
        yield client


@pytest.fixture
async def stranger(app: FastAPI, other_account: TestAccount) -> AsyncIterator[httpx.AsyncClient]:
    """The control API, asked by somebody else's owner."""
    async with client_for(app, other_account.key) as client:
        yield client


@pytest.fixture(scope="session")
async def sink() -> AsyncIterator[Sink]:
    """A real SMTP server, shared: tell tests apart by their recipients."""
    async with Sink(keep=1_000_000, keep_contents=1_000) as sink:
        yield sink


@pytest.fixture(scope="session")
async def worker(temporal: Client, database: Database, sink: Sink) -> AsyncIterator[None]:
    """A worker on every task queue, sending to `sink`."""
    email = SmtpChannel(sink.url, connections=10)
    links = RecipientLinks(PUBLIC_URL, Tokens(SECRET_KEY))
    async with working(temporal, database, {"email": email}, links, secrets=WebhookSecrets(SECRET_KEY)):
        yield
    await email.close()
