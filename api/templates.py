"""`/api/templates`: messages that campaigns can share."""

import asyncio
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict

from api.auth import Editor, Viewer
from api.errors import Conflict, Malformed, NotFound
from api.paging import Cursor, Limit, Page, page_of
from database import automations, code_automations, templates
from database.engine import Connection
from database.templates import Template
from marketing.content import ContentError, prepare
from marketing.templates import TemplateDefinition
from workflows.code import Loaded

router = APIRouter(prefix="/api/templates", tags=["templates"])


class TemplateSummary(BaseModel):
    """A template in a list; `version` is its newest."""

    id: UUID
    name: str
    channel: str
    version: int
    created_at: datetime
    updated_at: datetime


class TemplateAnswer(TemplateDefinition):
    """A template as its author wrote it, in the version asked for."""

    model_config = ConfigDict(json_schema_extra={})

    id: UUID
    version: int
    newest_version: int
    created_at: datetime
    updated_at: datetime


@router.post("", status_code=201)
async def create_template(definition: TemplateDefinition, caller: Editor) -> TemplateAnswer:
    """Store a template. It must compile."""
    await asyncio.to_thread(_check, definition)  # up to half a second for the largest
    async with caller.transaction() as tx:
        return _answer(await templates.create(tx, caller.account_id, definition))


@router.get("")
async def list_templates(caller: Viewer, cursor: Cursor = None, limit: Limit = 50) -> Page[TemplateSummary]:
    """Templates without what they say, newest first."""
    async with caller.transaction() as tx:
        found = await templates.page(tx, after=cursor, limit=limit + 1)
    return page_of([TemplateSummary(**vars(each)) for each in found], limit, lambda each: each.id)


@router.get("/{template_id}")
async def read_template(
    template_id: UUID,
    caller: Viewer,
    version: Annotated[int | None, Query(ge=1, le=2**31 - 1, description="Not the newest, but this one.")] = None,
) -> TemplateAnswer:
    """A template, with its newest version or an earlier one."""
    async with caller.transaction() as tx:
        return _answer(_found(await templates.read(tx, template_id, version)))


@router.put("/{template_id}")
async def replace_template(
    template_id: UUID, definition: TemplateDefinition, request: Request, caller: Editor
) -> TemplateAnswer:
    """Make a new version. Drafts and automations take it from now on; campaigns keep what they were launched with."""
    await asyncio.to_thread(_check, definition)  # up to half a second for the largest
    async with caller.transaction() as tx:
        known = _found(await templates.read(tx, template_id)).summary
        if known.name != definition.name:
            await _check_unsent(tx, None, known.name, request.app.state.code)
        return _answer(_found(await templates.replace(tx, caller.account_id, template_id, definition)))


@router.delete("/{template_id}", status_code=204)
async def delete_template(template_id: UUID, request: Request, caller: Editor) -> None:
    """Take a template away from drafts; campaigns that were launched with it go on."""
    async with caller.transaction() as tx:
        known = _found(await templates.read(tx, template_id)).summary
        await _check_unsent(tx, template_id, known.name, request.app.state.code)
        await templates.delete(tx, template_id)


NO_TEMPLATE = "There is no such template, or no such version of it. GET /api/templates lists yours."


def _found(template: Template | None) -> Template:
    if template is None:
        raise NotFound(NO_TEMPLATE)
    return template


async def _check_unsent(tx: Connection, template_id: UUID | None, name: str, code: Loaded) -> None:
    """A 409 if automations send it: they take it as it is at that moment."""
    users = await automations.sending(tx, template_id, name)
    in_code = await code_automations.at_work(tx, code.naming("template", name, template_id))
    users += [(each.id, each.name) for each in in_code]
    if users:
        who = ", ".join(f"“{each}”" for _, each in users[:3])
        more = f" and {len(users) - 3} more" if len(users) > 3 else ""
        what = "it" if template_id else "it by its name"
        raise Conflict(
            f"{who}{more} send {what}. Change these automations first.",
            used_by=[{"kind": "automation", "id": str(id), "name": each} for id, each in users],
        )


def _check(definition: TemplateDefinition) -> None:
    """A 422 that says where, unless the content compiles."""
    try:
        prepare(definition)
    except ContentError as error:
        wrong = {"path": f"body.{error.part}", "message": error.message, "line": error.line}
        raise Malformed(f"The template can't be used: {error}.", errors=[wrong]) from error


def _answer(template: Template) -> TemplateAnswer:
    return TemplateAnswer(
        **template.definition.model_dump(),
        id=template.summary.id,
        version=template.version,
        newest_version=template.summary.version,
        created_at=template.summary.created_at,
        updated_at=template.summary.updated_at,
    )
