"""What is there to know, for those who ask?"""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import httpx

from database import notifications
from marketing.keyed import keyed_id
from marketing.notifications import Notification, NotificationKind
from tests.conftest import TestAccount

START = datetime(2026, 11, 27, 12, tzinfo=UTC)


async def test_notifications_are_listed_newest_first_in_pages(
    api: httpx.AsyncClient, stranger: httpx.AsyncClient, account: TestAccount
) -> None:
    source = UUID(int=7)
    made = [
        Notification(
            id=keyed_id(at := START + timedelta(minutes=n), n),
            kind=NotificationKind.FAILED if n % 2 else NotificationKind.NOTE,
            source_id=source if n == 3 else None,
            text=f"thing {n}",
            created_at=at,
            emailed_at=None,
        )
        for n in range(4)
    ]
    async with account.transaction() as tx:
        await notifications.add(tx, account.id, made)

    async def texts(**query: str | int) -> list[str]:
        answer = (await api.get("/api/notifications", params=query)).json()
        return [each["text"] for each in answer["items"]]

    first = (await api.get("/api/notifications", params={"limit": 3})).json()
    assert [each["text"] for each in first["items"]] == ["thing 3", "thing 2", "thing 1"]
    assert await texts(limit=3, cursor=first["next_cursor"]) == ["thing 0"]
    assert await texts(kind="note") == ["thing 2", "thing 0"]
    assert await texts(source_id=str(source)) == ["thing 3"]
    assert (await stranger.get("/api/notifications")).json()["items"] == []
