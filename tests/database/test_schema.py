"""Is the database what the code believes it to be?"""

import re
from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text

from database.migrate import migrate
from database.schema import metadata
from local_stack import EmbeddedPostgres


def test_the_migrations_make_the_schema(database_url: str) -> None:
    engine = create_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_name": _is_no_partition})
        difference = compare_metadata(context, metadata)
    engine.dispose()
    assert difference == []


def _is_no_partition(name: str | None, kind: str, parents: object) -> bool:
    return kind != "table" or not re.fullmatch(r"events_(default|\d+_\d\d)", name or "")


def test_migrating_again_changes_nothing(database_url: str) -> None:
    migrate(database_url)


async def test_a_request_that_was_at_work_during_an_upgrade_is_not_carried_out_again() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parents[2] / "database" / "migrations"))
    async with EmbeddedPostgres(durable=False) as postgres:
        engine = create_engine(postgres.url.replace("postgresql://", "postgresql+psycopg://"))
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "0003")
            connection.execute(
                text("""
                    WITH account AS (INSERT INTO accounts (name) VALUES ('Example') RETURNING id),
                         api_key AS (INSERT INTO api_keys (account_id, name, role, prefix, secret_hash)
                                     SELECT id, 'Shop', 'owner', 'car_', 'hash' FROM account RETURNING account_id, id)
                    INSERT INTO idempotency_keys (account_id, api_key_id, key, request)
                    SELECT account_id, id, 'one', 'POST /api/campaigns?' FROM api_key
                """)
            )
        migrate(postgres.url)
        with engine.connect() as connection:
            (row,) = connection.execute(text("SELECT effective, token IS NOT NULL FROM idempotency_keys"))
        engine.dispose()
    assert tuple(row) == (True, True)
