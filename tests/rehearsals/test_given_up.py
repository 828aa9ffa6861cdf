"""What becomes of a rehearsal that is in somebody's way, or whose process is gone?"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from temporalio.client import Client

from database.engine import Database
from rehearsals.rehearse import InTheWay
from tests.audience import people
from tests.automating import routing
from tests.conftest import PATIENCE, TestAccount
from tests.delivering import execute
from tests.rehearsals.test_rehearse import SEND, played, stage
from workflows.connection import connect

CHANGE = {"id": "change", "type": "update_contact", "changes": {"country": "FR"}}
LONG: list[dict[str, Any]] = [CHANGE, *({"id": f"w{n}", "type": "wait", "duration": "1 day"} for n in range(400)), SEND]


async def is_held(account: TestAccount, contact: UUID) -> bool:
    """Whether somebody has changed the contact, and is not through."""
    try:
        await execute(account, "SELECT FROM contacts WHERE id = :id FOR UPDATE NOWAIT", id=contact)
    except DBAPIError:
        return True
    return False


async def rename(account: TestAccount, contact: UUID) -> None:
    """As the API does."""
    async with account.transaction() as tx:
        await tx.execute(text(f"SET LOCAL lock_timeout = '{PATIENCE}s'"))
        await tx.execute(text("UPDATE contacts SET first_name = 'Zoe' WHERE id = :id"), {"id": contact})


async def test_it_gives_way_to_whoever_wants_to_change_what_it_has_changed(
    account: TestAccount, database: Database, temporal: Client
) -> None:
    contacts = await people(account, 2)
    rehearsing = asyncio.create_task(played(stage(database, temporal), account, *LONG, contacts=contacts))
    while not await is_held(account, contacts[0]):
        assert not rehearsing.done()
    await rename(account, contacts[0])
    with pytest.raises(InTheWay, match="somebody wanted to change"):
        await rehearsing


async def count(temporal: Client, query: str) -> int:
    return (await temporal.count_workflows(query)).count


async def rehearse_alone(url: str, address: str, account_id: str, contact: str) -> None:
    """In a process of its own."""
    database = Database(url)
    account = TestAccount(UUID(account_id), "no key", database)
    await played(stage(database, await connect(address)), account, *LONG, contacts=[UUID(contact)])


@asynccontextmanager
async def in_a_process(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    program = "import asyncio, sys; from tests.rehearsals.test_given_up import rehearse_alone as it; "
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", f"{program}asyncio.run(it(*sys.argv[1:]))", *arguments), cwd=Path(__file__).parents[2]
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_of_one_whose_process_is_killed_nothing_stays(
    account: TestAccount, database_url: str, temporal: Client, carillon_temporal_address: str
) -> None:
    (contact,) = await people(account, 1)
    arguments = (database_url, carillon_temporal_address, str(account.id), str(contact))
    async with in_a_process(*arguments) as process:
        while not await is_held(account, contact):
            assert process.returncode is None
        process.kill()
        await process.wait()
    await rename(account, contact)
    async with account.transaction() as tx:
        query = "SELECT country, (SELECT count(*) FROM automations), (SELECT count(*) FROM deliveries) FROM contacts"
        assert (await tx.execute(text(query))).one() == (None, 0, 0)
    left = f'Kind = "rehearsal" AND ExecutionStatus = "Running" AND AccountId = "{account.id}"'
    while not await count(temporal, left):
        assert process.returncode is not None  # the list comes a little late
    await routing(account, temporal).end_rehearsals(datetime.now(UTC))
    while await count(temporal, left):
        assert process.returncode is not None
