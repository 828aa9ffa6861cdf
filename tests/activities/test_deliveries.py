"""What becomes of each message, whatever the provider, the worker or the world does?"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from temporalio.testing import ActivityEnvironment

from activities.campaigns import Campaigns
from activities.deliveries import Deliveries
from activities.inputs import Delivered, DeliverInput, FreezeInput, RestSkipped, SkipRestInput, Totals
from channels.base import Deferred, Message, Receipt, Rejected, Unavailable, Uncertain
from channels.outbox import Outbox
from database import accounts
from marketing.accounts import FrequencyCap, QuietHours
from marketing.campaigns import CampaignState
from marketing.content import EmailContent, prepare
from marketing.tracking import RecipientLinks, Tokens
from tests.audience import EMAIL, people
from tests.broadcast import Broadcast, broadcast
from tests.conftest import PUBLIC_URL, SECRET_KEY, TestAccount
from tests.unreliable import Lost, UnreliableDatabase

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
LINKS = RecipientLinks(PUBLIC_URL, Tokens(SECRET_KEY))


class Provider:
    """A channel that answers as it is told, and remembers whom it was asked to reach."""

    name = "email"

    def __init__(self, answer: Callable[[Message], Awaitable[None]] | Exception) -> None:
        self.answer = answer
        self.asked: list[str] = []

    async def send(self, message: Message) -> Receipt:
        self.asked.append(message.to)
        if isinstance(self.answer, Exception):
            raise self.answer
        await self.answer(message)
        return Receipt(str(message.delivery_id), "250 OK")

    async def close(self) -> None:
        return None


async def freeze(sent: Broadcast, *, now: datetime = NOW, shard_size: int = 2000) -> None:
    input = FreezeInput(account_id=sent.account.id, campaign_id=sent.id, now=now, shard_size=shard_size)
    await ActivityEnvironment().run(Campaigns(sent.account.database).freeze_audience, input)


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


# -- who gets it, and who does not -----------------------------------------------------------------------------------


async def test_each_message_is_written_for_its_contact(account: TestAccount) -> None:
    await people(account, 3)
    outbox = Outbox()
    sent, result = await run(account, outbox)
    assert result == Delivered(totals=Totals(planned=3, sent=3))
    message = next(each for each in outbox.messages if each.to.startswith("person-2-"))
    assert message.subject == "Hello Person 2"
    assert message.html is not None
    assert "Hello Person 2!" in message.html
    assert f"{PUBLIC_URL}/t/c/" in message.html
    assert f"{PUBLIC_URL}/t/o/" in message.html
    assert "https://shop.example.com" not in message.html
    assert message.headers["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert f"{PUBLIC_URL}/u/" in message.headers["List-Unsubscribe"]
    assert (await sent.stats()).reconciles


async def test_every_skipped_contact_is_told_with_its_reason(account: TestAccount) -> None:
    good, deleted, nowhere, suppressed, left = await people(account, 5)
    (silent,) = await people_without_consent(account)
    await execute(account, "UPDATE contacts SET email = NULL WHERE id = :id", id=nowhere)
    await execute(
        account,
        "INSERT INTO suppressions (account_id, channel, address, reason)"
        " SELECT account_id, 'email', lower(email), 'complaint' FROM contacts WHERE id = :id",
        id=suppressed,
    )
    await execute(account, "UPDATE subscriptions SET status = 'unsubscribed' WHERE contact_id = :id", id=left)
    sent = await broadcast(account)
    await freeze(sent)
    await execute(account, "UPDATE contacts SET deleted_at = now() WHERE id = :id", id=deleted)
    outbox = Outbox()
    await deliver(sent, outbox)
    assert await sent.ledger() == {
        "sent": 1,
        "skipped:contact_deleted": 1,
        "skipped:no_address": 1,
        "skipped:suppressed": 1,
        "skipped:unsubscribed": 1,
        "skipped:no_consent": 1,
    }
    stats = await sent.stats()
    assert (stats.planned, stats.sent, stats.skipped, stats.pending) == (6, 1, 5, 0)
    assert stats.skipped_by_reason["no_consent"] == 1
    assert {good, silent} & {deleted, nowhere, suppressed, left} == set()


async def people_without_consent(account: TestAccount) -> list[UUID]:
    async with account.transaction() as tx:
        rows = await tx.execute(
            text("INSERT INTO contacts (account_id, email) VALUES (:id, 'silent@example.org') RETURNING id"),
            {"id": account.id},
        )
        return [row.id for row in rows]


async def test_a_topic_is_left_by_itself(account: TestAccount) -> None:
    stays, leaves = await people(account, 2)
    await execute(
        account,
        "INSERT INTO subscriptions (account_id, contact_id, channel, topic, status)"
        " VALUES (:account_id, :id, 'email', 'news', 'unsubscribed')",
        account_id=account.id,
        id=leaves,
    )
    news, _ = await run(account, Outbox(), topic="news")
    assert await news.ledger() == {"sent": 1, "skipped:unsubscribed": 1}
    other, _ = await run(account, Outbox(), topic="offers")
    assert await other.ledger() == {"sent": 2}
    assert stays != leaves


async def test_an_unsubscribe_holds_for_every_message_not_yet_leased(account: TestAccount) -> None:
    await people(account, 30)

    one_by_one = asyncio.Lock()

    async def everybody_leaves(_: Message) -> None:
        async with one_by_one:
            await execute(account, "UPDATE subscriptions SET status = 'unsubscribed'")

    sent = await broadcast(account)
    await freeze(sent)
    provider = Provider(everybody_leaves)
    await deliver(sent, provider, set_size=10, lanes=1)
    assert len(provider.asked) == 10
    assert await sent.ledger() == {"sent": 10, "skipped:unsubscribed": 20}


async def test_a_frequency_cap_counts_every_campaign(account: TestAccount) -> None:
    await people(account, 4)
    await change_account(account, frequency_caps={"email": FrequencyCap(messages=1, hours=24)})
    first, _ = await run(account, Outbox())
    second, _ = await run(account, Outbox())
    assert await first.ledger() == {"sent": 4}
    assert await second.ledger() == {"skipped:frequency_cap": 4}
    later = await broadcast(account)
    await freeze(later)
    await deliver(later, Outbox(), now=NOW + timedelta(hours=25))
    assert await later.ledger() == {"sent": 4}


async def test_a_frequency_cap_holds_between_campaigns_at_the_same_moment(account: TestAccount) -> None:
    await people(account, 60)
    await change_account(account, frequency_caps={"email": FrequencyCap(messages=1, hours=24)})
    both = [await broadcast(account), await broadcast(account)]
    for each in both:
        await freeze(each)
    outbox = Outbox()
    await asyncio.gather(*(deliver(each, outbox, set_size=5) for each in both))
    assert len({message.to for message in outbox.messages}) == len(outbox.messages) == 60


async def test_quiet_hours_put_a_message_off_until_their_end(account: TestAccount) -> None:
    await people(account, 2, timezone="Europe/Paris")
    await change_account(
        account,
        quiet_hours=QuietHours.model_validate({"start": "21:00", "end": "08:00"}),
    )
    late = datetime(2026, 11, 27, 22, 30, tzinfo=UTC)  # 23:30 in Paris
    sent = await broadcast(account)
    await freeze(sent, now=late)
    outbox = Outbox()
    result = await deliver(sent, outbox, now=late)
    assert not outbox.messages
    assert result.next_due == datetime(2026, 11, 28, 7, 0, tzinfo=UTC)  # 08:00 in Paris
    assert await sent.ledger() == {"planned": 2}
    await deliver(sent, outbox, now=result.next_due)
    assert await sent.ledger() == {"sent": 2}


@pytest.mark.parametrize(
    ("start", "end", "hour", "until"),
    [
        ("21:00", "08:00", 23, "2026-11-28T08:00"),
        ("21:00", "08:00", 3, "2026-11-27T08:00"),
        ("21:00", "08:00", 8, None),
        ("21:00", "08:00", 20, None),
        ("12:00", "14:00", 12, "2026-11-27T14:00"),
        ("12:00", "14:00", 14, None),
        ("00:00", "06:00", 0, "2026-11-27T06:00"),
    ],
)
async def test_quiet_hours_by_day_and_over_midnight(
    account: TestAccount, start: str, end: str, hour: int, until: str | None
) -> None:
    await people(account, 1)
    await change_account(account, quiet_hours=QuietHours.model_validate({"start": start, "end": end}))
    now = datetime(2026, 11, 27, hour, 0, tzinfo=UTC)
    sent = await broadcast(account)
    await freeze(sent, now=now)
    result = await deliver(sent, Outbox(), now=now)
    assert result.next_due == (datetime.fromisoformat(until).replace(tzinfo=UTC) if until else None)


async def test_a_budget_is_spent_and_no_more(account: TestAccount) -> None:
    await people(account, 25)
    outbox = Outbox()
    sent, _ = await run(account, outbox, max_messages=10)
    assert len(outbox.messages) == 10
    assert await sent.ledger() == {"sent": 10, "skipped:budget": 15}


# -- what the provider says ------------------------------------------------------------------------------------------


async def test_a_dead_address_is_never_written_to_again(account: TestAccount) -> None:
    await people(account, 2)
    await change_account(account, error_threshold=1.0)
    sent, _ = await run(account, Provider(Rejected("550 5.1.1 User unknown", suppress=True)))
    assert await sent.ledger() == {"failed:rejected": 2}
    again, _ = await run(account, Outbox())
    assert await again.ledger() == {"skipped:suppressed": 2}


async def test_a_message_put_off_is_tried_again_later_and_given_up_in_the_end(account: TestAccount) -> None:
    await people(account, 1)
    await change_account(account, error_threshold=1.0)
    greylisting = Provider(Deferred("451 4.7.1 Try again later"))
    sent, result = await run(account, greylisting)
    moments = [NOW]
    while result.next_due:
        assert await sent.ledger() == {"planned": 1}
        moments.append(result.next_due)
        result = await deliver(sent, greylisting, now=result.next_due)
    assert await sent.ledger() == {"failed:expired": 1}
    assert len(greylisting.asked) == 21
    assert timedelta(hours=60) < moments[-1] - moments[0] < timedelta(hours=72)


async def test_an_absent_provider_costs_no_attempt(account: TestAccount) -> None:
    await people(account, 3)
    absent = Provider(Unavailable("Connection refused", retry_after=7))
    sent, result = await run(account, absent)
    assert result.unavailable
    assert result.next_due is not None
    assert await sent.ledger() == {"planned": 3}
    await deliver(sent, Outbox(), now=result.next_due + timedelta(seconds=60))
    assert await sent.ledger() == {"sent": 3}
    async with account.transaction() as tx:
        attempts = (await tx.execute(text("SELECT DISTINCT attempts FROM deliveries"))).scalars().all()
    assert attempts == [1]


async def test_what_nobody_can_know_is_uncertain_and_held(account: TestAccount) -> None:
    await people(account, 2)
    doubt = Provider(Uncertain("The connection broke after the final dot."))
    sent, result = await run(account, doubt)
    assert result == Delivered(totals=Totals(planned=2, uncertain=2))
    assert await sent.ledger() == {"uncertain:connection_lost": 2}
    await deliver(sent, doubt)
    assert len(doubt.asked) == 2


async def test_what_nobody_can_know_is_sent_again_if_so_wished_but_not_for_ever(account: TestAccount) -> None:
    await people(account, 1)
    doubt = Provider(Uncertain("The connection broke after the final dot."))
    sent, result = await run(account, doubt, on_uncertain="resend")
    while result.next_due:
        assert await sent.ledger() == {"planned": 1}
        result = await deliver(sent, doubt, now=result.next_due)
    assert len(doubt.asked) == 3
    assert await sent.ledger() == {"uncertain:connection_lost": 1}


async def test_what_is_sent_again_does_not_count_against_its_own_frequency_cap(account: TestAccount) -> None:
    await people(account, 2)
    await change_account(account, frequency_caps={"email": FrequencyCap(messages=1, hours=24)})
    sent = await broadcast(account, on_uncertain="resend")
    await freeze(sent)
    await execute(
        account,
        "UPDATE deliveries SET state = 'sending', lease = uuidv7(), lease_until = now() - interval '1 second',"
        " leased_at = :now WHERE campaign_id = :id",
        id=sent.id,
        now=NOW,
    )
    outbox = Outbox()
    await deliver(sent, outbox)
    assert len(outbox.messages) == 2
    assert await sent.ledger() == {"sent": 2}


async def test_what_nobody_was_asked_to_carry_costs_nothing_of_the_budget(account: TestAccount) -> None:
    await people(account, 10)
    sent, result = await run(account, Provider(Unavailable("Connection refused")), max_messages=10)
    for _ in range(3):
        assert result.next_due is not None
        result = await deliver(sent, Provider(Unavailable("Connection refused")), now=result.next_due)
    assert result.next_due is not None
    await deliver(sent, Outbox(), now=result.next_due)
    assert await sent.ledger() == {"sent": 10}


async def test_a_channel_that_fails_in_an_unforeseen_way_leaves_its_message_uncertain(account: TestAccount) -> None:
    await people(account, 3)

    async def fail_for_one(message: Message) -> None:
        if message.to.startswith("person-2-"):
            raise KeyError("a bug")

    sent, _ = await run(account, Provider(fail_for_one))
    assert await sent.ledger() == {"sent": 2, "uncertain:connection_lost": 1}


async def test_too_many_errors_pause_the_campaign_and_say_why(account: TestAccount) -> None:
    await people(account, 400)
    sent, result = await run(account, Provider(Rejected("554 5.7.1 Blocked")))
    assert result.stopped
    state, reason = await sent.state()
    assert state is CampaignState.PAUSED
    assert "100.0% of the last 100 messages failed" in reason
    stats = await sent.stats()
    assert 100 <= stats.failed <= 200
    assert stats.reconciles


# -- what the worker and the world do --------------------------------------------------------------------------------


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
    await people_without_consent(account)
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
