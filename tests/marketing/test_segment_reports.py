"""Do segments overlap as sets do, and are rates shares of something?"""

from collections import Counter
from decimal import Decimal
from itertools import combinations
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from marketing.segment_reports import Overlaps, performance

IDS = [UUID(int=n) for n in range(5)]


@given(st.lists(st.sets(st.integers(0, 20)), min_size=2, max_size=5))
def test_segments_overlap_as_sets_do(sets: list[set[int]]) -> None:
    everybody = set().union(*sets)
    masks = Counter(sum(1 << place for place, each in enumerate(sets) if who in each) for who in everybody)
    found = Overlaps(IDS[: len(sets)], masks)
    assert (found.union, found.common) == (len(everybody), len(set.intersection(*sets)))
    for place, each in enumerate(sets):
        others = set().union(*sets[:place], *sets[place + 1 :])
        assert (found.size(place), found.unique(place)) == (len(each), len(each - others))
    pairs = {each.segments: each.contacts for each in found.pairs()}
    assert pairs == {(IDS[a], IDS[b]): len(sets[a] & sets[b]) for a, b in combinations(range(len(sets)), 2)}


def test_money_is_told_digit_for_digit() -> None:
    told = performance({"members": 3, "converted": 1}, {"EUR": Decimal("0.10") + Decimal("0.20"), "": Decimal("1E+3")})
    assert told.model_dump()["revenue"] == {"": "1000", "EUR": "0.30"}
    assert (told.conversion_rate, told.open_rate) == (0.333333, None)
