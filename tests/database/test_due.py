"""Whom does the clock let in, and whom not?"""

import itertools
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID

import pytest

from database import due
from database.schema import contacts, events
from database.schema_segments import segment_members
from marketing.triggers import OnDate, OnInactivity, OnSchedule
from tests.conftest import TestAccount

NOBODY = UUID(int=0)


async def contact(account: TestAccount, **fields: Any) -> UUID:
    async with account.transaction() as tx:
        row = contacts.insert().values(account_id=account.id, external_id=str(fields), **fields)
        contact_id: UUID = (await tx.execute(row.returning(contacts.c.id))).scalar_one()
    return contact_id


async def did(account: TestAccount, name: str, contact_id: UUID, at: datetime, **values: Any) -> None:
    async with account.transaction() as tx:
        row = {"account_id": account.id, "name": name, "contact_id": contact_id, "occurred_at": at, **values}
        await tx.execute(events.insert().values(row))


def dated(**parts: Any) -> OnDate:
    return OnDate.model_validate({"type": "date", "field": "attributes.birthday", **parts})


async def on(account: TestAccount, trigger: OnDate, day: str, zone: str = "UTC") -> list[UUID]:
    async with account.transaction() as tx:
        found = await due.on_day(trigger, date.fromisoformat(day), [zone], 100, tx, NOBODY)
    assert {each.cause for each in found} <= {f"date:{day}"}
    return [each.contact_id for each in found]


# -- a day of their own ----------------------------------------------------------------------------------------------


async def test_a_birthday_comes_every_year(account: TestAccount) -> None:
    zoe = await contact(account, attributes={"birthday": "1990-05-17"})
    await contact(account, attributes={"birthday": "1990-05-18"})
    await contact(account, attributes={"birthday": 17})
    assert await on(account, dated(), "2026-05-17") == await on(account, dated(), "2027-05-17") == [zoe]
    assert await on(account, dated(), "1990-05-17") == []


@pytest.mark.parametrize(
    ("offset", "day"), [("-3 days", "2026-05-14"), ("2 weeks", "2026-05-31"), ("-1 week", "2026-05-10")]
)
async def test_the_day_may_be_meant_before_or_after(account: TestAccount, offset: str, day: str) -> None:
    zoe = await contact(account, attributes={"birthday": "1990-05-17"})
    assert await on(account, dated(offset=offset), day) == [zoe]
    assert await on(account, dated(offset=offset), "2026-05-17") == []


async def test_who_was_born_on_the_29th_of_february_has_a_birthday_every_year(account: TestAccount) -> None:
    zoe = await contact(account, attributes={"birthday": "2000-02-29"})
    assert await on(account, dated(), "2027-02-28") == await on(account, dated(), "2028-02-29") == [zoe]
    assert await on(account, dated(), "2028-02-28") == await on(account, dated(), "2027-03-01") == []


async def test_a_day_may_come_once(account: TestAccount) -> None:
    zoe = await contact(account, attributes={"contract": {"ends": "2026-12-31T09:00:00Z"}})
    trigger = dated(field="attributes.contract.ends", repeat="once", offset="-30 days")
    assert await on(account, trigger, "2026-12-01") == [zoe]
    assert await on(account, trigger, "2027-12-01") == []


async def test_when_somebody_was_added_is_told_in_their_zone(account: TestAccount) -> None:
    added = datetime(2024, 5, 17, 23, 30, tzinfo=UTC)
    zoe = await contact(account, created_at=added, timezone="Europe/Paris")
    assert await on(account, dated(field="created_at"), "2026-05-18", "Europe/Paris") == [zoe]
    assert await on(account, dated(field="created_at"), "2026-05-17", "Europe/Paris") == []


async def test_only_those_are_meant_where_it_is_so_late(account: TestAccount) -> None:
    paris = await contact(account, attributes={"birthday": "1990-05-17"}, timezone="Europe/Paris")
    nowhere = await contact(account, attributes={"birthday": "1990-05-17"})  # in the zone of the account
    assert await on(account, dated(), "2026-05-17", "Europe/Paris") == [paris]
    assert await on(account, dated(), "2026-05-17", "UTC") == [nowhere]


def where_it_became(at: time, since: datetime, until: datetime) -> dict[date, set[str]]:
    wanted = {"UTC", "Europe/Paris", "America/New_York", "Asia/Kathmandu", "Pacific/Auckland"}
    found = due.days_between(at, since, until)
    return {day: wanted & set(zones) for day, zones in found.items() if wanted & set(zones)}


