"""The first owner's key: whatever is killed, somebody gets to know it."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from database import accounts, data_dir, keys
from database.engine import Database
from database.keys import ensure_first_owner
from database.migrate import migrate
from local_stack import EmbeddedPostgres
from marketing.accounts import AccountSettings

OWN = "car_of_the_operator_herself"


@pytest.fixture(scope="module")
async def url() -> AsyncIterator[str]:
    async with EmbeddedPostgres(durable=False) as postgres:
        migrate(postgres.url)
        yield postgres.url


@pytest.fixture
async def empty(url: str) -> AsyncIterator[Database]:
    """A database without any account."""
    owner = create_async_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    async with owner.begin() as connection:
        await connection.execute(text("TRUNCATE accounts CASCADE"))
    await owner.dispose()
    database = Database(url, pool_size=1)
    yield database
    await database.close()


@pytest.fixture
def unshown(tmp_path: Path) -> Path:
    return tmp_path / "first_api_key"


def mode(file: Path) -> int:
    return file.stat().st_mode & 0o777


async def is_owner(database: Database, key: str) -> bool:
    [found] = await keys.find(database, [key])
    return found is not None and found.role == "owner"


async def test_it_is_made_up_once_and_kept_for_our_eyes_only_until_it_was_shown(empty: Database, unshown: Path) -> None:
    key = await ensure_first_owner(empty, None, unshown)
    assert key and await is_owner(empty, key)
    assert (data_dir.read(unshown), mode(unshown)) == (key, 0o600)
    assert await ensure_first_owner(empty, None, unshown) == key
    os.unlink(unshown)
    assert await ensure_first_owner(empty, None, unshown) is None
    assert data_dir.read(unshown) is None


async def test_a_start_that_was_killed_before_it_made_the_key_leaves_that_to_the_next(
    empty: Database, unshown: Path
) -> None:
    data_dir.write(unshown, key := keys.new_secret())
    await accounts.create(empty, AccountSettings(name="My account"))
    assert await ensure_first_owner(empty, None, unshown) == key
    assert await is_owner(empty, key)


async def test_an_account_that_was_left_without_a_key_gets_one(empty: Database) -> None:
    await accounts.create(empty, AccountSettings(name="My account"))
    key = await ensure_first_owner(empty, None)
    assert key and await is_owner(empty, key)


async def test_a_key_of_ones_own_is_enough_and_may_come_at_any_time(empty: Database, unshown: Path) -> None:
    assert await ensure_first_owner(empty, OWN, unshown) is None
    assert await ensure_first_owner(empty, f"{OWN}_later", unshown) is None
    assert await is_owner(empty, OWN) and await is_owner(empty, f"{OWN}_later")
    assert await ensure_first_owner(empty, None, unshown) is None


async def test_a_key_of_ones_own_does_not_hide_the_one_that_nobody_has_seen(empty: Database, unshown: Path) -> None:
    key = await ensure_first_owner(empty, None, unshown)
    assert await ensure_first_owner(empty, OWN, unshown) == key
    assert await is_owner(empty, OWN)


async def test_a_revoked_key_stays_revoked_and_stops_nobody(empty: Database) -> None:
    await ensure_first_owner(empty, OWN)
    [found] = await keys.find(empty, [OWN])
    assert found
    async with empty.transaction(found.account_id) as tx:
        await keys.revoke(tx, found.key_id)
    assert await ensure_first_owner(empty, OWN) is None
    assert await keys.find(empty, [OWN]) == [None]
