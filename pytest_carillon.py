"""A pytest plugin for authors of automations: the fixture `rehearse`.

async def test_whoever_clicks_gets_no_nudge(rehearse):
    timeline = await rehearse(welcome, script=["clicks welcome on day 1"])
    assert timeline.sent == ["welcome", "showcase"]
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

if TYPE_CHECKING:  # projects that rehearse nothing do not wait for it
    from collections.abc import AsyncIterator
    from uuid import UUID

    from marketing.rehearsals import Timeline
    from rehearsals.rehearse import Stage

T = TypeVar("T")
Json = Mapping[str, Any]

MOST_SECONDS = 600.0  # a machine that runs tests is often at work on others too
SOMEBODY: Json = {"email": "zoe@example.com", "first_name": "Zoë"}


class _Thread:
    """An event loop of its own: whatever loops the tests have, the servers stay in one."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="carillon", daemon=True)
        self.thread.start()

    def submit(self, work: Coroutine[Any, Any, T]) -> "asyncio.futures.Future[T]":
        return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.loop))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    @contextmanager
    def kept(self, thing: Any) -> Iterator[Any]:
        """An asynchronous context for as long as this one lasts."""
        value = self.run(thing.__aenter__())
        try:
            yield value
        finally:
            self.run(thing.__aexit__(None, None, None))

    def end(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@dataclass(frozen=True)
class Rehearse:
    """Takes contacts through an automation, with captured messages, on a clock that skips."""

    thread: _Thread
    stage: "Stage"
    account_id: "UUID"

    async def __call__(
        self,
        automation: Callable[..., Any] | Json,
        *,
        contacts: Sequence[Json] = (SOMEBODY,),
        script: Sequence[str | Json] = (),
        templates: Mapping[str, Json] | None = None,
        event: Json | None = None,
        starts_at: datetime | str | None = None,
        activities: Mapping[str, Callable[..., Any]] | None = None,
    ) -> "Timeline":
        """
        Args:
            automation: A function under `@automation`, or a definition as the API takes it.
            contacts: As the API takes them. They have agreed to e-mail unless `subscriptions` says something else, and
                did what is in `events`: `[{"event": "purchase", "value": 60, "ago": "20 days"}]`.
            script: What they do, such as `"clicks welcome on day 2"`.
            templates: By name; those that the automation names and nobody gives are made up, and so are segments.
            event: The properties of what lets them in.
            starts_at: When they enter, from now on: a moment with its offset, or the same as ISO 8601.
            activities: By name, what is called instead of an author's own activities.

        Returns:
            what happened to whom: `print` it.
        """
        from rehearsals.troupe import Troupe

        troupe = Troupe(self.account_id, automation, contacts, script, templates or {}, event or {}, starts_at)
        return await self.thread.submit(troupe.play(self.stage, activities or {}))


@pytest.fixture(scope="session")
def _carillon_thread() -> Iterator[_Thread]:
    thread = _Thread()
    yield thread
    thread.end()


@pytest.fixture(scope="session")
def carillon_database_url(_carillon_thread: _Thread) -> Iterator[str]:
    """A PostgreSQL with Carillon's tables. Override it if you have one."""
    from database.migrate import migrate
    from local_stack import EmbeddedPostgres

    with _carillon_thread.kept(EmbeddedPostgres(durable=False)) as postgres:
        migrate(postgres.url)
        yield postgres.url


@pytest.fixture(scope="session")
def carillon_temporal_address(_carillon_thread: _Thread) -> Iterator[str]:
    """A Temporal server that can skip time. Override it if you have one."""
    from local_stack import EmbeddedTemporal

    with _carillon_thread.kept(EmbeddedTemporal(durable=False)) as temporal:
        yield temporal.address


@pytest.fixture(scope="session")
def rehearse(
    _carillon_thread: _Thread, carillon_database_url: str, carillon_temporal_address: str
) -> Iterator[Rehearse]:
    """Rehearses automations; see `Rehearse.__call__`."""
    with _carillon_thread.kept(_staged(carillon_database_url, carillon_temporal_address)) as (stage, account_id):
        yield Rehearse(_carillon_thread, stage, account_id)


@asynccontextmanager
async def _staged(database_url: str, temporal_address: str) -> "AsyncIterator[tuple[Stage, UUID]]":
    from database import accounts
    from database.engine import Database
    from marketing.accounts import AccountSettings
    from marketing.tracking import RecipientLinks, Tokens
    from rehearsals.rehearse import Stage
    from workflows.connection import connect

    database = Database(database_url, pool_size=2)
    try:
        settings = AccountSettings(
            name="Rehearsals", sender_domains=["example.com"], postal_address="1 Example Street, Paris"
        )
        links = RecipientLinks("http://carillon.test", Tokens(b"for rehearsals, which reach nobody"))
        stage = Stage(database, await connect(temporal_address), links, most_seconds=MOST_SECONDS)
        yield stage, await accounts.create(database, settings)
    finally:
        await database.close()
