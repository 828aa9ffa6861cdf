"""What is put into the queue of automations, and what is not?"""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from database import journey_touches
from database.schema import contacts, events, subscriptions
from database.schema_automations import automation_subjects
from tests.conftest import TestAccount


async def looking(account: TestAccount, *subjects: str) -> None:
    """Some source looks at these."""
    source = uuid4()
    async with account.transaction() as tx:
        rows = [
            {"account_id": account.id, "subject": each, "source_id": source, "role": "trigger"} for each in subjects
        ]
        await tx.execute(automation_subjects.insert().values(rows))


async def contact(account: TestAccount, **fields: Any) -> UUID:
    async with account.transaction() as tx:
        row = contacts.insert().values(account_id=account.id, **fields).returning(contacts.c.id)
        contact_id: UUID = (await tx.execute(row)).scalar_one()
    return contact_id


async def change(account: TestAccount, **values: Any) -> None:
    async with account.transaction() as tx:
        await tx.execute(contacts.update().values(values))


async def event(account: TestAccount, name: str, contact_id: UUID | None, **values: Any) -> UUID:
    async with account.transaction() as tx:
        row = {"account_id": account.id, "name": name, "contact_id": contact_id, **values}
        event_id: UUID = (await tx.execute(events.insert().values(row).returning(events.c.id))).scalar_one()
    return event_id


async def told(account: TestAccount) -> list[tuple[UUID, str, UUID | None]]:
    """What has been put into the queue; it is empty afterwards."""
    found: list[tuple[UUID, str, UUID | None]] = []
    for bulk in (False, True):
        async with account.transaction() as tx:
            waiting = await journey_touches.oldest(tx, 10_000, bulk=bulk)
            await journey_touches.forget(tx, [each.id for each in waiting])
        found += [(each.contact_id, each.subject, each.event_id) for each in waiting]
    return found


async def test_an_event_that_somebody_looks_at_is_told_with_its_id(account: TestAccount) -> None:
    await looking(account, "event:purchase")
    zoe = await contact(account, email="zoe@example.com")
    bought = await event(account, "purchase", zoe)
    await event(account, "page.viewed", zoe)
    assert await told(account) == [(zoe, "event:purchase", bought)]


async def test_what_machines_did_and_what_nobody_did_is_not_told(account: TestAccount) -> None:
    await looking(account, "event:message.clicked")
    zoe = await contact(account, email="zoe@example.com")
    await event(account, "message.clicked", zoe, machine=True)
    await event(account, "message.clicked", None)
    assert await told(account) == []


async def test_nothing_is_told_where_nobody_looks_or_only_another_account_does(
    account: TestAccount, other_account: TestAccount
) -> None:
    await looking(other_account, "event:purchase", "tag:vip", "contact.country", "contact.deleted", "unsubscribed")
    zoe = await contact(account, email="zoe@example.com", tags=["vip"])
    await event(account, "purchase", zoe)
    await change(account, country="FR", deleted_at=datetime.now(UTC))
    assert await told(account) == []


async def test_whoever_enters_or_leaves_a_segment_is_told_with_the_event_of_it(account: TestAccount) -> None:
    segment, another = uuid4(), uuid4()
    await looking(account, f"segment.entered:{segment}", f"segment.left:{segment}")
    zoe = await contact(account, email="zoe@example.com")
    entered = await event(account, "segment.entered", zoe, properties={"segment_id": str(segment)})
    left = await event(account, "segment.left", zoe, properties={"segment_id": str(segment)})
    await event(account, "segment.left", zoe, properties={"segment_id": str(another)})
    assert await told(account) == [
        (zoe, f"segment.entered:{segment}", entered),
        (zoe, f"segment.left:{segment}", left),
    ]


async def test_a_tag_is_told_when_a_contact_gets_it_and_not_when_it_keeps_it(account: TestAccount) -> None:
    await looking(account, "tag:vip")
    zoe = await contact(account, email="zoe@example.com", tags=["vip", "new"])
    assert await told(account) == [(zoe, "tag:vip", None)]
    await change(account, tags=["vip", "old"])
    assert await told(account) == []
    await change(account, tags=["old"])
    await change(account, tags=["old", "vip"])
    assert await told(account) == [(zoe, "tag:vip", None)]


