"""Automations on a running stack: an event becomes a message within seconds, whoever was killed before."""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from time import monotonic, sleep
from typing import Any

import httpx
import pytest
from temporalio.client import Client, WorkflowExecutionStatus

from tests.conftest import PATIENCE
from tests.stopwatch import Stopwatch
from tests.up import Up, folder
from workflows.connection import connect

PROMISED = 5.0  # seconds
numbers = count()


@pytest.fixture(scope="module")
def up() -> Iterator[Up]:
    with folder() as data_dir, Up(data_dir, "--workers", "1") as up:
        yield up


@pytest.fixture(scope="module")
def api(up: Up) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {up.key}"}
    with httpx.Client(base_url=up.state["api_url"], headers=headers, timeout=60) as client:
        account = client.get("/api/account").json()
        changed = {name: account[name] for name in account if name not in ("id", "created_at", "updated_at")}
        client.put("/api/account", json={**changed, "sender_domains": ["example.com"]}).raise_for_status()
        yield client


def ask(api: httpx.Client, method: str, path: str, **asked: Any) -> Any:
    answer = api.request(method, path, **asked)
    assert answer.is_success, answer.text
    return answer.json()


def activated(api: httpx.Client) -> str:
    """The path of an automation that tags whoever orders something, and then waits."""
    steps = [{"type": "tag", "add": ["ordered"]}, {"type": "wait", "duration": "30 days"}]
    definition = {"name": f"Orders {next(numbers)}", "trigger": {"type": "event", "event": "order"}, "steps": steps}
    path = f"/api/automations/{ask(api, 'POST', '/api/automations', json=definition)['id']}"
    ask(api, "POST", f"{path}/activate")
    return path


def order(api: httpx.Client) -> float:
    """Seconds from an order of somebody new until the automation has done what it does first."""
    made = ask(api, "POST", "/api/contacts", json={"email": f"person-{next(numbers)}@example.org"})
    since, began = Stopwatch(), monotonic()
    ask(api, "POST", "/api/events", json={"name": "order", "contact": {"id": made["id"]}})
    while ask(api, "GET", f"/api/contacts/{made['id']}")["tags"] != ["ordered"]:
        assert monotonic() - began < PATIENCE
    return since.read()


def until_it_answers(api: httpx.Client) -> None:
    began = monotonic()
    while monotonic() - began < PATIENCE:
        with suppress(httpx.TransportError):
            if api.get("/api/account").is_success:
                return
        sleep(0.1)
    raise AssertionError("the API has not come back")


@pytest.fixture
async def temporal(up: Up) -> Client:
    return await connect(up.state["temporal_address"])


def test_what_happens_is_told_by_a_worker_that_has_just_started(up: Up, api: httpx.Client) -> None:
    activated(api)
    assert order(api) < PROMISED
    assert order(api) < PROMISED


def test_whoever_was_killed_is_replaced_and_nothing_is_forgotten(up: Up, api: httpx.Client) -> None:
    os.kill(up.state["programs"]["worker 1"], signal.SIGKILL)
    os.kill(up.state["programs"]["API"], signal.SIGKILL)
    until_it_answers(api)
    assert order(api) < 30


async def test_what_was_lost_in_temporal_is_started_by_the_sweep(up: Up, api: httpx.Client, temporal: Client) -> None:
    path = activated(api)
    automation = temporal.get_workflow_handle(f"automation-{path.rpartition('/')[2]}")
    journeys = temporal.get_workflow_handle("journeys")
    order(api)
    for each in (automation, journeys):
        await each.terminate()
    await temporal.get_schedule_handle("journeys-sweep").trigger()
    assert order(api) < 30
    assert (await journeys.describe()).status is WorkflowExecutionStatus.RUNNING
