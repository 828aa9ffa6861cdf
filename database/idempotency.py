"""Requests that carried an `Idempotency-Key`, and how they were answered."""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import delete, text, update

from database.engine import Database
from database.schema import idempotency_keys


@dataclass(frozen=True)
class Earlier:
    """The first request with a key; `status` is None while it is still at work."""

    request: str
    body_hash: bytes | None
    status: int | None
    headers: dict[str, str]
    body: bytes


async def claim(database: Database, account_id: UUID, key: str, request: str) -> Earlier | None:
    """Take a key for a request: None if it is ours now, else what the first one was.

    Answers are kept for a day. A first request that never ended (its server crashed) frees its key after a minute.
    """
    async with database.transaction(account_id) as tx:
        claimed = await tx.execute(
            text("""
                INSERT INTO idempotency_keys AS known (account_id, key, request) VALUES (:account_id, :key, :request)
                ON CONFLICT (account_id, key) DO UPDATE
                SET request = EXCLUDED.request, created_at = now(), status = NULL, body_hash = NULL, body = NULL
                WHERE known.created_at < now() - interval '1 day'
                OR (known.status IS NULL AND known.created_at < now() - interval '1 minute')
            """),
            {"account_id": account_id, "key": key, "request": request},
        )
        if claimed.rowcount:
            return None
        query = idempotency_keys.select().where(idempotency_keys.c.key == key)
        row = (await tx.execute(query)).one_or_none()
        if row is None:  # its first request failed at this very moment
            return Earlier(request, None, None, {}, b"")
        return Earlier(row.request, row.body_hash, row.status, row.headers or {}, row.body or b"")


async def keep(
    database: Database,
    account_id: UUID,
    key: str,
    body_hash: bytes,
    status: int,
    headers: Mapping[str, str],
    body: bytes,
) -> None:
    """Keep the answer for whoever asks again."""
    async with database.transaction(account_id) as tx:
        await tx.execute(
            update(idempotency_keys)
            .where(idempotency_keys.c.key == key)
            .values(body_hash=body_hash, status=status, headers=dict(headers), body=body)
        )


async def forget(database: Database, account_id: UUID, key: str) -> None:
    """Free the key: its request had no effect."""
    async with database.transaction(account_id) as tx:
        await tx.execute(delete(idempotency_keys).where(idempotency_keys.c.key == key))
