"""What becomes of each message when workers, campaigns or answers of the database are lost?"""

import random
from datetime import timedelta

import pytest
from temporalio.testing import ActivityEnvironment

from activities.campaigns import Campaigns
from activities.deliveries import Deliveries
from activities.inputs import Delivered, DeliverInput, RestSkipped, SkipRestInput, Totals
from channels.base import Message
from channels.outbox import Outbox
from marketing.campaigns import CampaignState
from marketing.content import EmailContent, prepare
from tests.audience import EMAIL, people
from tests.broadcast import broadcast
from tests.conftest import TestAccount
from tests.delivering import LINKS, NOW, Provider, deliver, execute, freeze, run
from tests.unreliable import Lost, SlowDatabase, UnreliableDatabase, WatchedDatabase


async def test_a_lost_workers_messages_are_uncertain_once_its_lease_has_ended(account: TestAccount) -> None:
    await people(account, 20)
    sent = await broadcast(account)
    await freeze(sent)
    await execute(
        account,
        "UPDATE deliveries SET state = 'sending', lease = uuidv7(), lease_until = now() - interval '1 second'"
        " WHERE id IN (SELECT id FROM deliveries WHERE campaign_id = :id LIMIT 5)",
        id=sent.id,
    )
    result = await deliver(sent, Outbox())
    assert result == Delivered(totals=Totals(planned=20, sent=15, uncertain=5))
    assert await sent.ledger() == {"sent": 15, "uncertain:worker_lost": 5}


async def test_a_cancelled_campaign_settles_a_lost_workers_messages_too(account: TestAccount) -> None:
    await people(account, 10)
    sent = await broadcast(account)
    await freeze(sent)
    await sent.set_state(CampaignState.CANCELLED)
    hold = (
        "UPDATE deliveries SET state = 'sending', lease = uuidv7(), lease_until = now() + CAST(:left AS interval)"
        " WHERE id IN (SELECT id FROM deliveries WHERE campaign_id = :id ORDER BY id LIMIT 3)"
    )
    await execute(account, hold, id=sent.id, left="30 seconds")
    input = SkipRestInput(account_id=account.id, campaign_id=sent.id, now=NOW)
    skip = Campaigns(account.database).skip_rest
    rest = await ActivityEnvironment().run(skip, input)
    assert rest.wait_seconds is not None
    assert 20 < rest.wait_seconds <= 30.1
    assert await sent.ledger() == {"sending": 3, "skipped:cancelled": 7}
    await execute(account, hold, id=sent.id, left="-1 second")
    rest = await ActivityEnvironment().run(skip, input)
    assert rest == RestSkipped(totals=Totals(planned=10, skipped=7, uncertain=3))
    assert (await sent.stats()).reconciles


async def test_whoever_misses_a_slot_does_not_wait_for_one_beyond_the_lease(
    database_url: str, account: TestAccount
) -> None:
    """Half an hour of waiting would keep a worker from ending, and its messages would be in doubt."""
    await people(account, 1)
    sent = await broadcast(account, rate_limit_per_second=1)
    await freeze(sent)
    database = SlowDatabase(database_url, 0.2)
    outbox = Outbox()
    activity = Deliveries(database, {"email": outbox}, LINKS, lease_seconds=1.0, turn_seconds=0.5)
    input = DeliverInput(account_id=account.id, campaign_id=sent.id, shard=0, now=NOW)
    result = await ActivityEnvironment().run(activity.deliver, input)
    await database.close()
    assert await sent.ledger() == {"planned": 1}
    assert not outbox.messages
    assert result.next_due and not result.unavailable
    assert await deliver(sent, outbox) == Delivered(totals=Totals(planned=1, sent=1))


async def test_messages_that_another_worker_holds_are_left_to_it(account: TestAccount) -> None:
    await people(account, 20)
    sent = await broadcast(account)
    await freeze(sent)
    await execute(
        account,
        "UPDATE deliveries SET state = 'sending', lease = uuidv7(), lease_until = now() + interval '30 seconds'"
        " WHERE id IN (SELECT id FROM deliveries WHERE campaign_id = :id LIMIT 5)",
        id=sent.id,
    )
    outbox = Outbox()
    result = await deliver(sent, outbox)
    assert len(outbox.messages) == 15
    assert result.next_due is not None
    assert timedelta(seconds=20) < result.next_due - NOW < timedelta(seconds=40)


async def test_a_worker_that_wakes_up_late_records_nothing(account: TestAccount) -> None:
    await people(account, 3)

    async def somebody_else_settles(_: Message) -> None:
        await execute(
            account, "UPDATE deliveries SET state = 'uncertain', lease = NULL WHERE state = 'sending'", id=account.id
        )

    sent, _ = await run(account, Provider(somebody_else_settles))
    assert await sent.ledger() == {"uncertain": 3}
    assert (await sent.stats()).sent == 0


