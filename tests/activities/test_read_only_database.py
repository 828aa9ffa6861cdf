"""What if the database takes nothing any more: a full disk, or a failover to a server that is read-only?"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import psycopg
from sqlalchemy.exc import SQLAlchemyError

from activities.inputs import Delivered, Totals
from channels.base import Message
from database.engine import Connection, Database
from database.migrate import migrate
from local_stack import EmbeddedPostgres
from tests.audience import people
from tests.broadcast import broadcast
from tests.conftest import TestAccount, new_account
from tests.delivering import Provider, deliver, freeze


class Watched(Database):
    """A real database that tells when it has refused three times."""

    def __init__(self, url: str) -> None:
        super().__init__(url, pool_size=4)
        self.refused = 0
        self.thrice = asyncio.Event()

    @asynccontextmanager
    async def transaction(self, account_id: UUID | None, *, bulk: bool | None = None) -> AsyncIterator[Connection]:
        try:
            async with super().transaction(account_id, bulk=bulk) as tx:
                yield tx
        except SQLAlchemyError:
            self.refused += 1
            if self.refused == 3:
                self.thrice.set()
            raise


async def read_only(superuser: str, on: bool) -> None:
    """From now on the whole server is, or is no longer; every connection begins anew, as after a failover."""
    async with await psycopg.AsyncConnection.connect(superuser, autocommit=True) as connection:
        await connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {'on' if on else 'off'}")
        await connection.execute("SELECT pg_reload_conf()")
    wanted = [("on" if on else "off",)]
    while True:
        async with await psycopg.AsyncConnection.connect(superuser, autocommit=True) as connection:
            if await (await connection.execute("SHOW default_transaction_read_only")).fetchall() == wanted:
                await connection.execute(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = 'carillon'"
                )
                return


async def test_nothing_is_sent_that_can_not_be_recorded_and_what_was_sent_is_recorded_later() -> None:
    async with EmbeddedPostgres(durable=False) as postgres:
        superuser = postgres.url.replace("carillon@/carillon", "postgres@/postgres")
        await asyncio.to_thread(migrate, postgres.url)
        database = Watched(postgres.url)
        account: TestAccount = await new_account(database)
        await people(account, 30)
        sent = await broadcast(account)
        await freeze(sent)

        async def answer(_: Message) -> None:
            if len(provider.asked) == 7:  # in the midst of the second set
                await read_only(superuser, True)

        provider = Provider(answer)
        delivering = asyncio.create_task(deliver(sent, provider, set_size=5))
        await database.thrice.wait()
        assert len(provider.asked) == 10  # the second set is finished; its outcome is held, and no third is begun
        assert not delivering.done()
        await read_only(superuser, False)
        assert await delivering == Delivered(totals=Totals(planned=30, sent=30))
        assert len(set(provider.asked)) == len(provider.asked) == 30
        assert await sent.ledger() == {"sent": 30}
        await database.close()
