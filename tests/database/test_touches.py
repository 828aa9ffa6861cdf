"""What is put into the queue of changes, and what is not?"""

from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from database import touches
from database.schema import contacts, events, subscriptions, suppressions
from database.schema_segments import segment_members, segment_subjects, segments
from tests.conftest import TestAccount


async def looking(account: TestAccount, *subjects: str) -> UUID:
    """A segment that looks at these."""
    async with account.transaction() as tx:
        made = segments.insert().values(account_id=account.id, name="Some", kind="dynamic").returning(segments.c.id)
        segment_id: UUID = (await tx.execute(made)).scalar_one()
        for subject in subjects:
            row = {"account_id": account.id, "subject": subject, "segment_id": segment_id}
            await tx.execute(segment_subjects.insert().values(row))
    return segment_id


async def contact(account: TestAccount, **fields: Any) -> UUID:
    async with account.transaction() as tx:
        row = contacts.insert().values(account_id=account.id, **fields).returning(contacts.c.id)
        contact_id: UUID = (await tx.execute(row)).scalar_one()
    return contact_id


async def touched(account: TestAccount) -> list[tuple[UUID, set[str]]]:
    """What has been put into the queue; it is empty afterwards."""
    async with account.transaction() as tx:
        rows = await tx.execute(text("SELECT contact_id, subjects FROM contact_touches ORDER BY id"))
        found = [(row.contact_id, set(row.subjects)) for row in rows]
        await tx.execute(text("DELETE FROM contact_touches"))
    return found


async def execute(account: TestAccount, *statements: Any) -> None:
    async with account.transaction() as tx:
        for statement in statements:
            await tx.execute(statement)


async def test_a_contact_that_comes_goes_or_is_deleted_touches(account: TestAccount) -> None:
    await looking(account, "contact")
    zoe = await contact(account, email="zoe@example.com")
    assert await touched(account) == [(zoe, {"contact"})]
    await execute(account, contacts.update().values(deleted_at=text("now()")))
    assert await touched(account) == [(zoe, {"contact", "contact.deleted_at"})]
    await execute(account, contacts.delete())
    assert await touched(account) == [(zoe, {"contact"})]


async def test_only_fields_that_changed_and_that_somebody_looks_at_touch(account: TestAccount) -> None:
    await looking(account, "contact.country", "contact.attributes", "contact.tags")
    zoe = await contact(account, country="FR", attributes={"plan": "pro"}, tags=["vip"])
    same = {"country": "FR", "attributes": {"plan": "pro"}, "tags": ["vip"]}
    await execute(account, contacts.update().values(**same, first_name="Zoe", updated_at=text("now()")))
    assert await touched(account) == []
    await execute(account, contacts.update().values(**same | {"country": None}))
    await execute(account, contacts.update().values(tags=[], attributes={}))
    assert await touched(account) == [(zoe, {"contact.country"}), (zoe, {"contact.attributes", "contact.tags"})]


FIELDS = [each.name for each in contacts.c if each.name not in ("id", "account_id", "email_key", "deleted_at")]


@pytest.mark.parametrize("field", FIELDS)
async def test_every_field_of_a_contact_is_watched(account: TestAccount, field: str) -> None:
    await looking(account, f"contact.{field}")
    zoe = await contact(account)
    other = {"attributes": {"a": 1}, "tags": ["a"]}
    kinds = {"created_at": text("now() - interval '1 day'"), "updated_at": text("now() + interval '1 day'")}
    await execute(account, contacts.update().values({field: (other | kinds).get(field, "other")}))
    assert await touched(account) == [(zoe, {f"contact.{field}"})]


async def test_subscriptions_and_suppressions_touch_whom_they_are_of(account: TestAccount) -> None:
    await looking(account, "subscriptions", "suppressions")
    zoe = await contact(account, email="Zoe@example.com", phone="+33612345678")
    await contact(account, email="else@example.com")
    agreed = {"account_id": account.id, "contact_id": zoe, "channel": "email", "status": "subscribed"}
    await execute(account, subscriptions.insert().values(agreed))
    await execute(account, subscriptions.update().values(status="unsubscribed"))
    await execute(account, subscriptions.delete())
    assert await touched(account) == [(zoe, {"subscriptions"})] * 3
    for channel, address in (("email", "zoe@example.com"), ("sms", "+33612345678"), ("email", "nobody@example.com")):
        row = {"account_id": account.id, "channel": channel, "address": address, "reason": "bounced"}
        await execute(account, suppressions.insert().values(row))
    assert await touched(account) == [(zoe, {"suppressions"})] * 2
    await execute(account, suppressions.delete())
    assert await touched(account) == [(zoe, {"suppressions"})]