def test_nine_o_clock_comes_at_another_moment_in_each_zone() -> None:
    summer = datetime(2026, 7, 1, tzinfo=UTC)
    quarter = timedelta(minutes=15)
    for hour, zone, day in (
        (timedelta(hours=7), "Europe/Paris", 1),
        (timedelta(hours=9), "UTC", 1),
        (timedelta(hours=13), "America/New_York", 1),
        (timedelta(hours=3, minutes=15), "Asia/Kathmandu", 1),
        (timedelta(hours=21), "Pacific/Auckland", 2),
    ):
        moment = summer + hour
        assert where_it_became(time(9), moment - quarter, moment) == {date(2026, 7, day): {zone}}
        assert where_it_became(time(9), moment, moment + quarter) == {}


def test_a_time_that_clocks_skip_or_show_twice_comes_once_a_day() -> None:
    for day in (date(2026, 3, 29), date(2026, 10, 25)):  # in Paris
        midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
        quarters = [midnight + n * timedelta(minutes=15) for n in range(-8, 92)]
        found = [
            each
            for since, until in itertools.pairwise(quarters)
            for each, zones in due.days_between(time(2, 30), since, until).items()
            if "Europe/Paris" in zones
        ]
        assert found == [day]


# -- nothing for so long ---------------------------------------------------------------------------------------------

NOW = datetime.now(UTC)
SINCE = NOW - timedelta(minutes=15)
BORDER = NOW - timedelta(days=14, minutes=5)


async def inactive(account: TestAccount, since: datetime = SINCE, **parts: Any) -> dict[UUID, str]:
    trigger = OnInactivity.model_validate({"type": "inactivity", "days": 14, **parts})
    async with account.transaction() as tx:
        return {each.contact_id: each.cause for each in await due.inactive(trigger, since, NOW, 100, tx, NOBODY)}


async def test_whoever_did_something_last_so_long_ago_is_due_once_per_spell(account: TestAccount) -> None:
    long_ago = NOW - timedelta(days=400)
    due_now, since_back, gone_before = [
        await contact(account, created_at=long_ago, first_name=name) for name in ("due", "back", "gone")
    ]
    for each in (due_now, since_back):
        await did(account, "purchase", each, BORDER)
    await did(account, "message.clicked", since_back, NOW - timedelta(days=1))
    await did(account, "purchase", gone_before, BORDER - timedelta(days=1))
    assert await inactive(account) == {due_now: f"inactive:{BORDER.isoformat()}"}
    assert set(await inactive(account, since=NOW - timedelta(days=2))) == {due_now, gone_before}


async def test_what_machines_do_and_other_events_are_no_sign_of_life(account: TestAccount) -> None:
    zoe = await contact(account, created_at=NOW - timedelta(days=400))
    await did(account, "purchase", zoe, BORDER)
    await did(account, "message.opened", zoe, NOW - timedelta(days=1), machine=True)
    await did(account, "message.sent", zoe, NOW - timedelta(days=1))
    assert set(await inactive(account)) == {zoe}
    assert await inactive(account, event="login") == {}


async def test_whoever_came_so_long_ago_and_did_nothing_is_due(account: TestAccount) -> None:
    zoe = await contact(account, created_at=BORDER)
    active = await contact(account, created_at=BORDER, first_name="active")
    await did(account, "login", active, BORDER + timedelta(days=1))
    assert await inactive(account, event="login") == {zoe: f"inactive:{BORDER.isoformat()}"}


# -- a time for all --------------------------------------------------------------------------------------------------


async def test_all_of_a_segment_are_due_page_by_page(account: TestAccount) -> None:
    segment = UUID(int=7)
    people = sorted([await contact(account, first_name=str(n)) for n in range(3)])
    async with account.transaction() as tx:
        rows = [{"account_id": account.id, "segment_id": segment, "contact_id": each} for each in people]
        await tx.execute(segment_members.insert().values(rows))
    trigger = OnSchedule.model_validate({"type": "schedule", "cron": "0 9 * * 1", "segment": str(segment)})
    async with account.transaction() as tx:
        first = await due.in_segment(trigger, NOW, 2, tx, NOBODY)
        rest = await due.in_segment(trigger, NOW, 2, tx, first[-1].contact_id)
    assert [each.contact_id for each in (*first, *rest)] == people
    assert {each.cause for each in (*first, *rest)} == {f"schedule:{NOW.isoformat()}"}
