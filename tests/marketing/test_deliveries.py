"""How many messages went wrong lately, and when is one tried again?"""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from marketing.deliveries import MOST_ATTEMPTS, ErrorWindow, retry_delay

SETS = st.lists(st.integers(1, 50).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))), max_size=200)


@given(SETS)
def test_the_window_holds_at_least_its_size_and_at_most_one_set_more(sets: list[tuple[int, int]]) -> None:
    window = ErrorWindow(size=1000)
    for messages, errors in sets:
        window.add(messages, errors)
    total = sum(messages for messages, _ in sets)
    assert min(total, 1000) <= window.seen < 1000 + 50 or window.seen == total
    newest = sets[len(sets) - len(window.sets) :]
    assert window.sets == newest


def test_a_few_errors_at_the_start_do_not_trip() -> None:
    window = ErrorWindow()
    window.add(50, 50)
    assert not window.trips(0.05)
    window.add(50, 0)
    assert window.trips(0.05)
    assert not window.trips(0.5)


def test_old_errors_are_forgotten() -> None:
    window = ErrorWindow()
    window.add(100, 100)
    for _ in range(20):
        window.add(50, 0)
    assert window.rate == 0


def test_retries_end_within_72_hours() -> None:
    delays = [retry_delay(attempt) for attempt in range(1, MOST_ATTEMPTS)]
    assert delays == sorted(delays)
    assert timedelta(hours=60) < sum(delays, timedelta()) <= timedelta(hours=72)
