"""Who of each batch of a bandit's test has answered, variant by variant?"""

from datetime import UTC, datetime, timedelta

import pytest

from database import batches, conversions, event_intake
from marketing.events import NewEvent
from marketing.experiment_bandits import Answered
from marketing.experiment_results import Metric
from marketing.experiments import Conversion
from tests.conftest import TestAccount
from tests.delivering import execute
from tests.sent import sent_messages

SENT = datetime.now(UTC) - timedelta(hours=2)


@pytest.mark.parametrize("metric", Metric)
async def test_each_batch_says_whom_it_reached_and_who_answered(account: TestAccount, metric: Metric) -> None:
    sent = await sent_messages(account, 6, sent_at=SENT)
    campaign = sent[0].campaign_id
    began = "INSERT INTO experiments (campaign_id, account_id, test_began_at) VALUES (:id, :account_id, :began)"
    await execute(account, began, id=campaign, account_id=account.id, began=SENT)
    placed = "UPDATE deliveries SET shard = :shard, variant = :variant WHERE contact_id = :id"
    for message, shard, variant in zip(sent, (0, 0, 0, 1, 1, 1), ("A", "A", "B", "A", "", "holdout"), strict=True):
        await execute(account, placed, id=message.contact_id, shard=shard, variant=variant)
    answered = "UPDATE deliveries SET opened_at = now(), clicked_at = now() WHERE contact_id = ANY (:ids)"
    those = [message.contact_id for message in (sent[0], sent[2], sent[4])]
    await execute(account, answered, ids=those)
    bought = [
        NewEvent.model_validate(
            {"name": "bought", "contact": {"id": each}, "occurred_at": SENT + timedelta(minutes=1), "value": 5}
        )
        for each in those
    ]
    async with account.transaction() as tx:
        await event_intake.store(tx, account.id, bought)
        await conversions.fold(tx, account.id, campaign, Conversion(event="bought"))
        found = await batches.answered(tx, campaign, ["A", "B"], metric)
    assert found == [Answered(0, "A", 2, 1), Answered(0, "B", 1, 1), Answered(1, "A", 1, 0)]
