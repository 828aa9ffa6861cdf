"""`/metrics` of the API: what it tells, and to whom."""

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from temporalio.client import Client

from api.app import create_app
from database.engine import Database
from telemetry import metrics
from tests.conftest import PUBLIC_URL, SECRET_KEY, client_for

TOKEN = "a-token-for-the-scraper"


def asked_from(app: FastAPI, host: str, **headers: str) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, client=(host, 50_000))
    return httpx.AsyncClient(transport=transport, base_url=PUBLIC_URL, headers=headers)


@pytest.fixture
async def guarded(database_url: str, temporal: Client) -> AsyncIterator[FastAPI]:
    database = Database(database_url, pool_size=1)
    yield create_app(database, temporal, public_url=PUBLIC_URL, secret_key=SECRET_KEY, metrics_token=TOKEN)
    await database.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_this_machine_reads_metrics_in_the_format_of_prometheus(app: FastAPI, host: str) -> None:
    async with asked_from(app, host) as scraper:
        answer = await scraper.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    assert {"carillon_messages", "carillon_http_request_seconds", "carillon_imports_waiting"} <= families.keys()
    assert all(family.documentation for name, family in families.items() if name.startswith("carillon_"))


@pytest.mark.parametrize(
    ("host", "headers"),
    [
        ("203.0.113.7", {}),
        ("10.0.0.7", {}),
        ("", {}),
        ("127.0.0.1", {"X-Forwarded-For": "203.0.113.7"}),
        ("127.0.0.1", {"X-Real-IP": "127.0.0.1"}),
        ("127.0.0.1", {"Forwarded": "for=203.0.113.7"}),
        ("::1", {"Via": "1.1 proxy"}),
    ],
)
async def test_nobody_else_reads_them_not_even_through_a_proxy_of_this_machine(
    app: FastAPI, host: str, headers: dict[str, str]
) -> None:
    async with asked_from(app, host, **headers) as somebody:
        answer = await somebody.get("/metrics")
    assert answer.status_code == 403
    assert "CARILLON_METRICS_TOKEN" in answer.json()["detail"]
    assert "carillon_" not in answer.text


async def test_an_api_key_opens_one_account_and_not_the_metrics_of_all(guarded: FastAPI, app: FastAPI) -> None:
    async with client_for(guarded, "car_of_an_owner_somewhere") as owner:
        assert (await owner.get("/metrics")).status_code == 401


@pytest.mark.parametrize(
    ("shown", "status"), [(f"Bearer {TOKEN}", 200), ("Bearer another", 401), (TOKEN, 401), ("", 401), ("Bearer é", 401)]
)
async def test_with_a_token_it_alone_decides_wherever_the_question_comes_from(
    guarded: FastAPI, shown: str, status: int
) -> None:
    for host in ("203.0.113.7", "127.0.0.1"):
        async with asked_from(guarded, host) as scraper:
            answer = await scraper.get("/metrics", headers=[(b"Authorization", shown.encode())])
            assert answer.status_code == status


async def test_metrics_are_told_while_the_database_is_away(temporal: Client) -> None:
    metrics.imports_waiting.set(7)
    database = Database("postgresql://nobody@127.0.0.1:1/nothing", pool_size=1)
    app = create_app(database, temporal, public_url=PUBLIC_URL, secret_key=SECRET_KEY)
    async with asked_from(app, "127.0.0.1") as scraper:
        answer = await scraper.get("/metrics")
    await database.close()
    assert answer.status_code == 200
    assert "carillon_http_requests_total" in answer.text
    assert "carillon_imports_waiting" not in answer.text
    assert "carillon_backlog_messages{" not in answer.text  # nothing is better than what was true once
