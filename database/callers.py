"""Who are the callers of a step?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text

from database.eligibility import CONTACT_COLUMNS
from database.engine import Connection


@dataclass(frozen=True)
class Person:
    """A contact in its pass."""

    enrollment_id: UUID
    state: str
    left: str | None  # why, if it is over
    trigger: dict[str, Any]  # the properties of what the pass began with
    contact: dict[str, Any]


async def people(tx: Connection, source_id: UUID, cohort: int, members: Sequence[int]) -> dict[int, Person]:
    """By the numbers of the members; those whose contact was deleted are left out."""
    rows = await tx.execute(_PEOPLE, {"source_id": source_id, "cohort": cohort, "members": list(set(members))})
    return {
        number: Person(id, state, left, trigger, dict(zip(CONTACT_COLUMNS, contact, strict=True)))
        for number, id, state, left, trigger, *contact in rows
    }


_PEOPLE = text(f"""
    SELECT enrollments.member, enrollments.id, enrollments.state,
        CASE WHEN enrollments.left_at IS NOT NULL THEN coalesce(enrollments.reason, '') END,
        enrollments.trigger,
        {", ".join(f"contacts.{name}" for name in CONTACT_COLUMNS)}
    FROM enrollments JOIN contacts ON contacts.id = enrollments.contact_id AND contacts.deleted_at IS NULL
    WHERE enrollments.source_id = :source_id AND enrollments.cohort = :cohort
    AND enrollments.member = ANY(CAST(:members AS smallint[]))
""")
