"""An id that is the same whenever the same thing is made again."""

from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from uuid import UUID

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_VERSION, _VARIANT = 7 << 76, 2 << 62  # RFC 9562, §5.7


def keyed_id(at: datetime, *key: object) -> UUID:
    """A UUIDv7 of a moment, with the hash of a key in the place of chance: who makes it twice makes it once."""
    digest = int.from_bytes(blake2b(repr(key).encode(), digest_size=10).digest())
    milliseconds = (at - _EPOCH) // timedelta(milliseconds=1) & (1 << 48) - 1  # whole numbers: a float may lack one
    return UUID(int=milliseconds << 80 | _VERSION | (digest >> 62 & 0xFFF) << 64 | _VARIANT | digest & (1 << 62) - 1)
