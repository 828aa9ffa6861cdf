"""Who is put together into a cohort, and what becomes of one that nobody carries any more?"""

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import text

from database import automations, cohorts, enrollments, journeys, notifications
from database.enrollments import Noted
from database.journeys import Asked
from marketing.automations import AutomationState
from marketing.notifications import NotificationKind
from tests.audience import people
from tests.conftest import TestAccount
from tests.database.test_routing import NOW, automation, figures, form, happens, passes, route

LATER = NOW + timedelta(minutes=5)


# -- together --------------------------------------------------------------------------------------------------------


async def test_those_who_wait_are_put_together_in_their_order_and_the_same_answer_is_given_again(
    account: TestAccount,
) -> None:
    source = await automation(account)
    those = await people(account, 5)
    await happens(account, "order.placed", *those)
    await route(account)
    first = await form(account, source, limit=3)
    assert first and (first.number, first.first, len(first.members)) == (1, 0, 3)
    assert await form(account, source, known=cohorts.Known(0, 0), limit=3) == first  # the answer was lost
    second = await form(account, source, known=cohorts.Known(1, 3), limit=3)
    assert second and (second.number, len(second.members)) == (2, 2)
    assert {each.contact_id for each in (*first.members, *second.members)} == set(those)
    assert await form(account, source, known=cohorts.Known(2, 2), limit=3) is None


async def test_the_first_answer_is_given_again_as_long_as_nobody_has_taken_a_step(account: TestAccount) -> None:
    source = await automation(account)
    await happens(account, "order.placed", *await people(account, 5))
    await route(account)
    first = await form(account, source, limit=3)
    assert first and len(first.members) == 3
    assert await form(account, source, limit=3) == first  # the answer was lost
    async with account.transaction() as tx:
        await tx.execute(
            text("UPDATE enrollments SET step = 'send' WHERE source_id = :id AND member = 2"), {"id": source}
        )
    second = await form(account, source, limit=3)  # everything was lost, but what is on record
    assert second and (second.number, len(second.members)) == (2, 2)


async def test_newcomers_join_a_young_cohort_as_far_as_there_is_room_and_while_it_is_open(
    account: TestAccount,
) -> None:
    source = await automation(account, reentry="always")
    those = await people(account, 6)
    for count, known, expected in (
        (2, None, (1, 0, 2)),
        (1, (1, 2), (1, 2, 1)),
        (2, (1, 3), (1, 3, 1)),  # one more has room
        (0, (1, 4), (2, 0, 1)),
    ):
        if count:
            await happens(account, "order.placed", *[those.pop() for _ in range(count)])
            await route(account)
        joined = await form(account, source, known=known and cohorts.Known(*known), joins=True, limit=4)
        assert joined and (joined.number, joined.first, len(joined.members)) == expected
    async with account.transaction() as tx:
        await tx.execute(text("UPDATE cohorts SET state = 'ended'"))
    await happens(account, "order.placed", those.pop())
    await route(account)
    alone = await form(account, source, known=cohorts.Known(2, 1), joins=True, limit=4)
    assert alone and (alone.number, alone.first) == (3, 0)


async def test_nobody_is_put_into_a_cohort_of_an_automation_that_is_held(account: TestAccount) -> None:
    source = await automation(account)
    await happens(account, "order.placed", *await people(account, 2))
    await route(account)
    async with account.transaction() as tx:
        await automations.move(tx, source, AutomationState.PAUSED)
    assert await form(account, source) is None
    async with account.transaction() as tx:
        await automations.move(tx, source, AutomationState.ACTIVE)
    formed = await form(account, source)
    assert formed and len(formed.members) == 2


# -- lost ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cancelled", "state"), [(False, "failed"), (True, "cancelled")])
async def test_whoever_was_in_a_lost_cohort_ends_with_its_step_and_what_was_planned(
    account: TestAccount, cancelled: bool, state: str
) -> None:
    source = await automation(account)
    zoe, joe = await people(account, 2)
    await happens(account, "order.placed", zoe, joe)
    await route(account)
    assert await form(account, source)
    async with account.transaction() as tx:
        at_work = Noted([0, 1], [0, 0], "send:welcome", "send", NOW, None, None, "later", "")
        await enrollments.note(tx, account.id, source, 1, version=1, steps=[at_work], now=NOW)
        (first, second) = (await enrollments.members(tx, source, 1, [0, 1])).values()
        asked = [Asked(each.id, each.contact_id, 0) for each in (first, second)]
        await journeys.plan_messages(tx, account.id, source, 1, asked, step="send:welcome", channel="email", now=NOW)
        if cancelled:
            await cohorts.cancel(tx, account.id, source, "enough", now=NOW)
        assert await cohorts.give_up(tx, account.id, source, "automation", 1, "Lost.", now=LATER) == 2
        assert await cohorts.open_ones(tx, source, after=0, limit=10) == {}
        counted = text("SELECT name, n, seconds FROM step_counters WHERE source_id = :id AND step <> ''")
        steps = {row.name: (row.n, row.seconds) for row in await tx.execute(counted, {"id": source})}
        left = text("SELECT DISTINCT left_at FROM enrollment_steps UNION SELECT DISTINCT left_at FROM enrollments")
        assert list((await tx.execute(left)).scalars()) == [LATER]
        assert set((await tx.execute(text("SELECT DISTINCT state FROM deliveries"))).scalars()) == {"skipped"}
        told = [each.text for each in await notifications.page(tx, kind=None, source_id=source, after=None, limit=10)]
    assert told == ([] if cancelled else [f"Lost. (2 contacts, such as {first.contact_id})"])
    assert steps == {"entered": (2, 0), "broken_off": (2, 600)}
    assert {each[1] for each in await passes(account, source)} == {state}
    assert await figures(account, source) == {"enrolled": 2, state: 2}


