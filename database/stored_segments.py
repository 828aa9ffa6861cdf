"""Segments on record: written, read, and found by what they look at."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, delete, func, insert, select, text, update

from database.engine import Connection
from database.schema import campaigns
from database.schema_segments import segment_members, segment_subjects, segments
from marketing.segments import Criterion, campaigns_in, depends_on_time, parse, segments_in, subjects, written
from marketing.stored_segments import SegmentDefinition, SegmentKind, SegmentState

_LIVING = segments.c.deleted_at.is_(None)
_READABLE = (
    *(segments.c.id, segments.c.name, segments.c.kind, segments.c.criteria, segments.c.state, segments.c.size),
    *(segments.c.settled_at, segments.c.problem, segments.c.created_at, segments.c.updated_at),
)


@dataclass(frozen=True)
class Segment:
    """A segment, and how far its membership is."""

    id: UUID
    name: str
    kind: SegmentKind
    criteria: Criterion | None
    state: SegmentState
    size: int
    settled_at: datetime | None
    problem: str
    created_at: datetime
    updated_at: datetime


def _segment(row: Any) -> Segment:
    values = dict(row)
    values["kind"], values["state"] = SegmentKind(values["kind"]), SegmentState(values["state"])
    values["criteria"] = values["criteria"] and parse(values["criteria"])
    return Segment(**values)


# -- writing ---------------------------------------------------------------------------------------------------------


async def alone(tx: Connection, account_id: UUID) -> None:
    """Until this transaction ends, nobody else makes, changes or deletes a segment of the account: two changes at the
    same time could close a loop that neither of them sees."""
    await tx.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended('segments of ' || CAST(:account_id AS text), 0))"),
        {"account_id": str(account_id)},
    )


def _columns(definition: SegmentDefinition) -> dict[str, Any]:
    criteria = definition.criteria
    return {
        "name": definition.name,
        "kind": definition.kind,
        "criteria": criteria and written(criteria),
        "depends_on_time": criteria is not None and depends_on_time(criteria),
    }


async def create(tx: Connection, account_id: UUID, definition: SegmentDefinition) -> Segment:
    """A static segment is ready at once; a dynamic one when its members are found."""
    state = SegmentState.BUILDING if definition.criteria else SegmentState.READY
    statement = insert(segments).values(account_id=account_id, state=state, **_columns(definition))
    segment = _segment((await tx.execute(statement.returning(*_READABLE))).mappings().one())
    await _look_at(tx, account_id, segment)
    return segment


async def replace(tx: Connection, account_id: UUID, segment: Segment, definition: SegmentDefinition) -> Segment:
    """With other criteria it is built anew; its members stay until it is known who they are."""
    values = _columns(definition)
    if definition.criteria != segment.criteria:
        values["state"] = SegmentState.BUILDING
    statement = update(segments).where(segments.c.id == segment.id).values(**values, updated_at=func.now())
    replaced = _segment((await tx.execute(statement.returning(*_READABLE))).mappings().one())
    await _look_at(tx, account_id, replaced)
    return replaced


async def remove(tx: Connection, segment_id: UUID) -> None:
    """Nobody belongs to it any more, and nothing that changes is of concern to it."""
    await tx.execute(update(segments).where(segments.c.id == segment_id).values(deleted_at=func.now()))
    await tx.execute(delete(segment_subjects).where(segment_subjects.c.segment_id == segment_id))
    await tx.execute(delete(segment_members).where(segment_members.c.segment_id == segment_id))


async def _look_at(tx: Connection, account_id: UUID, segment: Segment) -> None:
    """From now on, what changes in these subjects concerns the segment."""
    await tx.execute(delete(segment_subjects).where(segment_subjects.c.segment_id == segment.id))
    # Whoever is gone leaves; static segments look at nothing else.
    looked_at = {"contact.deleted_at"} if segment.criteria is None else subjects(segment.criteria)
    rows = [{"account_id": account_id, "subject": each, "segment_id": segment.id} for each in sorted(looked_at)]
    await tx.execute(insert(segment_subjects), rows)


# -- reading ---------------------------------------------------------------------------------------------------------


def _living() -> Select[Any]:
    return select(*_READABLE).where(_LIVING)


async def read(tx: Connection, segment_id: UUID, *, lock: bool = False) -> Segment | None:
    """The segment; with `lock` nobody else changes it until this transaction ends."""
    query = _living().where(segments.c.id == segment_id)
    row = (await tx.execute(query.with_for_update() if lock else query)).mappings().one_or_none()
    return _segment(row) if row else None


@dataclass(frozen=True)
class SegmentFilter:
    """Which segments a list shows; what is None does not filter."""

    kind: SegmentKind | None = None
    search: str | None = None


async def page(tx: Connection, wanted: SegmentFilter, *, after: UUID | None, limit: int) -> list[Segment]:
    """Newest first."""
    query = _living().order_by(segments.c.id.desc()).limit(limit)
    if after:
        query = query.where(segments.c.id < after)
    if wanted.kind:
        query = query.where(segments.c.kind == wanted.kind)
    if wanted.search:
        query = query.where(segments.c.name.icontains(wanted.search, autoescape=True))
    return [_segment(row) for row in (await tx.execute(query)).mappings()]


async def named(tx: Connection, ids: Iterable[UUID]) -> dict[UUID, str]:
    """The names of those of these segments that there are."""
    rows = await tx.execute(select(segments.c.id, segments.c.name).where(segments.c.id.in_(ids), _LIVING))
    return {row.id: row.name for row in rows}


async def names(tx: Connection, several: Iterable[Criterion]) -> dict[UUID, str]:
    """What the segments and campaigns are called that these criteria ask about, as far as there are such."""
    criteria = list(several)
    looked_into = {each for one in criteria for each in segments_in(one)}
    of_campaigns = {each for one in criteria for each in campaigns_in(one)}
    found = await named(tx, looked_into) if looked_into else {}
    if of_campaigns:
        query = select(campaigns.c.id, campaigns.c.name).where(campaigns.c.id.in_(of_campaigns))
        found |= {row.id: row.name for row in await tx.execute(query)}
    return found


@dataclass(frozen=True)
class Standing:
    """May a campaign go to this segment yet?"""

    name: str
    state: SegmentState


async def standings(tx: Connection, ids: Sequence[UUID]) -> dict[UUID, Standing]:
    """How those of these segments stand that there are."""
    query = select(segments.c.id, segments.c.name, segments.c.state).where(segments.c.id.in_(ids), _LIVING)
    return {row.id: Standing(row.name, SegmentState(row.state)) for row in await tx.execute(query)}


async def keep(tx: Connection, ids: Sequence[UUID]) -> None:
    """Until this transaction ends, nobody deletes these segments; their members change all the same."""
    query = select(segments.c.id).where(segments.c.id.in_(ids)).order_by(segments.c.id)
    await tx.execute(query.with_for_update(read=True, key_share=True))


async def looks(tx: Connection) -> Mapping[UUID, list[UUID]]:
    """Which segments of the account each of them looks at."""
    rows = await tx.execute(
        select(segment_subjects.c.segment_id, segment_subjects.c.subject).where(
            segment_subjects.c.subject.startswith(_SEGMENT)
        )
    )
    found: dict[UUID, list[UUID]] = {}
    for row in rows:
        found.setdefault(row.segment_id, []).append(UUID(row.subject.removeprefix(_SEGMENT)))
    return found


_SEGMENT = "segment:"


@dataclass(frozen=True)
class User:
    """What would miss a segment."""

    kind: str
    id: UUID
    name: str


# What newcomers go through, and earlier versions that somebody is still inside of.
VERSIONS_AT_WORK = """
    automations JOIN automation_versions ON automation_id = automations.id
    WHERE state <> 'draft' AND deleted_at IS NULL AND (automation_versions.version = automations.version OR EXISTS (
        SELECT FROM enrollments WHERE source_id = automations.id AND left_at IS NULL
        AND enrollments.version = automation_versions.version))
