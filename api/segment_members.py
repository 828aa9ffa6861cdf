"""`/api/segments/{id}/members`: who belongs right now; and, to a static segment, who shall from now on."""

from collections.abc import Sequence, Set
from datetime import UTC, datetime
from typing import Literal, Protocol, Self
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, model_validator

from api.auth import Caller, Editor, Viewer
from api.errors import Conflict
from api.paging import Cursor, Limit, Page, page_of
from api.segments import find
from database import contacts, memberships
from database.engine import Connection
from database.memberships import Settled
from marketing.campaigns import Tag
from marketing.contacts import Contact
from marketing.events import ContactReference
from marketing.stored_segments import SegmentKind

router = APIRouter(prefix="/api/segments", tags=["segments"])

MOST_NAMED = 1_000
TAGGED_AT_ONCE = 5_000

Became = Literal["added", "removed", "unchanged", "unknown"]


class Member(BaseModel):
    """A contact that belongs, and since when."""

    entered_at: datetime
    contact: Contact


class Named(BaseModel):
    """Contacts, one by one, or everybody who has a tag at this moment."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "oneOf": [
                {"required": ["contacts"], "properties": {"contacts": {"type": "array"}, "tag": {"type": "null"}}},
                {"required": ["tag"], "properties": {"tag": {"type": "string"}, "contacts": {"type": "null"}}},
            ],
            "example": {"contacts": [{"email": "zoe@example.com"}, {"external_id": "crm-1001"}]},
        },
    )

    contacts: list[ContactReference] | None = Field(None, min_length=1, max_length=MOST_NAMED)
    tag: Tag | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.contacts is None) == (self.tag is None):
            raise ValueError("give exactly one of 'contacts' and 'tag'")
        return self


class Result(BaseModel):
    """What became of one that was named."""

    contact: ContactReference
    contact_id: UUID | None = Field(description="null: there is no such contact.")
    result: Became


class Changed(BaseModel):
    """What became of all of them."""

    changed: int = Field(description="How many were added, or removed.")
    size: int = Field(description="Of the segment, afterwards.")
    results: list[Result] = Field(description="In the order in which they were named; none for a tag.")


@router.get("/{segment_id}/members")
async def members_of_segment(
    segment_id: UUID, caller: Viewer, cursor: Cursor = None, limit: Limit = 50
) -> Page[Member]:
    """Who belongs right now, the newest contacts first."""
    async with caller.transaction() as tx:
        await find(tx, segment_id)
        found = await memberships.page(tx, segment_id, after=cursor, limit=limit + 1)
        known = {each.id: each for each in await contacts.several(tx, [member.contact_id for member in found])}
    members = [Member(entered_at=each.entered_at, contact=known[each.contact_id]) for each in found]
    return page_of(members, limit, lambda member: member.contact.id)


@router.post("/{segment_id}/members")
async def add_members(segment_id: UUID, named: Named, caller: Editor) -> Changed:
    """Add contacts to a static segment."""
    return await _change(caller, segment_id, named, memberships.add, "added")


@router.delete("/{segment_id}/members")
async def remove_members(segment_id: UUID, named: Named, caller: Editor) -> Changed:
    """Remove contacts from a static segment."""
    return await _change(caller, segment_id, named, memberships.remove, "removed")


async def _change(caller: Caller, segment_id: UUID, named: Named, change: "_Change", became: Became) -> Changed:
    now = datetime.now(UTC)
    if named.tag is not None:
        return await _change_tagged(caller, segment_id, named.tag, change, now)
    references = named.contacts or []
    async with caller.transaction() as tx:
        await _find_static(tx, segment_id)
        meant = await contacts.referred(tx, references)
        ids = list({each for each in meant if each is not None})
        before = await memberships.among(tx, segment_id, ids)
        settled = await change(tx, segment_id, ids, now=now)
        size = (await find(tx, segment_id)).size
    results = [
        Result(contact=reference, contact_id=each, result=_result(each, before, became))
        for reference, each in zip(references, meant, strict=True)
    ]
    return Changed(changed=settled.entered + settled.left, size=size, results=results)


async def _change_tagged(caller: Caller, segment_id: UUID, tag: str, change: "_Change", now: datetime) -> Changed:
    """In slices, so that nobody waits long for the segment; asked again, it goes on where it stood."""
    changed, last = 0, None
    while True:
        async with caller.transaction() as tx:
            await _find_static(tx, segment_id)
            ids = await contacts.tagged(tx, tag, after=last, limit=TAGGED_AT_ONCE)
            settled = await change(tx, segment_id, ids, now=now)
            size = (await find(tx, segment_id)).size
        changed += settled.entered + settled.left
        if len(ids) < TAGGED_AT_ONCE:
            return Changed(changed=changed, size=size, results=[])
        last = ids[-1]


class _Change(Protocol):
    """`memberships.add` or `memberships.remove`."""

    async def __call__(
        self, tx: Connection, segment_id: UUID, contacts: Sequence[UUID], *, now: datetime
    ) -> Settled: ...


async def _find_static(tx: Connection, segment_id: UUID) -> None:
    """A 409 unless its members are added by hand; nobody else changes them until this transaction ends."""
    if (await find(tx, segment_id, lock=True)).kind is SegmentKind.DYNAMIC:
        raise Conflict(
            "The criteria of this segment say who belongs. Change them (PUT /api/segments/{id}), or the contacts; for "
            "members of your own choice make a segment of the kind `static`."
        )


def _result(contact_id: UUID | None, before: Set[UUID], became: Became) -> Became:
    if contact_id is None:
        return "unknown"
    return became if (contact_id in before) == (became == "removed") else "unchanged"
