"""Automations on record: written, in versions, and moved through their life."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, cast, delete, exists, func, insert, select, text, update
from sqlalchemy.dialects import postgresql

from database import cohorts
from database.engine import Connection
from database.schema_automations import automation_subjects, automation_versions, automations, enrollments
from marketing.automations import AutomationDefinition, AutomationState, Inside, Subject

_LIVING = automations.c.deleted_at.is_(None)
_ROW = (
    *(automations.c.id, automations.c.name, automations.c.state, automations.c.state_reason, automations.c.version),
    *(automations.c.created_at, automations.c.updated_at, automations.c.activated_at),
)


@dataclass(frozen=True)
class Automation:
    """An automation in its newest version."""

    id: UUID
    name: str
    state: AutomationState
    state_reason: str
    version: int
    created_at: datetime
    updated_at: datetime
    activated_at: datetime | None
    definition: AutomationDefinition


def _automation(row: Any) -> Automation:
    values = dict(row)
    values["state"] = AutomationState(values["state"])
    values["definition"] = AutomationDefinition.model_validate(values["definition"])
    return Automation(**values)


# -- writing ---------------------------------------------------------------------------------------------------------


async def alone(tx: Connection, account_id: UUID) -> None:
    """Until this transaction ends, nobody else changes or activates an automation of the account: two of them at the
    same time could close a circle that neither sees."""
    await tx.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended('automations of ' || CAST(:account_id AS text), 0))"),
        {"account_id": str(account_id)},
    )


async def create(tx: Connection, account_id: UUID, definition: AutomationDefinition, *, version: int = 1) -> Automation:
    """A draft; the caller has seen that no other automation has its name."""
    adding = insert(automations).values(account_id=account_id, version=version, **_columns(definition))
    row = (await tx.execute(adding.returning(*_ROW))).mappings().one()
    await _add_version(tx, account_id, row["id"], version, definition)
    return _automation({**row, "definition": _written(definition)})


async def replace(
    tx: Connection, account_id: UUID, automation: Automation, definition: AutomationDefinition, *, version: int
) -> Automation:
    """The definition in a version that is new, or the newest; the caller holds the automation's lock."""
    changing = update(automations).where(automations.c.id == automation.id)
    values = {**_columns(definition), "version": version, "updated_at": func.now()}
    row = (await tx.execute(changing.values(**values).returning(*_ROW))).mappings().one()
    await _add_version(tx, account_id, automation.id, version, definition)
    return _automation({**row, "definition": _written(definition)})


def _columns(definition: AutomationDefinition) -> dict[str, Any]:
    return {"name": definition.name, "code": definition.code, "topic": definition.topic}


def _written(definition: AutomationDefinition) -> dict[str, Any]:
    written: dict[str, Any] = definition.model_dump(mode="json")
    return written


async def _add_version(
    tx: Connection, account_id: UUID, automation_id: UUID, version: int, definition: AutomationDefinition
) -> None:
    adding = postgresql.insert(automation_versions).values(
        account_id=account_id, automation_id=automation_id, version=version, definition=_written(definition)
    )
    key = (automation_versions.c.automation_id, automation_versions.c.version)
    await tx.execute(adding.on_conflict_do_update(index_elements=key, set_={"definition": adding.excluded.definition}))


async def move(tx: Connection, automation_id: UUID, state: AutomationState, reason: str = "") -> None:
    """The caller holds the automation's lock."""
    values: dict[str, Any] = {"state": state, "state_reason": reason, "updated_at": func.now()}
    if state is AutomationState.ACTIVE:
        values["activated_at"] = func.coalesce(automations.c.activated_at, func.now())
    await tx.execute(update(automations).where(automations.c.id == automation_id).values(**values))


async def cancel(tx: Connection, account_id: UUID, automation_id: UUID, reason: str = "", *, now: datetime) -> None:
    """A draft again, and out with everybody inside, for good: also if it is activated the next moment."""
    await move(tx, automation_id, AutomationState.DRAFT, reason)
    await cohorts.cancel(tx, account_id, automation_id, reason, now=now)


async def remove(tx: Connection, automation_id: UUID) -> None:
    """Hide it; who passed through it stays on record."""
    await tx.execute(update(automations).where(automations.c.id == automation_id).values(deleted_at=func.now()))
    await tx.execute(delete(automation_subjects).where(automation_subjects.c.source_id == automation_id))


