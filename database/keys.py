"""API keys: only their hashes are kept."""

import hashlib
import secrets
import string
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, cast
from uuid import UUID

from sqlalchemy import func, select, text, update
from sqlalchemy.dialects.postgresql import Insert, insert

from database import accounts, data_dir
from database.engine import Connection, Database
from database.schema import api_keys
from marketing.accounts import AccountSettings, Role

_ALPHABET = string.ascii_letters + string.digits
_SHOWN = 12  # characters of a key that people may see again, to tell it from others


@dataclass(frozen=True)
class FoundKey:
    """Who presented a key, and what it may do."""

    key_id: UUID
    account_id: UUID
    role: Role


@dataclass(frozen=True)
class ApiKey:
    """A key without its secret."""

    id: UUID
    name: str
    role: Role
    prefix: str
    created_at: datetime
    revoked_at: datetime | None


def new_secret() -> str:
    """A fresh key: `car_` and 40 letters and digits (238 bits)."""
    return "car_" + "".join(secrets.choice(_ALPHABET) for _ in range(40))


def _hash(secret: str) -> bytes:
    # A plain hash is enough for secrets of this entropy: there is no dictionary to try.
    return hashlib.sha256(secret.encode()).digest()


_FIND = text("""
    SELECT asked.n, found.* FROM unnest(CAST(:hashes AS bytea[])) WITH ORDINALITY AS asked (hash, n)
    CROSS JOIN LATERAL find_api_key(asked.hash) AS found
""")


async def find(database: Database, secrets: Sequence[str]) -> list[FoundKey | None]:
    """The keys that these secrets belong to, in their order; None for one that is wrong or was revoked."""
    async with database.transaction(None) as tx:
        rows = (await tx.execute(_FIND, {"hashes": list(map(_hash, secrets))})).all()
    found = {row.n: FoundKey(row.key_id, row.account_id, cast(Role, row.role)) for row in rows}
    return [found.get(n) for n in range(1, len(secrets) + 1)]


async def create(tx: Connection, account_id: UUID, name: str, role: Role, secret: str) -> ApiKey:
    return _key((await tx.execute(_insert(account_id, name, role, secret).returning(*_READABLE))).mappings().one())


async def page(tx: Connection, *, after: UUID | None, limit: int) -> list[ApiKey]:
    query = select(*_READABLE).order_by(api_keys.c.id.desc()).limit(limit)
    if after:
        query = query.where(api_keys.c.id < after)
    return [_key(row) for row in (await tx.execute(query)).mappings()]


async def revoke(tx: Connection, key_id: UUID) -> bool:
    """False if there is no such key."""
    statement = update(api_keys).where(api_keys.c.id == key_id)
    result = await tx.execute(statement.values(revoked_at=func.coalesce(api_keys.c.revoked_at, func.now())))
    return result.rowcount == 1


async def other_owners(tx: Connection, key_id: UUID) -> int:
    """How many living owner keys there would be without this one."""
    living = select(func.count()).where(
        api_keys.c.role == "owner", api_keys.c.revoked_at.is_(None), api_keys.c.id != key_id
    )
    return (await tx.execute(living)).scalar_one()


async def ensure_first_owner(database: Database, own: str | None, unshown: Path | None = None) -> str | None:
    """Make the first account with its owner key, if there is none yet.

    Args:
        own: a key of the operator's choice; one that an existing installation does not know is another owner key.
        unshown: a file that keeps a key that is made up from before it counts. Whoever has shown the key deletes it.

    Returns:
        the key that was made up, now or by a start that did not get as far as showing it; None otherwise.
    """
    if own:
        await _ensure_owner(database, own)
    made_up = data_dir.read(unshown) if unshown else None
    if made_up is None and not await _any(database):
        made_up = new_secret()
        if unshown:
            data_dir.write(unshown, made_up)
    if made_up:
        await _ensure_owner(database, made_up)
    return made_up


async def _ensure_owner(database: Database, secret: str) -> None:
    """Twice is the same as once; a key that was revoked stays so."""
    account_id = await accounts.first(database)
    if account_id is None:
        account_id = await accounts.create(database, AccountSettings(name="My account"))
    async with database.transaction(account_id) as tx:
        await tx.execute(_insert(account_id, "First owner", "owner", secret).on_conflict_do_nothing())


async def _any(database: Database) -> bool:
    account_id = await accounts.first(database)
    if account_id is None:
        return False
    async with database.transaction(account_id) as tx:
        return bool(await page(tx, after=None, limit=1))


def _insert(account_id: UUID, name: str, role: Role, secret: str) -> Insert:
    hidden = {"prefix": secret[:_SHOWN], "secret_hash": _hash(secret)}
    return insert(api_keys).values(account_id=account_id, name=name, role=role, **hidden)


_READABLE = (
    api_keys.c.id,
    api_keys.c.name,
    api_keys.c.role,
    api_keys.c.prefix,
    api_keys.c.created_at,
    api_keys.c.revoked_at,
)


def _key(row: Any) -> ApiKey:
    return ApiKey(**row)
