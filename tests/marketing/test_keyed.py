"""Ids of what is made again."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from database.partitions import uuidv7_floor
from marketing.keyed import keyed_id

MOMENTS = st.integers(0, 7_000_000_000_000).map(lambda ms: datetime.fromtimestamp(ms / 1000, UTC))


@given(MOMENTS, st.lists(st.integers() | st.text() | st.uuids(), max_size=3))
def test_the_same_thing_has_the_same_id_which_is_one_of_its_moment(at: datetime, key: list[object]) -> None:
    made = keyed_id(at, *key)
    assert made == keyed_id(at, *key)
    assert made.version == 7 and made.variant == UUID(int=0x8000_0000_0000_0000).variant
    assert uuidv7_floor(at) <= made < uuidv7_floor(at + timedelta(milliseconds=2))


def test_different_things_have_different_ids() -> None:
    at = datetime(2026, 11, 27, tzinfo=UTC)
    assert len({keyed_id(at, enrollment, call) for enrollment in range(100) for call in range(100)}) == 10_000
