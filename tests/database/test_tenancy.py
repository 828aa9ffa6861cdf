"""What does raw SQL as the application's role see of other accounts? Nothing, whatever it asks."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Date, Table, func, select, text
from sqlalchemy.dialects.postgresql import ARRAY, TIMESTAMP
from sqlalchemy.exc import ProgrammingError

from database.engine import APPLICATION_ROLE
from database.schema import metadata
from tests.conftest import TestAccount

TABLES = metadata.sorted_tables  # those that others point at come first
REFUSED = "violates row-level security policy"


def owner(table: Table) -> Any:
    """The column that says whose a row is."""
    return table.c.id if table.name == "accounts" else table.c.account_id


def a_row(table: Table, account_id: UUID, ids: dict[str, UUID]) -> dict[str, Any]:
    """Values for every column that needs one; `ids` are of the rows in other tables that they point at."""
    role = "trigger" if table.name == "automation_subjects" else "viewer"
    given: dict[str, Any] = {"account_id": account_id, "role": role, "status": "subscribed", "kind": "static"}

    def value(column: Any) -> Any:
        if column.name in given:
            return given[column.name]
        for key in column.foreign_keys:
            return ids[key.column.table.name]
        if isinstance(column.type, ARRAY):
            return []
        if isinstance(column.type, TIMESTAMP | Date):
            return func.now()
        kind = column.type.python_type
        return uuid4() if kind is UUID else kind(uuid4().bytes) if kind is bytes else kind(1)

    return {each.name: value(each) for each in table.c if not each.nullable and each.server_default is None}


async def one_row_each(account: TestAccount) -> dict[str, UUID]:
    """A row in every table, and the ids of those that have one."""
    ids = {"accounts": account.id}
    async with account.transaction() as tx:
        for table in TABLES:
            if table.name != "accounts":
                row = table.insert().values(a_row(table, account.id, ids)).returning(*table.primary_key)
                ids[table.name] = (await tx.execute(row)).one()[0]
    return ids


@pytest.fixture
async def theirs(other_account: TestAccount) -> dict[str, UUID]:
    return await one_row_each(other_account)


@pytest.mark.parametrize("table", TABLES, ids=str)
@pytest.mark.parametrize("who", ["another account", "nobody"])
async def test_no_statement_reaches_another_accounts_rows(
    account: TestAccount, other_account: TestAccount, theirs: dict[str, UUID], table: Table, who: str
) -> None:
    def transaction() -> Any:
        return account.database.transaction(account.id if who == "another account" else None)

    is_theirs = owner(table) == other_account.id
    async with other_account.transaction() as tx:
        assert (await tx.execute(select(func.count()).where(is_theirs))).scalar_one() > 0
    async with transaction() as tx:
        mine = account.id if who == "another account" else None
        assert set((await tx.execute(select(owner(table)))).scalars()) <= {mine}
        assert (await tx.execute(select(func.count()).where(is_theirs))).scalar_one() == 0
        assert (await tx.execute(table.update().where(is_theirs).values({owner(table): owner(table)}))).rowcount == 0
        assert (await tx.execute(table.delete().where(is_theirs))).rowcount == 0
    row = a_row(table, other_account.id, theirs) | {owner(table).name: other_account.id}
    with pytest.raises(ProgrammingError, match=REFUSED):
        async with transaction() as tx:
            await tx.execute(table.insert().values(row))


@pytest.mark.parametrize("table", TABLES, ids=str)
async def test_no_row_can_be_given_to_another_account(
    account: TestAccount, other_account: TestAccount, table: Table
) -> None:
    await one_row_each(account)
    with pytest.raises(ProgrammingError, match=REFUSED):
        async with account.transaction() as tx:
            await tx.execute(table.update().values({owner(table): other_account.id}))


async def test_the_application_can_read_nothing_but_guarded_tables(account: TestAccount) -> None:
    async with account.transaction() as tx:
        readable = await tx.execute(
            text("""
                SELECT relname FROM pg_class
                WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f')
                AND has_table_privilege(:role, oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE')
            """),
            {"role": APPLICATION_ROLE},
        )
        assert set(readable.scalars()) == set(metadata.tables)
        guarded = await tx.execute(
            text("""
                SELECT relname FROM pg_class JOIN pg_policy ON polrelid = pg_class.oid
                WHERE relrowsecurity AND polcmd = '*' AND CAST(:role AS regrole) = ANY (polroles)
                AND pg_get_expr(polqual, polrelid) LIKE '%current_account()%'
                AND pg_get_expr(polwithcheck, polrelid) LIKE '%current_account()%'
            """),
            {"role": APPLICATION_ROLE},
        )
        assert sorted(guarded.scalars()) == sorted(metadata.tables)  # and no table has a second, wider policy
    with pytest.raises(ProgrammingError, match="permission denied"):
        async with account.transaction() as tx:
            await tx.execute(text("TRUNCATE contacts CASCADE"))


# What is asked before an account is known, or over all accounts: ids to work with and numbers, nothing that says who
# anybody is or what was written.
ASKED_OF_ALL = {
    "first_account": "uuid",
    "find_api_key": "TABLE(key_id uuid, account_id uuid, role text)",
    "open_campaigns": "TABLE(account_id uuid, campaign_id uuid, state text, kind text)",
    "open_imports": "TABLE(account_id uuid, import_id uuid, state text)",
    "backlog": "TABLE(channel text, state text, messages bigint)",
    "oldest_due": "TABLE(channel text, seconds double precision)",
    "imports_waiting": "bigint",
    "make_event_partitions": "integer",
    "drop_event_partitions": "integer",
    "event_retentions": "TABLE(account_id uuid, days integer)",
    "forget_event_keys": "integer",
    "touched_accounts": "TABLE(account_id uuid)",
    "lost_messages": "TABLE(account_id uuid, source_id uuid)",
    "touches_waiting": "TABLE(touches bigint, seconds double precision)",
    "kept_segments": "TABLE(account_id uuid, segment_id uuid, depends_on_time boolean, state text, "
    "settled_at timestamp with time zone, retry_at timestamp with time zone, asks_events boolean)",
    "journey_touched_accounts": "TABLE(account_id uuid)",
    "journey_touches_waiting": "TABLE(touches bigint, seconds double precision)",
    "journeys_under_way": "TABLE(oldest double precision, cohorts bigint)",
    "open_sources": "TABLE(account_id uuid, source_id uuid, kind text, state text, pending boolean)",
    "open_cohorts": "TABLE(account_id uuid, source_id uuid, kind text, cohort integer, begun boolean)",
}


async def test_what_looks_over_all_accounts_tells_ids_and_numbers_alone(account: TestAccount) -> None:
    async with account.transaction() as tx:
        rows = await tx.execute(
            text("""
                SELECT proname, pg_get_function_result(oid) AS result, proconfig FROM pg_proc
                WHERE prosecdef AND pronamespace = 'public'::regnamespace
            """)
        )
        found = {row.proname: row for row in rows}
    assert {name: row.result for name, row in found.items()} == ASKED_OF_ALL
    for name, row in found.items():
        assert "search_path=public" in row.proconfig, name  # nobody slips a table of theirs under its feet


async def test_a_key_is_found_by_its_whole_hash_alone_and_while_it_is_valid(
    account: TestAccount, other_account: TestAccount, theirs: dict[str, UUID]
) -> None:
    async with other_account.transaction() as tx:
        query = text("SELECT secret_hash FROM api_keys WHERE id = :id")
        secret_hash: bytes = (await tx.execute(query, {"id": theirs["api_keys"]})).scalar_one()

    async def found(given: bytes | None) -> list[UUID]:
        async with account.database.transaction(None) as tx:
            rows = await tx.execute(text("SELECT account_id FROM find_api_key(:given)"), {"given": given})
            return list(rows.scalars())

    assert await found(secret_hash) == [other_account.id]
    assert await found(secret_hash[:-1]) == await found(b"") == await found(None) == []
    async with other_account.transaction() as tx:
        await tx.execute(text("UPDATE api_keys SET revoked_at = now() WHERE id = :id"), {"id": theirs["api_keys"]})
    assert await found(secret_hash) == []
