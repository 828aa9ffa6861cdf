"""A token says what we sealed into it, to nobody but us, in one spelling only."""

import random
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketing.tracking import (
    LONGEST_TOKEN,
    LONGEST_URL,
    Clicked,
    Leaving,
    Opened,
    RecipientLinks,
    Tokens,
    feedback_id,
    list_headers,
)

NOW = datetime(2026, 11, 27, 9, tzinfo=UTC)
SECRET = b"a secret of this test, 32 bytes!"
TOKENS = Tokens(SECRET)
ACCOUNT = UUID("01a1c000-0000-7000-8000-00000000aaaa")
CONTACT = UUID("01a1c000-0000-7000-8000-00000000cccc")
DELIVERY = UUID("01a1c000-0000-7000-8000-00000000dddd")
URL_SAFE = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

READERS: list[Callable[[str], object]] = [
    lambda token: TOKENS.read_open(token, NOW),
    lambda token: TOKENS.read_click(token, NOW),
    TOKENS.read_unsubscribe,
]
TOKEN_OF_EACH_KIND = [
    TOKENS.open(ACCOUNT, DELIVERY),
    TOKENS.click(ACCOUNT, DELIVERY, 3),
    TOKENS.click(ACCOUNT, DELIVERY, 3, "https://example.com/offer?code=A1"),
    TOKENS.unsubscribe(ACCOUNT, CONTACT, DELIVERY),
]


def accepted(token: str) -> bool:
    return any(read(token) is not None for read in READERS)


@given(st.uuids(), st.uuids(), st.uuids(), st.integers(0, 65_535))
def test_a_token_reads_back_as_what_was_sealed(account: UUID, contact: UUID, delivery: UUID, link: int) -> None:
    assert TOKENS.read_open(TOKENS.open(account, delivery), NOW) == Opened(account, delivery)
    assert TOKENS.read_click(TOKENS.click(account, delivery, link), NOW) == Clicked(account, delivery, link, None)
    leaving = TOKENS.unsubscribe(account, contact, delivery)
    assert TOKENS.read_unsubscribe(leaving) == Leaving(account, contact, delivery)


@given(st.text(st.characters(exclude_categories=["Cs", "Cc", "Zs"]), min_size=1, max_size=300))
def test_a_link_written_for_one_recipient_travels_inside_its_token(path: str) -> None:
    url = f"https://example.com/{path}"
    token = TOKENS.click(ACCOUNT, DELIVERY, 7, url)
    assert TOKENS.read_click(token, NOW) == Clicked(ACCOUNT, DELIVERY, 7, url)


@given(st.sampled_from(TOKEN_OF_EACH_KIND), st.text())
def test_any_text_is_refused_without_an_exception(token: str, noise: str) -> None:
    for changed in (noise, token + noise, noise + token):
        assert changed == token or not accepted(changed)


def damaged(chance: random.Random) -> Iterator[str]:
    """Forged, truncated, lengthened, bit-flipped and respelled tokens, without end."""
    while True:
        token = chance.choice(TOKEN_OF_EACH_KIND)
        at = chance.randrange(len(token))
        yield token[:at] + chance.choice(URL_SAFE.replace(token[at], "")) + token[at + 1 :]
        yield token[:at] + chr(ord(token[at]) ^ 1 << chance.randrange(8)) + token[at + 1 :]
        yield token[:at]
        yield token[at:] if at else token[1:]
        yield token[:at] + chance.choice("=+/ \n\0é\ud800.") + token[at:]
        yield token + chance.choice(URL_SAFE) * chance.randrange(1, 5)
        head = token[: chance.randrange(4, len(token))]
        yield head + "".join(chance.choices(URL_SAFE, k=len(token) - len(head)))[:-1] + "!"
        yield "".join(chance.choices(URL_SAFE, k=chance.choice((66, 68, 87, at))))


def test_none_of_200_000_forged_or_damaged_tokens_is_accepted() -> None:
    forgeries = damaged(random.Random(20261127))
    assert not [token for _ in range(200_000) if accepted(token := next(forgeries))]


def test_a_token_of_one_kind_never_reads_as_another() -> None:
    for token in TOKEN_OF_EACH_KIND:
        assert sum(read(token) is not None for read in READERS) == 1


def test_every_other_spelling_of_the_same_bytes_is_refused() -> None:
    for token in TOKEN_OF_EACH_KIND:
        others = {token[:-1] + last for last in URL_SAFE} | {token + "=", token + "==", token + "\n", " " + token}
        others |= {token.replace("-", "+").replace("_", "/")}
        assert not [other for other in others - {token} if accepted(other)]


