"""Taking single steps of a journey, with providers that answer as they are told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text
from temporalio.testing import ActivityEnvironment

from activities.journey_inputs import Answer, StepCall
from activities.journeys import Journeys
from database import counters
from database.engine import Database
from tests.audience import EMAIL
from tests.conftest import TestAccount
from tests.delivering import LINKS
from tests.enrolled import NOW, Enrolled, enrolled

SENT = Answer(value={"state": "sent"})


@dataclass(frozen=True)
class Steps:
    """The steps of one automation's first cohort."""

    inside: Enrolled
    journeys: Journeys

    async def take(self, kind: str, step: StepCall) -> list[Answer]:
        return await ActivityEnvironment().run(getattr(self.journeys, kind), step)

    async def send(
        self,
        *,
        members: Sequence[int] | None = None,
        call: int = 0,
        now: datetime = NOW,
        step: str = "send:welcome",
        **args: Any,
    ) -> list[Answer]:
        what = args or {"content": EMAIL}
        asked = self.inside.step({"channel": "email", "fallback": None, **what}, members=members, call=call)
        return await self.take("send", asked.model_copy(update={"now": now, "step": step}))

    async def ledger(self) -> dict[str, int]:
        """How many messages of the automation are in each state (with its reason, where there is one)."""
        async with self.inside.account.transaction() as tx:
            rows = await tx.execute(
                text("""
                    SELECT concat_ws(':', state, reason) AS state, count(*) AS n FROM deliveries
                    WHERE campaign_id = :id GROUP BY 1
                """),
                {"id": self.inside.automation_id},
            )
            return {row.state: row.n for row in rows}

    async def figures(self) -> dict[str, int]:
        """Of all steps together."""
        async with self.inside.account.transaction() as tx:
            found: dict[str, int] = {}
            for each in await counters.read(tx, self.inside.automation_id):
                found[each.name] = found.get(each.name, 0) + each.n
        return {name: n for name, n in found.items() if n}


async def steps(
    account: TestAccount,
    count: int,
    channels: Mapping[str, Any] | Any,
    *,
    database: Database | None = None,
    trigger: dict[str, Any] | None = None,
    name: str = "person",
    **settings: Any,
) -> Steps:
    """An automation with so many inside, and the steps that they may take."""
    inside = await enrolled(account, count, trigger=trigger, name=name)
    by_name = channels if isinstance(channels, Mapping) else {"email": channels}
    return Steps(inside, Journeys(database or account.database, by_name, LINKS, **settings))
