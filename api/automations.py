"""`/api/automations`: written, listed, read, changed and deleted."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, Field

from activities.journey_inputs import SourceRef
from api import automation_signals
from api.auth import Editor, Viewer
from api.automation_checks import check_activatable
from api.errors import Conflict, Malformed, NotFound, TooLarge
from api.paging import Cursor, Limit, Page, page_of
from database import automations, cohorts
from database.automations import Automation, AutomationFilter
from database.engine import Connection
from marketing.automations import AutomationDefinition, AutomationState, Becomes, Terms, after_change, subjects
from marketing.text import Printable
from marketing.triggers import Trigger
from workflows.code import Loaded

router = APIRouter(prefix="/api/automations", tags=["automations"])

LARGEST = 64 << 10  # bytes


class AutomationAnswer(AutomationDefinition):
    """An automation as it is read: its newest definition, and what has become of it."""

    id: UUID
    version: int
    status: AutomationState
    status_reason: str
    created_at: datetime
    updated_at: datetime
    activated_at: datetime | None


class AutomationSummary(BaseModel):
    """An automation in a list."""

    id: UUID
    name: str
    version: int
    status: AutomationState
    status_reason: str
    code: str | None
    trigger: Trigger
    created_at: datetime
    updated_at: datetime
    activated_at: datetime | None


class Changed(AutomationAnswer):
    """An automation in its new version, and what that means for those inside."""

    inside: list[Becomes] = Field(description="How many are at which step, and in which version they go on.")


def as_read(automation: Automation) -> dict[str, Any]:
    """What answers tell of it."""
    definition = {name: getattr(automation.definition, name) for name in AutomationDefinition.model_fields}
    return {**definition, **_life(automation)}


def _life(automation: Automation) -> dict[str, Any]:
    return {
        "id": automation.id,
        "version": automation.version,
        "status": automation.state,
        "status_reason": automation.state_reason,
        "created_at": automation.created_at,
        "updated_at": automation.updated_at,
        "activated_at": automation.activated_at,
    }


async def find(tx: Connection, automation_id: UUID, *, lock: bool = False) -> Automation:
    """The automation, or a 404; with `lock` nobody else changes it until this transaction ends."""
    automation = await automations.read(tx, automation_id, lock=lock)
    if automation is None:
        raise NotFound("There is no such automation. GET /api/automations lists yours.")
    return automation


async def _small(request: Request) -> None:
    if len(await request.body()) > LARGEST:
        raise TooLarge(f"An automation has at most {LARGEST >> 10} KiB. Put long messages into templates.")


_Small = Depends(_small)


@router.post("", status_code=201, dependencies=[_Small])
async def create_automation(definition: AutomationDefinition, request: Request, caller: Editor) -> AutomationAnswer:
    """Make a draft. Each step that has no `id` gets one."""
    definition, version = complete(definition, request.app.state.code)
    async with caller.transaction() as tx:
        await automations.alone(tx, caller.account_id)
        await _check_name(tx, definition.name)
        return AutomationAnswer(
            **as_read(await automations.create(tx, caller.account_id, definition, version=version or 1))
        )


@router.get("")
async def list_automations(
    caller: Viewer,
    status: AutomationState | None = None,
    search: Annotated[Printable | None, Query(max_length=200, description="Part of the name.")] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[AutomationSummary]:
    """Automations without their steps, newest first."""
    async with caller.transaction() as tx:
        found = await automations.page(tx, AutomationFilter(status, search), after=cursor, limit=limit + 1)
    return page_of([_summary(each) for each in found], limit, lambda each: each.id)


@router.get("/{automation_id}")
async def read_automation(
    automation_id: UUID,
    caller: Viewer,
    version: Annotated[int | None, Query(ge=1, le=2**31 - 1, description="Not the newest, but this one.")] = None,
) -> AutomationAnswer:
    """An automation as its author wrote it, in its newest version or an earlier one."""
    async with caller.transaction() as tx:
        automation = await find(tx, automation_id)
        if version is None:
            return AutomationAnswer(**as_read(automation))
        known = await automations.versions(tx, automation_id, [version])
    if version not in known:
        raise NotFound(f"It has no version {version}; the newest is {automation.version}.")
    return AutomationAnswer(**{**_life(automation), **dict(known[version]), "version": version})


@router.put("/{automation_id}", dependencies=[_Small])
async def replace_automation(
    automation_id: UUID,
    definition: AutomationDefinition,
    request: Request,
    caller: Editor,
    inside: Annotated[
        Literal["finish", "migrate"],
        Query(
            description="Those inside finish on their version, or go on in the new one, as far as their step is in it."
        ),
    ] = "finish",
    preview: Annotated[bool, Query(description="Only tell what would happen to whom.")] = False,
) -> Changed:
    """Replace an automation. Of one that was ever active this makes a new version, for whoever enters from now on."""
    code: Loaded = request.app.state.code
    definition, version = complete(definition, code)
    if definition.code and inside == "migrate":
        raise Malformed("query.inside: in code nobody migrates. Those inside finish on their version.")
    async with caller.transaction() as tx, tx.begin_nested() as trial:
        await automations.alone(tx, caller.account_id)
        before = await find(tx, automation_id, lock=True)
        was_active = before.activated_at is not None
        if was_active and before.definition.code != definition.code:
            raise Conflict("It was active, and what it runs can't become something else. Make another automation.")
        await _check_name(tx, definition.name, but=automation_id)
        if version is None:
            version = before.version + (was_active and _runs(before.definition) != _runs(definition))
        after = await automations.replace(tx, caller.account_id, before, definition, version=version)
        people = await automations.inside(tx, automation_id)
        versions = await automations.versions(tx, automation_id, [*{after.version, *(each.version for each in people)}])
        becomes = after_change(versions, after.version, people, migrate=inside == "migrate")
        if after.state is AutomationState.ACTIVE:
            await check_activatable(tx, caller.account_id, after, code)
        if after.state is not AutomationState.DRAFT:  # those inside may leave during a pause too
            await automations.look_at(tx, caller.account_id, automation_id, subjects(definition))
        if inside == "migrate":
            await cohorts.take_along(tx, automation_id, after.version)  # and the others as cohorts are told
        if preview:
            await trial.rollback()
    if was_active and not preview:
        source = SourceRef(account_id=caller.account_id, source_id=automation_id)
        await automation_signals.changed(request, source)
        await automation_signals.new_version(request, source, after, becomes)
    return Changed(**as_read(after), inside=becomes)


@router.delete("/{automation_id}", status_code=204)
async def delete_automation(
    automation_id: UUID,
    request: Request,
    caller: Editor,
    inside: Annotated[
        Literal["cancel"] | None, Query(description="Those inside leave as `cancelled`; without it nobody may be.")
    ] = None,
) -> None:
    """Take an automation that is not active out of the lists. What it did stays on record."""
    async with caller.transaction() as tx:
        await automations.alone(tx, caller.account_id)
        automation = await find(tx, automation_id, lock=True)
        if automation.state is AutomationState.ACTIVE:
            raise Conflict("It is active. Hold it first: POST …/deactivate.")
        people = sum(each.contacts for each in await automations.inside(tx, automation_id))
        if people and inside is None:
            raise Conflict(
                f"{people:,} contacts are inside. Let them finish (POST …/activate), or end it: ?inside=cancel.",
                inside=people,
            )
        await automations.remove(tx, automation_id)
    if people:
        source = SourceRef(account_id=caller.account_id, source_id=automation_id)
        await automation_signals.changed(request, source)


# -- what is checked -------------------------------------------------------------------------------------------------


def complete(definition: AutomationDefinition, code: Loaded) -> tuple[AutomationDefinition, int | None]:
    """The definition with what the code says of itself, and the version that the code has; None if it is no code."""
    if definition.code is None:
        return definition, None
    written = code.newest(definition.code)
    if written is None:
        names = sorted({name for name, _ in code.automations})
        known = f"There are {', '.join(names)}" if names else "There are none"
        raise _malformed("code", f"no file of automations has {definition.code!r}. {known}")
    for name in Terms.model_fields:
        if name in definition.model_fields_set and getattr(definition, name) != getattr(written.definition, name):
            raise _malformed(name, "the code says something else. Leave this out, or change the code")
    return written.definition.model_copy(update={"name": definition.name}), written.version


def _malformed(field: str, message: str) -> Malformed:
    return Malformed(f"body.{field}: {message}.", errors=[{"path": f"body.{field}", "message": message}])


async def _check_name(tx: Connection, name: str, *, but: UUID | None = None) -> None:
    other = await automations.called(tx, name)
    if other not in (None, but):
        raise Conflict(f"Another automation is called “{name}”. Give this one another name.", automation_id=str(other))


def _runs(definition: AutomationDefinition) -> dict[str, Any]:
    return definition.model_dump(exclude={"name"})


def _summary(automation: Automation) -> AutomationSummary:
    return AutomationSummary(
        **_life(automation),
        name=automation.name,
        code=automation.definition.code,
        trigger=automation.definition.trigger,
    )
