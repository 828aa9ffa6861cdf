"""Can what Temporal's SDK measures and says be had, and the rest without it?"""

import asyncio
import logging
from collections.abc import Iterator
from logging.handlers import QueueHandler
from pathlib import Path
from queue import Queue
from wsgiref.simple_server import WSGIServer

import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest, start_http_server
from temporalio import workflow
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from telemetry.sdk import _Page, measured_runtime
from workflows.campaigns import CampaignWorkflow

RECORDED = Path(__file__).parents[1] / "histories" / "CampaignWorkflow-delivered.json"


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


async def test_what_the_core_says_goes_to_our_log() -> None:
    said: Queue[logging.LogRecord] = Queue()
    log, listener = logging.getLogger("temporalio.core"), QueueHandler(said)
    log.addHandler(listener)
    history = WorkflowHistory.from_json("campaign", RECORDED.read_text())
    replayer = Replayer(workflows=[SomethingElse], runtime=measured_runtime(CollectorRegistry()))
    await replayer.replay_workflow(history, raise_on_replay_failure=False)
    record = await asyncio.to_thread(said.get, timeout=30)
    log.removeHandler(listener)
    assert record.levelname == "WARNING" and "sdk_core" in record.getMessage()


@workflow.defn(name=CampaignWorkflow.__name__, sandboxed=False)
class SomethingElse:
    """Does not go on with what was recorded."""

    @workflow.run
    async def run(self, _: object) -> None:
        return
