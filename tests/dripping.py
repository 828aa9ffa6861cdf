"""Drips that were launched, for tests below the API."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text

from activities import launches
from activities.drips import DripInput
from activities.journey_inputs import Caller, StepCall
from database import campaigns, counters
from marketing.campaigns import CampaignDefinition, CampaignState
from marketing.reports import CampaignStats, campaign_stats
from tests.audience import EMAIL
from tests.conftest import TestAccount

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)


def message(number: int, **parts: Any) -> dict[str, Any]:
    """Says which it is, and has a link of its own beside those that all have."""
    link = f'<p><a href="https://shop.example.com/{number}">More</a></p>'
    html = EMAIL["html"].replace("</body>", f"{link}</body>")
    return {"content": {**EMAIL, "subject": f"Message {number}", "html": html}, **parts}


@dataclass(frozen=True)
class Dripping:
    """A drip on record as launched, and how to look at it."""

    id: UUID
    account: TestAccount

    def input(self, now: datetime = NOW) -> DripInput:
        return DripInput(account_id=self.account.id, source_id=self.id, now=now)

    def step(self, number: int, members: int, *, call: int, now: datetime = NOW) -> StepCall:
        """One of its messages, to so many members of its first cohort."""
        return StepCall(
            **self.input().model_dump(include={"account_id", "source_id", "kind"}),
            cohort=1,
            step=f"message-{number}",
            args={"channel": "email", "template": f"message-{number}"},
            callers=[Caller(member=each, call=call) for each in range(members)],
            now=now,
        )

    async def form_cohort(self) -> None:
        """All who are pending, in the order in which they entered."""
        async with self.account.transaction() as tx:
            await tx.execute(
                text("""
                    UPDATE enrollments SET state = 'active', cohort = 1, member = number - 1
                    FROM (SELECT id, row_number() OVER (ORDER BY id) AS number FROM enrollments
                          WHERE source_id = :id) AS numbered
                    WHERE enrollments.id = numbered.id
                """),
                {"id": self.id},
            )

    async def stats(self) -> CampaignStats:
        async with self.account.transaction() as tx:
            return campaign_stats(await counters.read(tx, self.id))

    async def state(self) -> tuple[CampaignState, str]:
        async with self.account.transaction() as tx:
            return await campaigns.state_of(tx, self.id)

    async def enrollments(self) -> dict[str, int]:
        """How many per `state` or `state:reason`."""
        async with self.account.transaction() as tx:
            rows = await tx.execute(
                text("""
                    SELECT concat_ws(':', state, reason) AS what, count(*) AS n FROM enrollments
                    WHERE source_id = :id GROUP BY 1
                """),
                {"id": self.id},
            )
            return {row.what: row.n for row in rows}


async def dripping(account: TestAccount, **parts: Any) -> Dripping:
    """To everyone, at once and two days later; `parts` are fields of its definition."""
    written = {"audience": {"everyone": True}, "messages": [message(1), message(2, after="2 days")], **parts}
    definition = CampaignDefinition.model_validate({"name": "Course", "kind": "drip", **written})
    async with account.transaction() as tx:
        campaign = await campaigns.create(tx, account.id, definition)
        await launches.launch(tx, account.id, campaign, datetime.now(UTC))
    return Dripping(campaign.id, account)
