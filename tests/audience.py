"""People to write to, for tests."""

from uuid import UUID

from sqlalchemy import text

from tests.conftest import TestAccount

HTML = """<html><body><p>Hello {{ contact.first_name | default: "there" }}!</p>
<p><a href="https://shop.example.com/autumn">The collection</a></p>
<p><a href="https://shop.example.com/sale">The sale</a></p>
<p><a href="{{ unsubscribe_url }}">Unsubscribe</a></p></body></html>"""

EMAIL = {
    "subject": 'Hello {{ contact.first_name | default: "there" }}',
    "html": HTML,
    "from_name": "Example Outfitters",
    "from_email": "news@example.com",
}


async def people(
    account: TestAccount, count: int, *, name: str = "person", subscribed: bool = True, timezone: str | None = None
) -> list[UUID]:
    """`count` contacts, `<name>-<n>-<part of the account's id>@example.org`, who agreed to e-mail."""
    async with account.transaction() as tx:
        rows = await tx.execute(
            text("""
                INSERT INTO contacts (account_id, email, first_name, timezone)
                SELECT :account_id,
                       CAST(:name AS text) || '-' || n || '-' || right(CAST(:account_id AS text), 12) || '@example.org',
                       'Person ' || n, :timezone
                FROM generate_series(1, :count) AS n RETURNING id
            """),
            {"account_id": account.id, "name": name, "count": count, "timezone": timezone},
        )
        ids = [row.id for row in rows]
        if subscribed:
            await tx.execute(
                text("""
                    INSERT INTO subscriptions (account_id, contact_id, channel, status, consent_at, consent_how)
                    SELECT :account_id, id, 'email', 'subscribed', now(), 'test' FROM unnest(CAST(:ids AS uuid[])) AS id
                """),
                {"account_id": account.id, "ids": ids},
            )
    return ids
