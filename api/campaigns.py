"""`/api/campaigns`: drafted, listed, read, changed and deleted."""

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import AfterValidator, BaseModel, BeforeValidator

from api.auth import Editor, Viewer
from api.errors import Conflict, Malformed, NotFound
from api.paging import Cursor, Limit, Page, page_of
from database import campaigns
from database.campaigns import Campaign, CampaignFilter
from database.engine import Connection
from marketing.campaigns import (
    CampaignDefinition,
    CampaignState,
    Move,
    WrongMove,
    check_move,
    states_that_allow,
)
from marketing.moments import kept_moment, written
from marketing.schedules import Schedule
from marketing.text import Printable

router = APIRouter(prefix="/api/campaigns", tags=["campaigns"])

_Moment = Annotated[datetime, BeforeValidator(written), AfterValidator(kept_moment)]  # without an offset it is UTC's


class CampaignAnswer(CampaignDefinition):
    """A campaign as it is read: its definition, and what has become of it."""

    id: UUID
    status: CampaignState
    status_reason: str
    created_at: datetime
    updated_at: datetime
    launched_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None


class CampaignSummary(BaseModel):
    """A campaign in a list."""

    id: UUID
    name: str
    kind: str
    channels: list[str]
    status: CampaignState
    status_reason: str
    created_at: datetime
    launched_at: datetime | None
    finished_at: datetime | None


def answer(campaign: Campaign) -> CampaignAnswer:
    return CampaignAnswer(
        **{name: getattr(campaign.definition, name) for name in CampaignDefinition.model_fields},
        id=campaign.id,
        status=campaign.state,
        status_reason=campaign.state_reason,
        created_at=campaign.created_at,
        updated_at=campaign.updated_at,
        launched_at=campaign.launched_at,
        started_at=campaign.started_at,
        finished_at=campaign.finished_at,
    )


async def find(tx: Connection, campaign_id: UUID, *, lock: bool = False) -> Campaign:
    """The campaign, or a 404; with `lock` nobody else changes it until this transaction ends."""
    campaign = await campaigns.read(tx, campaign_id, lock=lock)
    if campaign is None:
        raise NotFound("There is no such campaign. GET /api/campaigns lists yours.")
    return campaign


def allow(move: Move, state: CampaignState) -> None:
    """A 409 that says what is allowed, unless the move is."""
    try:
        check_move(move, state)
    except WrongMove as wrong:
        raise Conflict(str(wrong), campaign_status=state, allowed=wrong.allowed) from wrong


def check_schedule(schedule: Schedule | None) -> None:
    if schedule and schedule.has_passed(datetime.now(UTC)):
        raise Malformed(
            f"schedule.send_at: {schedule.send_at.isoformat()} ({schedule.timezone}) has passed. Give a moment to come."
        )


@router.post("", status_code=201)
async def create_campaign(definition: CampaignDefinition, caller: Editor) -> CampaignAnswer:
    """Make a draft."""
    check_schedule(definition.schedule)
    async with caller.transaction() as tx:
        return answer(await campaigns.create(tx, caller.account_id, definition))


@router.get("")
async def list_campaigns(
    caller: Viewer,
    status: CampaignState | None = None,
    kind: Printable | None = None,
    channel: Printable | None = None,
    created_from: _Moment | None = None,
    created_to: _Moment | None = None,
    search: Annotated[Printable | None, Query(max_length=200, description="Part of the name.")] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[CampaignSummary]:
    """Campaigns, newest first."""
    wanted = CampaignFilter(status, kind, channel, created_from, created_to, search)
    async with caller.transaction() as tx:
        found = await campaigns.page(tx, wanted, after=cursor, limit=limit + 1)
    return page_of([_summary(each) for each in found], limit, lambda each: each.id)


@router.get("/{campaign_id:uuid}")
async def read_campaign(campaign_id: UUID, caller: Viewer) -> CampaignAnswer:
    """A campaign as its author wrote it, and how far it has come."""
    async with caller.transaction() as tx:
        return answer(await find(tx, campaign_id))


@router.put("/{campaign_id:uuid}")
async def replace_campaign(campaign_id: UUID, definition: CampaignDefinition, caller: Editor) -> CampaignAnswer:
    """Replace a draft; what was launched can't be changed any more."""
    check_schedule(definition.schedule)
    async with caller.transaction() as tx:
        replaced = await campaigns.replace_draft(tx, campaign_id, definition)
        if replaced is None:
            allow(Move.EDIT, (await find(tx, campaign_id)).state)
            raise Conflict("This campaign was launched at this very moment.")
        return answer(replaced)


@router.delete("/{campaign_id:uuid}", status_code=204)
async def delete_campaign(campaign_id: UUID, caller: Editor) -> None:
    """Take a campaign out of the lists. Its ledger is kept: what was sent stays explained."""
    async with caller.transaction() as tx:
        if not await campaigns.delete(tx, campaign_id, states_that_allow(Move.DELETE)):
            allow(Move.DELETE, (await find(tx, campaign_id)).state)
            raise Conflict("This campaign changed at this very moment. Try again.")


@router.post("/{campaign_id}/duplicate", status_code=201)
async def duplicate_campaign(campaign_id: UUID, caller: Editor) -> CampaignAnswer:
    """A draft like this campaign, without its schedule."""
    async with caller.transaction() as tx:
        original = (await find(tx, campaign_id)).definition
        name = f"Copy of {original.name}"[:200]
        copy = original.model_copy(update={"name": name, "schedule": None})
        return answer(await campaigns.create(tx, caller.account_id, copy))


def _summary(campaign: Campaign) -> CampaignSummary:
    return CampaignSummary(
        id=campaign.id,
        name=campaign.name,
        kind=campaign.kind,
        channels=campaign.channels,
        status=campaign.state,
        status_reason=campaign.state_reason,
        created_at=campaign.created_at,
        launched_at=campaign.launched_at,
        finished_at=campaign.finished_at,
    )
