"""Requests that carried an `Idempotency-Key`, and how they were answered."""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import ColumnElement, and_, delete, func, text, update

from database.engine import Connection, Database
from database.schema import idempotency_keys


@dataclass(frozen=True)
class Key:
    """An `Idempotency-Key`. Each API key has its own, so that nobody gets an answer that was meant for another."""

    account_id: UUID
    api_key_id: UUID
    key: str


@dataclass(frozen=True)
class Claim:
    """A key in the hands of one request, until another takes it over."""

    key: Key
    token: UUID


@dataclass(frozen=True)
class Earlier:
    """The first request with a key; `status` is None while it has no answer, `body` too if it was not kept.

    `effective`: something of it is committed.
    """

    request: str
    effective: bool
    body_hash: bytes | None
    status: int | None
    headers: dict[str, str]
    body: bytes | None


async def claim(database: Database, key: Key, request: str) -> Claim | Earlier:
    """Take a key for a request: ours now, or what the first one was.

    Answers are kept for a day. A request that had no effect yet and shows no life for a minute (its server crashed, or
    it is slow) loses its key to the next one, and can have none any more.
    """
    async with database.transaction(key.account_id) as tx:
        claimed = await tx.scalar(
            text("""
                INSERT INTO idempotency_keys AS known (account_id, api_key_id, key, request)
                VALUES (:account_id, :api_key_id, :key, :request)
                ON CONFLICT (account_id, api_key_id, key) DO UPDATE
                SET request = EXCLUDED.request, created_at = now(), status = NULL, body_hash = NULL, body = NULL,
                    token = EXCLUDED.token, effective = false
                WHERE known.created_at < now() - interval '1 day'
                OR (known.status IS NULL AND NOT known.effective AND known.created_at < now() - interval '1 minute')
                RETURNING token
            """),
            {**vars(key), "request": request},
        )
        if claimed:
            return Claim(key, claimed)
        row = (await tx.execute(idempotency_keys.select().where(_is(key)))).one_or_none()
        if row is None:  # its first request failed at this very moment
            return Earlier(request, False, None, None, {}, None)
        return Earlier(row.request, row.effective, row.body_hash, row.status, row.headers or {}, row.body)


async def mark(tx: Connection, claim: Claim, *, effective: bool) -> bool:
    """Note that the request lives and, if it is `effective`, that what this transaction does is done.

    False if another has taken the key over: then nothing of this may be committed.
    """
    marking = update(idempotency_keys).where(_held(claim)).values(created_at=func.now())
    return bool((await tx.execute(marking.values(effective=True) if effective else marking)).rowcount)


async def keep(
    database: Database, claim: Claim, body_hash: bytes, status: int, headers: Mapping[str, str], body: bytes | None
) -> None:
    """Keep the answer for whoever asks again; without its body, only that there was one."""
    async with database.transaction(claim.key.account_id) as tx:
        await tx.execute(
            update(idempotency_keys)
            .where(_held(claim))
            .values(body_hash=body_hash, status=status, headers=dict(headers), body=body)
        )


async def forget(database: Database, claim: Claim) -> bool:
    """Free the key, unless its request had an effect; True if it is free now."""
    async with database.transaction(claim.key.account_id) as tx:
        freed = await tx.execute(delete(idempotency_keys).where(_held(claim), ~idempotency_keys.c.effective))
    return bool(freed.rowcount)


def _is(key: Key) -> ColumnElement[bool]:
    return and_(idempotency_keys.c.api_key_id == key.api_key_id, idempotency_keys.c.key == key.key)


def _held(claim: Claim) -> ColumnElement[bool]:
    return and_(_is(claim.key), idempotency_keys.c.token == claim.token)
