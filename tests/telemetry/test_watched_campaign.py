"""What one campaign leaves behind in real processes: a trace, lines of logs, metrics. And never an address."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from prometheus_client.parser import text_string_to_metric_families

from channels.sink import Moment, Sink
from database.engine import Database
from local_stack import EmbeddedTemporal, free_port
from tests.audience import EMAIL, people
from tests.conftest import SECRET_KEY, TestAccount, new_account
from tests.telemetry.collector import Collector, attributes, collector
from workflows.campaigns import campaign_workflow_id
from workflows.connection import connect

ROOT = Path(__file__).parents[2]
SENT, REFUSED = 40, 7


@dataclass
class Watched:
    """A campaign that has ended, and everything that was told of it."""

    account: TestAccount
    campaign_id: str
    failed_request: str
    traces: Collector
    logs: dict[str, str]
    pages: dict[str, str]
    endings: list[int]  # what the programs ended with

    def lines(self, program: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.logs[program].splitlines()]

    def launch(self) -> Span:
        """Its request."""
        name = "POST /api/campaigns/{campaign_id}/launch"
        [found] = [span for span in self.traces.spans() if span.name == name]
        return found

    def messages(self) -> list[Span]:
        """Those of its trace: the worker's sweep takes up what other tests have left open in this database."""
        trace = self.launch().trace_id
        return [span for span in self.traces.spans() if span.name == "message" and span.trace_id == trace]

    def sample(self, program: str, name: str, **labels: str) -> float:
        """The sum over all other labels."""
        families = text_string_to_metric_families(self.pages[program])
        samples = [sample for family in families for sample in family.samples if sample.name == name]
        return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


def refuse_the_unknown(moment: Moment) -> str | None:
    """As talkative as real servers are."""
    unknown = moment.step == "RCPT" and moment.recipient.startswith("unknown")
    return f"550 5.1.1 <{moment.recipient}>: Recipient address rejected: User unknown" if unknown else None


@pytest.fixture(scope="module")
async def watched(
    database: Database, database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Watched]:
    folder = tmp_path_factory.mktemp("logs")
    account = await new_account(database)
    await people(account, SENT)
    await people(account, REFUSED, name="unknown")
    api_port, metrics_port = free_port(), free_port()
    async with AsyncExitStack() as stack:
        traces = stack.enter_context(collector())
        temporal = await stack.enter_async_context(EmbeddedTemporal(durable=False))
        sink = await stack.enter_async_context(Sink(policy=refuse_the_unknown))
        settings = {
            "CARILLON_DATABASE_URL": database_url,
            "CARILLON_TEMPORAL_ADDRESS": temporal.address,
            "CARILLON_SECRET_KEY": SECRET_KEY.decode(),
            "CARILLON_SMTP_URL": sink.url,
            "CARILLON_LOG_FORMAT": "json",
            "CARILLON_WORKER_METRICS_PORT": str(metrics_port),
            "CARILLON_TRACES_MESSAGE_SHARE": "1",
            "OTEL_EXPORTER_OTLP_ENDPOINT": traces.url,
            "OTEL_SERVICE_NAME": "carillon-test",
            "OTEL_BSP_SCHEDULE_DELAY": "60000",  # what leads here is told by who has ended
        }
        endings: list[int] = []
        async with AsyncExitStack() as programs:
            for command in (("api", "--port", str(api_port)), ("worker",)):
                await programs.enter_async_context(program(folder, command, settings, endings))
            api = await stack.enter_async_context(
                httpx.AsyncClient(
                    base_url=f"http://127.0.0.1:{api_port}",
                    headers={"Authorization": f"Bearer {account.key}"},
                    transport=httpx.AsyncHTTPTransport(retries=8),  # until it listens
                    timeout=30,
                )
            )
            campaign_id = await send(api, temporal)
            failed_request = await fail(api, account, database_url)
            pages = {
                "api": (await api.get("/metrics")).text,
                "worker": (await api.get(f"http://127.0.0.1:{metrics_port}/metrics")).text,
            }
        logs = {path.stem: path.read_text() for path in folder.iterdir()}
        yield Watched(account, campaign_id, failed_request, traces, logs, pages, endings)


@asynccontextmanager
async def program(
    folder: Path, command: tuple[str, ...], settings: dict[str, str], endings: list[int]
) -> AsyncIterator[None]:
    """A command of `carillon` until the block ends; what it says goes to a file."""
    with (folder / f"{command[0]}.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(ROOT / "cli.py"), *command),
            env=os.environ | settings,
            stdout=log,
            stderr=log,
            cwd=folder,
        )
    try:
        yield
    finally:
        process.terminate()
        endings.append(await process.wait())


async def send(api: httpx.AsyncClient, temporal: EmbeddedTemporal) -> str:
    """Launch a campaign to everyone and wait for its end."""
    draft = {"name": "Watched", "audience": {"everyone": True}, "content": {"email": EMAIL}}
    campaign = (await api.post("/api/campaigns", json=draft)).raise_for_status().json()
    (await api.post(f"/api/campaigns/{campaign['id']}/launch")).raise_for_status()
    run = (await connect(temporal.address)).get_workflow_handle(campaign_workflow_id(campaign["id"]))
    await asyncio.wait_for(run.result(), 60)
    return str(campaign["id"])


