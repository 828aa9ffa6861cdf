"""Addresses in what others say."""

from hypothesis import example, given
from hypothesis import strategies as st

from marketing.discretion import ADDRESS, mask

WORDS = st.text("abc09._+-üß", min_size=1, max_size=20)


@given(
    WORDS, WORDS, st.sampled_from(["550 <{}> unknown", "(a, e)=(7, {}) exists", "?to={}&n=1", "'{}'", "{}", "x {}."])
)
@example("jo", "[127.0.0.1]", "<{}>")
@example('"jo doe"', "example.org", "to {} at last")
def test_no_address_is_left_wherever_it_stands(local: str, domain: str, words: str) -> None:
    for at in ("@", "%40"):
        masked = mask(words.format(f"{local}{at}{domain}"))
        assert at not in masked and ADDRESS in masked


@given(st.text().filter(lambda said: "@" not in said and "%40" not in said))
def test_a_text_without_addresses_stays_as_it_is(said: str) -> None:
    assert mask(said) == said


def test_masking_takes_time_in_proportion_to_the_text() -> None:
    for long in ("x" * 2_000_000 + "@ %40", "a@" * 500_000, '"' * 1_000_000 + "@", "%40x" * 300_000):
        mask(long)  # the square of these lengths would take hours: the time limit of the test fails it
