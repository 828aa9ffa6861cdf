"""`/api/campaigns/{id}/launch`, `/pause`, `/resume`, `/cancel`: the life of a campaign."""

import asyncio
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from temporalio.client import (
    Client,
    WorkflowHandle,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import FailureError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from activities import launches
from activities.journey_inputs import SourceRef
from activities.launches import NotLaunchable
from api.auth import Caller, Editor
from api.campaign_checks import refused
from api.campaigns import CampaignAnswer, allow, answer, check_schedule, find
from api.errors import Conflict, Unavailable
from database import campaigns
from marketing.campaigns import CampaignState, Move
from marketing.schedules import Schedule
from workflows import automations
from workflows.campaigns import campaign_workflow_id, start_options
from workflows.experiments import run_of
from workflows.inputs import CampaignInput, Command
from workflows.options import ORCHESTRATION, STARTING

router = APIRouter(prefix="/api/campaigns", tags=["campaigns"])

# The client calls it "cancelled" when its own `rpc_timeout` runs out.
AWAY = (RPCStatusCode.UNAVAILABLE, RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED)

# Nobody answers: no worker, no Temporal, or none in time. The client has its own name for our `asyncio.timeout`.
SILENT = (TimeoutError, RPCError, WorkflowUpdateRPCTimeoutOrCancelledError)


class Why(BaseModel):
    """Told to the operators, and kept in the campaign's history."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"reason": "Wrong price in the headline"}})

    reason: str = Field("", max_length=500)


# -- launch ----------------------------------------------------------------------------------------------------------


@router.post("/{campaign_id}/launch", status_code=202)
async def launch_campaign(campaign_id: UUID, request: Request, caller: Editor) -> CampaignAnswer:
    """Start the campaign, now or at its scheduled time. Asked many times at once, one run starts."""
    return await launch(request, caller, campaign_id)


@router.post("/{campaign_id}/send", status_code=202)
async def send_campaign(campaign_id: UUID, request: Request, caller: Editor) -> CampaignAnswer:
    """The same as `/launch`."""
    return await launch_campaign(campaign_id, request, caller)


@router.post("/{campaign_id}/schedule", status_code=202)
async def schedule_campaign(campaign_id: UUID, schedule: Schedule, request: Request, caller: Editor) -> CampaignAnswer:
    """Give the campaign this moment and launch it; it waits for the moment by itself."""
    check_schedule(schedule)
    async with caller.transaction() as tx:
        campaign = await find(tx, campaign_id)
        allow(Move.LAUNCH, campaign.state)
        changed = campaign.definition.model_copy(update={"schedule": schedule})
        if await campaigns.replace_draft(tx, campaign_id, changed) is None:
            raise Conflict("This campaign was launched at this very moment.")
    return await launch(request, caller, campaign_id)


async def launch(request: Request, caller: Caller, campaign_id: UUID) -> CampaignAnswer:
    """Write the intent down, then start the workflow; the sweep starts it if we crash between the two."""
    temporal: Client = request.app.state.temporal
    async with caller.transaction() as tx:
        campaign = await find(tx, campaign_id, lock=True)  # what is checked is what is launched
        allow(Move.LAUNCH, campaign.state)
        try:
            state = await launches.launch(tx, caller.account_id, campaign, datetime.now(UTC))
        except NotLaunchable as error:
            raise refused("This campaign can't be launched yet", error) from error
        current = await find(tx, campaign.id)
    schedule = campaign.definition.schedule
    input = CampaignInput(
        account_id=caller.account_id,
        campaign_id=campaign.id,
        name=campaign.name,
        kind="experiment" if campaign.definition.is_experiment else "broadcast",
        starts_at=schedule.starts_at() if schedule else None,
    )
    try:
        if campaign.definition.is_drip:
            drip = SourceRef(account_id=caller.account_id, source_id=campaign.id, kind="drip")
            await automations.wake(temporal, drip)
        else:
            await temporal.start_workflow(
                run_of(input.kind),
                input,
                task_queue=ORCHESTRATION,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                rpc_timeout=STARTING,
                **start_options(input, state),
            )
    except WorkflowAlreadyStartedError:
        pass  # the sweep was faster
    except RPCError as error:
        # The launch is on record: it happens as soon as Temporal is back. Better told than hidden.
        if error.status not in AWAY:
            raise
    return answer(current)


# -- pause, resume, cancel -------------------------------------------------------------------------------------------


@router.post("/{campaign_id}/pause")
async def pause_campaign(campaign_id: UUID, request: Request, caller: Editor, why: Why | None = None) -> CampaignAnswer:
    """Hold the campaign. When this has answered, at most the messages in flight still leave."""
    return await _fence(request, caller, campaign_id, Move.PAUSE, CampaignState.PAUSED, (why or Why()).reason)


@router.post("/{campaign_id}/cancel")
async def cancel_campaign(
    campaign_id: UUID, request: Request, caller: Editor, why: Why | None = None
) -> CampaignAnswer:
    """End the campaign; what has not left becomes `skipped` with the reason `cancelled`."""
    return await _fence(request, caller, campaign_id, Move.CANCEL, CampaignState.CANCELLED, (why or Why()).reason)


@router.post("/{campaign_id}/resume")
async def resume_campaign(
    campaign_id: UUID, request: Request, caller: Editor, why: Why | None = None
) -> CampaignAnswer:
    """Go on with what is left."""
    async with caller.transaction(effective=False) as tx:
        allow(Move.RESUME, (await find(tx, campaign_id)).state)
    told = Command(reason=(why or Why()).reason)
    await tell(request, campaign_id, Move.RESUME, told, "The campaign may resume later; look at its status.")
    async with caller.transaction() as tx:
        if why and why.reason != told.reason:  # the worker, who wrote it down, has it without the addresses in it
            await campaigns.give_whole_reason(tx, campaign_id, CampaignState.RUNNING, told.reason, why.reason)
        return answer(await find(tx, campaign_id))


async def tell(request: Request, campaign_id: UUID, update: str, argument: BaseModel, later: str) -> None:
    """Have the workflow of a campaign carry out an update, now.

    Args:
        later: what may become of it, if nobody takes it up in time.

    Raises:
        Unavailable: nobody did.
        Conflict: the workflow refuses.
    """
    try:
        async with asyncio.timeout(request.app.state.patience_seconds):
            await handle_of(request.app.state.temporal, campaign_id).execute_update(update, argument)
    except SILENT as error:
        raise Unavailable(f"No worker took this up in time. {later}") from error
    except WorkflowUpdateFailedError as error:
        raise Conflict(objection(error)) from error


def handle_of(temporal: Client, campaign_id: UUID) -> WorkflowHandle[Any, Any]:
    """Of a broadcast or a drip: both have updates that are called like the moves."""
    return temporal.get_workflow_handle(campaign_workflow_id(campaign_id))


def objection(refused: WorkflowUpdateFailedError) -> str:
    """Why a workflow does not do as it was told, in its own words."""
    return refused.cause.message if isinstance(refused.cause, FailureError) else str(refused.cause)


async def _fence(
    request: Request, caller: Caller, campaign_id: UUID, move: Move, state: CampaignState, reason: str
) -> CampaignAnswer:
    """Raise the flag that every lease reads, so that it holds even if no worker or Temporal answers; then tell the
    workflow."""
    async with caller.transaction() as tx:
        campaign = await find(tx, campaign_id)
        allow(move, campaign.state)
        reached, _ = await campaigns.change_state(tx, caller.account_id, campaign_id, state, reason)
        if reached is not state:
            allow(move, reached)
    temporal: Client = request.app.state.temporal
    handle = handle_of(temporal, campaign_id)
    try:
        async with asyncio.timeout(request.app.state.patience_seconds):
            await handle.execute_update(move, Command(reason=reason))
    except (*SILENT, WorkflowUpdateFailedError):
        pass  # The flag holds. The workflow finds it at its next set, or the sweep tells it.
    async with caller.transaction() as tx:
        return answer(await find(tx, campaign_id))
