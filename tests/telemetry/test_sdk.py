"""Can what Temporal's SDK measures be had, and the rest without it?"""

from collections.abc import Iterator
from wsgiref.simple_server import WSGIServer

import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest, start_http_server

from telemetry.sdk import _Page


@pytest.fixture
def page() -> Iterator[WSGIServer]:
    registry = CollectorRegistry()
    Counter("temporal_request", "Asked.", registry=registry).inc(7)
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def told(url: str) -> str:
    registry = CollectorRegistry()
    Counter("ours", "Counted.", registry=registry)
    registry.register(_Page(url))
    return generate_latest(registry).decode()


def test_the_page_is_asked_directly_whatever_proxy_the_machine_has(
    page: WSGIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    assert "temporal_request_total 7.0" in told(f"http://127.0.0.1:{page.server_port}/metrics")


def test_all_others_are_told_while_the_page_does_not_answer() -> None:
    assert "ours_total 0.0" in told("http://127.0.0.1:1/metrics")
