"""`/api/notifications`: what is there to know?"""

from uuid import UUID

from fastapi import APIRouter

from api.auth import Viewer
from api.paging import Cursor, Limit, Page, page_of
from database import notifications
from marketing.notifications import Notification, NotificationKind

router = APIRouter(prefix="/api/notifications", tags=["account"])


@router.get("")
async def list_notifications(
    caller: Viewer,
    kind: NotificationKind | None = None,
    source_id: UUID | None = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[Notification]:
    """What automations and drips had to tell, newest first. `notification_emails` of the account get it by e-mail."""
    async with caller.transaction() as tx:
        found = await notifications.page(tx, kind=kind, source_id=source_id, after=cursor, limit=limit + 1)
    return page_of(found, limit, lambda each: each.id)
