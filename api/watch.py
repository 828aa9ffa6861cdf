"""What was asked, what did we answer, and how long did it take? A line of the log, two metrics, a span per request."""

import logging
import re
from contextlib import AbstractContextManager, nullcontext
from time import perf_counter
from uuid import uuid4

import structlog
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, StatusCode
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from telemetry import metrics
from telemetry.tracing import caller_of, tracer

log = structlog.get_logger()

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
QUIET = ("/healthz", "/readyz", "/metrics")  # asked every few seconds
RECIPIENTS = ("/u/", "/p/")  # what is nothing to them is always the same nothing, without a number
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_REQUEST_ID = re.compile(r"[\w.:/+=-]{1,128}", re.ASCII)  # whatever a proxy makes up; no address


class Watch:
    """ASGI middleware. Openings and clicks do not come by here: they are counted a group at a time."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid4().hex
        method = scope["method"] if scope["method"] in METHODS else "other"
        status = 500  # until something is answered

        async def answer(event: Message) -> None:
            nonlocal status
            if event["type"] == "http.response.start":
                status = event["status"]
            if event["type"] == "http.response.start" and not scope["path"].startswith(RECIPIENTS):
                event = {**event, "headers": [*event.get("headers", ()), (b"x-request-id", request_id.encode())]}
            await send(event)

        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        began = perf_counter()
        with _span(scope, method, headers) as span:
            try:
                await self._app(scope, receive, answer)
            finally:
                _tell(scope, method, status, perf_counter() - began, span)


def _span(scope: Scope, method: str, headers: Headers) -> AbstractContextManager[Span]:
    if not scope["path"].startswith("/api/"):
        return nullcontext(INVALID_SPAN)
    return tracer.start_as_current_span(method, caller_of(headers), SpanKind.SERVER)


def _tell(scope: Scope, method: str, status: int, seconds: float, span: Span) -> None:
    route = route_of(scope)
    metrics.requests.labels(method, route, str(status)).inc()
    metrics.request_seconds.labels(method, route).observe(seconds)
    params = {name: str(value) for name, value in scope.get("path_params", {}).items()}
    ids = {name: value for name, value in params.items() if _UUID.fullmatch(value)}
    level = logging.DEBUG if route in QUIET else logging.INFO
    log.log(level, "request", method=method, route=route, status=status, seconds=round(seconds, 6), **ids)
    if span.is_recording():
        ids |= {name: value for name, value in structlog.contextvars.get_contextvars().items() if name != "request_id"}
        span.update_name(f"{method} {route}")
        span.set_attributes({f"carillon.{name}": str(value) for name, value in ids.items()})
        span.set_attributes({"http.request.method": method, "http.route": route, "http.response.status_code": status})
        if status >= 500:
            span.set_status(StatusCode.ERROR)


def route_of(scope: Scope) -> str:
    """The template that the path was matched with: nothing of what a request says, such as a token, is in it."""
    if "route" in scope:
        template: str = scope["route"].path_format
        return template
    if "endpoint" not in scope:
        return "(none)"
    # Starlette's own routes and files don't say which they are: all begin with one word of ours.
    first = scope["path"].split("/")[1]
    return "/".join(["", first, *(f"{{{name}}}" for name in scope["path_params"])])
