"""`/api/automations/{id}/activate`, `/deactivate`, `/cancel`: the life of an automation."""

from datetime import UTC, datetime
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import Field

from activities.journey_inputs import SourceRef
from api import automation_signals
from api.auth import Caller, Editor
from api.automation_checks import check_activatable
from api.automations import AutomationAnswer, as_read, find
from api.campaign_control import Why
from api.errors import Conflict
from database import automations, cohorts
from database.automations import Automation
from marketing.automations import AutomationState, subjects
from marketing.problems import Problem
from workflows.code import Loaded

router = APIRouter(prefix="/api/automations", tags=["automations"])


class Activated(AutomationAnswer):
    """An automation that lets contacts in."""

    warnings: list[Problem] = Field(description="What does not stand in the way, and should be looked at.")


@router.post("/{automation_id}/activate", status_code=202)
async def activate_automation(automation_id: UUID, request: Request, caller: Editor) -> Activated:
    """Let contacts in from now on, and have those inside go on. Refused with everything that is wrong, at once."""
    code: Loaded = request.app.state.code
    async with caller.transaction() as tx:
        await automations.alone(tx, caller.account_id)
        automation = await find(tx, automation_id, lock=True)
        if automation.state is AutomationState.DRAFT and await cohorts.somebody_waits(tx, automation_id):
            raise Conflict("Those who waited to begin when it was cancelled are still leaving. Try again in a moment.")
        written = code.newest(automation.definition.code or "")
        if written and written.version != automation.version:  # the code has come on
            newer = written.definition.model_copy(update={"name": automation.name})
            automation = await automations.replace(tx, caller.account_id, automation, newer, version=written.version)
        found = await check_activatable(tx, caller.account_id, automation, code)
        await automations.look_at(tx, caller.account_id, automation_id, subjects(automation.definition))
        await automations.move(tx, automation_id, AutomationState.ACTIVE)
        automation = await find(tx, automation_id)
    await automation_signals.changed(request, _source(caller, automation))
    return Activated(**as_read(automation), warnings=found)


@router.post("/{automation_id}/deactivate")
async def deactivate_automation(
    automation_id: UUID, request: Request, caller: Editor, why: Why | None = None
) -> AutomationAnswer:
    """Let nobody in, and hold everybody inside where they are. When this has answered, no step begins any more."""
    return await _hold(request, caller, automation_id, AutomationState.PAUSED, why or Why())


@router.post("/{automation_id}/pause")
async def pause_automation(
    automation_id: UUID, request: Request, caller: Editor, why: Why | None = None
) -> AutomationAnswer:
    """The same as `/deactivate`."""
    return await _hold(request, caller, automation_id, AutomationState.PAUSED, why or Why())


@router.post("/{automation_id}/cancel")
async def cancel_automation(
    automation_id: UUID, request: Request, caller: Editor, why: Why | None = None
) -> AutomationAnswer:
    """Let nobody in, and have everybody inside leave as `cancelled`. It is a draft again."""
    return await _hold(request, caller, automation_id, AutomationState.DRAFT, why or Why())


async def _hold(
    request: Request, caller: Caller, automation_id: UUID, state: AutomationState, why: Why
) -> AutomationAnswer:
    """Raise the flag that every step reads, so that it holds even if no worker or Temporal answers; then tell them."""
    async with caller.transaction() as tx:
        automation = await find(tx, automation_id, lock=True)
        if automation.state is AutomationState.DRAFT:
            raise Conflict("It is not active. POST …/activate lets contacts in.")
        if state is AutomationState.DRAFT:
            await automations.cancel(tx, caller.account_id, automation_id, why.reason, now=datetime.now(UTC))
        elif automation.state is not state:
            await automations.move(tx, automation_id, state, why.reason)
        automation = await find(tx, automation_id)
    await automation_signals.changed(request, _source(caller, automation))
    return AutomationAnswer(**as_read(automation))


def _source(caller: Caller, automation: Automation) -> SourceRef:
    return SourceRef(account_id=caller.account_id, source_id=automation.id)
