"""Automations in Python on the real parts: from a file to the inbox."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from temporalio.client import Client

from api.app import create_app
from channels.sink import Sink
from database.engine import Database
from tests.audience import EMAIL
from tests.automating import Automating, routed
from tests.conftest import PUBLIC_URL, SECRET_KEY, TestAccount, client_for
from workflows.code_files import load

HEAD = f"""\
from workflows.journey import Contact, Journey, automation, on_event

LETTER = {EMAIL!r}
ORDERED = on_event("order.placed")
"""


class Author:
    """Writes versions of one automation into a file."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "ordered.py"
        self.name = f"ordered-{uuid4().hex[:8]}"
        self.file.write_text(HEAD)

    def writes(self, version: int, *lines: str) -> None:
        head = f"@automation({self.name!r}, version={version}, trigger=ORDERED)"
        function = f"async def ordered_{version}(contact: Contact, journey: Journey) -> None:"
        with self.file.open("a") as file:
            file.write("\n".join(["", "", head, function, *(f"    {line}" for line in lines), ""]))


@pytest.fixture
def author(tmp_path: Path) -> Author:
    return Author(tmp_path)


@pytest.fixture
async def at_work(
    account: TestAccount, database: Database, temporal: Client, worker: None, sink: Sink, author: Author
) -> AsyncIterator["AtWork"]:
    async with routed(account, temporal):
        yield AtWork(account, database, temporal, sink, author)


class AtWork:
    def __init__(self, account: TestAccount, database: Database, temporal: Client, sink: Sink, author: Author) -> None:
        self.account, self.database, self.temporal, self.sink, self.author = account, database, temporal, sink, author

    @asynccontextmanager
    async def started(self) -> AsyncIterator[Automating]:
        """The API and the worker after a start: they have read the files as they are now."""
        code = load([self.author.file.parent])
        app = create_app(self.database, self.temporal, public_url=PUBLIC_URL, secret_key=SECRET_KEY, code=code)
        async with client_for(app, self.account.key) as api:
            yield Automating(self.account, api, self.temporal, self.sink)

    async def versions(self, automation: UUID) -> dict[UUID, tuple[int, str]]:
        """By contact, its version and what went wrong."""
        async with self.account.transaction() as tx:
            query = text("SELECT contact_id, version, problem FROM enrollments WHERE source_id = :id")
            rows = await tx.execute(query, {"id": automation})
            return {row.contact_id: (row.version, row.problem or "") for row in rows}


async def test_those_inside_finish_on_their_version_and_newcomers_begin_on_the_newest(at_work: AtWork) -> None:
    at_work.author.writes(1, "await journey.send(content=LETTER)", 'await journey.wait("30 days")')
    async with at_work.started() as automating:
        made = await automating.api.post("/api/automations", json={"name": "Ordered", "code": at_work.author.name})
        path = f"/api/automations/{made.json()['id']}"
        assert (await automating.api.post(f"{path}/activate")).status_code == 202
        automation = UUID(made.json()["id"])
        first = await automating.somebody(name="first")
        await automating.happens("order.placed", first)
        await automating.gets(first)
        await automating.until_passes(automation, first, ("active", None))

    at_work.author.writes(2, "for _ in range(2):", "    await journey.send(content=LETTER)")
    async with at_work.started() as automating:
        answer = await automating.api.post(f"{path}/activate")
        assert answer.json()["version"] == 2
        second = await automating.somebody(name="second")
        await automating.happens("order.placed", second)
        await automating.gets(second, 2)
        await automating.until_passes(automation, second, ("completed", None))
        assert await automating.passes(automation, first) == [("active", None)]
        assert await automating.messages(first) == 1
    assert await at_work.versions(automation) == {first: (1, ""), second: (2, "")}


async def test_what_the_sandbox_refuses_fails_that_contact_and_says_why(at_work: AtWork) -> None:
    at_work.author.writes(1, "await journey.send(content=LETTER)", "getattr(__import__('random'), 'random')()")
    async with at_work.started() as automating:
        made = await automating.api.post("/api/automations", json={"name": "Ordered", "code": at_work.author.name})
        automation = UUID(made.json()["id"])
        assert (await automating.api.post(f"/api/automations/{automation}/activate")).status_code == 202
        zoe = await automating.somebody()
        await automating.happens("order.placed", zoe)
        await automating.gets(zoe)
        await automating.until_passes(automation, zoe, ("failed", None))
    (standing,) = (await at_work.versions(automation)).values()
    assert "`random.random` is refused in an automation: use `journey.split" in standing[1]
