"""What becomes of each message, whatever the provider says and the account wants?"""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from activities.inputs import Delivered, Totals
from channels.base import Deferred, Message, Rejected, Unavailable, Uncertain
from channels.outbox import Outbox
from marketing.accounts import FrequencyCap, QuietHours
from marketing.campaigns import CampaignState
from tests.audience import people
from tests.broadcast import broadcast
from tests.conftest import PUBLIC_URL, TestAccount
from tests.delivering import NOW, Provider, change_account, deliver, execute, freeze, run

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
    (silent,) = await people(account, 1, name="silent", subscribed=False)
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
    assert stats.failed == 100
    assert stats.reconciles
    # What was taken beside the record that paused it has been put back.
    assert await sent.ledger() == {"failed:rejected": 100, "planned": 300}