@pytest.mark.parametrize(
    ("field", "before", "after"),
    [
        ("email", "zoe@example.com", "zoe@example.org"),
        ("phone", None, "+4915112345678"),
        ("external_id", None, "42"),
        ("first_name", "Zoe", "Zoé"),
        ("last_name", "Roe", None),
        ("country", None, "FR"),
        ("locale", "en", "fr"),
        ("timezone", None, "Europe/Paris"),
        ("tags", ["new"], ["new", "vip"]),
    ],
)
async def test_a_field_is_told_when_it_changes(account: TestAccount, field: str, before: object, after: object) -> None:
    await looking(account, f"contact.{field}")
    zoe = await contact(account, **{field: before})
    await change(account, attributes={"plan": "pro"})
    assert await told(account) == []
    await change(account, **{field: after})
    assert await told(account) == [(zoe, f"contact.{field}", None)]


async def test_an_attribute_is_told_when_it_changes_comes_or_goes(account: TestAccount) -> None:
    await looking(account, "contact.attributes.plan")
    zoe = await contact(account, email="zoe@example.com", attributes={"city": "Paris"})
    for attributes, telling in (
        ({"plan": "free", "city": "Paris"}, True),
        ({"plan": "free", "city": "Lyon"}, False),
        ({"plan": "pro", "city": "Lyon"}, True),
        ({"city": "Lyon"}, True),
    ):
        await change(account, attributes=attributes)
        assert await told(account) == ([(zoe, "contact.attributes.plan", None)] if telling else [])


async def test_a_contact_that_is_deleted_or_erased_is_told(account: TestAccount) -> None:
    await looking(account, "contact.deleted")
    zoe = await contact(account, email="zoe@example.com")
    await change(account, country="FR")
    assert await told(account) == []
    await change(account, deleted_at=datetime.now(UTC))
    assert await told(account) == [(zoe, "contact.deleted", None)]
    async with account.transaction() as tx:
        await tx.execute(contacts.delete())
    assert await told(account) == [(zoe, "contact.deleted", None)]


async def test_whoever_unsubscribes_is_told_and_whoever_agrees_is_not(account: TestAccount) -> None:
    await looking(account, "unsubscribed")
    zoe = await contact(account, email="zoe@example.com")
    async with account.transaction() as tx:
        row = {"account_id": account.id, "contact_id": zoe, "channel": "email", "topic": "", "status": "subscribed"}
        await tx.execute(subscriptions.insert().values(row))
    assert await told(account) == []
    async with account.transaction() as tx:
        await tx.execute(subscriptions.update().values(status="unsubscribed"))
    assert await told(account) == [(zoe, "unsubscribed", None)]


async def test_what_comes_in_bulk_waits_in_a_line_of_its_own(account: TestAccount) -> None:
    await looking(account, "event:purchase")
    people = [await contact(account, external_id=str(n)) for n in range(21)]
    async with account.transaction() as tx:
        rows = [{"account_id": account.id, "name": "purchase", "contact_id": each} for each in people]
        await tx.execute(events.insert().values(rows))
    await event(account, "purchase", people[0])
    async with account.transaction() as tx:
        assert len(await journey_touches.oldest(tx, 100, bulk=False)) == 1
        assert len(await journey_touches.oldest(tx, 100, bulk=True)) == 21


async def test_accounts_for_which_something_waits_are_found_in_their_lane(account: TestAccount) -> None:
    await looking(account, "event:purchase")
    zoe = await contact(account, email="zoe@example.com")
    await event(account, "purchase", zoe)
    async with account.database.aside() as connection:
        lanes = [await journey_touches.accounts(connection, lane, 3) for lane in range(3)]
        assert sum(each.count(account.id) for each in lanes) == 1
        await told(account)
        lanes = [await journey_touches.accounts(connection, lane, 3) for lane in range(3)]
        assert not any(account.id in each for each in lanes)


async def test_how_much_waits_and_for_how_long_is_told_of_all_accounts(account: TestAccount) -> None:
    await looking(account, "event:purchase")
    zoe = await contact(account, email="zoe@example.com")
    await event(account, "purchase", zoe)
    async with account.transaction() as tx:
        age = text("SELECT extract(epoch FROM clock_timestamp() - touched_at)::float8 FROM journey_touches")
        ours = (await tx.execute(age)).scalar_one()
    async with account.database.transaction(None) as tx:
        waiting, seconds = (await tx.execute(text("SELECT * FROM journey_touches_waiting()"))).one()
    assert waiting >= 1
    assert seconds > ours  # what waits for other accounts may have waited for longer
    await told(account)


async def test_tags_that_come_or_go_are_told_to_those_whose_criteria_ask_about_tags(account: TestAccount) -> None:
    await looking(account, "contact.tags")
    zoe = await contact(account, email="zoe@example.com", tags=["vip"])
    await change(account, tags=["vip"], country="FR")
    await change(account, tags=[])
    assert await told(account) == [(zoe, "contact.tags", None)]
