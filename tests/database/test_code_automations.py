"""Who is inside automations that are written in Python?"""

from uuid import UUID

from sqlalchemy import text

from database.code_automations import InsideCode, inside
from database.engine import Database
from tests.conftest import TestAccount
from tests.enrolled import enrolled
from worker import missing
from workflows.code import Loaded


async def inside_code(account: TestAccount, count: int, code: str, version: int) -> UUID:
    """So many contacts in a version of an automation in Python."""
    pass_ = await enrolled(account, count, name=code)
    async with account.transaction() as tx:
        ids = {"id": pass_.automation_id}
        await tx.execute(text("UPDATE automations SET code = :code WHERE id = :id"), {**ids, "code": code})
        await tx.execute(text("UPDATE enrollments SET version = :v WHERE source_id = :id"), {**ids, "v": version})
    return pass_.automation_id


async def test_those_of_all_accounts_are_counted_by_version(
    database: Database, account: TestAccount, other_account: TestAccount
) -> None:
    ours = await inside_code(account, 3, "counted", 1)
    theirs = await inside_code(other_account, 2, "counted", 2)
    await enrolled(account, 4, name="declared")
    async with account.transaction() as tx:
        await tx.execute(
            text("""
                UPDATE enrollments SET left_at = now(), state = 'completed'
                WHERE id IN (SELECT id FROM enrollments WHERE source_id = :id LIMIT 1)
            """),
            {"id": ours},
        )
    mine = {account.id, other_account.id}
    found = [each for each in await inside(database) if each.account_id in mine]
    assert sorted(found, key=lambda each: each.version) == [
        InsideCode(account.id, ours, "counted", 1, 2),
        InsideCode(other_account.id, theirs, "counted", 2, 2),
    ]


async def test_a_worker_knows_whose_version_it_does_not_have(database: Database, account: TestAccount) -> None:
    there = await inside_code(account, 2, "gone", 7)
    found = [each for each in await missing(database, Loaded({}, {})) if each.account_id == account.id]
    assert found == [InsideCode(account.id, there, "gone", 7, 2)]
