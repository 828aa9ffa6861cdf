"""Every list has pages: `{"items": […], "next_cursor": …}`."""

from collections.abc import Callable, Sequence
from typing import Annotated, Generic, TypeVar
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel, Field

Item = TypeVar("Item")

Cursor = Annotated[UUID | None, Query(description="`next_cursor` of the page before.")]
Limit = Annotated[int, Query(ge=1, le=500, description="Items per page.")]


class Page(BaseModel, Generic[Item]):
    """One page of a list, newest first unless the route says otherwise."""

    items: Sequence[Item]
    next_cursor: str | None = Field(None, description="Give it as `cursor` for the next page; null on the last.")


def page_of(found: Sequence[Item], limit: int, cursor: Callable[[Item], object]) -> Page[Item]:
    """A page from `limit + 1` items asked for: the one too many tells that there is a next page."""
    items = found[:limit]
    return Page(items=items, next_cursor=str(cursor(items[-1])) if len(found) > limit else None)
