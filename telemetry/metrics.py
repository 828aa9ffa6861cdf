"""Every metric, once. `docs/observability.md` tells what each is good for.

Labels have few values: states, reasons, channels, routes. Never an address, an id or a name.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import prometheus_client
from prometheus_client import Gauge, disable_created_metrics
from prometheus_client.metrics_core import Metric

disable_created_metrics()  # type: ignore[no-untyped-call]  # the library left this one untyped

FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SLOW = (*FAST, 30.0, 60.0)
SIZES = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000)


_unheard: ContextVar[bool] = ContextVar("unheard", default=False)


@contextmanager
def unheard() -> Iterator[None]:
    """What counts within this block is not counted: it happens in a rehearsal."""
    before = _unheard.set(True)
    try:
        yield
    finally:
        _unheard.reset(before)


class Counter(prometheus_client.Counter):
    def inc(self, amount: float = 1, exemplar: dict[str, str] | None = None) -> None:
        if not _unheard.get():
            super().inc(amount, exemplar)


class Histogram(prometheus_client.Histogram):
    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:
        if not _unheard.get():
            super().observe(amount, exemplar)


class Known(Gauge):
    """A gauge without labels that is absent until it is set, and again once it is cleared."""

    known = False

    def set(self, value: float) -> None:
        super().set(value)
        self.known = True

    def clear(self) -> None:
        self.known = False

    def collect(self) -> Iterable[Metric]:
        return super().collect() if self.known else []


# -- messages --------------------------------------------------------------------------------------------------------

messages = Counter(
    "carillon_messages", "Messages that came into a state, as committed.", ("channel", "state", "reason")
)
set_size = Histogram("carillon_set_messages", "Messages that one lease took.", ("channel",), buckets=SIZES)
lease_seconds = Histogram("carillon_lease_seconds", "Time to lease one set.", ("channel",), buckets=SLOW)
record_seconds = Histogram(
    "carillon_record_seconds", "Time to record one set, with all its tries.", ("channel",), buckets=SLOW
)
rate_limit_wait = Counter(
    "carillon_rate_limit_wait_seconds", "Time that sets waited for a campaign's rate limit.", ("channel",)
)
send_seconds = Histogram(
    "carillon_send_seconds",
    "Time from handing a message to its channel to the provider's answer.",
    ("channel", "outcome"),
    buckets=SLOW,
)
smtp_connections = Gauge("carillon_smtp_connections", "SMTP connections that are open.")

# -- what is waiting, over all processes: told by the API ------------------------------------------------------------

backlog = Gauge(
    "carillon_backlog_messages", "Messages not finished, by the state of their campaign.", ("channel", "state")
)
oldest_due = Gauge("carillon_oldest_due_seconds", "How long the message that waits longest has been due.", ("channel",))
imports_waiting = Known("carillon_imports_waiting", "Complete files that no workflow has looked at yet.")
touches_waiting = Known("carillon_touches_waiting", "Changes that are not settled in segments yet.")
oldest_touch = Known("carillon_oldest_touch_seconds", "How long the change that waits longest has waited.")
routing_waiting = Known("carillon_routing_waiting", "What happened to contacts and is not told to automations yet.")
oldest_routing = Known("carillon_oldest_routing_seconds", "How long what waits longest of that has waited.")
oldest_enrollment = Known("carillon_oldest_enrollment_seconds", "How long the contact that waits longest to begin has.")
open_cohorts = Known("carillon_open_cohorts", "Cohorts with contacts inside.")

# -- segments --------------------------------------------------------------------------------------------------------

settled_seconds = Histogram(
    "carillon_settled_seconds", "Time from a change to the memberships that follow from it.", buckets=SLOW
)
segment_changes = Counter("carillon_segment_changes", "Contacts that entered or left a segment.", ("change",))
segment_drift = Counter(
    "carillon_segment_drift", "Contacts that the nightly recompute moved, though nothing had told of a change."
)
segment_failures = Counter("carillon_segment_failures", "Segments whose members could not be worked out.")

# -- automations and drips -------------------------------------------------------------------------------------------

routed_seconds = Histogram(
    "carillon_routed_seconds", "Time from what happened to a contact until automations are told.", buckets=SLOW
)
enrollments = Counter("carillon_enrollments", "Contacts who entered or left an automation or drip.", ("outcome",))
steps = Counter("carillon_steps", "Steps that contacts took.", ("kind", "outcome"))

# -- the API ---------------------------------------------------------------------------------------------------------

requests = Counter("carillon_http_requests", "Requests answered.", ("method", "route", "status"))
request_seconds = Histogram(
    "carillon_http_request_seconds", "Time to answer a request.", ("method", "route"), buckets=SLOW
)
hits = Counter("carillon_hits", "Opens and clicks on record, by who it was.", ("action", "verdict"))
hits_refused = Counter("carillon_hits_refused", "Opens and clicks answered with: try again.")
group_size = Histogram("carillon_hit_group_size", "Opens and clicks that one commit stored.", buckets=SIZES)
group_seconds = Histogram("carillon_hit_group_seconds", "Time to store one group of them.", buckets=FAST)
events = Counter("carillon_events", "Events that others told of, by what became of them.", ("outcome",))

# -- each process ----------------------------------------------------------------------------------------------------

database_connections = Gauge("carillon_database_connections", "Connections of the pool that are in use.")
