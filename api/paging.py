"""Every list has pages: `{"items": […], "next_cursor": …}`."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Generic, TypeVar
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel, Field

Item = TypeVar("Item")

Cursor = Annotated[UUID | None, Query(description="`next_cursor` of the page before.")]
# Of lists that are in the order of two ids.
PairCursor = Annotated[
    str | None, Query(pattern="^[A-Za-z0-9_-]{43}$", description="`next_cursor` of the page before.")
]
Limit = Annotated[int, Query(ge=1, le=500, description="Items per page.")]


class Page(BaseModel, Generic[Item]):
    """One page of a list, newest first unless the route says otherwise."""

    items: Sequence[Item]
    next_cursor: str | None = Field(None, description="Give it as `cursor` for the next page; null on the last.")


def page_of(found: Sequence[Item], limit: int, cursor: Callable[[Item], object]) -> Page[Item]:
    """A page from `limit + 1` items asked for: the one too many tells that there is a next page."""
    items = found[:limit]
    return Page(items=items, next_cursor=str(cursor(items[-1])) if len(found) > limit else None)


def pair_cursor(first: UUID, second: UUID) -> str:
    return urlsafe_b64encode(first.bytes + second.bytes).decode().rstrip("=")


def read_pair(cursor: str | None) -> tuple[UUID, UUID] | None:
    """The ids that the page before ended with."""
    if cursor is None:
        return None
    ids = urlsafe_b64decode(cursor + "=")
    return UUID(bytes=ids[:16]), UUID(bytes=ids[16:])


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def moment_cursor(moment: datetime) -> UUID:
    """For lists in the order of moments: an id that begins with one, as those of UUIDv7 do, to the millisecond."""
    return UUID(int=(moment - _EPOCH) // timedelta(milliseconds=1) << 80)


def read_moment(cursor: UUID) -> datetime:
    """The moment that the page before ended with."""
    return _EPOCH + timedelta(milliseconds=min(cursor.int >> 80, 2**47))  # in the year 6429: later is like never
