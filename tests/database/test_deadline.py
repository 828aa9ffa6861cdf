"""Does a statement that takes too long come to an end?"""

import pytest
from sqlalchemy import text

from database.engine import TooSlow, deadline
from tests.conftest import TestAccount


async def test_a_statement_that_takes_too_long_is_ended_and_said_to_be(account: TestAccount) -> None:
    with pytest.raises(TooSlow, match=r"0\.05 s"):
        async with account.transaction() as tx, deadline(tx, 0.05):
            await tx.execute(text("SELECT pg_sleep(60)"))


async def test_what_follows_may_take_longer_again(account: TestAccount) -> None:
    async with account.transaction() as tx:
        async with deadline(tx, 0.05):
            await tx.execute(text("SELECT 1"))
        await tx.execute(text("SELECT pg_sleep(0.1)"))
