"""Is it found when segments would depend on themselves?"""

from itertools import pairwise
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from marketing.stored_segments import loop, named_in

_numbers = st.integers(0, 7)


@given(st.dictionaries(_numbers, st.lists(_numbers, max_size=3)), _numbers)
def test_a_loop_is_a_way_back_to_where_it_began_and_none_is_missed(graph: dict[int, list[int]], start: int) -> None:
    looks_at = {UUID(int=one): [UUID(int=each) for each in others] for one, others in graph.items()}
    way = loop(UUID(int=start), looks_at)
    reached, waiting = set[int](), [start]
    while waiting:
        waiting += (news := set(graph.get(waiting.pop(), ())) - reached)
        reached |= news
    assert bool(way) == (start in reached)
    assert all(other in looks_at[one] for one, other in pairwise(way))
    assert not way or way[0] == way[-1] == UUID(int=start)
    assert len(set(way)) == max(len(way) - 1, 0), "no segment is passed twice"


def test_every_place_that_names_a_segment_is_told() -> None:
    one, two = UUID(int=1), UUID(int=2)
    criteria: JsonValue = {
        "all": [{"segment": str(one)}, {"not": {"any": [{"bucket": [0, 1]}, {"segment": str(two)}]}}]
    }
    assert list(named_in(criteria)) == [("all.0.segment", one), ("all.1.not.any.1.segment", two)]
