"""What became of a message is an event, written by the statement that puts it on record."""

from datetime import timedelta
from uuid import uuid4

from sqlalchemy import text

from channels.base import Message, Rejected, Uncertain
from database import accounts, deliveries, resolutions
from database.deliveries import Outcome
from database.eligibility import Rules
from database.resolutions import Which
from marketing.resolutions import Action
from tests.audience import people
from tests.broadcast import Broadcast, broadcast
from tests.conftest import TestAccount
from tests.delivering import NOW, Provider, deliver, execute, freeze, run

FACTS = ("message.sent", "message.failed", "message.uncertain")


async def facts(sent: Broadcast) -> list[tuple[object, ...]]:
    """The events of a campaign's messages that say what became of them."""
    async with sent.account.transaction() as tx:
        rows = await tx.execute(
            text("""
                SELECT delivery_id, contact_id, name, occurred_at, properties FROM events
                WHERE campaign_id = :id AND name = ANY (:facts) ORDER BY delivery_id, id
            """),
            {"id": sent.id, "facts": list(FACTS)},
        )
        return [tuple(row) for row in rows]


async def ledger(sent: Broadcast) -> list[tuple[object, ...]]:
    """What the facts should say."""
    async with sent.account.transaction() as tx:
        rows = await tx.execute(
            text("""
                SELECT id, contact_id, 'message.' || state, finished_at,
                       jsonb_strip_nulls(jsonb_build_object('channel', channel, 'reason', reason)) FROM deliveries
                WHERE campaign_id = :id AND state IN ('sent', 'failed', 'uncertain') ORDER BY id
            """),
            {"id": sent.id},
        )
        return [tuple(row) for row in rows]


async def names(sent: Broadcast) -> list[str]:
    return sorted(str(name) for _, _, name, *_ in await facts(sent))


async def take(sent: Broadcast) -> None:
    """Somebody takes every message and is never heard of again."""
    await execute(
        sent.account,
        "UPDATE deliveries SET state = 'sending', lease = uuidv7(), leased_at = :now,"
        " lease_until = now() - interval '1 s' WHERE campaign_id = :id",
        id=sent.id,
        now=NOW,
    )


async def rules(sent: Broadcast) -> Rules:
    async with sent.account.transaction() as tx:
        return Rules("email", None, await accounts.read(tx, sent.account.id), NOW)


async def test_each_message_that_was_sent_has_failed_or_is_uncertain_has_one_event_that_agrees_with_the_ledger(
    account: TestAccount,
) -> None:
    for name, count in (("good", 30), ("refused", 4), ("doubtful", 3)):
        await people(account, count, name=name)
    await people(account, 5, name="silent", subscribed=False)

    async def answer(message: Message) -> None:
        if message.to.startswith("refused"):
            raise Rejected("550 no such user", suppress=True)
        if message.to.startswith("doubtful"):
            raise Uncertain("The server hung up.")

    sent, _ = await run(account, Provider(answer))
    found = await facts(sent)
    assert found == await ledger(sent)
    assert [sum(name == each for _, _, name, *_ in found) for each in FACTS] == [30, 4, 3]
    assert {"channel": "email", "reason": "rejected"} in [properties for *_, properties in found]


async def test_an_outcome_that_comes_after_the_lease_has_passed_to_another_makes_no_event(account: TestAccount) -> None:
    await people(account, 1)
    sent = await broadcast(account)
    await freeze(sent)
    await take(sent)
    async with account.transaction() as tx:
        (delivery,) = (
            await tx.execute(text("SELECT id FROM deliveries WHERE campaign_id = :id"), {"id": sent.id})
        ).one()
        late = [Outcome(delivery, "sent")]
        recorded = await deliveries.record(tx, sent.id, uuid4(), late, rules=await rules(sent))
    assert not recorded.changed
    assert await facts(sent) == []


async def test_what_a_lost_worker_had_taken_is_uncertain_and_what_is_sent_again_is_not(account: TestAccount) -> None:
    await people(account, 3)
    held = await broadcast(account)
    again = await broadcast(account)
    for sent, resend in ((held, False), (again, True)):
        await freeze(sent)
        await take(sent)
        async with account.transaction() as tx:
            assert await deliveries.settle_lost(tx, sent.id, None, resend=resend, rules=await rules(sent)) == 3
    assert await names(held) == ["message.uncertain"] * 3
    assert await facts(held) == await ledger(held)
    assert await facts(again) == []
    await deliver(again, Provider(_accept), now=NOW + timedelta(minutes=1))
    assert await names(again) == ["message.sent"] * 3


async def test_a_message_that_is_taken_as_sent_is_an_event_of_the_moment_it_was_doubted(account: TestAccount) -> None:
    await people(account, 2)
    sent, _ = await run(account, Provider(Uncertain("The server hung up.")))
    (moment,) = {occurred_at for _, _, _, occurred_at, _ in await facts(sent)}
    async with account.transaction() as tx:
        which = Which(campaign_id=sent.id)
        await resolutions.resolve(tx, account.id, Action.ACCEPT, which, key_id=uuid4(), limit=10)
    assert await names(sent) == ["message.sent"] * 2 + ["message.uncertain"] * 2
    assert {occurred_at for _, _, _, occurred_at, _ in await facts(sent)} == {moment}


async def test_a_message_that_is_put_back_is_sent_once_it_is_sent(account: TestAccount) -> None:
    await people(account, 2)
    sent, _ = await run(account, Provider(Uncertain("The server hung up.")))
    async with account.transaction() as tx:
        which = Which(campaign_id=sent.id)
        await resolutions.resolve(tx, account.id, Action.RESEND, which, key_id=uuid4(), limit=10)
    assert await names(sent) == ["message.uncertain"] * 2


async def _accept(_: Message) -> None:
    return None
