"""With what rights do API and workers log in? With none, and so none are left when their role is taken off."""

import asyncio

import psycopg
import pytest
from sqlalchemy import Table, text
from sqlalchemy.exc import ProgrammingError

from database.engine import Connection, Database
from database.migrate import migrate
from database.schema import metadata
from tests.conftest import TestAccount


def as_role(database_url: str, role: str) -> str:
    return database_url.replace("//carillon@", f"//{role}@")


@pytest.fixture
async def login_url(database_url: str) -> str:
    url = as_role(database_url, "carillon_login")
    for _ in range(2):  # the second time it is there
        await asyncio.to_thread(migrate, database_url, url)
    return url


async def seen(connection: Connection, table: Table) -> list[object]:
    try:
        return list(await connection.execute(table.select()))
    except ProgrammingError as error:
        if "permission denied" not in str(error):
            raise
        return []


async def test_whatever_role_its_connection_takes_it_sees_nothing_of_others(
    login_url: str, account: TestAccount, other_account: TestAccount
) -> None:
    database = Database(login_url)
    escapes = ("RESET ROLE", "SET ROLE NONE", "SET SESSION AUTHORIZATION DEFAULT", "RESET SESSION AUTHORIZATION")
    for escape in escapes:
        for table in metadata.sorted_tables:
            async with database.engine.connect() as connection:
                await connection.execute(text(escape))
                assert await seen(connection, table) == []
    for owner in ("SET ROLE carillon", "SET SESSION AUTHORIZATION carillon", "SET ROLE postgres"):
        async with database.engine.connect() as connection:
            with pytest.raises(ProgrammingError, match="permission denied"):
                await connection.execute(text(owner))
    async with database.transaction(account.id) as tx:
        assert (await tx.execute(text("SELECT id FROM accounts"))).scalars().all() == [account.id]
    await database.close()


async def test_it_owns_nothing_and_is_let_in_by_the_hash_of_its_password(database_url: str) -> None:
    name, password = 'the "shop"', "it's secret"
    url = as_role(database_url, "the%20%22shop%22:it%27s%20secret")
    await asyncio.to_thread(migrate, database_url, url)
    superuser = as_role(database_url, "postgres")
    async with await psycopg.AsyncConnection.connect(superuser) as connection:
        found = await connection.execute(
            "SELECT rolpassword, rolsuper OR rolinherit OR rolcreaterole OR rolcreatedb OR rolbypassrls,"
            " (SELECT count(*) FROM pg_class WHERE relowner = role.oid) FROM pg_authid AS role WHERE rolname = %s",
            [name],
        )
        ((hashed, may_anything, owned),) = await found.fetchall()
    assert hashed.startswith("SCRAM-SHA-256$") and password not in hashed
    assert (may_anything, owned) == (False, 0)


async def test_an_owner_that_logs_in_itself_needs_nobody_else(database_url: str, database: Database) -> None:
    async def roles() -> int:
        async with database.transaction(None) as tx:
            count: int = (await tx.execute(text("SELECT count(*) FROM pg_roles"))).scalar_one()
        return count

    before = await roles()
    await asyncio.to_thread(migrate, database_url, database_url)
    assert await roles() == before
