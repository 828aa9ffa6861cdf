"""What addresses does a message carry, so that an opening, a click or a goodbye finds its way back to us?"""

import hmac
import re
from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import blake2b
from struct import Struct
from typing import NamedTuple
from uuid import UUID

# Long enough for any sane address, short enough that the whole link stays below the 2,083 characters that old
# gateways and browsers cut at.
LONGEST_URL = 1_400
LONGEST_TOKEN = 1_940
TAG_BYTES = 16  # 128 bits: a forger who tries a million a second needs 10^25 years.

TRACKABLE = re.compile(rb"https?://[^\x00-\x20\x7f]+", re.IGNORECASE)

TO_URL_SAFE = bytes.maketrans(b"+/", b"-_")
FROM_URL_SAFE = bytes.maketrans(b"-_", b"+/")

# The first byte of every token says what it is. A new layout takes a new number; old mails keep theirs.
OPEN, CLICK, UNSUBSCRIBE = 1, 2, 3
PURPOSES = {OPEN: b"carillon open", CLICK: b"carillon click", UNSUBSCRIBE: b"carillon goodbye"}
OPEN_LAYOUT = Struct(">B16s16s")
CLICK_LAYOUT = Struct(">B16s16sH")
UNSUBSCRIBE_LAYOUT = Struct(">B16s16s16s")


OF_A_TEST = "test"  # in the place of a token


class Opened(NamedTuple):
    """What an open token vouches for."""

    account_id: UUID
    delivery_id: UUID


class Clicked(NamedTuple):
    """What a click token vouches for. `url` is set for links whose address was written for this recipient alone."""

    account_id: UUID
    delivery_id: UUID
    link: int
    url: str | None


class Leaving(NamedTuple):
    """What an unsubscribe token vouches for: its bearer may change what this contact receives."""

    account_id: UUID
    contact_id: UUID
    delivery_id: UUID


class Tokens:
    """Seals and reads what the links in a message say, with keyed BLAKE2b (RFC 7693, §2.9: a MAC by itself).

    One secret makes one key per kind, so a token of one kind never reads as another. `former` secrets still read,
    for changing the secret; dropping one ends every link that it sealed. `lifetime` ends opens and clicks that old,
    told by the delivery's id (UUIDv7); the way to unsubscribe never ends.
    """

    def __init__(self, secret: bytes, *, former: Sequence[bytes] = (), lifetime: timedelta | None = None) -> None:
        if any(len(key) < 32 for key in (secret, *former)):
            raise ValueError("A secret key has at least 32 bytes.")
        self._lifetime = lifetime
        # A keyed hash that has read nothing yet: copying it costs 0.3 µs, hmac.digest() with SHA-256 1.4 µs.
        self._macs = {
            kind: [blake2b(key=_key(one), digest_size=TAG_BYTES, person=purpose) for one in (secret, *former)]
            for kind, purpose in PURPOSES.items()
        }

    def open(self, account_id: UUID, delivery_id: UUID) -> str:
        return self._seal(OPEN, OPEN_LAYOUT.pack(OPEN, account_id.bytes, delivery_id.bytes))

    def click(self, account_id: UUID, delivery_id: UUID, link: int, url: str | None = None) -> str:
        """Seal a click on link number `link` of the delivery's campaign, or on `url`, written for this recipient.

        Raises:
            ValueError: `url` is not http(s), has spaces or control characters, or is longer than 1,400 bytes.
        """
        target = b"" if url is None else _checked(url)
        return self._seal(CLICK, CLICK_LAYOUT.pack(CLICK, account_id.bytes, delivery_id.bytes, link) + target)

    def unsubscribe(self, account_id: UUID, contact_id: UUID, delivery_id: UUID) -> str:
        parts = (account_id.bytes, contact_id.bytes, delivery_id.bytes)
        return self._seal(UNSUBSCRIBE, UNSUBSCRIBE_LAYOUT.pack(UNSUBSCRIBE, *parts))

    def read_open(self, token: str, now: datetime) -> Opened | None:
        if (payload := self._unseal(OPEN, token)) is None:
            return None
        _, account, delivery = OPEN_LAYOUT.unpack(payload)
        return None if self._too_old(delivery, now) else Opened(UUID(bytes=account), UUID(bytes=delivery))

    def read_click(self, token: str, now: datetime) -> Clicked | None:
        if (payload := self._unseal(CLICK, token)) is None:
            return None
        _, account, delivery, link = CLICK_LAYOUT.unpack_from(payload)
        url = payload[CLICK_LAYOUT.size :].decode() or None
        return None if self._too_old(delivery, now) else Clicked(UUID(bytes=account), UUID(bytes=delivery), link, url)

    def read_unsubscribe(self, token: str) -> Leaving | None:
        if (payload := self._unseal(UNSUBSCRIBE, token)) is None:
            return None
        _, account, contact, delivery = UNSUBSCRIBE_LAYOUT.unpack(payload)
        return Leaving(UUID(bytes=account), UUID(bytes=contact), UUID(bytes=delivery))

    def _seal(self, kind: int, payload: bytes) -> str:
        mac = self._macs[kind][0].copy()
        mac.update(payload)
        return _spell(payload + mac.digest())

    def _unseal(self, kind: int, token: str) -> bytes | None:
        """The payload if one of our secrets sealed exactly this spelling of it, else None."""
        if len(token) > LONGEST_TOKEN:
            return None
        try:
            sealed = a2b_base64(token.encode("ascii").translate(FROM_URL_SAFE) + b"=" * (-len(token) % 4))
        except ValueError:
            return None
        # Base64 has several spellings of the same bytes (spare bits, characters it ignores): only ours counts.
        if len(sealed) <= TAG_BYTES or sealed[0] != kind or _spell(sealed) != token:
            return None
        payload, tag = sealed[:-TAG_BYTES], sealed[-TAG_BYTES:]
        genuine = False
        for key in self._macs[kind]:
            mac = key.copy()
            mac.update(payload)
            genuine |= hmac.compare_digest(mac.digest(), tag)
        return payload if genuine else None

    def _too_old(self, delivery: bytes, now: datetime) -> bool:
        if self._lifetime is None:
            return False
        planned_at = int.from_bytes(delivery[:6]) / 1000  # UUIDv7 starts with Unix milliseconds (RFC 9562, §5.7)
        return now.timestamp() - planned_at > self._lifetime.total_seconds()


