"""What there is to know reaches those who want it: at once, and then once in an hour."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from temporalio.client import Client
from temporalio.testing import ActivityEnvironment, TimeSkipper

from activities.notifications import DigestInput, Notifications
from channels.base import Rejected, Unavailable
from channels.outbox import Outbox
from channels.sink import Sink
from database import notifications
from marketing.keyed import keyed_id
from marketing.notifications import Notification, NotificationKind
from tests.conftest import TestAccount
from tests.delivering import Provider, change_account
from tests.enrolled import enrolled
from workflows.notifications import tell

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
ADDRESSES = ["owner@example.org", "editor@example.org"]


async def told(account: TestAccount, source_id: UUID | None, *texts: str, at: datetime = NOW) -> None:
    async with account.transaction() as tx:
        kind = NotificationKind.NOTE
        made = [
            Notification(
                id=keyed_id(at + timedelta(milliseconds=n), source_id, text),
                kind=kind,
                source_id=source_id,
                text=text,
                created_at=at,
                emailed_at=None,
            )
            for n, text in enumerate(texts)
        ]
        await notifications.add(tx, account.id, made)


async def sent(account: TestAccount, channel: Outbox | Provider, now: datetime = NOW) -> datetime | None:
    """When there is more to send, after what was sent now."""
    run = Notifications(account.database, {"email": channel}).email_digests
    return (await ActivityEnvironment().run(run, DigestInput(account_id=account.id, now=now))).due


async def test_each_address_gets_one_email_per_source_in_an_hour(account: TestAccount) -> None:
    one, other = await enrolled(account, 1), await enrolled(account, 1, name="other")
    await change_account(account, notification_emails=ADDRESSES)
    outbox = Outbox()
    await told(account, one.automation_id, "first", "second")
    assert await sent(account, outbox) is None
    assert [(each.to, each.sender.address) for each in outbox.messages] == [
        (address, "carillon@example.com") for address in ADDRESSES
    ]
    assert "- first\n- second\n" in outbox.messages[0].text and "2 things" in outbox.messages[0].subject
    await told(account, one.automation_id, "third", at=NOW + timedelta(minutes=1))
    await told(account, other.automation_id, "fourth", at=NOW + timedelta(minutes=1))
    assert await sent(account, outbox, NOW + timedelta(minutes=2)) == NOW + timedelta(hours=1)
    assert "fourth" in outbox.messages[-1].text and len(outbox.messages) == 4
    assert await sent(account, outbox, NOW + timedelta(hours=1)) is None
    assert "third" in outbox.messages[-1].text and len(outbox.messages) == 6


async def test_nothing_is_sent_where_nobody_wants_it_and_what_is_old_is_not_sent_later(account: TestAccount) -> None:
    outbox = Outbox()
    await told(account, None, "long ago")
    assert await sent(account, outbox) is None
    await change_account(account, notification_emails=ADDRESSES[:1])
    await told(account, None, "news", at=NOW + timedelta(days=2))
    assert await sent(account, outbox, NOW + timedelta(days=2)) is None
    (message,) = outbox.messages
    assert message.subject == "Carillon: news" and "long ago" not in message.text


async def test_what_a_server_cannot_take_now_is_told_when_it_can_and_what_it_refuses_is_not(
    account: TestAccount,
) -> None:
    await change_account(account, notification_emails=ADDRESSES)
    await told(account, None, "news")
    with pytest.raises(Unavailable):
        await sent(account, Provider(Unavailable("away")))
    refusing = Provider(Rejected("no such user"))
    assert await sent(account, refusing) is None
    assert refusing.asked == ADDRESSES
    assert await sent(account, Provider(Unavailable("nobody is asked"))) is None


async def test_a_long_list_says_how_many_more_there_are(account: TestAccount) -> None:
    await change_account(account, notification_emails=ADDRESSES[:1])
    await told(account, None, *(f"thing {n}" for n in range(23)))
    outbox = Outbox()
    await sent(account, outbox)
    (message,) = outbox.messages
    assert "23 things" in message.subject and "- and 3 more" in message.text and "thing 20" not in message.text


async def test_the_next_email_waits_for_the_end_of_the_hour(
    temporal: Client, worker: None, sink: Sink, account: TestAccount
) -> None:
    address = f"owner-{account.id}@example.org"
    await change_account(account, notification_emails=[address])
    skipping = TimeSkipper(temporal).client
    await told(account, None, "first", at=datetime.now(UTC))
    await tell(skipping, account.id)
    await skipping.get_workflow_handle(f"notifications-{account.id}").result()
    await told(account, None, "second", at=datetime.now(UTC))
    await tell(skipping, account.id)
    await skipping.get_workflow_handle(f"notifications-{account.id}").result()
    assert [each.recipient for each in sink.received].count(address) == 2
    async with account.transaction() as tx:
        second, first = await notifications.page(tx, kind=None, source_id=None, after=None, limit=10)
    assert first.emailed_at and second.emailed_at
    assert timedelta(hours=1) <= second.emailed_at - first.emailed_at < timedelta(hours=1, minutes=1)
