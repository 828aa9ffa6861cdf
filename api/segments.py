"""`/api/segments`: who belongs, by criteria or by hand."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from api.auth import Editor, Viewer
from api.errors import Conflict, Malformed, NotFound
from api.paging import Cursor, Limit, Page, page_of
from database import code_automations, stored_segments
from database.engine import Connection
from database.stored_segments import Segment, SegmentFilter, User
from marketing.segment_sentences import describe
from marketing.segments import Criteria, follows, segments_in, written
from marketing.stored_segments import SegmentDefinition, SegmentKind, SegmentState, loop, named_in
from marketing.text import Printable
from workflows.code import Loaded
from workflows.segments import start_refresh

router = APIRouter(prefix="/api/segments", tags=["segments"])

_ONE = "/{segment_id:uuid}"  # /api/segments/compare is no segment


class SegmentAnswer(BaseModel):
    """A segment as it is read: what its author wrote, and how far its membership is."""

    id: UUID
    name: str
    kind: SegmentKind
    criteria: Criteria | None
    description: str = Field(description="The criteria as an English sentence.")
    size: int
    state: SegmentState
    settled_at: datetime | None = Field(description="When all of its members were last worked out.")
    problem: str = Field(description="Why that could not be done; empty if all is well.")
    created_at: datetime
    updated_at: datetime


@router.post("", status_code=201)
async def create_segment(definition: SegmentDefinition, request: Request, caller: Editor) -> SegmentAnswer:
    """Make a segment. A dynamic one is `building` until its members are found."""
    async with caller.transaction() as tx:
        await stored_segments.alone(tx, caller.account_id)
        await check_named(tx, definition.criteria, "body.criteria")
        segment = await stored_segments.create(tx, caller.account_id, definition)
        (made,) = await _answers(tx, [segment])
    if segment.state is SegmentState.BUILDING:
        await start_refresh(request.app.state.temporal, caller.account_id, segment.id)
    return made


@router.get("")
async def list_segments(
    caller: Viewer,
    kind: SegmentKind | None = None,
    search: Annotated[Printable | None, Query(max_length=200, description="Part of the name.")] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[SegmentAnswer]:
    """Segments, newest first."""
    async with caller.transaction() as tx:
        found = await stored_segments.page(tx, SegmentFilter(kind, search), after=cursor, limit=limit + 1)
        return page_of(await _answers(tx, found), limit, lambda each: each.id)


@router.get(_ONE)
async def read_segment(segment_id: UUID, caller: Viewer) -> SegmentAnswer:
    """A segment, with what its criteria say."""
    async with caller.transaction() as tx:
        (found,) = await _answers(tx, [await find(tx, segment_id)])
        return found


@router.put(_ONE)
async def replace_segment(
    segment_id: UUID, definition: SegmentDefinition, request: Request, caller: Editor
) -> SegmentAnswer:
    """Replace a segment. With other criteria it is `building` until its members are found, who enter and leave it."""
    async with caller.transaction() as tx:
        await stored_segments.alone(tx, caller.account_id)
        segment = await find(tx, segment_id, lock=True)
        if definition.kind is not segment.kind:
            raise Conflict(f"This segment is {segment.kind} and stays so. Make another one: POST /api/segments.")
        if definition.name != segment.name:
            callers = await stored_segments.callers(tx, segment)
            if segment.kind is SegmentKind.STATIC:
                callers += await _in_code(tx, segment, None, request)
            _check_unused(f"“{segment.name}” is called by its name by", callers)
        await check_named(tx, definition.criteria, "body.criteria")
        await _check_for_loops(tx, segment_id, definition)
        replaced = await stored_segments.replace(tx, caller.account_id, segment, definition)
        (changed,) = await _answers(tx, [replaced])
    if replaced.state is SegmentState.BUILDING:
        await start_refresh(request.app.state.temporal, caller.account_id, segment_id)
    return changed


@router.delete(_ONE, status_code=204)
async def delete_segment(segment_id: UUID, request: Request, caller: Editor) -> None:
    """Delete a segment that no other segment and no open campaign uses. Drafts are told when they are launched."""
    async with caller.transaction() as tx:
        await stored_segments.alone(tx, caller.account_id)
        segment = await find(tx, segment_id, lock=True)
        users = await stored_segments.users(tx, segment_id) + await _in_code(tx, segment, segment_id, request)
        _check_unused(f"“{segment.name}” is used by", users)
        await stored_segments.remove(tx, segment_id)


@router.post("/{segment_id}/refresh", status_code=202)
async def refresh_segment(segment_id: UUID, request: Request, caller: Editor) -> SegmentAnswer:
    """Work out all members anew, in the background; who belongs is kept up to date without it."""
    async with caller.transaction() as tx:
        segment = await find(tx, segment_id)
        if segment.kind is SegmentKind.STATIC:
            raise Conflict("A static segment has no criteria to go by. Add and remove members: …/members.")
        (answer,) = await _answers(tx, [segment])
    await start_refresh(request.app.state.temporal, caller.account_id, segment_id)
    return answer


# -- what is checked, and told ---------------------------------------------------------------------------------------


async def _in_code(tx: Connection, segment: Segment, segment_id: UUID | None, request: Request) -> list[User]:
    """The automations in Python that know it by its name, or by this id."""
    code: Loaded = request.app.state.code
    return await code_automations.at_work(tx, code.naming("segment", segment.name, segment_id))


def _check_unused(told: str, users: Sequence[User]) -> None:
    if users:
        who = ", ".join(f"the {each.kind} “{each.name}”" for each in users[:3])
        more = f" and {len(users) - 3} more" if len(users) > 3 else ""
        raise Conflict(
            f"{told} {who}{more}. Change, cancel or delete what uses it first.",
            used_by=[{"kind": each.kind, "id": str(each.id), "name": each.name} for each in users],
        )


async def find(tx: Connection, segment_id: UUID, *, lock: bool = False) -> Segment:
    """The segment, or a 404; with `lock` nobody else changes it until this transaction ends."""
    segment = await stored_segments.read(tx, segment_id, lock=lock)
    if segment is None:
        raise NotFound("There is no such segment. GET /api/segments lists yours.")
    return segment


async def check_named(tx: Connection, criteria: Criteria | None, path: str) -> None:
    """A 422 that says where, unless every segment that the criteria name exists."""
    if criteria is None:
        return
    known = await stored_segments.named(tx, segments_in(criteria))
    wrong = [
        {"path": f"{path}.{place}", "message": f"there is no segment {each}"}
        for place, each in named_in(written(criteria))
        if each not in known
    ]
    if wrong:
        raise Malformed(f"{wrong[0]['path']}: {wrong[0]['message']}. GET /api/segments lists yours.", errors=wrong)


async def _check_for_loops(tx: Connection, segment_id: UUID, definition: SegmentDefinition) -> None:
    if (criteria := definition.criteria) is None:
        return
    looks_at = await stored_segments.looks(tx)
    own = segments_in(criteria) | ({segment_id} if follows(criteria, segment_id) else set())
    if way := loop(segment_id, {**looks_at, segment_id: own}):
        names = await stored_segments.named(tx, way) | {segment_id: definition.name}
        told = " → ".join(f"“{names[each]}”" for each in way)
        raise Conflict(
            f"Who belongs would depend on itself: {told}. Leave one of these steps out.",
            loop=[str(each) for each in way],
        )


async def _answers(tx: Connection, segments: list[Segment]) -> list[SegmentAnswer]:
    names = await stored_segments.names(tx, [segment.criteria for segment in segments if segment.criteria])
    return [
        SegmentAnswer(
            **vars(segment),
            description=describe(segment.criteria, names) if segment.criteria else "Whoever was added by hand.",
        )
        for segment in segments
    ]
