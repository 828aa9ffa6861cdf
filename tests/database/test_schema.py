"""Is the database what the code believes it to be?"""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, create_engine, text

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


@asynccontextmanager
async def upgraded(revision: str, *statements: str) -> AsyncIterator[Connection]:
    """A database that held this at that revision, and is at the newest now."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parents[2] / "database" / "migrations"))
    async with EmbeddedPostgres(durable=False) as postgres:
        engine = create_engine(postgres.url.replace("postgresql://", "postgresql+psycopg://"))
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
            for statement in statements:
                connection.execute(text(statement))
        migrate(postgres.url)
        with engine.connect() as connection:
            yield connection
        engine.dispose()


async def test_a_request_that_was_at_work_during_an_upgrade_is_not_carried_out_again() -> None:
    async with upgraded(
        "0003",
        """
            WITH account AS (INSERT INTO accounts (name) VALUES ('Example') RETURNING id),
                 api_key AS (INSERT INTO api_keys (account_id, name, role, prefix, secret_hash)
                             SELECT id, 'Shop', 'owner', 'car_', 'hash' FROM account RETURNING account_id, id)
            INSERT INTO idempotency_keys (account_id, api_key_id, key, request)
            SELECT account_id, id, 'one', 'POST /api/campaigns?' FROM api_key
        """,
    ) as connection:
        (row,) = connection.execute(text("SELECT effective, token IS NOT NULL FROM idempotency_keys"))
        assert tuple(row) == (True, True)


async def test_events_move_into_months_at_an_upgrade_and_messages_that_had_left_become_events() -> None:
    async with upgraded(
        "0004",
        "INSERT INTO accounts (name) VALUES ('Example')",
        """
            INSERT INTO events (id, account_id, name, occurred_at, properties)
            SELECT uuidv7(ago), accounts.id, 'campaign.paused', now() + ago, '{"reason": "Why."}'
            FROM accounts, unnest(ARRAY[interval '0', '-70 days', '-3 years']) AS ago
        """,
        """
            INSERT INTO deliveries (account_id, campaign_id, contact_id, channel, shard, state, reason, not_before,
                                    finished_at)
            SELECT accounts.id, uuidv7(), uuidv7(), 'email', 0, state, reason, now(), now() + ago
            FROM accounts, (VALUES ('sent', NULL, interval '-100 days'), ('sent', NULL, '-3 years'),
                                   ('failed', 'rejected', '-1 day'), ('uncertain', 'worker_lost', '-1 day'),
                                   ('skipped', 'no_consent', '-1 day'), ('planned', NULL, NULL))
                AS message (state, reason, ago)
        """,
    ) as connection:
        rows = connection.execute(
            text("""
                SELECT name, count(*) AS n, min(properties::text) AS properties,
                       bool_and(abs(extract(epoch FROM uuid_extract_timestamp(id) - occurred_at)) < 60) AS in_time,
                       bool_and(tableoid::regclass::text
                                = to_char(occurred_at AT TIME ZONE 'UTC', '"events_"YYYY_MM')) AS in_month
                FROM events GROUP BY 1 ORDER BY 1
            """)
        )
        assert [tuple(row) for row in rows] == [
            ("campaign.paused", 3, '{"reason": "Why."}', True, True),
            ("message.failed", 1, '{"reason": "rejected", "channel": "email"}', True, True),
            ("message.sent", 1, '{"channel": "email"}', True, True),
            ("message.uncertain", 1, '{"reason": "worker_lost", "channel": "email"}', True, True),
        ]
