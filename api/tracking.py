"""`/t/o/…` and `/t/c/…`: somebody, or some machine, opened a message or followed a link in it."""

from collections.abc import Sequence
from datetime import UTC, datetime
from urllib.parse import quote
from uuid import UUID

import structlog
from starlette.datastructures import State
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from api.groups import Full, GroupCommit
from api.html import nothing_here, try_again
from database import tracking
from database.engine import AWAY, Database
from marketing.hits import Hit
from marketing.machines import Action, Sign, sign_in_request
from marketing.tracking import Tokens
from telemetry import metrics

log = structlog.get_logger()

NEVER_KEPT = {"Cache-Control": "no-store, no-cache, max-age=0, private", "Referrer-Policy": "no-referrer"}
# A transparent GIF89a of 1 × 1, the form that every mail program draws.
GIF = bytes.fromhex("47494638396101000100800000000000ffffff21f90401000000002c00000000010001000002024401003b")
# Made once: an answer that is always the same costs nothing but its sending.
PIXEL = Response(GIF, headers=NEVER_KEPT, media_type="image/gif")
NOTHING_HERE = nothing_here()
NOT_NOW = Response(status_code=503, headers={**NEVER_KEPT, "Retry-After": "3"})
LOOK_ONLY = Response(status_code=405, headers={"Allow": "GET, HEAD"})
# A reader waits for a page: a database that is away gets this long before we ask them to try again.
PATIENCE_SECONDS = 5
SAFE_IN_LOCATION = ":/%#?=@[]!$&'()*+,;~"


class Hits(GroupCommit[Hit, str | None]):
    """Every opening and click that this process was told of, on its way to the record."""

    def __init__(self, database: Database) -> None:
        async def store(account_id: UUID, hits: Sequence[Hit]) -> Sequence[str | None]:
            metrics.group_size.observe(len(hits))
            with metrics.group_seconds.time():
                return await tracking.store(database, account_id, hits)

        super().__init__(store, patience_seconds=PATIENCE_SECONDS)


async def opened(state: State, scope: Scope, token: str) -> Response:
    """A transparent pixel, once the opening is on record."""
    now = datetime.now(UTC)
    tokens: Tokens = state.tokens
    if (seal := tokens.read_open(token, now)) is None:
        return NOTHING_HERE
    hit = Hit(Action.OPEN, seal.delivery_id, now, _sign(Action.OPEN, scope))
    try:
        found = await _put_on_record(state, seal.account_id, hit)
    except NotOnRecord:
        return NOT_NOW
    return NOTHING_HERE if found is None else PIXEL


async def clicked(state: State, scope: Scope, token: str) -> Response:
    """On to the stored address, once the click is on record; never to any other."""
    now = datetime.now(UTC)
    tokens: Tokens = state.tokens
    if (seal := tokens.read_click(token, now)) is None:
        return NOTHING_HERE
    hit = Hit(Action.CLICK, seal.delivery_id, now, _sign(Action.CLICK, scope), seal.link, seal.url)
    try:
        url = await _put_on_record(state, seal.account_id, hit)
    except NotOnRecord:
        return try_again()
    if url is None:
        return NOTHING_HERE
    return Response(status_code=302, headers={**NEVER_KEPT, "Location": quote(url, safe=SAFE_IN_LOCATION)})


ENDPOINTS = {"/t/o/": opened, "/t/c/": clicked}


class Shortcut:
    """Takes openings and clicks straight to their endpoint: FastAPI's way there costs 100 µs, the endpoint 24."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = ENDPOINTS.get(scope["path"][:5]) if scope["type"] == "http" else None
        if endpoint is None:
            await self._app(scope, receive, send)
        elif scope["method"] not in {"GET", "HEAD"}:
            await LOOK_ONLY(scope, receive, send)
        else:
            response = await endpoint(scope["app"].state, scope, scope["path"][5:])
            await response(scope, receive, send)


class NotOnRecord(Exception):
    """The hit could not be stored in good time."""


async def _put_on_record(state: State, account_id: UUID, hit: Hit) -> str | None:
    hits: Hits = state.hits
    try:
        return await hits.add(account_id, hit)
    except (TimeoutError, Full, *AWAY) as error:
        metrics.hits_refused.inc()
        log.warning("hit not stored", action=hit.action, delivery_id=str(hit.delivery_id), error=type(error).__name__)
        raise NotOnRecord from error


def _sign(action: Action, scope: Scope) -> Sign | None:
    # A dict once is cheaper than Starlette's Headers, which walk through all of them at each question.
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    return sign_in_request(action, scope["method"], headers)