async def test_whoever_reached_the_goal_while_its_cohort_was_lost_has_reached_it(account: TestAccount) -> None:
    source = await automation(account, goal={"event": "purchase"})
    buyer, gone, other = await people(account, 3)
    await happens(account, "order.placed", buyer, gone, other)
    await route(account)
    assert await form(account, source)
    await happens(account, "purchase", buyer)
    async with account.transaction() as tx:
        await tx.execute(text("UPDATE contacts SET deleted_at = now() WHERE id = :id"), {"id": gone})
    await route(account)
    async with account.transaction() as tx:
        assert await cohorts.give_up(tx, account.id, source, "automation", 1, "Lost.", now=LATER) == 3
        converted = text("SELECT contact_id FROM enrollments WHERE converted_at IS NOT NULL")
        assert (await tx.execute(converted)).scalars().all() == [buyer]
        (told,) = await notifications.page(tx, kind=None, source_id=source, after=None, limit=10)
    assert (told.kind, told.text) == (NotificationKind.FAILED, f"Lost. (contact {other})")
    assert {contact: (state, why) for contact, state, why in await passes(account, source)} == {
        buyer: ("exited", "goal"),
        gone: ("exited", "contact_deleted"),
        other: ("failed", None),
    }
    assert await figures(account, source) == {
        "enrolled": 3,
        "exited:goal": 1,
        "converted": 1,
        "exited:contact_deleted": 1,
        "failed": 1,
    }


@pytest.mark.parametrize("reentry", ["once", "always"])
async def test_whoever_is_cancelled_is_not_inside_any_more_though_its_cohort_has_not_heard_of_it(
    account: TestAccount, reentry: str
) -> None:
    source = await automation(account, reentry=reentry)
    zoe, joe = await people(account, 2)
    await happens(account, "order.placed", zoe, joe)
    await route(account)
    assert await form(account, source)
    async with account.transaction() as tx:
        waiting = Noted([0, 1], [0, 0], "wait", "wait", NOW, None, None, "", "")
        await enrollments.note(tx, account.id, source, 1, version=1, steps=[waiting], now=NOW)
        await automations.cancel(tx, account.id, source, now=NOW)
        await automations.move(tx, source, AutomationState.ACTIVE)
    await happens(account, "order.placed", zoe)
    await route(account)
    again = [(zoe, "pending", None)] if reentry == "always" else []
    assert await passes(account, source) == [(zoe, "cancelled", "cancelled"), (joe, "active", None), *again]
    async with account.transaction() as tx:  # the cohort hears of it
        assert await cohorts.give_up(tx, account.id, source, "automation", 1, "", now=LATER) == 1
        counted = text("SELECT name, n FROM step_counters WHERE source_id = :id AND step <> ''")
        steps = {row.name: row.n for row in await tx.execute(counted, {"id": source})}
    assert steps == {"entered": 2, "broken_off": 2}
    counted_in = {"enrolled": 3} if again else {"enrolled": 2, "refused:once": 1}
    assert await figures(account, source) == {**counted_in, "cancelled": 2}


async def new_version(account: TestAccount, source: UUID, version: int) -> None:
    async with account.transaction() as tx:
        before = await automations.read(tx, source, lock=True)
        assert before
        await automations.replace(tx, account.id, before, before.definition, version=version)


async def test_whoever_puts_those_who_wait_together_waits_until_they_are_taken_along(account: TestAccount) -> None:
    source = await automation(account)
    await happens(account, "order.placed", *await people(account, 2))
    await route(account)
    await new_version(account, source, 2)
    async with account.transaction() as tx:
        await cohorts.take_along(tx, source, 2)
        forming = asyncio.create_task(form(account, source))
        waits = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
        while not forming.done() and not (await tx.execute(waits)).scalar_one():
            pass
    formed = await forming
    assert formed and (formed.version, len(formed.members)) == (2, 2)
