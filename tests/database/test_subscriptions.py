"""The pages and the lease agree on who receives what."""

from datetime import UTC, datetime
from itertools import product

import pytest
from sqlalchemy import text

from database import accounts, subscriptions
from database.eligibility import Rules
from marketing.tracking import Leaving
from tests.conftest import TestAccount
from tests.sent import sent_messages

STATUSES = ["subscribed", "unsubscribed", "pending", None]


@pytest.mark.parametrize(("whole", "topical"), list(product(STATUSES, STATUSES)))
async def test_the_pages_show_as_received_what_the_lease_would_send(
    account: TestAccount, whole: str | None, topical: str | None
) -> None:
    statuses = {topic: status for topic, status in (("", whole), ("news", topical)) if status}
    [message] = await sent_messages(account, topic="news", statuses=statuses)
    async with account.transaction() as tx:
        bearer = Leaving(account.id, message.contact_id, message.delivery_id)
        recipient = await subscriptions.read(tx, bearer)
        assert recipient is not None
        for topic in ("", "news"):
            rules = Rules("email", topic, await accounts.read(tx, account.id), datetime.now(UTC))
            query = f"SELECT {rules.reason()} FROM contacts {rules.joins()} WHERE contacts.id = :contact_id"
            reason = (
                await tx.execute(text(query), {**rules.parameters, "contact_id": message.contact_id})
            ).scalar_one()
            assert recipient.standing.receives(topic) == (reason is None)