async def test_events_touch_by_their_names_once_for_each_contact(account: TestAccount) -> None:
    await looking(account, "event:purchase", "event:visit")
    zoe, ben = await contact(account), await contact(account)
    names = [("purchase", zoe), ("purchase", zoe), ("visit", zoe), ("click", zoe), ("click", ben), ("visit", None)]
    rows = [{"account_id": account.id, "name": name, "contact_id": whose} for name, whose in names]
    await execute(account, events.insert().values(rows))
    assert await touched(account) == [(zoe, {"event:purchase", "event:visit"})]
    await execute(account, events.update().where(events.c.name == "visit").values(machine=True))
    await execute(account, events.delete().where(events.c.name == "purchase"))
    assert await touched(account) == [(zoe, {"event:visit"}), (zoe, {"event:purchase"})]


async def test_who_enters_or_leaves_a_segment_touches_those_that_look_at_it(account: TestAccount) -> None:
    inner, other = uuid4(), uuid4()
    await looking(account, f"segment:{inner}")
    zoe = await contact(account)
    rows = [{"account_id": account.id, "segment_id": each, "contact_id": zoe} for each in (inner, other)]
    await execute(account, segment_members.insert().values(rows))
    await execute(account, segment_members.delete())
    assert await touched(account) == [(zoe, {f"segment:{inner}"})] * 2


async def test_who_is_changed_among_many_waits_behind_the_rest(account: TestAccount) -> None:
    segment_id = await looking(account, "contact", "contact.country")
    await execute(account, contacts.insert().values([{"account_id": account.id} for _ in range(21)]))
    zoe = await contact(account)
    await execute(account, contacts.update().where(contacts.c.id == zoe).values(country="FR"))
    async with account.transaction() as tx:
        first = await touches.oldest(tx, 10, bulk=False)
        assert len(first.ids) == 2 and first.concerned == {segment_id: [zoe]}
        assert len((await touches.oldest(tx, 10, bulk=True)).ids) == 10
        assert len(await touches.forget(tx, first)) == 2
        assert (await touches.oldest(tx, 10, bulk=False)).ids == []
        assert len((await touches.oldest(tx, 10_000, bulk=True)).concerned[segment_id]) == 21
    await touched(account)


INNER = UUID(int=7)


def writing(account: TestAccount, subject: str, whose: list[UUID]) -> Any:
    """A statement that changes this for all of them."""
    ours = [{"account_id": account.id, "contact_id": each} for each in whose]
    match subject:
        case "contact":
            return contacts.insert().values([{"account_id": account.id} for _ in whose])
        case "contact.tags":
            return contacts.update().values(tags=["vip"])
        case "subscriptions":
            return subscriptions.insert().values([{**row, "channel": "email", "status": "pending"} for row in ours])
        case "suppressions":
            row = {"account_id": account.id, "channel": "email", "reason": "manual"}
            return suppressions.insert().values([{**row, "address": f"{each}@example.com"} for each in whose])
        case "event:purchase":
            return events.insert().values([{**row, "name": "purchase"} for row in ours])
    return segment_members.insert().values([{**row, "segment_id": INNER} for row in ours])


@pytest.mark.parametrize(
    "subject", ["contact", "contact.tags", "subscriptions", "suppressions", "event:purchase", f"segment:{INNER}"]
)
@pytest.mark.parametrize(
    ("many", "said", "bulk"), [(20, None, False), (21, None, True), (21, False, False), (1, True, True)]
)
async def test_in_bulk_comes_what_its_writer_says_or_else_what_is_many(
    account: TestAccount, subject: str, many: int, said: bool | None, bulk: bool
) -> None:
    whose = [uuid4() for _ in range(many)]
    rows = [{"id": each, "account_id": account.id, "email": f"{each}@example.com"} for each in whose]
    await execute(account, contacts.insert().values(rows))
    await looking(account, subject)
    async with account.database.transaction(account.id, bulk=said) as tx:
        await tx.execute(writing(account, subject, whose))
    async with account.transaction() as tx:
        found = list((await tx.execute(text("SELECT bulk FROM contact_touches"))).scalars())
    assert found == [bulk] * many
    await touched(account)


async def test_a_change_that_does_not_come_about_touches_nobody(account: TestAccount) -> None:
    await looking(account, "contact")
    async with account.transaction() as tx:
        await tx.execute(contacts.insert().values(account_id=account.id))
        await tx.rollback()
    assert await touched(account) == []


async def test_what_others_look_at_touches_nobody_of_ours(account: TestAccount, other_account: TestAccount) -> None:
    await looking(other_account, "contact", "event:purchase")
    zoe = await contact(account)
    await execute(account, events.insert().values(account_id=account.id, name="purchase", contact_id=zoe))
    assert await touched(account) == []


async def test_the_accounts_for_which_something_waits_are_shared_out_among_the_lanes(
    account: TestAccount, other_account: TestAccount
) -> None:
    waiting = {account.id, other_account.id}
    for each in (account, other_account):
        await looking(each, "contact")
        await execute(each, contacts.insert().values([{"account_id": each.id} for _ in range(3)]))
    found = [await touches.accounts(account.database, lane, 2) for lane in range(2)]
    assert len(set(found[0]) & set(found[1])) == 0
    assert sorted(each for lane in found for each in lane if each in waiting) == sorted(waiting)
    for each in (account, other_account):
        await touched(each)