async def fail(api: httpx.AsyncClient, account: TestAccount, database_url: str) -> str:
    """A request in which the database says something that nobody foresaw, with an address in it; gives its id."""
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as owner:
        await owner.execute(
            "CREATE FUNCTION refuse_contact() RETURNS trigger LANGUAGE plpgsql "
            "AS $$ BEGIN RAISE 'I do not want %', NEW.email; END $$"
        )
        await owner.execute(
            "CREATE TRIGGER refuse_contact BEFORE INSERT ON contacts FOR EACH ROW "
            f"WHEN (NEW.account_id = '{account.id}') EXECUTE FUNCTION refuse_contact()"
        )
        answer = await api.post(
            "/api/contacts", json={"email": "unwelcome@example.org"}, headers={"Connection": "close"}
        )
        await owner.execute("DROP FUNCTION refuse_contact CASCADE")
    assert answer.status_code == 500, answer.text
    assert "unwelcome" not in answer.text
    return answer.headers["X-Request-ID"]


async def test_one_trace_leads_from_the_request_to_the_answer_of_the_mail_server(watched: Watched) -> None:
    spans = {span.span_id: span for span in watched.traces.spans()}
    launch = watched.launch()
    assert attributes(launch) == {
        "http.request.method": "POST",
        "http.route": "/api/campaigns/{campaign_id}/launch",
        "http.response.status_code": "202",
        "carillon.account_id": str(watched.account.id),
        "carillon.campaign_id": watched.campaign_id,
    }
    messages = watched.messages()
    assert len(messages) == SENT + REFUSED
    for message in messages:
        assert [span.name for span in up_to_the_root(message, spans)] == [
            "message",
            "set",
            "RunActivity:deliver",
            "StartActivity:deliver",
            "StartWorkflow:CampaignWorkflow",
            "POST /api/campaigns/{campaign_id}/launch",
        ]
        assert launch.start_time_unix_nano <= message.start_time_unix_nano < message.end_time_unix_nano
    names = {span.name for span in spans.values() if span.trace_id == launch.trace_id}
    assert {"lease", "record", "RunActivity:freeze_audience", "RunWorkflow:CampaignWorkflow"} < names
    assert watched.traces.services() == {"carillon-test"}


def up_to_the_root(span: Span, spans: dict[bytes, Span]) -> list[Span]:
    return [span, *(up_to_the_root(spans[span.parent_span_id], spans) if span.parent_span_id else [])]


async def test_a_messages_span_has_its_delivery_and_the_servers_code(watched: Watched) -> None:
    messages = [attributes(span) for span in watched.messages()]
    codes = [(each["carillon.outcome"], each["smtp.reply_code"]) for each in messages]
    assert sorted(set(codes)) == [("failed", "550"), ("sent", "250")]
    assert codes.count(("failed", "550")) == REFUSED
    assert len({each["carillon.delivery_id"] for each in messages}) == SENT + REFUSED


async def test_a_failed_request_is_an_error_in_its_trace_too(watched: Watched) -> None:
    [failed] = [span for span in watched.traces.spans() if span.name == "POST /api/contacts"]
    assert attributes(failed)["http.response.status_code"] == "500"
    assert [event.name for event in failed.events] == ["exception"]
    assert "I do not want [address]" in str(failed.events)


async def test_no_address_is_in_any_span_line_or_metric(watched: Watched) -> None:
    told = "".join([*map(str, watched.traces.requests), *watched.logs.values(), *watched.pages.values()])
    assert "example.org" not in told and "unwelcome" not in told


async def test_every_line_is_json_and_an_error_has_its_request_and_its_trace(watched: Watched) -> None:
    assert all(line["event"] and line["level"] and line["timestamp"] for line in watched.lines("worker"))
    [failed] = [line for line in watched.lines("api") if line["event"] == "request failed"]
    assert failed["request_id"] == watched.failed_request
    assert "RaiseException: I do not want [address]" in failed["exception"]
    [request] = [line for line in watched.lines("api") if line.get("route") == "/api/contacts"]
    assert request["request_id"] == watched.failed_request and request["account_id"] == str(watched.account.id)
    assert request["trace_id"] in {span.trace_id.hex() for span in watched.traces.spans()}


async def test_the_programs_end_in_peace(watched: Watched) -> None:
    assert watched.endings == [0, 0]


async def test_the_workers_page_agrees_with_the_campaign(watched: Watched) -> None:
    for state, reason, messages in (
        ("planned", "", SENT + REFUSED),
        ("sent", "", SENT),
        ("failed", "rejected", REFUSED),
    ):
        labels = {"channel": "email", "state": state, "reason": reason}
        assert watched.sample("worker", "carillon_messages_total", **labels) >= messages
    assert watched.sample("worker", "carillon_send_seconds_count", outcome="rejected") >= REFUSED
    assert (
        watched.sample("worker", "carillon_lease_seconds_count")
        > watched.sample("worker", "carillon_record_seconds_count")
        > 0
    )


async def test_the_workers_page_tells_how_long_tasks_waited_for_it(watched: Watched) -> None:
    for task in ("temporal_activity_schedule_to_start_latency", "temporal_workflow_task_schedule_to_start_latency"):
        assert watched.sample("worker", f"{task}_seconds_count") > 0
    assert watched.sample("worker", "temporal_activity_execution_latency_seconds_count", activity_type="deliver") > 0


async def test_the_apis_page_tells_of_requests_backlog_and_its_questions_to_temporal(watched: Watched) -> None:
    route = "/api/campaigns/{campaign_id}/launch"
    assert watched.sample("api", "carillon_http_requests_total", route=route, status="202", method="POST") == 1
    assert watched.sample("api", "carillon_http_request_seconds_count", route=route) == 1
    assert "carillon_imports_waiting " in watched.pages["api"]
    assert "carillon_imports_waiting" not in watched.pages["worker"]  # which knows nothing of them
    assert watched.sample("api", "temporal_request_total") > 0