"""


async def users(tx: Connection, segment_id: UUID, limit: int = 20) -> list[User]:
    """Segments that look at it, campaigns that were launched and have not ended, and automations that were active."""
    rows = await tx.execute(
        text(f"""
            SELECT 'segment' AS kind, segments.id, segments.name
            FROM segment_subjects JOIN segments ON segments.id = segment_subjects.segment_id
            WHERE segment_subjects.subject = :subject AND segments.deleted_at IS NULL
            UNION ALL
            -- An id is found in the text of nothing else.
            SELECT 'campaign', id, name FROM campaigns
            WHERE launched_at IS NOT NULL AND finished_at IS NULL AND deleted_at IS NULL
            AND strpos(concat(plan -> 'audience', plan -> 'automation'), :id) > 0
            UNION ALL
            SELECT DISTINCT 'automation', automations.id, name FROM {VERSIONS_AT_WORK} AND (
                strpos(CAST(definition AS text), :id) > 0
                OR jsonb_path_exists(definition, '$.** ? (@.segment == $name)', (
                    SELECT jsonb_build_object('name', segments.name) FROM segments
                    WHERE CAST(segments.id AS text) = :id)))
            ORDER BY kind, id LIMIT :limit
        """),
        {"subject": f"{_SEGMENT}{segment_id}", "id": str(segment_id), "limit": limit},
    )
    return [User(row.kind, row.id, row.name) for row in rows]


async def callers(tx: Connection, segment: Segment, limit: int = 20) -> list[User]:
    """The automations that were active and know a static segment by its name."""
    if segment.kind is not SegmentKind.STATIC:
        return []
    rows = await tx.execute(
        text(f"""
            SELECT DISTINCT automations.id, name FROM {VERSIONS_AT_WORK}
            AND jsonb_path_exists(
                definition, '$.** ? (@.segment == $name)', jsonb_build_object('name', CAST(:name AS text)))
            ORDER BY id LIMIT :limit
        """),
        {"name": segment.name, "limit": limit},
    )
    return [User("automation", row.id, row.name) for row in rows]
