"""`Idempotency-Key`: how often may a POST be repeated? As often as you like; it has one effect.

The first request with a key is carried out and its answer kept for a day. The same request, with the same API key, gets
the same answer again (`Idempotency-Replayed: true`); another request with the same key is refused (422), one while the
first is still at work as well (409). So is one whose first had an effect and no success: each transaction of a request
marks its key, so that what is committed is known. If it was answered 5xx, the refusal tells this answer (`first`); if
there was none, because its server crashed in between, it says so. Without an effect the key is free again: at once
after a 5xx, after a minute without a sign of life. An answer that says
`Cache-Control: no-store` has a secret in it and is not kept: the request still has one effect, and whoever repeats it
is told so (409). Bodies are hashed while they stream by, so even an import of gigabytes can carry a key.
"""

import hashlib
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import orjson
from starlette.requests import Request

from api.auth import identify
from api.errors import BadRequest, Conflict, Malformed, Problem
from database import idempotency
from database.engine import Database
from database.idempotency import Claim, Earlier, Key

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_LONGEST_KEY = 255
_LARGEST_ANSWER = 1_000_000  # bytes


class Idempotency:
    """ASGI middleware around every POST under /api."""

    def __init__(self, app: Application) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or not scope["path"].startswith("/api/"):
            return await self.app(scope, receive, send)
        request = Request(scope, receive)
        key = request.headers.get("idempotency-key")
        if key is None:
            return await self.app(scope, receive, send)
        try:
            await self._once(request, key, receive, send)
        except Problem as problem:
            await problem.response()(scope, receive, send)

    async def _once(self, request: Request, key: str, receive: Receive, send: Send) -> None:
        if not (1 <= len(key) <= _LONGEST_KEY and key.isascii() and key.isprintable()):
            raise BadRequest(f"Idempotency-Key has 1 to {_LONGEST_KEY} characters, all of them printable ASCII.")
        scheme, _, secret = request.headers.get("authorization", "").partition(" ")
        caller = await identify(request, secret if scheme.lower() == "bearer" else None)
        own_key = Key(caller.account_id, caller.key_id, key)
        asked = f"POST {quote(request.url.path)}?{request.url.query}"
        body = _Body(receive)
        claim = await idempotency.claim(caller.database, own_key, asked)
        if isinstance(claim, Earlier):
            await body.drain()
            await self._replay(claim, asked, body.digest(), send)
            return
        request.state.claim = claim  # for the transactions of the caller
        answer = _Answer()
        try:
            await self.app(request.scope, body.receive, answer.take)
            await body.drain()
        finally:
            await self._keep(caller.database, claim, body, answer)
        for event in answer.events:
            await send(event)

    async def _replay(self, earlier: Earlier, asked: str, digest: bytes, send: Send) -> None:
        if earlier.request != asked:
            raise Malformed(f"This Idempotency-Key was used for another request: {earlier.request}. Use a new one.")
        if earlier.status is None and earlier.effective:
            raise Conflict(
                "The first request with this Idempotency-Key was carried out, or still is, and its answer is not "
                "known. Look at what it did (GET) rather than repeat it."
            )
        if earlier.status is not None and earlier.status >= 500:
            raise Conflict(
                f"The first request with this Idempotency-Key had an effect and was answered {earlier.status}. "
                "Look at what it did (GET) rather than repeat it.",
                first=orjson.loads(earlier.body) if earlier.body else {"status": earlier.status},
            )
        if earlier.status is None:
            raise Conflict("The first request with this Idempotency-Key is still at work. Try again in a moment.")
        if earlier.body_hash != digest:
            raise Malformed("This Idempotency-Key was used with another body. Use a new one.")
        if earlier.body is None:
            raise Conflict(
                "This was done before, and its answer can't be shown again: it had a secret in it, which is not kept. "
                "If you did not see it, revoke what was made and ask again with a new Idempotency-Key."
            )
        headers = [(name.encode(), value.encode()) for name, value in earlier.headers.items()]
        headers.append((b"idempotency-replayed", b"true"))
        await send({"type": "http.response.start", "status": earlier.status, "headers": headers})
        await send({"type": "http.response.body", "body": earlier.body})

    async def _keep(self, database: Database, claim: Claim, body: "_Body", answer: "_Answer") -> None:
        """Keep the answer, if it is one to keep; else the key is free again, unless something was done."""
        status = answer.status or 500  # whoever did not answer has failed
        too_large = len(answer.body) > _LARGEST_ANSWER
        if status >= 500 or too_large:
            is_free = await idempotency.forget(database, claim)
            if is_free or too_large:
                return
        no_body = answer.status is None or answer.headers.get("cache-control") == "no-store"
        kept = None if no_body else bytes(answer.body)
        await idempotency.keep(database, claim, body.digest(), status, answer.headers, kept)


class _Body:
    """A request's body, hashed as it streams by."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._hash = hashlib.sha256()
        self._done = False

    async def receive(self) -> Event:
        event = await self._receive()
        if event["type"] == "http.request":
            self._hash.update(event.get("body", b""))
            self._done = not event.get("more_body", False)
        else:
            self._done = True
        return event

    async def drain(self) -> None:
        while not self._done:
            await self.receive()

    def digest(self) -> bytes:
        return self._hash.digest()


@dataclass
class _Answer:
    """An answer, held back until it is kept: whoever has seen it may ask again and must be answered the same."""

    events: list[Event] = field(default_factory=list)
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)

    async def take(self, event: Event) -> None:
        self.events.append(event)
        if event["type"] == "http.response.start":
            self.status = event["status"]
            self.headers = {name.decode(): value.decode() for name, value in event["headers"]}
        elif event["type"] == "http.response.body":
            self.body += event.get("body", b"")
