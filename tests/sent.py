"""A campaign whose messages have left, for tests of what comes back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import orjson
from sqlalchemy import text

from marketing.tracking import RecipientLinks, Tokens
from tests.conftest import PUBLIC_URL, SECRET_KEY, TestAccount

LINKS = ["https://shop.example.com/autumn", "https://shop.example.com/winter?a=1&b=%20c", "https://example.org/ü/✓"]
links = RecipientLinks(PUBLIC_URL, Tokens(SECRET_KEY))


@dataclass(frozen=True)
class SentMessage:
    account: TestAccount
    campaign_id: UUID
    contact_id: UUID
    delivery_id: UUID

    @property
    def pixel(self) -> str:
        return links.pixel(self.account.id, self.delivery_id)

    def click(self, link: int) -> str:
        return links.click(self.account.id, self.delivery_id, link)

    def click_to(self, url: str, link: int = 9) -> str:
        return links.click_to(self.account.id, self.delivery_id, link, url)

    @property
    def unsubscribe(self) -> str:
        return links.unsubscribe(self.account.id, self.contact_id, self.delivery_id)

    @property
    def preferences(self) -> str:
        return links.preferences(self.account.id, self.contact_id, self.delivery_id)


async def sent_messages(
    account: TestAccount,
    count: int = 1,
    *,
    topic: str | None = None,
    statuses: Mapping[str, str] | None = None,
    sent_at: datetime | None = None,
) -> list[SentMessage]:
    """Messages of one campaign with the three `LINKS`, to that many contacts; sent an hour ago by default."""
    sent_at = sent_at or datetime.now(UTC) - timedelta(hours=1)
    async with account.transaction() as tx:

        async def insert(sql: str, **values: object) -> Sequence[UUID]:
            return (await tx.execute(text(sql), {"account": account.id, **values})).scalars().all()

        [campaign] = await insert(
            "INSERT INTO campaigns (account_id, name, kind, channels, state, definition) "
            "VALUES (:account, 'Autumn', 'broadcast', '{email}', 'completed', CAST(:definition AS jsonb)) RETURNING id",
            definition=orjson.dumps({"topic": topic}).decode(),
        )
        await insert(
            "INSERT INTO links (account_id, campaign_id, number, url) "
            "SELECT :account, :campaign, number, url FROM unnest(CAST(:urls AS text[])) WITH ORDINALITY "
            "AS l (url, number) RETURNING campaign_id",
            campaign=campaign,
            urls=LINKS,
        )
        contacts = await insert(
            "INSERT INTO contacts (account_id, email) SELECT :account, 'anna.' || uuidv7() || '@example.com' "
            "FROM generate_series(1, :count) AS n RETURNING id",
            count=count,
        )
        for about, status in ({"": "subscribed"} if statuses is None else statuses).items():
            await insert(
                "INSERT INTO subscriptions (account_id, contact_id, channel, topic, status, consent_how) "
                "SELECT :account, id, 'email', :topic, :status, 'a form' "
                "FROM unnest(CAST(:contacts AS uuid[])) AS c (id) RETURNING contact_id",
                contacts=contacts,
                topic=about,
                status=status,
            )
        deliveries = await insert(
            "INSERT INTO deliveries (account_id, campaign_id, contact_id, channel, shard, state, not_before, "
            "leased_at, finished_at) SELECT :account, :campaign, id, 'email', 0, 'sent', :sent_at, :sent_at, :sent_at "
            "FROM unnest(CAST(:contacts AS uuid[])) AS c(id) RETURNING id",
            campaign=campaign,
            contacts=contacts,
            sent_at=sent_at,
        )
    return [SentMessage(account, campaign, *ids) for ids in zip(contacts, deliveries, strict=True)]
