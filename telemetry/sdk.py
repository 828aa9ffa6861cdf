"""What Temporal's SDK measures by itself, such as how long tasks wait for a worker: beside our own."""

import socket
from collections.abc import Iterable
from http.client import HTTPException
from urllib.request import ProxyHandler, build_opener

import structlog
from prometheus_client import REGISTRY
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from temporalio.runtime import PrometheusConfig, Runtime, TelemetryConfig

from telemetry import metrics

log = structlog.get_logger()

WAITS = ("activity_schedule_to_start_latency", "workflow_task_schedule_to_start_latency")  # otherwise from 0.1 s on
_THIS_MACHINE = build_opener(ProxyHandler({}))  # whatever HTTP_PROXY says: a proxy's 127.0.0.1 is another one


def measured_runtime() -> Runtime:
    """A runtime for the process's client of Temporal, whose metrics appear among ours. Call it once.

    What the core has to say it writes to stderr by itself. Its forwarding to Python's loggers calls into an interpreter
    that is ending: of workers that were stopped together with Temporal, one in two hung until it was killed.
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
    runtime = Runtime(telemetry=TelemetryConfig(metrics=prometheus))
    REGISTRY.register(_Page(f"http://{address}/metrics"))
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
