"""How much waits, over all accounts, and how cheaply that is known."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import text

from channels.outbox import Outbox
from database import backlog
from marketing.campaigns import CampaignState
from tests.audience import people
from tests.broadcast import broadcast
from tests.conftest import TestAccount
from tests.delivering import deliver, execute, freeze


async def look(account: TestAccount) -> backlog.Backlog:
    async with account.database.transaction(None) as tx:
        return await backlog.read(tx)


async def test_what_is_planned_and_not_finished_waits_by_the_state_of_its_campaign(
    account: TestAccount, other_account: TestAccount
) -> None:
    before = await look(account)
    await people(account, 30)
    await people(other_account, 20)
    ours, theirs = await broadcast(account), await broadcast(other_account)
    for each in (ours, theirs):
        await freeze(each, now=datetime.now(UTC))
    assert waiting(await look(account), before) == {"running": 50}
    await theirs.set_state(CampaignState.PAUSED)
    assert waiting(await look(account), before) == {"running": 30, "paused": 20}
    await deliver(ours, Outbox(), now=datetime.now(UTC))
    assert waiting(await look(account), before) == {"paused": 20}
    await execute(other_account, "UPDATE campaigns SET finished_at = now() WHERE id = :id", id=theirs.id)
    assert waiting(await look(account), before) == {}


def waiting(now: backlog.Backlog, before: backlog.Backlog) -> dict[str, int]:
    states = {state for _, state in now.messages.keys() | before.messages.keys()}
    change = {s: now.messages.get(("email", s), 0) - before.messages.get(("email", s), 0) for s in states}
    return {state: messages for state, messages in change.items() if messages}


async def test_the_oldest_due_message_of_a_running_campaign_is_found_in_whatever_shard_it_is(
    account: TestAccount,
) -> None:
    long_ago = timedelta(days=4000)
    await people(account, 30)
    sent = await broadcast(account)
    await freeze(sent, now=datetime.now(UTC), shard_size=5)
    await execute(
        account,
        "UPDATE deliveries SET not_before = now() - :ago WHERE campaign_id = :id AND shard = 4",
        ago=long_ago,
        id=sent.id,
    )
    assert abs((await look(account)).oldest_due["email"] - long_ago.total_seconds()) < 60
    await sent.set_state(CampaignState.PAUSED)
    assert (await look(account)).oldest_due.get("email", 0.0) < long_ago.total_seconds() / 2


async def test_an_import_that_nobody_looks_at_waits(account: TestAccount) -> None:
    before = (await look(account)).imports
    await execute(account, "INSERT INTO imports (account_id, state) VALUES (:mine, 'waiting')", mine=account.id)
    assert (await look(account)).imports == before + 1
    await execute(account, "UPDATE imports SET state = 'failed' WHERE account_id = :mine", mine=account.id)
    assert (await look(account)).imports == before


async def test_whoever_waits_to_begin_is_known_unless_the_automation_is_paused(account: TestAccount) -> None:
    before = await look(account)
    async with account.transaction() as tx:
        made = text("INSERT INTO automations (account_id, name, state) VALUES (:mine, 'x', 'active') RETURNING id")
        automation = (await tx.execute(made, {"mine": account.id})).scalar_one()
    [contact] = await people(account, 1)
    await execute(
        account,
        "INSERT INTO enrollments (account_id, source_id, contact_id, cause, entered_at)"
        " VALUES (:mine, :automation, :contact, 'launch', now() - interval '4000 days')",
        mine=account.id,
        automation=automation,
        contact=contact,
    )
    await execute(
        account,
        "INSERT INTO cohorts (account_id, source_id, number, version, members, state)"
        " SELECT :mine, :automation, n, 1, 1, state FROM (VALUES (1, 'open'), (2, 'ended')) AS those (n, state)",
        mine=account.id,
        automation=automation,
    )
    found = await look(account)
    assert abs(found.oldest_enrollment - timedelta(days=4000).total_seconds()) < 60
    assert found.open_cohorts == before.open_cohorts + 1
    await execute(account, "UPDATE automations SET state = 'paused' WHERE id = :id", id=automation)
    assert (await look(account)).oldest_enrollment < timedelta(days=2000).total_seconds()


async def test_what_happened_waits_until_automations_are_told(account: TestAccount) -> None:
    before = await look(account)
    await execute(
        account,
        "INSERT INTO journey_touches (id, account_id, contact_id, subject, touched_at) OVERRIDING SYSTEM VALUE"
        " VALUES (-1, :mine, :mine, 'unsubscribed', now() - interval '10 minutes')",
        mine=account.id,
    )
    found = await look(account)
    await execute(account, "DELETE FROM journey_touches WHERE account_id = :mine", mine=account.id)
    assert found.routing == before.routing + 1
    assert found.oldest_routing >= 600


async def test_no_message_is_counted_to_know_how_many_wait(account: TestAccount) -> None:
    before = await rows_read(account)
    await people(account, 5_000)
    await freeze(await broadcast(account), now=datetime.now(UTC), shard_size=50)
    assert await rows_read(account) - before <= 500  # a few for each of the 100 shards


async def rows_read(account: TestAccount) -> int:
    """Deliveries that one look at the backlog touches."""
    touched = text("""
        SELECT pg_stat_get_xact_tuples_fetched(oid) + pg_stat_get_xact_tuples_returned(oid)
        FROM pg_class WHERE relname = 'deliveries'
    """)
    async with account.database.transaction(None) as tx:
        await tx.execute(text("ANALYZE deliveries"))
        before: int = (await tx.execute(touched)).scalar_one()
        await backlog.read(tx)
        after: int = (await tx.execute(touched)).scalar_one()
    return after - before