async def look_at(tx: Connection, account_id: UUID, automation_id: UUID, subjects: Iterable[Subject]) -> None:
    """From now on, what happens in these subjects concerns the automation; and what those inside wait for already."""
    own = automation_subjects.c.source_id == automation_id
    await tx.execute(delete(automation_subjects).where(own, automation_subjects.c.role != "wait"))
    rows = [
        {"account_id": account_id, "source_id": automation_id, "subject": subject, "role": role}
        for subject, role in sorted(subjects)
    ]
    await tx.execute(postgresql.insert(automation_subjects).on_conflict_do_nothing(), rows)


async def called(tx: Connection, name: str) -> UUID | None:
    """The automation that has this name."""
    query = select(automations.c.id).where(automations.c.name == name, _LIVING)
    return (await tx.execute(query)).scalar_one_or_none()


# -- reading ---------------------------------------------------------------------------------------------------------


def _living() -> Select[Any]:
    newest = (automation_versions.c.automation_id == automations.c.id) & (
        automation_versions.c.version == automations.c.version
    )
    return (
        select(*_ROW, automation_versions.c.definition)
        .select_from(automations.join(automation_versions, newest))
        .where(_LIVING)
    )


async def read(tx: Connection, automation_id: UUID, *, lock: bool = False) -> Automation | None:
    """The automation; with `lock` nobody else changes it until this transaction ends."""
    query = _living().where(automations.c.id == automation_id)
    row = (await tx.execute(query.with_for_update(of=automations) if lock else query)).mappings().one_or_none()
    return _automation(row) if row else None


@dataclass(frozen=True)
class AutomationFilter:
    """Which automations a list shows; what is None does not filter."""

    state: AutomationState | None = None
    search: str | None = None


async def page(tx: Connection, wanted: AutomationFilter, *, after: UUID | None, limit: int) -> list[Automation]:
    """Newest first."""
    query = _living().order_by(automations.c.id.desc()).limit(limit)
    if after:
        query = query.where(automations.c.id < after)
    if wanted.state:
        query = query.where(automations.c.state == wanted.state)
    if wanted.search:
        query = query.where(automations.c.name.icontains(wanted.search, autoescape=True))
    return [_automation(row) for row in (await tx.execute(query)).mappings()]


async def active(tx: Connection) -> list[Automation]:
    """All that let contacts in."""
    query = _living().where(automations.c.state == AutomationState.ACTIVE)
    return [_automation(row) for row in (await tx.execute(query)).mappings()]


async def versions(
    tx: Connection, automation_id: UUID, which: Sequence[int] | None = None
) -> Mapping[int, AutomationDefinition]:
    """What it was, or is, in all or these of its versions."""
    query = select(automation_versions.c.version, automation_versions.c.definition).where(
        automation_versions.c.automation_id == automation_id
    )
    if which is not None:
        query = query.where(automation_versions.c.version.in_(which))
    rows = await tx.execute(query)
    return {row.version: AutomationDefinition.model_validate(row.definition) for row in rows}


async def inside(tx: Connection, automation_id: UUID) -> list[Inside]:
    """How many are at which step of which version."""
    columns = (enrollments.c.version, enrollments.c.step)
    query = (
        select(*columns, func.count().label("contacts"))
        .where(enrollments.c.source_id == automation_id, enrollments.c.left_at.is_(None))
        .group_by(*columns)
        .order_by(*columns)
    )
    return [Inside(**row) for row in (await tx.execute(query)).mappings()]


async def sending(tx: Connection, template_id: UUID | None, name: str, limit: int = 20) -> list[tuple[UUID, str]]:
    """The ids and names of the automations that were active and send a template, by its id or its name; also in an
    earlier version that somebody is still inside of."""
    asked = "$.** ? (@.template == $id || @.template == $name || @.template_id == $id)"
    still_inside = exists().where(
        enrollments.c.source_id == automations.c.id,
        enrollments.c.left_at.is_(None),
        enrollments.c.version == automation_versions.c.version,
    )
    query = (
        select(automations.c.id, automations.c.name)
        .distinct()
        .join_from(automations, automation_versions, automation_versions.c.automation_id == automations.c.id)
        .where(
            _LIVING,
            automations.c.state != AutomationState.DRAFT,
            (automation_versions.c.version == automations.c.version) | still_inside,
            func.jsonb_path_exists(
                automation_versions.c.definition,
                cast(asked, postgresql.JSONPATH),
                func.jsonb_build_object("id", str(template_id or ""), "name", name),
            ),
        )
        .order_by(automations.c.id)
        .limit(limit)
    )
    return [(row.id, row.name) for row in await tx.execute(query)]
