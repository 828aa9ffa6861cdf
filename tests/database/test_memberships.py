"""Who belongs after whatever happened at the same time?"""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from database import memberships, stored_segments
from database.memberships import Settled
from marketing.stored_segments import SegmentDefinition
from tests.audience import people
from tests.belonging import change, follow, happened, members, reconciled, segment, told
from tests.conftest import TestAccount


async def settle(account: TestAccount, segment_id: UUID, contacts: list[UUID], **how: bool) -> Settled:
    async with account.transaction() as tx:
        return await memberships.settle(tx, segment_id, contacts, now=datetime.now(UTC), **how)


async def candidates(account: TestAccount, segment_id: UUID) -> list[UUID]:
    async with account.transaction() as tx:
        found = await memberships.candidates(tx, segment_id, now=datetime.now(UTC))
    assert found
    return [each for part in found.slices(3) for each in part]


async def test_who_enters_and_leaves_gives_one_event_and_all_figures_agree(account: TestAccount) -> None:
    a, b, c = await people(account, 3)
    some = await segment(account, name="French")
    await change(account, [a, b], "country = 'FR'")
    assert await settle(account, some, [a, b, c]) == Settled(entered=2)
    assert await settle(account, some, [a, b, c]) == Settled()
    await change(account, [a], "country = 'DE'")
    await change(account, [c], "country = 'FR'")
    assert await settle(account, some, [a, b, c]) == Settled(entered=1, left=1)
    assert await members(account, some) == {b, c}
    assert await told(account, some) == {(a, "entered"): 1, (b, "entered"): 1, (a, "left"): 1, (c, "entered"): 1}
    assert await reconciled(account, some)
    async with account.transaction() as tx:
        query = text("SELECT DISTINCT properties FROM events WHERE name = 'segment.entered' AND account_id = :id")
        (properties,) = (await tx.execute(query, {"id": account.id})).scalars()
    assert properties == {"segment_id": str(some), "name": "French"}


async def test_only_those_who_are_settled_enter_or_leave(account: TestAccount) -> None:
    a, b = await people(account, 2)
    some = await segment(account)
    await change(account, [a, b], "country = 'FR'")
    await settle(account, some, [a])
    assert await members(account, some) == {a}
    await change(account, [a, b], "country = NULL")
    await settle(account, some, [b])
    assert await members(account, some) == {a}


async def test_a_change_that_is_committed_while_we_settle_is_settled_next(account: TestAccount) -> None:
    (a,) = await people(account, 1)
    some = await segment(account)
    async with account.transaction() as tx:
        await memberships.settle(tx, some, [a], now=datetime.now(UTC))
        await change(account, [a], "country = 'FR'")
    assert await members(account, some) == set()
    await follow(account)
    assert await members(account, some) == {a}


async def test_who_settles_later_sees_no_less(account: TestAccount) -> None:
    (a,) = await people(account, 1)
    some = await segment(account)
    await change(account, [a], "country = 'FR'")
    async with account.transaction() as tx:  # has seen that they belong, and is slow to say so
        await memberships.settle(tx, some, [a], now=datetime.now(UTC))
        await change(account, [a], "country = 'DE'")
        later = asyncio.create_task(settle(account, some, [a]))
        done, _ = await asyncio.wait([later], timeout=0.2)
        assert not done  # for what it read now might be overtaken
    assert await later == Settled(left=1)
    assert await members(account, some) == set()
    assert await told(account, some) == {(a, "entered"): 1, (a, "left"): 1}


async def test_many_at_once_let_nobody_enter_twice(account: TestAccount) -> None:
    ids = await people(account, 40)
    some = await segment(account)
    await change(account, ids, "country = 'FR'")
    settled = await asyncio.gather(*(settle(account, some, ids) for _ in range(8)))
    assert sum(each.entered for each in settled) == 40
    assert set((await told(account, some)).values()) == {1}
    assert await reconciled(account, some)


async def test_other_criteria_wait_for_who_settles_by_the_old_ones(account: TestAccount) -> None:
    a, b = await people(account, 2)
    some = await segment(account)
    await change(account, [a], "country = 'FR'")
    await change(account, [b], "country = 'DE'")
    german = SegmentDefinition.model_validate({"name": "Some", "criteria": {"field": "country", "is": "DE"}})

    async def put() -> None:
        async with account.transaction() as tx:
            before = await stored_segments.read(tx, some, lock=True)
            assert before
            await stored_segments.replace(tx, account.id, before, german)

    async with account.transaction() as tx:
        await memberships.settle(tx, some, [a, b], now=datetime.now(UTC))
        putting = asyncio.create_task(put())
        done, _ = await asyncio.wait([putting], timeout=0.2)
        assert not done
    await putting
    assert sorted(await candidates(account, some)) == sorted([a, b])
    assert await settle(account, some, [a, b]) == Settled(entered=1, left=1)
    assert await members(account, some) == {b}


