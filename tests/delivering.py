"""Running `deliver` by itself, with providers that answer as they are told."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from math import inf
from typing import Any

from sqlalchemy import text
from temporalio.testing import ActivityEnvironment

from activities.campaigns import Campaigns
from activities.deliveries import Deliveries
from activities.inputs import Delivered, DeliverInput, FreezeInput, Frozen
from channels.base import Message, Receipt
from database import accounts
from marketing.tracking import RecipientLinks, Tokens
from tests.broadcast import Broadcast, broadcast
from tests.conftest import PUBLIC_URL, SECRET_KEY, TestAccount

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
LINKS = RecipientLinks(PUBLIC_URL, Tokens(SECRET_KEY))


class Provider:
    """A channel that answers as it is told, and remembers whom it was asked to reach."""

    name = "email"

    def __init__(self, answer: Callable[[Message], Awaitable[None]] | Exception) -> None:
        self.answer = answer
        self.asked: list[str] = []

    async def send(self, message: Message, *, begin_by: float = inf) -> Receipt:
        self.asked.append(message.to)
        if isinstance(self.answer, Exception):
            raise self.answer
        await self.answer(message)
        return Receipt(str(message.delivery_id), "250 OK")

    async def close(self) -> None:
        return None


async def freeze(sent: Broadcast, *, now: datetime = NOW, shard_size: int = 2000) -> Frozen:
    input = FreezeInput(account_id=sent.account.id, campaign_id=sent.id, now=now, shard_size=shard_size)
    return await ActivityEnvironment().run(Campaigns(sent.account.database).freeze_audience, input)


async def deliver(sent: Broadcast, channel: Any, *, now: datetime = NOW, shard: int = 0, **settings: Any) -> Delivered:
    activity = Deliveries(sent.account.database, {"email": channel}, LINKS, **settings)
    input = DeliverInput(account_id=sent.account.id, campaign_id=sent.id, shard=shard, now=now)
    return await ActivityEnvironment().run(activity.deliver, input)


async def run(account: TestAccount, channel: Any, **plan: Any) -> tuple[Broadcast, Delivered]:
    sent = await broadcast(account, **plan)
    await freeze(sent)
    return sent, await deliver(sent, channel)


async def change_account(account: TestAccount, **changes: Any) -> None:
    async with account.transaction() as tx:
        settings = await accounts.read(tx, account.id)
        await accounts.replace(tx, account.id, settings.model_copy(update=changes))


async def execute(account: TestAccount, sql: str, **parameters: Any) -> None:
    async with account.transaction() as tx:
        await tx.execute(text(sql), parameters)
