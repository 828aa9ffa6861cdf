"""Who is asking, and may they?"""

from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Annotated
from uuid import UUID

import structlog
from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials

from api.errors import LATER, Conflict, Forbidden, TooMany, Unauthorized, Unavailable
from api.groups import Full, GroupCommit
from database import idempotency, keys
from database.engine import Connection, Database
from marketing.accounts import Role

_RANK: dict[Role, int] = {"viewer": 0, "editor": 1, "owner": 2}
PATIENCE_SECONDS = 10
OF_NO_ACCOUNT = UUID(int=0)  # nobody knows yet whose it is
_bearer = HTTPBearer(auto_error=False, description="An API key: `Authorization: Bearer car_…`")


@dataclass(frozen=True)
class Caller:
    """The account that asks, and its way to the database; `claim`, if what it asks for is to be done once."""

    account_id: UUID
    key_id: UUID
    role: Role
    database: Database
    claim: idempotency.Claim | None = None

    @asynccontextmanager
    async def transaction(self, *, effective: bool = True) -> AsyncIterator[Connection]:
        """One transaction on the rows of the caller's account.

        Committed together with the mark that the `Idempotency-Key` is used up; `effective=False` for what only
        prepares, and does no harm if it is done again from the start.
        """
        async with self.database.transaction(self.account_id) as tx:
            yield tx
            # At the end: until here, whoever asks with the same key is answered at once.
            if self.claim and not await idempotency.mark(tx, self.claim, effective=effective):
                raise Conflict("Another request with this Idempotency-Key has taken over; this one had no effect.")


@dataclass
class FailedAttempts:
    """Slows down whoever guesses keys: `most` wrong ones per address and minute.

    A key that was right before is no guess: behind one proxy or office everybody has the same address, and nobody shall
    be locked out by what others send.
    """

    most: int = 20
    seen: dict[str, deque[float]] = field(default_factory=dict)
    known: set[int] = field(default_factory=set)  # hashes of keys, which only this process can make

    def check(self, address: str, secret: str) -> None:
        if hash(secret) in self.known:
            return
        attempts = self.seen.get(address)
        while attempts and attempts[0] < monotonic() - 60:
            attempts.popleft()
        if attempts and len(attempts) >= self.most:
            raise TooMany("Too many wrong API keys from this address. Wait a minute.", headers={"Retry-After": "60"})

    def note(self, address: str, secret: str) -> None:
        if len(self.seen) > 10_000:
            self.seen.clear()
        self.seen.setdefault(address, deque()).append(monotonic())
        self.known.discard(hash(secret))

    def trust(self, secret: str) -> None:
        if len(self.known) > 10_000:
            self.known.clear()
        self.known.add(hash(secret))


class Keys(GroupCommit[str, keys.FoundKey | None]):
    """Whose key is it? Those who ask together share a transaction: one for each took most of a small request."""

    def __init__(self, database: Database) -> None:
        async def find(_: UUID, secrets: Sequence[str]) -> Sequence[keys.FoundKey | None]:
            return await keys.find(database, secrets)

        super().__init__(find, patience_seconds=PATIENCE_SECONDS)

    async def find(self, secret: str) -> keys.FoundKey | None:
        try:
            return await self.add(OF_NO_ACCOUNT, secret)
        except (Full, TimeoutError) as error:
            raise Unavailable("Too many requests wait to be let in. Try again in a moment.", headers=LATER) from error


async def identify(request: Request, secret: str | None) -> Caller:
    """The caller whose key this is.

    Raises:
        Unauthorized: no key, or one that is wrong or revoked.
        TooMany: too many wrong keys from this address.
    """
    if not secret:
        raise Unauthorized("Send your API key: `Authorization: Bearer <key>`.")
    address = request.client.host if request.client else ""
    failed: FailedAttempts = request.app.state.failed_attempts
    failed.check(address, secret)
    database: Database = request.app.state.database
    lookups: Keys = request.app.state.keys
    found = await lookups.find(secret)
    if found is None:
        failed.note(address, secret)
        raise Unauthorized("This API key is wrong or was revoked. An owner can make a new one: POST /api/keys.")
    failed.trust(secret)
    structlog.contextvars.bind_contextvars(account_id=str(found.account_id))  # for what is logged from here on
    return Caller(found.account_id, found.key_id, found.role, database)


def _at_least(role: Role) -> Callable[..., object]:
    async def check(
        request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
    ) -> Caller:
        caller = await identify(request, credentials.credentials if credentials else None)
        if _RANK[caller.role] < _RANK[role]:
            raise Forbidden(f"This needs a key with the role {role}; yours is {caller.role}.")
        if role == "viewer":  # what viewers may ask for has no effect
            return caller
        return replace(caller, claim=getattr(request.state, "claim", None))

    return check


Viewer = Annotated[Caller, Depends(_at_least("viewer"))]
Editor = Annotated[Caller, Depends(_at_least("editor"))]
Owner = Annotated[Caller, Depends(_at_least("owner"))]
