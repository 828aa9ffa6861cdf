"""Templates: each change makes a version, and no version is ever changed."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, func, insert, select, update

from database.engine import Connection
from database.schema import template_versions, templates
from marketing.content import EmailContent
from marketing.templates import TemplateDefinition


@dataclass(frozen=True)
class TemplateSummary:
    """A template without what it says; `version` is the newest."""

    id: UUID
    name: str
    channel: str
    version: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class Template:
    """A template in one of its versions."""

    summary: TemplateSummary
    version: int
    definition: TemplateDefinition


async def create(tx: Connection, account_id: UUID, definition: TemplateDefinition) -> Template:
    statement = (
        insert(templates)
        .values(account_id=account_id, name=definition.name, channel=definition.channel)
        .returning(*_SUMMARY)
    )
    summary = _summary((await tx.execute(statement)).mappings().one())
    return await _add_version(tx, account_id, summary, definition)


async def replace(
    tx: Connection, account_id: UUID, template_id: UUID, definition: TemplateDefinition
) -> Template | None:
    """Add a version; None if there is no such template."""
    statement = (
        update(templates)
        .where(templates.c.id == template_id, templates.c.deleted_at.is_(None))
        .values(
            name=definition.name,
            channel=definition.channel,
            version=templates.c.version + 1,
            updated_at=func.now(),
        )
        .returning(*_SUMMARY)
    )
    row = (await tx.execute(statement)).mappings().one_or_none()
    return await _add_version(tx, account_id, _summary(row), definition) if row else None


async def read(tx: Connection, template_id: UUID, version: int | None = None) -> Template | None:
    """The newest version, or the one asked for."""
    wanted = templates.c.version if version is None else version
    query = (
        _living(template_versions.c.version.label("shown"), template_versions.c.content)
        .join(template_versions, template_versions.c.template_id == templates.c.id)
        .where(templates.c.id == template_id, template_versions.c.version == wanted)
    )
    row = (await tx.execute(query)).mappings().one_or_none()
    if row is None:
        return None
    values = dict(row)
    shown, content = values.pop("shown"), values.pop("content")
    return Template(_summary(values), shown, TemplateDefinition.model_validate(content))


async def called(tx: Connection, name: str) -> list[Template]:
    """The one with this id, or those with this name, each in its newest version."""
    with suppress(ValueError):
        return [found] if (found := await read(tx, UUID(name))) else []
    ids = (await tx.execute(select(templates.c.id).where(templates.c.name == name, _LIVING).limit(2))).scalars()
    return [found for each in ids.all() if (found := await read(tx, each))]


async def page(tx: Connection, *, after: UUID | None, limit: int) -> list[TemplateSummary]:
    """Newest first."""
    query = _living().order_by(templates.c.id.desc()).limit(limit)
    if after:
        query = query.where(templates.c.id < after)
    return [_summary(row) for row in (await tx.execute(query)).mappings()]


async def delete(tx: Connection, template_id: UUID) -> bool:
    """Hide a template, and keep its versions. False if there is no such template."""
    statement = update(templates).where(templates.c.id == template_id, templates.c.deleted_at.is_(None))
    return (await tx.execute(statement.values(deleted_at=func.now()))).rowcount == 1


async def filled_in(tx: Connection, content: EmailContent) -> EmailContent:
    """The content with what its template gives as it stands now; as it was, if there is no such template."""
    template = await read(tx, content.template_id) if content.template_id else None
    return content.filled_in(template.definition) if template else content


async def _add_version(
    tx: Connection, account_id: UUID, summary: TemplateSummary, definition: TemplateDefinition
) -> Template:
    content = definition.model_dump(mode="json", exclude_none=True)
    statement = insert(template_versions).values(
        account_id=account_id, template_id=summary.id, version=summary.version, content=content
    )
    await tx.execute(statement)
    return Template(summary, summary.version, definition)


_LIVING = templates.c.deleted_at.is_(None)
_SUMMARY = (
    templates.c.id,
    templates.c.name,
    templates.c.channel,
    templates.c.version,
    templates.c.created_at,
    templates.c.updated_at,
)


def _living(*more: Any) -> Select[Any]:
    return select(*_SUMMARY, *more).where(_LIVING)


def _summary(row: Any) -> TemplateSummary:
    return TemplateSummary(**row)
