"""Is the database what the code believes it to be?"""

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text

from database.migrate import migrate
from database.schema import metadata
from tests.conftest import TestAccount


def test_the_migrations_make_the_schema(database_url: str) -> None:
    engine = create_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        difference = compare_metadata(MigrationContext.configure(connection), metadata)
    engine.dispose()
    assert difference == []


def test_migrating_again_changes_nothing(database_url: str) -> None:
    migrate(database_url)


async def test_raw_sql_as_the_application_sees_nothing_of_others(
    account: TestAccount, other_account: TestAccount
) -> None:
    for table in metadata.sorted_tables:
        owner = "id" if table.name == "accounts" else "account_id"
        async with account.transaction() as tx:
            foreign = await tx.execute(
                text(f"SELECT count(*) FROM {table.name} WHERE {owner} <> :mine"), {"mine": account.id}
            )
            assert foreign.scalar_one() == 0, table.name
    async with account.transaction() as tx:
        changed = await tx.execute(text("UPDATE accounts SET name = 'taken' WHERE id = :id"), {"id": other_account.id})
        assert changed.rowcount == 0


async def test_without_an_account_there_is_nothing(account: TestAccount) -> None:
    async with account.database.transaction(None) as tx:
        assert (await tx.execute(text("SELECT count(*) FROM api_keys"))).scalar_one() == 0


async def test_row_level_security_covers_every_table(account: TestAccount) -> None:
    async with account.transaction() as tx:
        covered = await tx.execute(
            text("""
                SELECT relname FROM pg_class JOIN pg_policy ON polrelid = pg_class.oid
                WHERE relrowsecurity AND polcmd = '*' AND 'carillon_app'::regrole = ANY (polroles)
                AND pg_get_expr(polqual, polrelid) LIKE '%current_account()%'
                AND pg_get_expr(polwithcheck, polrelid) LIKE '%current_account()%'
            """)
        )
        assert set(covered.scalars()) == set(metadata.tables)