async def test_a_worker_asked_to_stop_finishes_its_sets_and_leaves_the_rest(account: TestAccount) -> None:
    await people(account, 40)
    sent = await broadcast(account)
    await freeze(sent)
    environment = ActivityEnvironment()

    async def stop(_: Message) -> None:
        environment.worker_shutdown()

    activity = Deliveries(account.database, {"email": Provider(stop)}, LINKS, set_size=10, lanes=1)
    input = DeliverInput(account_id=account.id, campaign_id=sent.id, shard=0, now=NOW)
    result = await environment.run(activity.deliver, input)
    ledger = await sent.ledger()
    assert ledger["sent"] in (10, 20)
    assert ledger["planned"] == 40 - ledger["sent"]
    assert result.next_due is not None


async def test_a_turn_ends_and_leaves_the_rest_to_the_next(account: TestAccount) -> None:
    await people(account, 30)
    sent = await broadcast(account)
    await freeze(sent)
    first = await deliver(sent, Outbox(), set_size=10, lanes=1, turn_seconds=0.0)
    assert first.totals.sent == 0
    assert first.next_due == NOW
    second = await deliver(sent, Outbox())
    assert second == Delivered(totals=Totals(planned=30, sent=30))


async def test_a_paused_campaign_leases_nothing(account: TestAccount) -> None:
    await people(account, 5)
    sent = await broadcast(account)
    await freeze(sent)
    await sent.set_state(CampaignState.PAUSED)
    outbox = Outbox()
    result = await deliver(sent, outbox)
    assert not outbox.messages
    assert result.stopped


async def test_a_campaign_paused_while_a_set_is_under_way_leases_no_other(account: TestAccount) -> None:
    await people(account, 40)
    sent = await broadcast(account)
    await freeze(sent)

    async def pause(_: Message) -> None:
        if (await sent.state())[0] is CampaignState.RUNNING:
            await sent.set_state(CampaignState.PAUSED)

    result = await deliver(sent, Provider(pause), set_size=10)
    assert result.stopped
    assert await sent.ledger() == {"sent": 10, "planned": 30}


async def test_a_template_that_fails_for_one_contact_fails_for_that_one_alone(account: TestAccount) -> None:
    victim, *_ = await people(account, 4)
    await execute(
        account,
        "UPDATE contacts SET attributes = jsonb_build_object('n', repeat('x', 2000000)) WHERE id = :id",
        id=victim,
    )
    sent = await broadcast(account)
    content = EmailContent.model_validate({**EMAIL, "html": EMAIL["html"] + "{{ contact.n }}{{ contact.n }}"})
    prepared = prepare(content).model_dump_json()
    await execute(
        account,
        "UPDATE campaigns SET plan = jsonb_set(plan, '{email,prepared}', CAST(:prepared AS jsonb)) WHERE id = :id",
        prepared=prepared,
        id=sent.id,
    )
    await freeze(sent)
    await deliver(sent, Outbox())
    assert await sent.ledger() == {"sent": 3, "failed:render": 1}


async def test_freezing_twice_plans_nobody_twice(account: TestAccount) -> None:
    await people(account, 10)
    sent = await broadcast(account)
    await freeze(sent)
    await people(account, 1, name="late")
    await freeze(sent)
    assert await sent.ledger() == {"planned": 10}
    assert (await sent.stats()).planned == 10


@pytest.mark.parametrize("seed", range(6))
async def test_lost_answers_of_the_database_lose_no_message_and_send_none_twice(
    account: TestAccount, database_url: str, seed: int
) -> None:
    await people(account, 120)
    sent = await broadcast(account)
    await freeze(sent)
    outbox = Outbox()
    unreliable = UnreliableDatabase(database_url, random.Random(seed), loss=0.3)
    activity = Deliveries(unreliable, {"email": outbox}, LINKS, set_size=5)
    input = DeliverInput(account_id=account.id, campaign_id=sent.id, shard=0, now=NOW)
    while True:  # as Temporal would
        try:
            result = await ActivityEnvironment().run(activity.deliver, input)
        except Lost:
            continue
        break
    await unreliable.close()
    assert unreliable.lost > 3
    assert result == Delivered(totals=Totals(planned=120, sent=120))
    assert len({message.to for message in outbox.messages}) == len(outbox.messages) == 120
    assert await sent.ledger() == {"sent": 120}
    assert (await sent.stats()).sent == 120


async def test_a_worker_that_is_stopped_leaves_nothing_in_hand_whenever_it_is_told(
    account: TestAccount, database_url: str
) -> None:
    await people(account, 60)
    sent = await broadcast(account)
    await freeze(sent)
    input = DeliverInput(account_id=account.id, campaign_id=sent.id, shard=0, now=NOW)
    for transactions in range(1, 9):
        environment = ActivityEnvironment()
        database = WatchedDatabase(database_url, transactions, environment.worker_shutdown)
        activity = Deliveries(database, {"email": Outbox()}, LINKS, set_size=2)
        await environment.run(activity.deliver, input)
        await database.close()
        assert "sending" not in await sent.ledger(), f"told after {transactions} transactions"
    assert 0 < (await sent.ledger())["sent"] < 60
