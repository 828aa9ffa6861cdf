"""`/api/deliveries`: of which messages does nobody know whether they arrived, and what shall become of them?"""

from collections import Counter
from datetime import datetime
from typing import Annotated, Literal, Self
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator
from temporalio.client import Client
from temporalio.common import WorkflowIDReusePolicy
from temporalio.service import RPCError

from activities.inputs import CampaignKind, CampaignRef
from api.auth import Caller, Editor, Viewer
from api.campaign_control import AWAY
from api.campaigns import find
from api.errors import Conflict
from api.paging import Limit, Page, PairCursor, page_of, pair_cursor, read_pair
from channels.mime import address
from database import campaigns, experiments, resolutions
from database.campaigns import Campaign
from database.resolutions import Overtaken, Uncertain, Which
from marketing.campaigns import CampaignState
from marketing.deliveries import UncertainReason
from marketing.resolutions import RESENDING, Action, why_not
from workflows.campaigns import CampaignWorkflow, start_options
from workflows.experiments import run_of
from workflows.inputs import CampaignInput
from workflows.options import ORCHESTRATION, STARTING

router = APIRouter(prefix="/api/deliveries", tags=["deliveries"])

_AT_ONCE = 5_000  # messages in one transaction
_PER_REQUEST = 50_000  # so that a request is answered within seconds: 50,000 took 3 s


class UncertainDelivery(BaseModel):
    """A message of which nobody knows whether it arrived, with what the relay's log knows it by."""

    delivery_id: UUID
    campaign_id: UUID = Field(description="Or the id of an automation.")
    campaign_name: str
    contact_id: UUID
    email: str | None
    message_id: str | None = Field(
        description="The `Message-ID` header, which a message keeps that is sent again. Of automations, who change what"
        " they say, it is not known: it begins with the id of the delivery."
    )
    reason: UncertainReason
    reply: str | None = Field(description="The provider's last words, or ours about why there are none.")
    attempts: int
    leased_at: datetime | None = Field(description="When it was last taken to be sent.")
    uncertain_since: datetime


