"""What Temporal's SDK measures and says by itself, such as how long tasks wait for a worker: beside our own."""

import logging
import socket
from collections.abc import Iterable
from http.client import HTTPException
from urllib.request import ProxyHandler, build_opener

import structlog
from prometheus_client import REGISTRY
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector, CollectorRegistry
from temporalio.runtime import (
    LogForwardingConfig,
    LoggingConfig,
    PrometheusConfig,
    Runtime,
    TelemetryConfig,
    TelemetryFilter,
)

from telemetry import metrics

log = structlog.get_logger()

WAITS = ("activity_schedule_to_start_latency", "workflow_task_schedule_to_start_latency")  # otherwise from 0.1 s on
_THIS_MACHINE = build_opener(ProxyHandler({}))  # whatever HTTP_PROXY says: a proxy's 127.0.0.1 is another one


def measured_runtime(registry: CollectorRegistry = REGISTRY) -> Runtime:
    """A runtime for the process's client of Temporal, whose metrics and lines appear among ours. Call it once.

    What the core has to say goes to our log: by itself it would write to stderr, in a form of its own. As it calls into
    Python for that at any moment, the process must not take its interpreter down, but end at once.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    prometheus = PrometheusConfig(
        bind_address=address,
        counters_total_suffix=True,
        unit_suffix=True,
        durations_as_seconds=True,
        histogram_bucket_overrides=dict.fromkeys(WAITS, metrics.SLOW),
    )
    said = LogForwardingConfig(logging.getLogger("temporalio.core"))
    logged = LoggingConfig(TelemetryFilter(core_level="WARN", other_level="ERROR"), forwarding=said)
    runtime = Runtime(telemetry=TelemetryConfig(logging=logged, metrics=prometheus))
    registry.register(_Page(f"http://{address}/metrics"))
    return runtime


class _Page(Collector):
    """The SDK tells its metrics over HTTP alone, on a port of this machine."""

    def __init__(self, url: str) -> None:
        self._url = url

    def describe(self) -> list[Metric]:
        return []  # they are known when they are first measured

    def collect(self) -> Iterable[Metric]:
        """What the page tells; nothing if it can't be had, for then all the others must still be told."""
        try:
            with _THIS_MACHINE.open(self._url, timeout=3) as answer:
                return list(text_string_to_metric_families(answer.read().decode()))
        except (OSError, HTTPException, ValueError) as error:
            log.warning("metrics of Temporal's SDK not known", error=type(error).__name__)
            return []
