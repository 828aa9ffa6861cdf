"""A real database whose answers sometimes get lost."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from uuid import UUID

from sqlalchemy.exc import OperationalError

from database.engine import Connection, Database


class Lost(OperationalError):
    """The connection broke; whether the transaction took effect, nobody was told."""

    def __init__(self, truth: str) -> None:
        super().__init__(truth, None, ConnectionError(truth))


class UnreliableDatabase(Database):
    """Loses some of its answers: half of those transactions are committed, half rolled back."""

    def __init__(self, url: str, chance: random.Random, loss: float) -> None:
        super().__init__(url, pool_size=4)
        self.chance = chance
        self.loss = loss
        self.lost = 0

    @asynccontextmanager
    async def transaction(self, account_id: UUID | None, *, bulk: bool | None = None) -> AsyncIterator[Connection]:
        fate = self.chance.random()
        async with super().transaction(account_id, bulk=bulk) as tx:
            yield tx
            if fate < self.loss / 2:
                self.lost += 1
                raise Lost("rolled back")
        if fate < self.loss:
            self.lost += 1
            raise Lost("committed all the same")


class SlowDatabase(Database):
    """Tells so many seconds late that a transaction is committed."""

    def __init__(self, url: str, seconds: float) -> None:
        super().__init__(url, pool_size=4)
        self.seconds = seconds

    @asynccontextmanager
    async def transaction(self, account_id: UUID | None, *, bulk: bool | None = None) -> AsyncIterator[Connection]:
        async with super().transaction(account_id, bulk=bulk) as tx:
            yield tx
        await asyncio.sleep(self.seconds)


class WatchedDatabase(Database):
    """Lets something happen after so many transactions."""

    def __init__(self, url: str, after: int, happen: Callable[[], None]) -> None:
        super().__init__(url, pool_size=4)
        self.left = after
        self.happen = happen

    @asynccontextmanager
    async def transaction(self, account_id: UUID | None, *, bulk: bool | None = None) -> AsyncIterator[Connection]:
        async with super().transaction(account_id, bulk=bulk) as tx:
            yield tx
            self.left -= 1
            if not self.left:
                self.happen()
                await asyncio.sleep(0)  # until those have heard of it who wait for it
                await asyncio.sleep(0)