class RecipientLinks:
    """The addresses and headers that one message carries for its recipient."""

    def __init__(self, public_url: str, tokens: Tokens) -> None:
        self._start = public_url.rstrip("/")
        self._tokens = tokens

    def pixel(self, account_id: UUID, delivery_id: UUID) -> str:
        """The image that tells us of an opening."""
        return f"{self._start}/t/o/{self._tokens.open(account_id, delivery_id)}"

    def click(self, account_id: UUID, delivery_id: UUID, link: int) -> str:
        """The way to link number `link` of the campaign, 0 to 65,535."""
        return f"{self._start}/t/c/{self._tokens.click(account_id, delivery_id, link)}"

    def click_to(self, account_id: UUID, delivery_id: UUID, link: int, url: str) -> str:
        """The way to `url`, written for this recipient alone; `url` itself where it can't be tracked.

        An address of more than 1,400 bytes works uncounted rather than not at all.
        """
        try:
            return f"{self._start}/t/c/{self._tokens.click(account_id, delivery_id, link, url)}"
        except ValueError:
            return url

    def unsubscribe(self, account_id: UUID, contact_id: UUID, delivery_id: UUID) -> str:
        return f"{self._start}/u/{self._tokens.unsubscribe(account_id, contact_id, delivery_id)}"

    def unsubscribe_of_a_test(self) -> str:
        """Leads to a page that explains itself: a test message has nobody to unsubscribe."""
        return f"{self._start}/u/{OF_A_TEST}"

    def preferences(self, account_id: UUID, contact_id: UUID, delivery_id: UUID) -> str:
        """Whoever may unsubscribe may choose topics: the page takes the same token."""
        return f"{self._start}/p/{self._tokens.unsubscribe(account_id, contact_id, delivery_id)}"


def list_headers(unsubscribe_url: str, *, mailto: str | None = None) -> Mapping[str, str]:
    """`List-Unsubscribe` (RFC 2369) with one-click (RFC 8058). `mailto` is an address that somebody reads."""
    ways = f"<{unsubscribe_url}>" + (f", <mailto:{mailto}?subject=unsubscribe>" if mailto else "")
    return {"List-Unsubscribe": ways, "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"}


def feedback_id(account_id: UUID, campaign_id: UUID, kind: str) -> str:
    """`Feedback-ID` for Gmail's complaint reports: up to three names of ours, then a steady 5-15 character sender."""
    return f"{campaign_id.hex}:{kind}::{account_id.hex[-12:]}"  # a UUIDv7 ends in chance and starts with the hour


def _key(secret: bytes) -> bytes:
    return blake2b(secret, person=b"carillon links").digest()


def _spell(sealed: bytes) -> str:
    return b2a_base64(sealed, newline=False).translate(TO_URL_SAFE, b"=").decode("ascii")


def _checked(url: str) -> bytes:
    target = url.encode()
    if not TRACKABLE.fullmatch(target):
        raise ValueError("Only http and https links without spaces or control characters can be tracked.")
    if len(target) > LONGEST_URL:
        raise ValueError(f"A tracked link has at most {LONGEST_URL:,} bytes.")
    return target
