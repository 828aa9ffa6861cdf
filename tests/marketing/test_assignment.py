"""Assignment is by chance over contacts, and by nothing else for one of them."""

from collections import Counter
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from marketing.assignment import HOLDOUT, REST, bucket, cells_of_test, shared_out

KEY = "experiment:0191d0e2-0000-7000-8000-000000000001"
# Ids as the database makes them: all of one second, counted on.
IDS = [UUID(int=(0x0191D0E2_0000_7000_8000_000000000000) + n) for n in range(100_000)]
PLACES = [bucket(KEY, each) for each in IDS]
weights = st.dictionaries(st.text(min_size=1, max_size=5), st.floats(0.01, 1000), min_size=1, max_size=10)


def test_the_number_of_a_contact_is_what_the_hash_of_key_and_id_says() -> None:
    # `printf 'a' | cat - <(head -c 16 /dev/zero) | sha256sum` begins with bd5886cac9b2.
    assert bucket("a", UUID(int=0)) == 0xBD5886CAC9B2 / 2**48


def test_a_hundred_thousand_contacts_are_spread_evenly() -> None:
    found = Counter(int(place * 100) for place in PLACES)
    assert len(found) == 100
    assert chisquare(list(found.values())).pvalue > 0.001


def test_two_experiments_share_out_the_same_contacts_independently() -> None:
    other = [bucket(KEY + "2", each) for each in IDS]
    both = Counter((int(a * 10), int(b * 10)) for a, b in zip(PLACES, other, strict=True))
    assert chisquare([both[a, b] for a in range(10) for b in range(10)]).pvalue > 0.001


def test_cells_are_as_large_as_they_should_be() -> None:
    cells = cells_of_test({"A": 1, "B": 1, "C": 2}, holdout=0.1, test_fraction=0.4)
    found = Counter(cells.of(place) for place in PLACES)
    names = [HOLDOUT, "A", "B", "C", REST]
    expected = [10_000, 9_000, 9_000, 18_000, 54_000]
    assert chisquare([found[name] for name in names], expected).pvalue > 0.001


@given(weights, st.floats(0, 0.5), st.floats(0.001, 1), st.integers(0, 2**48 - 1))
def test_each_place_has_a_cell_and_nobody_waits_where_all_take_part(
    weights: dict[str, float], holdout: float, test_fraction: float, place: int
) -> None:
    cells = cells_of_test(weights, holdout=holdout, test_fraction=test_fraction)
    assert list(cells.cuts) == sorted(cells.cuts)
    assert len(cells.names) == len(cells.cuts) + 1
    found = cells.of(place / 2**48)
    assert found in {HOLDOUT, REST, *weights}
    everybody = cells_of_test(weights, holdout=holdout, test_fraction=1)
    assert everybody.of(place / 2**48) != REST
    assert (everybody.of(place / 2**48) == HOLDOUT) == (place / 2**48 < holdout)


def test_a_larger_test_moves_nobody_out_of_the_first_variant() -> None:
    small, large = (cells_of_test({"A": 1}, holdout=0, test_fraction=share) for share in (0.1, 0.3))
    stayed = [place for place in PLACES[:5000] if small.of(place) == "A"]
    assert stayed and all(large.of(place) == "A" for place in stayed)


@pytest.mark.parametrize(("given", "expected"), [({"A": 3, "B": 1}, [0.75]), ({"A": 1}, []), ({"A": 1, "B": 1}, [0.5])])
def test_a_whole_is_shared_out_by_weight(given: dict[str, float], expected: list[float]) -> None:
    cells = shared_out(given)
    assert list(cells.cuts) == expected
    assert {cells.of(place) for place in PLACES[:1000]} == set(given)
