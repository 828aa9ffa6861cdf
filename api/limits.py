"""How much may a request say? Enough for any campaign; files come in through the import, block by block."""

from contextlib import suppress

from api.errors import TooLarge
from api.idempotency import Application, Event, Receive, Scope, Send

LARGEST_BODY = 5 << 20  # bytes
STREAMED = ("/api/contacts/import",)
REFUSAL = TooLarge(f"A request has at most {LARGEST_BODY >> 20} MiB. For files there is POST /api/contacts/import.")


class BodyLimit:
    """ASGI middleware: refuses bodies of more than 5 MiB, before they fill the memory."""

    def __init__(self, app: Application) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/api/") or scope["path"] in STREAMED:
            await self.app(scope, receive, send)
            return
        read = 0

        async def limited() -> Event:
            nonlocal read
            event = await receive()
            read += len(event.get("body", b""))
            if read > LARGEST_BODY:
                raise REFUSAL
            return event

        async def unless_refused(event: Event) -> None:
            if read <= LARGEST_BODY:
                await send(event)

        with suppress(TooLarge):
            await self.app(scope, limited, unless_refused)
        if read > LARGEST_BODY:
            await REFUSAL.response()(scope, receive, send)
