"""Who passes, or has passed, through automations and drips, and how it went: as people read it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Select, func, select, text

from database.engine import Connection
from database.schema_automations import enrollment_steps, enrollments, step_counters
from marketing.executions import Cause, Enrollment, EnrollmentState, Execution, StepTaken

_ROW = (
    *(enrollments.c.id, enrollments.c.source_id, enrollments.c.contact_id, enrollments.c.version),
    *(enrollments.c["pass"].label("number"), enrollments.c.state, enrollments.c.step, enrollments.c.step_at),
    *(enrollments.c.due_at, enrollments.c.entered_at, enrollments.c.left_at, enrollments.c.reason),
    *(enrollments.c.problem, enrollments.c.converted_at),
    *(enrollments.c.cause, enrollments.c.event_id, enrollments.c.trigger),
)


@dataclass(frozen=True)
class EnrollmentFilter:
    """Which passes a list shows; what is None does not filter."""

    source_id: UUID | None = None
    contact_id: UUID | None = None
    state: EnrollmentState | None = None
    step: str | None = None


async def page(tx: Connection, wanted: EnrollmentFilter, *, after: UUID | None, limit: int) -> list[Enrollment]:
    """The newest first."""
    rows = (await tx.execute(_page(wanted, after, limit))).mappings()
    return [Enrollment(**_values(row)) for row in rows]


async def page_with_steps(
    tx: Connection, wanted: EnrollmentFilter, *, after: UUID | None, limit: int
) -> list[Execution]:
    """The newest first, each with its steps in their order."""
    rows = list((await tx.execute(_page(wanted, after, limit))).mappings())
    steps = await _steps(tx, [row["id"] for row in rows])
    return [
        Execution(
            **_values(row),
            seconds=(row["left_at"] - row["entered_at"]).total_seconds() if row["left_at"] else None,
            steps=steps.get(row["id"], []),
        )
        for row in rows
    ]


def _page(wanted: EnrollmentFilter, after: UUID | None, limit: int) -> Select[Any]:
    query = select(*_ROW).order_by(enrollments.c.id.desc()).limit(limit)
    if after:
        query = query.where(enrollments.c.id < after)
    for name, value in vars(wanted).items():
        if value is not None:
            query = query.where(enrollments.c[name] == value)
    return query


def _values(row: Any) -> dict[str, Any]:
    values = dict(row)
    cause = Cause(cause=values.pop("cause"), event_id=values.pop("event_id"), properties=values.pop("trigger"))
    return {**values, "trigger": cause}


async def _steps(tx: Connection, passes: Sequence[UUID]) -> dict[UUID, list[StepTaken]]:
    query = (
        select(enrollment_steps)
        .where(enrollment_steps.c.enrollment_id.in_(passes))
        .order_by(enrollment_steps.c.enrollment_id, enrollment_steps.c.call)
    )
    found: dict[UUID, list[StepTaken]] = {}
    for row in await tx.execute(query):
        took = (row.left_at - row.entered_at).total_seconds() if row.left_at else None
        step = StepTaken(
            step=row.step,
            type=row.kind,
            entered_at=row.entered_at,
            left_at=row.left_at,
            seconds=took,
            outcome=row.outcome,
            error=row.error,
        )
        found.setdefault(row.enrollment_id, []).append(step)
    return found


async def begun_by(tx: Connection, source_id: UUID, cause: str, contacts: Collection[UUID]) -> dict[UUID, UUID]:
    """The passes of these contacts that began with this."""
    query = select(enrollments.c.contact_id, enrollments.c.id).where(
        enrollments.c.source_id == source_id, enrollments.c.contact_id.in_(contacts), enrollments.c.cause == cause
    )
    return {row.contact_id: row.id for row in await tx.execute(query)}


# -- figures ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Counted:
    """One figure of one step, or where the step is empty of passes."""

    step: str
    name: str
    n: int
    seconds: float


async def counted(tx: Connection, source_id: UUID) -> list[Counted]:
    """All figures of a source."""
    columns = (step_counters.c.step, step_counters.c.name)
    sums = (func.sum(step_counters.c.n), func.sum(step_counters.c.seconds))
    query = select(*columns, *sums).where(step_counters.c.source_id == source_id).group_by(*columns)
    return [Counted(step, name, int(n), seconds) for step, name, n, seconds in await tx.execute(query)]


async def standing(tx: Connection, source_id: UUID) -> tuple[int, int]:
    """How many are pending, and how many are inside a cohort, at this moment."""
    query = text("""
        SELECT count(*) FILTER (WHERE state = 'pending'), count(*) FILTER (WHERE state <> 'pending')
        FROM enrollments WHERE source_id = :source_id AND left_at IS NULL
    """)
    pending, active = (await tx.execute(query, {"source_id": source_id})).one()
    return pending, active
