"""Is a rate limit kept by a set that is in time, and by one that is late?"""

from time import monotonic

from activities.pace import LATEST, Pace


async def none_more(slots: int) -> float:
    raise AssertionError(f"{slots} more slots were asked for")


async def test_who_is_in_time_leaves_slot_by_slot_and_asks_for_no_more() -> None:
    pace = Pace(200, monotonic(), 20, none_more)
    began = monotonic()
    for left in range(20, 0, -1):
        await pace.keep(left)
    assert monotonic() - began >= 19 / 200


async def test_a_little_late_is_in_time() -> None:
    pace = Pace(200, monotonic() - LATEST / 2, 1, none_more)
    waited = await pace.keep(1)
    assert waited is not None and waited < 0.05


async def test_where_slots_are_far_apart_a_second_is_little() -> None:
    pace = Pace(0.05, monotonic() - 1, 1, none_more)
    waited = await pace.keep(1)
    assert waited is not None and waited < 0.05


async def test_nobody_waits_for_a_slot_that_comes_too_late() -> None:
    async def reserve(slots: int) -> float:
        return monotonic() + 1_000

    pace = Pace(0.001, monotonic() - 300, 1, reserve)
    began = monotonic()
    assert await pace.keep(1, until=began + 30) is None
    assert monotonic() - began < 1


async def test_who_has_missed_slots_uses_those_that_are_left_and_asks_for_the_rest() -> None:
    asked = list[int]()
    reserved = monotonic() + 0.3

    async def reserve(slots: int) -> float:
        asked.append(slots)
        return reserved

    # Half of its twenty slots have passed.
    pace = Pace(200, monotonic() - 0.05 - LATEST, 40, reserve)
    leaving = list[float]()
    for left in range(40, 0, -1):
        await pace.keep(left)
        leaving.append(monotonic())
    assert len(asked) == 1 and 10 <= asked[0] <= 39
    before = [moment for moment in leaving if moment < reserved]
    assert len(before) == 40 - asked[0]
    assert leaving[-1] >= reserved + (asked[0] - 1) / 200


async def test_who_has_missed_everything_begins_anew() -> None:
    asked = list[int]()

    async def reserve(slots: int) -> float:
        asked.append(slots)
        return monotonic() + 0.01

    await Pace(100, monotonic() - 60, 50, reserve).keep(50)
    assert asked == [50]
