"""`/metrics`: what a Prometheus server scrapes, and who may."""

import asyncio
from collections.abc import Callable
from hmac import compare_digest
from ipaddress import ip_address
from time import monotonic

import structlog
from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, REGISTRY, generate_latest
from starlette.responses import Response

from api.errors import Forbidden, Unauthorized
from database import backlog
from database.backlog import Backlog
from database.engine import AWAY, Database
from telemetry import metrics

log = structlog.get_logger()
router = APIRouter()

FRESH_SECONDS = 5.0  # several scrapers ask the database once
PATIENCE_SECONDS = 3.0
# Without labels; each with what tells it.
ALONE: dict[metrics.Known, Callable[[Backlog], float]] = {
    metrics.imports_waiting: lambda found: found.imports,
    metrics.touches_waiting: lambda found: found.touches,
    metrics.oldest_touch: lambda found: found.oldest_touch,
    metrics.routing_waiting: lambda found: found.routing,
    metrics.oldest_routing: lambda found: found.oldest_routing,
    metrics.oldest_enrollment: lambda found: found.oldest_enrollment,
    metrics.open_cohorts: lambda found: found.open_cohorts,
}
# Left by proxies: then the request comes from somewhere else, whatever its address.
FORWARDED = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")


class Waiting:
    """What waits in the database, looked up when somebody wants to know."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._looked_at = -FRESH_SECONDS
        self._looking = asyncio.Lock()

    async def refresh(self) -> None:
        """Bring the gauges up to date; where the database does not answer there is nothing to tell."""
        async with self._looking:
            if monotonic() < self._looked_at + FRESH_SECONDS:
                return
            for told in (metrics.backlog, metrics.oldest_due, *ALONE):
                told.clear()
            try:
                async with asyncio.timeout(PATIENCE_SECONDS), self._database.transaction(None) as tx:
                    found = await backlog.read(tx)
            except (TimeoutError, *AWAY) as error:
                log.warning("backlog not known", error=type(error).__name__)
                return
            for labels, messages in found.messages.items():
                metrics.backlog.labels(*labels).set(messages)
            for channel, seconds in found.oldest_due.items():
                metrics.oldest_due.labels(channel).set(seconds)
            for gauge, told_by in ALONE.items():
                gauge.set(told_by(found))
            self._looked_at = monotonic()


@router.get("/metrics", include_in_schema=False)
async def read_metrics(request: Request) -> Response:
    """All metrics of this process, and what waits in the database."""
    _check(request)
    waiting: Waiting = request.app.state.waiting
    await waiting.refresh()
    page = await asyncio.to_thread(generate_latest, REGISTRY)  # asks Temporal's SDK for its own
    return Response(page, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})


def _check(request: Request) -> None:
    token: str | None = request.app.state.metrics_token
    if token is not None:
        shown = request.headers.get("authorization", "")
        if not compare_digest(shown.encode(), f"Bearer {token}".encode()):
            raise Unauthorized("Send what CARILLON_METRICS_TOKEN says: `Authorization: Bearer <token>`.")
    elif not _from_this_machine(request):
        raise Forbidden("Metrics are for this machine alone, until CARILLON_METRICS_TOKEN is set.")


def _from_this_machine(request: Request) -> bool:
    try:
        local = request.client is not None and ip_address(request.client.host).is_loopback
    except ValueError:
        return False
    return local and not any(name in request.headers for name in FORWARDED)
