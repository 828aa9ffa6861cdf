"""What a request leaves behind: an id, a line, and counts by route."""

from typing import cast
from uuid import uuid4

import httpx
import pytest
import structlog
from fastapi import FastAPI
from prometheus_client import REGISTRY
from structlog.testing import capture_logs
from temporalio.client import Client

from api.app import create_app
from database.engine import Database
from tests.conftest import PUBLIC_URL, SECRET_KEY, TestAccount, client_for
from tests.sent import sent_messages


def counted(method: str, route: str, status: int) -> float:
    labels = {"method": method, "route": route, "status": str(status)}
    return REGISTRY.get_sample_value("carillon_http_requests_total", labels) or 0.0


async def test_a_request_leaves_one_line_with_its_route_and_ids(api: httpx.AsyncClient, account: TestAccount) -> None:
    campaign = uuid4()
    with capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        await api.get(f"/api/campaigns/{campaign}", headers={"X-Request-ID": "from-the-proxy"})
    [line] = lines
    assert 0 < line.pop("seconds") < 10
    assert line == {
        "event": "request",
        "log_level": "info",
        "method": "GET",
        "route": "/api/campaigns/{campaign_id}",
        "status": 404,
        "campaign_id": str(campaign),
        "account_id": str(account.id),
        "request_id": "from-the-proxy",
    }


@pytest.mark.parametrize("given", ["", "jo@example.org", "two words", "x" * 129, "é"])
async def test_a_request_gets_an_id_of_ours_where_it_brings_none_that_will_do(
    api: httpx.AsyncClient, given: str
) -> None:
    answers = [await api.get("/api/account", headers=[(b"X-Request-ID", given.encode())]) for _ in range(2)]
    first, second = (answer.headers["X-Request-ID"] for answer in answers)
    assert first != second and len(first) == 32 and given not in (first, second)


async def test_requests_are_counted_by_route_and_never_by_what_stands_in_the_path(
    api: httpx.AsyncClient, account: TestAccount
) -> None:
    [message] = await sent_messages(account)
    token = message.unsubscribe.rpartition("/")[2]
    before = counted("GET", "/u/{token}", 200), counted("GET", "(none)", 404), counted("other", "(none)", 405)
    with capture_logs() as lines:
        await api.get(f"/u/{token}")
        await api.get("/wp-login.php?to=jo@example.org")
        await api.request("PROPFIND", "/api/account")
    assert counted("GET", "/u/{token}", 200) == before[0] + 1
    assert counted("GET", "(none)", 404) == before[1] + 1
    assert token not in str(lines) and "jo@" not in str(lines) and "wp-login" not in str(lines)
    labels = [sample.labels for family in REGISTRY.collect() for sample in family.samples]
    assert token not in str(labels)


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/api/campaigns/a/stats", "/api/campaigns/{campaign_id}/stats"),
        ("/api/campaigns/campaigns/stats", "/api/campaigns/{campaign_id}/stats"),
        ("/u/a/u/u", "/u/{token}"),
        ("/p/", "/p/{token}"),
        ("/openapi.json", "/openapi.json"),
        ("/static-offline-docs/jo@example.org", "/static-offline-docs"),
    ],
)
async def test_a_route_is_its_template_whatever_the_path_holds(app: FastAPI, path: str, route: str) -> None:
    async with client_for(app, None) as nobody:
        with capture_logs() as lines:
            await nobody.get(path)
    assert [line["route"] for line in lines if line["event"] == "request"] == [route]


async def test_one_account_is_not_named_in_the_line_of_the_next_request(app: FastAPI, api: httpx.AsyncClient) -> None:
    await api.get("/api/account")
    async with client_for(app, None) as nobody:
        with capture_logs([structlog.contextvars.merge_contextvars]) as lines:
            await nobody.get("/api/account")
    assert "account_id" not in lines[-1]


async def test_openings_and_clicks_leave_no_line_each(api: httpx.AsyncClient, account: TestAccount) -> None:
    [message] = await sent_messages(account)
    with capture_logs() as lines:
        assert (await api.get(message.pixel)).status_code == 200
        assert (await api.get(message.click(1))).status_code == 302
    assert lines == []


async def test_a_failure_is_logged_with_its_request_and_answered_with_its_id(temporal: Client) -> None:
    app = create_app(cast(Database, None), temporal, public_url=PUBLIC_URL, secret_key=SECRET_KEY)  # fails when asked
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url=PUBLIC_URL) as client:
        with capture_logs([structlog.contextvars.merge_contextvars]) as lines:
            answer = await client.get("/api/account", headers={"Authorization": "Bearer car_of_somebody"})
    assert answer.status_code == 500
    failures = [line for line in lines if line["event"] == "request failed"]
    assert [line["request_id"] for line in failures] == [answer.headers["X-Request-ID"]]
    assert [line["status"] for line in lines if line["event"] == "request"] == [500]
