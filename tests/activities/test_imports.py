"""What is left of an import when what carries it out dies, or runs twice?"""

import asyncio
import random
from typing import Any

import pytest
from temporalio.testing import ActivityEnvironment

from activities.imports import Imports
from activities.inputs import ImportRef
from database import contacts, imports
from database.engine import Database
from marketing.imports import ImportCounts, ImportState
from tests.conftest import TestAccount
from tests.unreliable import Lost, UnreliableDatabase
from tests.uploads import upload

PEOPLE = 20_000
EXPECTED = {"rows": 20_300, "rejected": 100, "duplicates": 200, "protected": 0}


def content() -> bytes:
    """Some windows full of people, bad rows among them, and duplicates far from whom they are about."""
    people = [f"p{n}@example.com,Name {n},{'x' * 80}" for n in range(PEOPLE)]
    bad = [f"bad{n},," for n in range(100)]
    again = [f"P{n}@EXAMPLE.com,Renamed {n}," for n in range(200)]
    return "\n".join(["Email,First Name,Note", *people[:5000], *bad, *people[5000:], *again, ""]).encode()


async def run(importing: Imports, ref: ImportRef) -> None:
    """As the workflow would, with each step tried until it answers."""
    steps = {"waiting": importing.examine_file, "reading": importing.stage_rows, "merging": importing.merge_people}
    state = "waiting"
    while state in steps:
        try:
            state = (await ActivityEnvironment().run(steps[state], ref)).state
        except Lost:
            continue
    assert state == "completed"


async def counts_of(account: TestAccount, ref: ImportRef) -> dict[str, Any]:
    async with account.transaction() as tx:
        found = await imports.find(tx, ref.import_id)
    assert found is not None
    assert found.status is ImportState.COMPLETED
    return found.counts.model_dump()


@pytest.mark.parametrize("seed", [1, 2])
async def test_an_import_that_loses_a_third_of_its_answers_counts_exactly(
    database_url: str, account: TestAccount, seed: int
) -> None:
    ref = await upload(account, content())
    unreliable = UnreliableDatabase(database_url, random.Random(seed), loss=0.35)
    await run(Imports(unreliable), ref)
    await unreliable.close()
    assert unreliable.lost > 3
    assert await counts_of(account, ref) == EXPECTED | {"added": PEOPLE, "updated": 0, "unchanged": 0}
    async with account.transaction() as tx:
        (renamed,) = await contacts.page(tx, contacts.Filters(search="p7@"), after=None, limit=2)
        assert renamed.first_name == "Renamed 7"
        for table in ("import_blocks", "import_people"):  # nothing of the file is kept
            assert (await tx.exec_driver_sql(f"SELECT count(*) FROM {table}")).scalar_one() == 0


async def test_two_workers_at_the_same_import_do_not_count_twice(database: Database, account: TestAccount) -> None:
    ref = await upload(account, content())
    await asyncio.gather(run(Imports(database), ref), run(Imports(database), ref))
    assert await counts_of(account, ref) == EXPECTED | {"added": PEOPLE, "updated": 0, "unchanged": 0}


async def test_the_same_file_again_writes_no_contact(database: Database, account: TestAccount) -> None:
    await run(Imports(database), await upload(account, content()))
    touched = "SELECT max(updated_at), count(*), max(xmin::text::bigint) FROM contacts"
    async with account.transaction() as tx:
        before = (await tx.exec_driver_sql(touched)).one()
    again = await upload(account, content())
    await run(Imports(database), again)
    async with account.transaction() as tx:
        assert (await tx.exec_driver_sql(touched)).one() == before
    assert await counts_of(account, again) == EXPECTED | {"added": 0, "updated": 0, "unchanged": PEOPLE}


async def test_an_import_that_failed_stays_failed(database: Database, account: TestAccount) -> None:
    ref = await upload(account, b"nothing\nof use\n")
    importing = Imports(database)
    failed = await ActivityEnvironment().run(importing.examine_file, ref)
    again = await ActivityEnvironment().run(importing.examine_file, ref)
    assert (failed.state, again.state, again.rows) == ("failed", "failed", 0)
    assert ImportCounts() == ImportCounts(**failed.model_dump(include={"rows", "rejected"}))
