"""`/api/campaigns/{id}/stats`, `/recipients`, `/enrollments`, `/events`: what has become of it?"""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from api.auth import Viewer
from api.campaigns import find
from api.paging import Cursor, Limit, Page, PairCursor, page_of, pair_cursor, read_pair
from database import counters, executions, recipients
from database.executions import EnrollmentFilter
from marketing.deliveries import DeliveryState
from marketing.executions import Enrollment, EnrollmentState
from marketing.recipients import CampaignEvent, Recipient
from marketing.reports import CampaignStats, campaign_stats, contact_figures
from marketing.text import Printable

router = APIRouter(prefix="/api/campaigns", tags=["campaigns"])


@router.get("/{campaign_id}/stats")
async def stats_of_campaign(campaign_id: UUID, caller: Viewer) -> CampaignStats:
    """The figures, from live counters: `planned = pending + sent + skipped + failed + uncertain` at every moment."""
    async with caller.transaction() as tx:
        campaign = await find(tx, campaign_id)
        stats = campaign_stats(await counters.read(tx, campaign_id))
        if campaign.definition.is_drip:
            stats.contacts = contact_figures(await executions.counted(tx, campaign_id))
        return stats


@router.get("/{campaign_id}/enrollments")
async def enrollments_of_campaign(
    campaign_id: UUID,
    caller: Viewer,
    state: EnrollmentState | None = None,
    contact_id: UUID | None = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[Enrollment]:
    """Of a drip: each contact with the message it is at, when the next is due, and why it has left; newest first."""
    wanted = EnrollmentFilter(campaign_id, contact_id, state)
    async with caller.transaction() as tx:
        await find(tx, campaign_id)
        found = await executions.page(tx, wanted, after=cursor, limit=limit + 1)
    return page_of(found, limit, lambda each: each.id)


@router.get("/{campaign_id}/recipients")
async def recipients_of_campaign(
    campaign_id: UUID,
    caller: Viewer,
    state: DeliveryState | None = None,
    reason: Annotated[
        Printable | None, Query(max_length=100, description="Such as `unsubscribed` or `rejected`.")
    ] = None,
    contact_id: UUID | None = None,
    cursor: PairCursor = None,
    limit: Limit = 50,
) -> Page[Recipient]:
    """Each message with its state, reason, the provider's last words and the number of attempts."""
    async with caller.transaction() as tx:
        await find(tx, campaign_id)
        found = await recipients.page(
            tx,
            campaign_id,
            state=state,
            reason=reason,
            contact_id=contact_id,
            after=read_pair(cursor),
            limit=limit + 1,
        )
    return page_of(found, limit, lambda last: pair_cursor(last.contact_id, last.delivery_id))


@router.get("/{campaign_id}/events")
async def events_of_campaign(
    campaign_id: UUID,
    caller: Viewer,
    name: Annotated[
        Printable | None, Query(max_length=200, description="Such as `campaign.*` or `message.clicked`.")
    ] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[CampaignEvent]:
    """What happened, newest first: the campaign's own life, which messages failed, and what people did with theirs.

    Those that were sent are among the recipients.
    """
    async with caller.transaction() as tx:
        await find(tx, campaign_id)
        found = await recipients.events_page(tx, campaign_id, name=name, after=cursor, limit=limit + 1)
    return page_of(found, limit, lambda each: each.id)