def test_another_accounts_identity_cannot_be_put_into_a_token() -> None:
    stranger = UUID("01a1c000-0000-7000-8000-00000000ffff")
    for token in TOKEN_OF_EACH_KIND:
        sealed = urlsafe_b64decode(token + "=" * (-len(token) % 4))
        moved = sealed.replace(ACCOUNT.bytes, stranger.bytes)
        assert moved != sealed
        assert not accepted(urlsafe_b64encode(moved).rstrip(b"=").decode())


def test_the_target_of_a_sealed_link_cannot_be_changed() -> None:
    token = TOKENS.click(ACCOUNT, DELIVERY, 1, "https://example.com/offer")
    sealed = urlsafe_b64decode(token + "=" * (-len(token) % 4))
    tampered = sealed.replace(b"example.com", b"example.org")
    assert TOKENS.read_click(urlsafe_b64encode(tampered).rstrip(b"=").decode(), NOW) is None


def test_another_secret_reads_nothing() -> None:
    stranger = Tokens(b"another secret, of 32 bytes too!")
    assert stranger.read_open(TOKENS.open(ACCOUNT, DELIVERY), NOW) is None
    assert stranger.read_unsubscribe(TOKENS.unsubscribe(ACCOUNT, CONTACT, DELIVERY)) is None


def test_a_former_secret_still_reads_and_no_longer_seals() -> None:
    renewed = Tokens(b"the next secret, of 32 bytes too", former=[SECRET])
    assert renewed.read_open(TOKENS.open(ACCOUNT, DELIVERY), NOW) == Opened(ACCOUNT, DELIVERY)
    assert TOKENS.read_open(renewed.open(ACCOUNT, DELIVERY), NOW) is None


def test_opens_and_clicks_end_with_the_lifetime_and_leaving_never_does() -> None:
    year = Tokens(SECRET, lifetime=timedelta(days=365))
    opened, clicked = TOKENS.open(ACCOUNT, DELIVERY), TOKENS.click(ACCOUNT, DELIVERY, 1)
    later = NOW + timedelta(days=800)
    assert year.read_open(opened, NOW)
    assert year.read_click(clicked, NOW)
    assert year.read_open(opened, later) is None
    assert year.read_click(clicked, later) is None
    assert year.read_unsubscribe(TOKENS.unsubscribe(ACCOUNT, CONTACT, DELIVERY))
    assert TOKENS.read_open(opened, later), "without a lifetime nothing ends"


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Tokens(b"short")


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "//example.com",
        "ftp://example.com/",
        "https://example.com/a\r\nSet-Cookie: a=b",
        "https://example.com/a b",
        "https://",
        "",
        "https://example.com/" + "a" * LONGEST_URL,
        "https://example.com/\ud800",
    ],
)
def test_what_is_no_plain_web_address_is_not_sealed_but_stays_as_written(url: str) -> None:
    with pytest.raises(ValueError, match=r"link|surrogates"):
        TOKENS.click(ACCOUNT, DELIVERY, 1, url)
    assert RecipientLinks("https://mail.example.com", TOKENS).click_to(ACCOUNT, DELIVERY, 1, url) == url


def test_the_longest_link_fits_a_token() -> None:
    url = "https://example.com/".ljust(LONGEST_URL, "a")
    token = TOKENS.click(ACCOUNT, DELIVERY, 65_535, url)
    assert len(token) <= LONGEST_TOKEN
    assert TOKENS.read_click(token, NOW) == Clicked(ACCOUNT, DELIVERY, 65_535, url)


def test_a_message_carries_addresses_below_the_public_one() -> None:
    links = RecipientLinks("https://mail.example.com/", TOKENS)
    addresses = {
        "/t/o/": links.pixel(ACCOUNT, DELIVERY),
        "/t/c/": links.click(ACCOUNT, DELIVERY, 2),
        "/u/": links.unsubscribe(ACCOUNT, CONTACT, DELIVERY),
        "/p/": links.preferences(ACCOUNT, CONTACT, DELIVERY),
    }
    for path, address in addresses.items():
        assert address.startswith(f"https://mail.example.com{path}")
        assert accepted(address.rpartition("/")[2])
        assert not urlsplit(address).query


def test_the_list_headers_ask_for_one_click() -> None:
    assert list_headers("https://mail.example.com/u/abc") == {
        "List-Unsubscribe": "<https://mail.example.com/u/abc>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
    }
    both = list_headers("https://mail.example.com/u/abc", mailto="leave@example.com")
    assert both["List-Unsubscribe"] == (
        "<https://mail.example.com/u/abc>, <mailto:leave@example.com?subject=unsubscribe>"
    )


def test_the_feedback_id_has_four_fields_and_a_steady_sender() -> None:
    campaign, kind, spare, sender = feedback_id(ACCOUNT, DELIVERY, "broadcast").split(":")
    assert (campaign, kind, spare) == (DELIVERY.hex, "broadcast", "")
    assert 5 <= len(sender) <= 15
    assert feedback_id(ACCOUNT, CONTACT, "drip").endswith(f":{sender}")
