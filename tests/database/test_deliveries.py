"""An audience is frozen: each contact of one moment, once, in shards in the order in which they fall due."""

import asyncio
from datetime import datetime, timedelta
from uuid import RFC_4122, UUID

from sqlalchemy import text

from activities.inputs import WaveOfShards
from database import campaigns, planning
from database.engine import Database
from database.migrate import migrate
from local_stack import EmbeddedPostgres
from marketing.schedules import Schedule
from tests.audience import people
from tests.broadcast import Broadcast, broadcast
from tests.conftest import TestAccount, new_account
from tests.delivering import NOW, freeze

EPOCH = datetime.fromisoformat("1970-01-01T00:00Z")


async def planned(sent: Broadcast) -> list[tuple[UUID, UUID, int, datetime]]:
    """Id, contact, shard and due moment of each delivery, in the order of the ids."""
    async with sent.account.transaction() as tx:
        rows = await tx.execute(
            text("SELECT id, contact_id, shard, not_before FROM deliveries WHERE campaign_id = :id ORDER BY id"),
            {"id": sent.id},
        )
        return [(row.id, row.contact_id, row.shard, row.not_before) for row in rows]


async def test_each_contact_is_planned_once_and_shards_are_full_but_the_last(account: TestAccount) -> None:
    contacts = await people(account, 25)
    sent = await broadcast(account)
    frozen = await freeze(sent, shard_size=10)
    rows = await planned(sent)
    assert [contact for _, contact, _, _ in rows] == sorted(contacts)
    assert [shard for _, _, shard, _ in rows] == [0] * 10 + [1] * 10 + [2] * 5
    assert frozen.planned == 25
    assert frozen.waves == [WaveOfShards(due=NOW, first=0, last=2)]


async def test_the_ids_of_an_audience_tell_when_it_was_frozen(account: TestAccount) -> None:
    await people(account, 300)
    sent = await broadcast(account)
    await freeze(sent)
    async with account.transaction() as tx:
        now = (await tx.execute(text("SELECT now()"))).scalar_one()
    ids = [id for id, *_ in await planned(sent)]
    assert {(id.version, id.variant) for id in ids} == {(7, RFC_4122)}
    assert all(abs(EPOCH + timedelta(milliseconds=id.int >> 80) - now) < timedelta(minutes=1) for id in ids)


async def test_audiences_frozen_at_once_have_ids_of_their_own(account: TestAccount) -> None:
    await people(account, 50)
    sent = [await broadcast(account) for _ in range(3)]
    for each in sent:
        await freeze(each)
    ids = [id for each in sent for id, *_ in await planned(each)]
    assert len(set(ids)) == 150


async def test_zones_are_waves_in_the_order_in_which_they_fall_due(account: TestAccount) -> None:
    for zone in ("America/New_York", "Asia/Tokyo", None):
        await people(account, 5, name=f"of-{(zone or 'utc')[:4].lower()}", timezone=zone)
    schedule = Schedule(send_at=datetime.fromisoformat("2031-01-09T09:00"), timezone="recipient")
    sent = await broadcast(account, schedule=schedule)
    frozen = await freeze(sent, shard_size=5)
    zones = ("Asia/Tokyo", "UTC", "America/New_York")
    assert frozen.waves == [WaveOfShards(due=schedule.moment_in(zone), first=n, last=n) for n, zone in enumerate(zones)]
    assert [due for *_, due in await planned(sent)] == [schedule.moment_in(zone) for zone in zones for _ in range(5)]


async def test_who_comes_after_the_freezing_is_not_in_the_audience(account: TestAccount) -> None:
    await people(account, 3)
    sent = await broadcast(account)
    await freeze(sent)
    await people(account, 3, name="late")
    again = await freeze(sent)
    assert again.planned == len(await planned(sent)) == 3


async def test_a_ledger_that_was_counted_while_an_audience_was_frozen_is_counted_again() -> None:
    """Taken for empty, it would be read as a whole for each set."""
    async with EmbeddedPostgres(durable=False) as postgres:
        await asyncio.to_thread(migrate, postgres.url)
        database = Database(postgres.url)
        account = await new_account(database)
        await people(account, 3000)
        sent = await broadcast(account)
        async with account.transaction() as tx:
            plan = await campaigns.load_plan(tx, sent.id)
            await planning.freeze_audience(tx, sent.id, plan, now=NOW, default_timezone="UTC", shard_size=1000)
            async with account.transaction() as meanwhile:
                await meanwhile.execute(text("ANALYZE deliveries"))
        counted = text("SELECT reltuples::int FROM pg_class WHERE relname = 'deliveries'")
        for believed, mended in ((0, True), (3000, False)):
            async with account.transaction() as tx:
                assert (await tx.execute(counted)).scalar_one() == believed
                assert await planning.mend_estimates(tx) is mended
        await database.close()
