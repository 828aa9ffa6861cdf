"""`/api/keys`: who may call this API."""

from datetime import datetime
from uuid import UUID

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from api.auth import Owner
from api.errors import Conflict, NotFound
from api.paging import Cursor, Limit, Page, page_of
from database import keys
from marketing.accounts import Role
from marketing.text import Printable

router = APIRouter(prefix="/api/keys", tags=["account"])


class NewKey(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"name": "Shop backend", "role": "editor"}})

    name: Printable = Field(min_length=1, max_length=200)
    role: Role = "editor"


class Key(BaseModel):
    """An API key as it is read: never with its secret."""

    id: UUID
    name: str
    role: Role
    prefix: str
    created_at: datetime
    revoked_at: datetime | None


class CreatedKey(Key):
    secret: str = Field(description="Shown this once; only its hash is kept.")


@router.post("", status_code=201)
async def create_key(new: NewKey, caller: Owner, response: Response) -> CreatedKey:
    """Make a key. Its secret is in this answer and nowhere else.

    With an `Idempotency-Key`, the same request again makes no second key, but is answered with 409. If the first answer
    was lost, revoke the key that was made (`GET /api/keys` lists it) and make another one.
    """
    response.headers["Cache-Control"] = "no-store"
    secret = keys.new_secret()
    async with caller.transaction() as tx:
        key = await keys.create(tx, caller.account_id, new.name, new.role, secret)
    return CreatedKey(**vars(key), secret=secret)


@router.get("")
async def list_keys(caller: Owner, cursor: Cursor = None, limit: Limit = 50) -> Page[Key]:
    """All keys, revoked ones too, newest first."""
    async with caller.transaction() as tx:
        found = await keys.page(tx, after=cursor, limit=limit + 1)
    return page_of([Key(**vars(key)) for key in found], limit, lambda key: key.id)


@router.delete("/{key_id}", status_code=204)
async def revoke_key(key_id: UUID, caller: Owner) -> None:
    """Revoke a key; it is refused from now on."""
    async with caller.transaction() as tx:
        if await keys.other_owners(tx, key_id) == 0:
            raise Conflict("This is the last owner key. Make another owner key first: POST /api/keys.")
        if not await keys.revoke(tx, key_id):
            raise NotFound("There is no such key.")
