"""Requests that carried an `Idempotency-Key`, and how they were answered."""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import ColumnElement, and_, delete, text, update

from database.engine import Database
from database.schema import idempotency_keys


@dataclass(frozen=True)
class Key:
    """An `Idempotency-Key`. Each API key has its own, so that nobody gets an answer that was meant for another."""

    account_id: UUID
    api_key_id: UUID
    key: str


@dataclass(frozen=True)
class Earlier:
    """The first request with a key; `status` is None while it is still at work, `body` too if it was not kept."""

    request: str
    body_hash: bytes | None
    status: int | None
    headers: dict[str, str]
    body: bytes | None


async def claim(database: Database, key: Key, request: str) -> Earlier | None:
    """Take a key for a request: None if it is ours now, else what the first one was.

    Answers are kept for a day. A first request that never ended (its server crashed) frees its key after a minute.
    """
    async with database.transaction(key.account_id) as tx:
        claimed = await tx.execute(
            text("""
                INSERT INTO idempotency_keys AS known (account_id, api_key_id, key, request)
                VALUES (:account_id, :api_key_id, :key, :request)
                ON CONFLICT (account_id, api_key_id, key) DO UPDATE
                SET request = EXCLUDED.request, created_at = now(), status = NULL, body_hash = NULL, body = NULL
                WHERE known.created_at < now() - interval '1 day'
                OR (known.status IS NULL AND known.created_at < now() - interval '1 minute')
            """),
            {**vars(key), "request": request},
        )
        if claimed.rowcount:
            return None
        row = (await tx.execute(idempotency_keys.select().where(_is(key)))).one_or_none()
        if row is None:  # its first request failed at this very moment
            return Earlier(request, None, None, {}, None)
        return Earlier(row.request, row.body_hash, row.status, row.headers or {}, row.body)


async def keep(
    database: Database, key: Key, body_hash: bytes, status: int, headers: Mapping[str, str], body: bytes | None
) -> None:
    """Keep the answer for whoever asks again; without its body, only that there was one."""
    async with database.transaction(key.account_id) as tx:
        await tx.execute(
            update(idempotency_keys)
            .where(_is(key))
            .values(body_hash=body_hash, status=status, headers=dict(headers), body=body)
        )


async def forget(database: Database, key: Key) -> None:
    """Free the key: its request had no effect."""
    async with database.transaction(key.account_id) as tx:
        await tx.execute(delete(idempotency_keys).where(_is(key)))


def _is(key: Key) -> ColumnElement[bool]:
    return and_(idempotency_keys.c.api_key_id == key.api_key_id, idempotency_keys.c.key == key.key)
