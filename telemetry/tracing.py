"""Where did the time go, from a request to the mail server's answer? OpenTelemetry, where an exporter is configured."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import UUID

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client import Histogram

from marketing.discretion import mask

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from temporalio.client import Interceptor

tracer = trace.get_tracer("carillon")  # makes nothing, at next to no cost, until `configure` was called
_propagator = TraceContextTextMapPropagator()


def configure(endpoint: str | None, *, service: str) -> "list[Interceptor]":
    """Send traces to an OTLP endpoint, if there is one.

    Args:
        endpoint: takes OTLP over HTTP at `/v1/traces`, such as `http://127.0.0.1:4318`.
        service: what this process is called in the traces.

    Returns:
        what a client of Temporal needs so that its workflows and activities belong to the trace.
    """
    if not endpoint:
        return []
    # None of this is loaded, nor its threads started, where nobody wants traces.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
    from temporalio.contrib.opentelemetry import TracingInterceptor

    class Masking(SpanExporter):
        """What an exception said stands in its span: without addresses."""

        def __init__(self, exporter: SpanExporter) -> None:
            self._exporter = exporter

        def export(self, spans: "Sequence[ReadableSpan]") -> SpanExportResult:
            return self._exporter.export([_masked(span) for span in spans])

        def shutdown(self) -> None:
            self._exporter.shutdown()

    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(Masking(exporter)))
    trace.set_tracer_provider(provider)
    return [TracingInterceptor()]


def finish() -> None:
    """Send what has not been sent yet. The process ends after this."""
    shutdown = getattr(trace.get_tracer_provider(), "shutdown", None)  # which the one that makes nothing has not
    if shutdown:
        shutdown()


def caller_of(headers: Mapping[str, str]) -> Context:
    """The trace that a request belongs to by its `traceparent`; else none (W3C Trace Context)."""
    return _propagator.extract(dict(headers), Context())


@contextmanager
def measured(name: str, seconds: Histogram) -> Iterator[None]:
    """The block is a span and counts in a histogram."""
    with seconds.time(), tracer.start_as_current_span(name):
        yield


def tell_message(delivery_id: UUID, began: int, *, outcome: str, reply: str, share: float) -> None:
    """A span for a message that was handed over, or was not, within the current span.

    Args:
        began: nanoseconds of the Unix clock.
        outcome: what became of it.
        reply: the provider's answer, of which only the code is told: the rest may hold an address.
        share: how many of the messages that were sent get a span; all others always get one.
    """
    if not trace.get_current_span().is_recording():
        return
    # Ids may be counted on by one, so they are scattered first (Fibonacci hashing): every try of a message, or none.
    if outcome == "sent" and (delivery_id.int * 0x9E3779B1 & 0xFFFFFFFF) >= share * 0x100000000:
        return
    code = reply[:3]
    attributes = {"carillon.delivery_id": str(delivery_id), "carillon.outcome": outcome}
    if code.isdecimal():
        attributes["smtp.reply_code"] = code
    tracer.start_span("message", kind=SpanKind.CLIENT, start_time=began, attributes=attributes).end()


def _masked(span: "ReadableSpan") -> "ReadableSpan":
    if not span.events and not span.status.description:
        return span
    from opentelemetry.sdk.trace import Event, ReadableSpan

    events = [
        Event(
            event.name,
            {
                name: mask(value) if isinstance(value, str) else value
                for name, value in (event.attributes or {}).items()
            },
            event.timestamp,
        )
        for event in span.events
    ]
    return ReadableSpan(
        name=span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=span.attributes,
        events=events,
        links=span.links,
        kind=span.kind,
        status=Status(span.status.status_code, mask(span.status.description or "")),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )
