"""`/api/segments/preview`, `/compare`, `/{id}/performance`, `/{id}/history`: how many, and what of it?"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from api.auth import Viewer
from api.errors import Conflict, Malformed, NotFound
from api.paging import Cursor, Limit, Page, moment_cursor, page_of, read_moment
from api.segments import check_named, find
from database import contacts, segment_reports, stored_segments
from database.engine import Connection, TooSlow, deadline
from database.segment_reports import Window
from database.segments import TakesTooLong, count_and_sample
from marketing.contacts import Contact
from marketing.moments import Moment
from marketing.segment_reports import Change, Compared, Comparison, Performance, Step
from marketing.segment_sentences import describe
from marketing.segments import Criteria
from marketing.text import Printable

router = APIRouter(prefix="/api/segments", tags=["segments"])

SAMPLE = 10
USUAL_WINDOW = timedelta(days=30)
REPORT_SECONDS = 30
MOST_COMPARED = 5

Goal = Annotated[Printable, Field(min_length=1, max_length=200, description="Name of the event that is a conversion.")]


# -- preview ---------------------------------------------------------------------------------------------------------


class PreviewRequest(BaseModel):
    """Criteria that are no segment yet."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"example": {"criteria": {"all": [{"field": "country", "in": ["FR", "DE"]}]}}},
    )

    criteria: Criteria


class Preview(BaseModel):
    """Who would belong right now."""

    size: int
    sample: list[Contact] = Field(description=f"Up to {SAMPLE} of them.")
    description: str = Field(description="The criteria as an English sentence.")


@router.post("/preview")
async def preview_segment(wanted: PreviewRequest, caller: Viewer) -> Preview:
    """Count who meets criteria right now, and show a few. Nothing is kept."""
    async with caller.transaction() as tx:
        await check_named(tx, wanted.criteria, "body.criteria")
        try:
            size, ids = await count_and_sample(tx, wanted.criteria, now=datetime.now(UTC), limit=SAMPLE)
        except TakesTooLong as error:
            raise Conflict(str(error)) from None
        names = await stored_segments.names(tx, [wanted.criteria])
        shown = await contacts.several(tx, ids)
    return Preview(size=size, sample=shown, description=describe(wanted.criteria, names))


# -- what they bring -------------------------------------------------------------------------------------------------


class ComparisonRequest(BaseModel):
    """Which segments, and what of their performance."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "segments": ["01976e1c-7c40-7000-8000-000000000001", "01976e1c-7c40-7000-8000-000000000002"],
                "goal": "purchase",
            }
        },
    )

    segments: list[UUID] = Field(min_length=2, max_length=MOST_COMPARED, json_schema_extra={"uniqueItems": True})
    since: Moment | None = Field(None, description="30 days before `until`, if not given.")
    until: Moment | None = Field(None, description="Before this moment; now, if not given.")
    goal: Goal = "purchase"


@router.post("/compare")
async def compare_segments(wanted: ComparisonRequest, caller: Viewer) -> Comparison:
    """Segments side by side: sizes, what they have in common, and what they bring."""
    if len(set(wanted.segments)) < len(wanted.segments):
        raise Malformed("body.segments: name each segment once.")
    window = _window(wanted.since, wanted.until, wanted.goal)
    async with caller.transaction() as tx:
        names = await stored_segments.named(tx, wanted.segments)
        if missing := [str(each) for each in wanted.segments if each not in names]:
            raise NotFound(f"There is no such segment: {', '.join(missing)}. GET /api/segments lists yours.")
        async with _in_time(tx):
            overlaps = await segment_reports.overlaps(tx, wanted.segments)
            sizes = {each: overlaps.size(place) for place, each in enumerate(wanted.segments)}
            performances = await segment_reports.performances(tx, sizes, window)
    compared = [
        Compared(
            id=each, name=names[each], size=sizes[each], unique=overlaps.unique(place), performance=performances[each]
        )
        for place, each in enumerate(wanted.segments)
    ]
    return Comparison(
        **vars(window), segments=compared, overlaps=overlaps.pairs(), union=overlaps.union, common=overlaps.common
    )


class PerformanceAnswer(Performance):
    """What a segment brings, and within which window."""

    since: datetime
    until: datetime
    goal: str


@router.get("/{segment_id}/performance")
async def performance_of_segment(
    segment_id: UUID,
    caller: Viewer,
    since: Annotated[Moment | None, Query(description="30 days before `until`, if not given.")] = None,
    until: Annotated[Moment | None, Query(description="Before this moment; now, if not given.")] = None,
    goal: Goal = "purchase",
) -> PerformanceAnswer:
    """What was sent to those who are members now, what they did with it, and what they bought."""
    window = _window(since, until, goal)
    async with caller.transaction() as tx:
        segment = await find(tx, segment_id)
        async with _in_time(tx):
            found = await segment_reports.performances(tx, {segment_id: segment.size}, window)
    return PerformanceAnswer(**dict(found[segment_id]), **vars(window))


def _window(since: datetime | None, until: datetime | None, goal: str) -> Window:
    until = until or datetime.now(UTC)
    since = since or until - USUAL_WINDOW
    if since >= until:
        raise Malformed("`since` must be before `until`.")
    return Window(since, until, goal)


@asynccontextmanager
async def _in_time(tx: Connection) -> AsyncIterator[None]:
    try:
        async with deadline(tx, REPORT_SECONDS):
            yield
    except TooSlow:
        raise Conflict(
            f"This can't be counted within {REPORT_SECONDS} s. Ask for a shorter window: `since` and `until`."
        ) from None


# -- how they grew ---------------------------------------------------------------------------------------------------


@router.get("/{segment_id}/history")
async def history_of_segment(
    segment_id: UUID,
    caller: Viewer,
    by: Annotated[Step, Query(description="In UTC.")] = "hour",
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[Change]:
    """How many entered and left in each hour or day, and the size at its end; newest first, without idle ones."""
    async with caller.transaction() as tx:
        await find(tx, segment_id)
        before = read_moment(cursor) if cursor else None
        found = await segment_reports.history(tx, segment_id, by, before=before, limit=limit + 1)
    return page_of(found, limit, lambda change: moment_cursor(change.start))