async def test_a_segment_is_ready_only_if_its_criteria_are_still_those(account: TestAccount) -> None:
    some = await segment(account)
    async with account.transaction() as tx:
        found = await memberships.candidates(tx, some, now=datetime.now(UTC))
        assert found
        current = await stored_segments.read(tx, some)
        assert current
        german = SegmentDefinition.model_validate({"name": "Some", "criteria": {"field": "country", "is": "DE"}})
        await stored_segments.replace(tx, account.id, current, german)
        await memberships.finish(tx, some, found, now=datetime.now(UTC))
        after = await stored_segments.read(tx, some)
        assert after and after.state == "building"
        again = await memberships.candidates(tx, some, now=datetime.now(UTC))
        assert again
        await memberships.finish(tx, some, again, now=datetime.now(UTC))
        after = await stored_segments.read(tx, some)
    assert after and after.state == "ready"


async def test_nobody_enters_a_segment_that_was_deleted(account: TestAccount) -> None:
    (a,) = await people(account, 1)
    some = await segment(account)
    await change(account, [a], "country = 'FR'")
    async with account.transaction() as tx:
        await stored_segments.remove(tx, some)
    assert await settle(account, some, [a]) == Settled()
    async with account.transaction() as tx:
        assert await memberships.candidates(tx, some, now=datetime.now(UTC)) is None
        assert await memberships.begin(tx, some) is None
        assert await memberships.add(tx, some, [a], now=datetime.now(UTC)) == Settled()
    assert await told(account, some) == {}


@pytest.mark.parametrize("how", ["UPDATE contacts SET deleted_at = now()", "DELETE FROM contacts"])
async def test_a_contact_that_is_gone_leaves_whatever_segment_it_was_in(account: TestAccount, how: str) -> None:
    a, b = await people(account, 2)
    dynamic, static = await segment(account), await segment(account, None)
    await change(account, [a, b], "country = 'FR'")
    async with account.transaction() as tx:
        await memberships.add(tx, static, [a, b], now=datetime.now(UTC))
    await follow(account)
    assert await members(account, dynamic) == await members(account, static) == {a, b}
    async with account.transaction() as tx:
        await tx.execute(text(f"{how} WHERE id = :id"), {"id": a})
    await follow(account)
    for each in (dynamic, static):
        assert await members(account, each) == {b}
        assert (await told(account, each))[a, "left"] == 1
        assert await reconciled(account, each)


async def test_members_are_added_and_removed_by_hand_once(account: TestAccount, other_account: TestAccount) -> None:
    a, b, gone = await people(account, 3)
    (theirs,) = await people(other_account, 1)
    some = await segment(account, None)
    await change(account, [gone], "deleted_at = now()")
    now = datetime.now(UTC)
    async with account.transaction() as tx:
        assert await memberships.add(tx, some, [a, b, a, gone, theirs, uuid4()], now=now) == Settled(entered=2)
        assert await memberships.add(tx, some, [a], now=now) == Settled()
        assert await memberships.remove(tx, some, [b, gone], now=now) == Settled(left=1)
        assert await memberships.among(tx, some, [a, b, gone]) == {a}
    assert await reconciled(account, some)


async def test_candidates_are_who_belongs_and_is_no_member_or_the_other_way_round(account: TestAccount) -> None:
    right, wrong, missing, _ = await people(account, 4)
    more = await people(account, 10, name="more")
    some = await segment(account)
    await change(account, [right, wrong], "country = 'FR'")
    await follow(account)
    await change(account, [wrong], "country = NULL")
    await change(account, [missing, *more], "country = 'FR'")
    assert await candidates(account, some) == sorted([wrong, missing, *more])


async def test_what_nothing_told_of_is_drift_and_what_waits_is_not(account: TestAccount) -> None:
    lost, waiting = await people(account, 2)
    some = await segment(account)
    await change(account, [lost], "country = 'FR'")
    async with account.transaction() as tx:
        await tx.execute(text("DELETE FROM contact_touches"))
    await change(account, [waiting], "country = 'FR'")
    assert await settle(account, some, [lost, waiting], watched=True) == Settled(entered=2, drift=1)
    async with account.transaction() as tx:
        query = text("SELECT drift FROM segment_hours WHERE segment_id = :id")
        assert (await tx.execute(query, {"id": some})).scalars().all() == [1]
    await follow(account)
    assert await reconciled(account, some)


async def test_a_segment_that_fails_waits_ever_longer(account: TestAccount) -> None:
    some = await segment(account)
    minutes = []
    for _ in range(12):
        async with account.transaction() as tx:
            await memberships.fail(tx, some, "It went wrong.")
            query = text("SELECT extract(epoch FROM retry_at - now()) / 60 FROM segments WHERE id = :id")
            minutes.append(int((await tx.execute(query, {"id": some})).scalar_one()))
    assert minutes == [1, 2, 4, 8, 16, 32, 64, 128, 256, 360, 360, 360]


async def test_time_alone_lets_people_enter_and_leave(account: TestAccount) -> None:
    (a,) = await people(account, 1)
    recent = await segment(account, {"event": "purchase", "within": "30 days"})
    idle = await segment(account, {"not": {"event": "purchase", "within": "30 days"}})
    await happened(account, "purchase", a, occurred_at=datetime.now(UTC) - timedelta(days=31))
    for now, expected in ((datetime.now(UTC) - timedelta(days=2), (1, 0)), (datetime.now(UTC), (0, 1))):
        async with account.transaction() as tx:
            for each in (recent, idle):
                await memberships.settle(tx, each, [a], now=now)
        assert (len(await members(account, recent)), len(await members(account, idle))) == expected