class Resolution(BaseModel):
    """What shall become of which messages: `delivery_ids`, or all uncertain ones of a campaign."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "oneOf": [
                {
                    "required": ["delivery_ids"],
                    "properties": {
                        "delivery_ids": {"type": "array"},
                        "campaign_id": {"type": "null"},
                        "reason": {"type": "null"},
                    },
                },
                {
                    "required": ["campaign_id"],
                    "properties": {"campaign_id": {"type": "string"}, "delivery_ids": {"type": "null"}},
                },
            ],
            "example": {
                "action": "resend",
                "campaign_id": "01976e1c-2c4a-7d43-9d5e-0a4c1d2b3e4f",
                "reason": "connection_lost",
            },
        },
    )

    action: Action = Field(description="`accept`: take them as sent. `resend`: send them again.")
    delivery_ids: list[UUID] | None = Field(None, min_length=1, max_length=1000)
    campaign_id: UUID | None = None
    reason: UncertainReason | None = Field(None, description="Only those of the campaign that have this reason.")

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.delivery_ids is None) == (self.campaign_id is None):
            raise ValueError("give either 'delivery_ids' or 'campaign_id'")
        if self.reason and self.campaign_id is None:
            raise ValueError("'reason' goes with 'campaign_id'")
        return self


class ResolvedCampaign(BaseModel):
    """A campaign of which messages were resolved. One that is `paused` sends nothing before it is resumed."""

    campaign_id: UUID
    resolved: int
    status: CampaignState


class NotResolved(BaseModel):
    delivery_id: UUID
    why: str


class Resolved(BaseModel):
    """What was done, and what was left as it is."""

    resolved: int
    remaining: int = Field(description=f"More than {_PER_REQUEST:,} are not resolved at once: ask again until it is 0.")
    campaigns: list[ResolvedCampaign]
    not_resolved: list[NotResolved] = Field(description="Those of `delivery_ids` that were left as they are.")


@router.get("")
async def list_deliveries(
    caller: Viewer,
    _: Annotated[
        Literal["uncertain"],
        Query(alias="state", description="Others are listed per campaign: `GET /api/campaigns/{id}/recipients`."),
    ] = "uncertain",
    campaign_id: UUID | None = None,
    reason: UncertainReason | None = None,
    cursor: PairCursor = None,
    limit: Limit = 50,
) -> Page[UncertainDelivery]:
    """Messages of which nobody knows whether they arrived, by campaign; deleted campaigns are among them."""
    async with caller.transaction() as tx:
        found = await resolutions.page(
            tx, campaign_id=campaign_id, reason=reason, after=read_pair(cursor), limit=limit + 1
        )
    return page_of([_told(each) for each in found], limit, lambda last: pair_cursor(last.campaign_id, last.delivery_id))


@router.post("/resolve")
async def resolve_deliveries(resolution: Resolution, request: Request, caller: Editor) -> Resolved:
    """Decide on uncertain messages: take them as sent, or send them again with the same `Message-ID`.

    Others are left as they are. A message that is put back passes all checks of consent again before it leaves; a
    completed campaign runs again for it, a paused one keeps it until it is resumed.
    """
    which = Which(resolution.delivery_ids, resolution.campaign_id, resolution.reason)
    if resolution.campaign_id:
        await _check_campaign(caller, resolution.campaign_id, resolution.action)
    resolved = set[UUID]()
    per_campaign = Counter[UUID]()
    while len(resolved) < _PER_REQUEST:
        done = await _resolve(caller, resolution.action, which)
        for campaign_id, ids in done.items():
            per_campaign[campaign_id] += len(ids)
            resolved |= ids
        if sum(map(len, done.values())) < _AT_ONCE:
            break
    left = [each for each in dict.fromkeys(resolution.delivery_ids or ()) if each not in resolved]
    async with caller.transaction() as tx:
        remaining = 0 if resolution.delivery_ids else await resolutions.count(tx, which)
        why = await resolutions.why_left(tx, resolution.action, left)
        read = [await campaigns.read(tx, each, deleted=True) for each in sorted(per_campaign)]
        touched = [campaign for campaign in read if campaign]
    if resolution.action is Action.RESEND:
        for campaign in touched:
            await _send_on(request, caller, campaign)
    return Resolved(
        resolved=len(resolved),
        remaining=remaining,
        campaigns=[
            ResolvedCampaign(campaign_id=each.id, resolved=per_campaign[each.id], status=each.state) for each in touched
        ],
        not_resolved=[NotResolved(delivery_id=each, why=why[each]) for each in left],
    )


async def _check_campaign(caller: Caller, campaign_id: UUID, action: Action) -> None:
    async with caller.transaction(effective=False) as tx:
        if await resolutions.is_automation(tx, campaign_id):
            if action is Action.RESEND:
                raise Conflict(why_not(action, "uncertain", None, deleted=False, of_a_journey=True))
            return
        campaign = await find(tx, campaign_id)
        standing = await experiments.read(tx, campaign_id)
    stopped = standing is not None and standing.state == "stopped"
    if action is Action.RESEND and (stopped or campaign.state not in RESENDING):
        why = why_not(action, "uncertain", campaign.state, deleted=False, stopped=stopped)
        raise Conflict(why, campaign_status=campaign.state)


async def _resolve(caller: Caller, action: Action, which: Which) -> dict[UUID, set[UUID]]:
    try:
        async with caller.transaction() as tx:
            return await resolutions.resolve(tx, caller.account_id, action, which, key_id=caller.key_id, limit=_AT_ONCE)
    except Overtaken:
        raise Conflict("A campaign was ended at this very moment. Ask again.") from None


async def _send_on(request: Request, caller: Caller, campaign: Campaign) -> None:
    """Tell the campaign's workflow, or start it again if it has ended; if Temporal is away, the sweep does so later."""
    temporal: Client = request.app.state.temporal
    ref = CampaignRef(account_id=caller.account_id, campaign_id=campaign.id)
    kind: CampaignKind = "experiment" if campaign.kind == "experiment" else "broadcast"
    input = CampaignInput.to_go_on(ref, campaign.name, kind, campaign.state, campaign.state_reason)
    try:
        await temporal.start_workflow(
            run_of(kind),
            input,
            task_queue=ORCHESTRATION,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            start_signal=CampaignWorkflow.look_again.__name__,
            rpc_timeout=STARTING,
            **start_options(input, campaign.state),
        )
    except RPCError as error:
        if error.status not in AWAY:
            raise


def _told(found: Uncertain) -> UncertainDelivery:
    domain = address(found.from_email).rpartition("@")[2] if found.from_email else None
    return UncertainDelivery.model_validate(
        {**vars(found), "message_id": f"<{found.delivery_id.hex}@{domain}>" if domain else None},
    )
