"""Contacts on their way through an automation, for tests of what its steps do."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import text

from activities.journey_inputs import Caller, StepCall
from tests.audience import people
from tests.conftest import TestAccount

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Enrolled:
    """An active automation with a cohort."""

    account: TestAccount
    automation_id: UUID
    contacts: list[UUID]

    def step(self, args: dict[str, Any], *, members: Sequence[int] | None = None, call: int = 0) -> StepCall:
        """The same step for these members, or for all."""
        return StepCall(
            account_id=self.account.id,
            source_id=self.automation_id,
            cohort=1,
            step="a-step",
            args=args,
            callers=[Caller(member=each, call=call) for each in members or range(len(self.contacts))],
            now=NOW,
        )

    async def set_state(self, state: str) -> None:
        async with self.account.transaction() as tx:
            await tx.execute(
                text("UPDATE automations SET state = :state WHERE id = :id"), {"state": state, "id": self.automation_id}
            )


async def enrolled(
    account: TestAccount, count: int, *, trigger: dict[str, Any] | None = None, name: str = "person"
) -> Enrolled:
    """`tests.audience.people`, all in cohort 1, and what they began with."""
    contacts = await people(account, count, name=name)
    async with account.transaction() as tx:
        made = await tx.execute(
            text("""
                INSERT INTO automations (account_id, name, state)
                VALUES (:account, 'Welcome ' || uuidv7(), 'active') RETURNING id
            """),
            {"account": account.id},
        )
        automation_id: UUID = made.scalar_one()
        await tx.execute(
            text("""
                INSERT INTO enrollments (account_id, source_id, contact_id, cause, state, cohort, member, trigger)
                SELECT :account, :source, id, 'launch', 'active', 1, number - 1, CAST(:trigger AS jsonb)
                FROM unnest(CAST(:contacts AS uuid[])) WITH ORDINALITY AS c (id, number)
            """),
            {
                "account": account.id,
                "source": automation_id,
                "contacts": contacts,
                "trigger": orjson.dumps(trigger or {}).decode(),
            },
        )
    return Enrolled(account, automation_id, contacts)
