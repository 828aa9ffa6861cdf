"""How do we reach PostgreSQL, and for which account?"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import orjson
import psycopg
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as NoFreeConnection
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import QueuePool

from telemetry import metrics

Connection = AsyncConnection

# Owns no table, so that row-level security binds it. The first migration makes it.
APPLICATION_ROLE = "carillon_app"
# What a database raises that is down, full, read-only or has no free connection: the same statement may work later.
AWAY = (
    *(OperationalError, InterfaceError, InternalError, NoFreeConnection),
    *(psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError),  # where SQLAlchemy is not in between
)

# A server, or a way to it, that is gone without a word is noticed within half a minute: else whoever waits for its
# answer waits for as long as the system resends, a quarter of an hour, or for ever.
_NOTICED: dict[str, int] = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 30_000,  # milliseconds
}


def is_away(error: Exception) -> bool:
    """Whether the database is away; it is not if a function of its own refuses something."""
    return isinstance(error, AWAY) and not isinstance(getattr(error, "orig", error), psycopg.errors.RaiseException)


_AFTER_COMMIT = "after commit"


def after_commit(tx: Connection, tell: Callable[[], None]) -> None:
    """Call this once the transaction is committed, and never if it is rolled back."""
    tx.info.setdefault(_AFTER_COMMIT, []).append(tell)


class TooSlow(Exception):
    """A statement was ended because it took longer than it may; its transaction can only be rolled back."""


@asynccontextmanager
async def deadline(tx: Connection, seconds: float) -> AsyncIterator[None]:
    """Let no statement of this block take longer.

    Raises:
        TooSlow: one did.
    """
    change = text("SELECT current_setting('statement_timeout'), set_config('statement_timeout', :to, true)")
    before = (await tx.execute(change, {"to": f"{int(seconds * 1000)}ms"})).scalar_one()
    try:
        yield
    except OperationalError as error:
        if isinstance(error.orig, psycopg.errors.QueryCanceled):
            raise TooSlow(f"It took longer than {seconds:g} s.") from error
        raise
    await tx.execute(change, {"to": before})


_PLAN_ANEW = text("SELECT set_config('plan_cache_mode', 'force_custom_plan', true)")


async def plan_anew(tx: Connection) -> None:
    """Have the rest of this transaction planned for what it asks now.

    The plan that PostgreSQL keeps after a few times knows nothing of sizes, and may have been made when tables were
    empty: then a statement for 1,000 of 10,000 contacts compares all with all, and takes seconds.
    """
    await tx.execute(_PLAN_ANEW)


# Until the transaction ends. `comes_in_bulk` reads the second.
_SETTINGS = "set_config('carillon.account_id', {}, true), set_config('carillon.bulk', {}, true)"


def _setting(bulk: bool | None) -> str:
    return "" if bulk is None else str(bulk).lower()


async def settle_in(connection: Connection, account_id: UUID | None, bulk: bool | None) -> None:
    """Have the transaction that is under way see the rows of this account."""
    await connection.execute(
        text(f"SELECT {_SETTINGS.format(':account_id', ':bulk')}"),
        {"account_id": str(account_id or ""), "bulk": _setting(bulk)},
    )


def _json(value: object) -> str:
    return orjson.dumps(value).decode()


class Database:
    """A pool of connections that act as the application's role, which owns no table and sees one account at a time.

    Args:
        url: `postgresql://…`; its user must own the tables or be a member of the application's role.
        pool_size: most connections kept.
    """

    def __init__(self, url: str, *, pool_size: int = 10) -> None:
        self._acting: dict[str, Any] = {"options": f"-c role={APPLICATION_ROLE} -c timezone=UTC", **_NOTICED}
        self.engine = create_async_engine(
            make_url(url).set(drivername="postgresql+psycopg"),
            pool_size=pool_size,
            max_overflow=0,
            pool_pre_ping=True,
            hide_parameters=True,  # what went wrong is logged, whom it was about is not
            connect_args=self._acting,
            json_serializer=_json,
            json_deserializer=orjson.loads,
        )
        pool = self.engine.pool
        assert isinstance(pool, QueuePool)
        metrics.database_connections.set_function(pool.checkedout)

    @asynccontextmanager
    async def transaction(self, account_id: UUID | None, *, bulk: bool | None = None) -> AsyncIterator[Connection]:
        """One transaction that sees the rows of one account; of none, if `account_id` is None.

        Committed at the end of the block, rolled back if it raises.

        Args:
            bulk: whether segments take notice of what it changes behind all that comes one by one; None: if it is much.
        """
        told: list[Callable[[], None]] = []
        async with self.engine.begin() as connection:
            connection.info[_AFTER_COMMIT] = told
            await settle_in(connection, account_id, bulk)
            yield connection
        for tell in told:
            tell()

    @asynccontextmanager
    async def pipeline(self, account_id: UUID, *, bulk: bool | None = None) -> AsyncIterator[psycopg.AsyncConnection]:
        """Such a transaction on the driver's own connection, whose statements wait for no answer until one is fetched.

        A statement through SQLAlchemy, its answer awaited, costs 200 µs of CPU: where many make up one transaction and
        thousands of requests are waiting for it, that is most of what it costs.
        """
        async with self.engine.connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            assert isinstance(driver, psycopg.AsyncConnection)
            async with driver.pipeline():
                settings = f"SELECT {_SETTINGS.format('%s', '%s')}"
                await driver.execute(settings, [str(account_id), _setting(bulk)])
                yield driver
                await driver.commit()

    @asynccontextmanager
    async def aside(self) -> AsyncIterator[psycopg.AsyncConnection]:
        """A connection of one's own, beside the pool. Each statement is a transaction, which sees no account's rows.

        For whoever asks the same many times a second: a transaction out of the pool costs ten times as much.
        """
        _, where = self.engine.dialect.create_connect_args(self.engine.url)
        async with await psycopg.AsyncConnection.connect(**where, **self._acting, autocommit=True) as connection:
            yield connection

    async def ping(self) -> None:
        """Raise if the database does not answer."""
        async with self.engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    async def close(self) -> None:
        await self.engine.dispose()
