"""Does beginning to wait cost each contact a look, whatever the database believes about its tables?"""

from datetime import timedelta
from typing import Any

import psycopg
from sqlalchemy import text

from database import waits
from tests.conftest import TestAccount
from tests.database.test_login import as_role
from tests.enrolled import NOW, enrolled


class Explaining:
    """A connection that tells how it would look for events, and finds none."""

    def __init__(self, tx: Any) -> None:
        self.tx = tx
        self.plan = ""

    async def execute(self, query: Any, parameters: dict[str, Any] | None = None) -> Any:
        if "FROM events" not in str(query):
            return await self.tx.execute(query, parameters)
        self.plan = "\n".join((await self.tx.execute(text(f"EXPLAIN {query}"), parameters)).scalars())
        return []


async def test_whoever_begins_to_wait_is_looked_up_once_though_nothing_is_known_of_such_waits(
    account: TestAccount, database_url: str
) -> None:
    inside = await enrolled(account, 300)
    cohort = (inside.automation_id, 1)
    async with await psycopg.AsyncConnection.connect(as_role(database_url, "postgres"), autocommit=True) as superuser:
        await superuser.execute("DELETE FROM pg_statistic WHERE starelid = 'enrollment_waits'::regclass")
    async with account.transaction() as tx:
        started = [(member, 0, NOW - timedelta(days=1)) for member in range(300)]
        await waits.begin(tx, account.id, *cohort, started, event="purchase", where=None)
        asked = [(member, call) for member, call, _ in started]
        explaining: Any = Explaining(tx)
        await waits.happened_already(explaining, *cohort, asked, event="purchase", where=None, now=NOW)
    # Joined, all who wait would be looked at for each of them: their calls are alike.
    assert "Limit" in explaining.plan and "Join" not in explaining.plan
