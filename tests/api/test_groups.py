"""Requests share transactions, and each learns what became of its own."""

import asyncio
from collections.abc import Sequence
from uuid import UUID

import pytest

from api.groups import Full, GroupCommit

ONE, TWO = UUID(int=1), UUID(int=2)


class Record:
    """A stand-in for the database that stores when it is let."""

    def __init__(self) -> None:
        self.groups: list[tuple[UUID, list[int]]] = []
        self.open = asyncio.Event()

    async def store(self, account_id: UUID, items: Sequence[int]) -> list[int]:
        await self.open.wait()
        self.groups.append((account_id, list(items)))
        if 13 in items:
            raise ConnectionError("the database went away")
        return [item * 10 for item in items]


async def test_a_lone_item_is_stored_at_once() -> None:
    record = Record()
    record.open.set()
    assert await GroupCommit(record.store).add(ONE, 1) == 10
    assert record.groups == [(ONE, [1])]


async def test_what_arrives_during_a_transaction_is_the_next_one() -> None:
    record = Record()
    groups = GroupCommit(record.store, largest=3)
    first = asyncio.create_task(groups.add(ONE, 1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)  # the first is being stored now
    others = [asyncio.create_task(groups.add(ONE, n)) for n in range(2, 7)]
    await asyncio.sleep(0)
    record.open.set()
    assert await asyncio.gather(first, *others) == [10, 20, 30, 40, 50, 60]
    assert record.groups == [(ONE, [1]), (ONE, [2, 3, 4]), (ONE, [5, 6])]


async def test_only_items_of_one_sort_share_a_group() -> None:
    record = Record()
    record.open.set()
    groups = GroupCommit(record.store, sort=lambda n: n > 9)
    await asyncio.gather(*(groups.add(ONE, n) for n in (1, 2, 10, 20, 3)))
    assert record.groups == [(ONE, [1, 2]), (ONE, [10, 20]), (ONE, [3])]


async def test_accounts_never_share_a_group() -> None:
    record = Record()
    record.open.set()
    groups = GroupCommit(record.store)
    await asyncio.gather(*(groups.add(account, n) for n in range(4) for account in (ONE, TWO)))
    assert sorted(record.groups) == [(ONE, [0, 1, 2, 3]), (TWO, [0, 1, 2, 3])]


async def test_a_failed_group_tells_each_of_its_own_and_the_next_one_works() -> None:
    record = Record()
    record.open.set()
    groups = GroupCommit(record.store)
    results = await asyncio.gather(groups.add(ONE, 12), groups.add(ONE, 13), return_exceptions=True)
    assert [type(result) for result in results] == [ConnectionError, ConnectionError]
    assert await groups.add(ONE, 14) == 140


async def test_too_much_waiting_is_refused_at_once() -> None:
    record = Record()
    groups = GroupCommit(record.store, most_waiting=2)
    waiting = [asyncio.create_task(groups.add(ONE, n)) for n in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Full):
        await groups.add(ONE, 3)
    record.open.set()
    assert await asyncio.gather(*waiting) == [0, 10]


async def test_who_has_waited_long_enough_is_told_and_holds_up_nobody() -> None:
    record = Record()
    groups = GroupCommit(record.store, patience_seconds=0.01)
    with pytest.raises(TimeoutError):
        await groups.add(ONE, 1)
    record.open.set()
    assert await groups.add(ONE, 2) == 20
    assert record.groups == [(ONE, [1]), (ONE, [2])]


async def test_who_stops_waiting_disturbs_nobody() -> None:
    record = Record()
    groups = GroupCommit(record.store)
    gone, stays = (asyncio.create_task(groups.add(ONE, n)) for n in (1, 2))
    await asyncio.sleep(0)
    gone.cancel()
    record.open.set()
    assert await stays == 20


async def test_closing_stores_what_is_waiting() -> None:
    record = Record()
    groups = GroupCommit(record.store)
    task = asyncio.create_task(groups.add(ONE, 1))
    await asyncio.sleep(0)
    record.open.set()
    await groups.close()
    assert record.groups == [(ONE, [1])]
    assert await task == 10


async def test_a_wrong_number_of_answers_is_told_to_all_and_the_next_item_is_stored() -> None:
    async def store(account_id: UUID, items: Sequence[int]) -> list[int]:
        return [item * 10 for item in items if item != 13]

    groups = GroupCommit(store, largest=2)
    async with asyncio.timeout(5):  # not the patience of a minute
        results = await asyncio.gather(*(groups.add(ONE, n) for n in (12, 13, 14)), return_exceptions=True)
        assert [type(result) for result in results[:2]] == [ValueError, ValueError]
        assert results[2] == 140
        assert await groups.add(ONE, 15) == 150


async def test_storing_that_is_cancelled_leaves_nobody_waiting_and_begins_anew() -> None:
    record = Record()
    groups = GroupCommit(record.store, largest=1, most_waiting=2)
    before = asyncio.all_tasks()
    in_hand = asyncio.create_task(groups.add(ONE, 1))
    await asyncio.sleep(0)
    (storing,) = asyncio.all_tasks() - before - {in_hand}
    await asyncio.sleep(0)
    behind = [asyncio.create_task(groups.add(ONE, n)) for n in (2, 3)]
    await asyncio.sleep(0)
    storing.cancel()
    async with asyncio.timeout(5):
        results = await asyncio.gather(in_hand, *behind, return_exceptions=True)
        assert [type(result) for result in results] == [TimeoutError] * 3
        record.open.set()
        assert [await groups.add(ONE, n) for n in (4, 5)] == [40, 50]  # nobody counts as waiting
    assert record.groups == [(ONE, [4]), (ONE, [5])]
