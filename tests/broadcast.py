"""A broadcast that was launched, for tests below the API."""

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import text

from channels.sink import Received, Sink
from database import campaigns, counters
from marketing.campaigns import Audience, CampaignDefinition, CampaignPlan, CampaignState, Content, EmailPlan
from marketing.content import EmailContent, prepare
from marketing.reports import CampaignStats, campaign_stats
from marketing.schedules import Schedule
from tests.audience import EMAIL, people
from tests.conftest import PATIENCE, TestAccount

EAST = "Pacific/Kiritimati"  # where each day begins


@dataclass(frozen=True)
class Broadcast:
    """A campaign on record as launched, and how to look at it."""

    id: UUID
    account: TestAccount

    async def ledger(self) -> dict[str, int]:
        """Rows per `state` or `state:reason`."""
        async with self.account.transaction() as tx:
            rows = await tx.execute(
                text("""
                    SELECT concat_ws(':', state, reason) AS what, count(*) AS n FROM deliveries
                    WHERE campaign_id = :campaign_id GROUP BY 1
                """),
                {"campaign_id": self.id},
            )
            return {row.what: row.n for row in rows}

    async def stats(self) -> CampaignStats:
        async with self.account.transaction() as tx:
            return campaign_stats(await counters.read(tx, self.id))

    async def state(self) -> tuple[CampaignState, str]:
        async with self.account.transaction() as tx:
            return await campaigns.state_of(tx, self.id)

    async def set_state(self, state: CampaignState) -> None:
        async with self.account.transaction() as tx:
            await campaigns.change_state(tx, self.account.id, self.id, state)


async def broadcast(account: TestAccount, **changes: Any) -> Broadcast:
    """A broadcast to everyone; `changes` are fields of its plan."""
    content = EmailContent.model_validate(EMAIL)
    definition = CampaignDefinition(name="Test", content=Content(email=content), audience=Audience(everyone=True))
    plan = CampaignPlan.model_validate(
        {
            "campaign_name": "Test",
            "topic": None,
            "on_uncertain": "hold",
            "rate_limit_per_second": None,
            "max_messages": None,
            "audience": Audience(everyone=True),
            "schedule": None,
            "email": EmailPlan(
                prepared=prepare(content),
                from_name=content.from_name,
                from_email=content.from_email,
                reply_to=None,
                account={},
                campaign={},
            ),
            **changes,
        }
    )
    async with account.transaction() as tx:
        campaign = await campaigns.create(tx, account.id, definition)
        await campaigns.launch(tx, account.id, campaign.id, plan, CampaignState.RUNNING)
    return Broadcast(campaign.id, account)


async def broadcast_in_two_parts(account: TestAccount, now: int, later: int, **changes: Any) -> Broadcast:
    """A broadcast that is not over before somebody skips a day: so many are due now, and so many in 14 hours."""
    await people(account, now, name="early", timezone=EAST)
    await people(account, later, name="late", timezone="UTC")
    schedule = Schedule(send_at=datetime.now(ZoneInfo(EAST)).replace(tzinfo=None), timezone="recipient")
    return await broadcast(account, schedule=schedule, **changes)


def taken(sink: Sink, account: TestAccount) -> list[Received]:
    """What the sink took for the account's `tests.audience.people`."""
    ending = f"-{str(account.id)[-12:]}@example.org"
    return [each for each in sink.received if each.recipient.endswith(ending)]


def arrived(sink: Sink, account: TestAccount) -> list[str]:
    """Who of them got a message, once for each message."""
    return sorted(each.recipient for each in taken(sink, account))


async def come(sink: Sink, account: TestAccount, count: int = 1) -> None:
    """Wait until so many messages have: others may be at work on this sink."""
    async with asyncio.timeout(PATIENCE):
        while len(taken(sink, account)) < count:
            await sink.next_arrival()
