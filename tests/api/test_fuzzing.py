"""Does a running Carillon do what its OpenAPI document says, whatever is asked? Schemathesis reads it and asks."""

import asyncio
import json
import re
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator
from dataclasses import dataclass
from email import message_from_bytes
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from channels.sink import Sink
from tests.api.test_openapi import operations
from tests.audience import EMAIL
from tests.up import Up, clean_environment, folder

pytestmark = pytest.mark.long
CONFIG = Path(__file__).parent / "fuzzing.toml"
EXAMPLES = 50


@dataclass(frozen=True)
class Stack:
    """A `carillon up` that sends to a sink, with an account that has some of everything."""

    url: str
    key: str
    key_id: str
    ids: dict[str, list[str]]


async def some_of_everything(api: httpx.AsyncClient, sink: Sink) -> dict[str, list[str]]:
    """Ids and tokens by the name of their dictionary in fuzzing.toml."""

    async def made(path: str, **body: object) -> str:
        answer = await api.post(path, json=body)
        assert answer.is_success, answer.text
        return str(answer.json()["id"])

    account = {"name": "Example Outfitters", "sender_domains": ["example.com"], "postal_address": "1 Example Street"}
    assert (await api.put("/api/account", json=account)).status_code == 200
    agreed = [{"channel": "email", "status": "subscribed", "consent": {"how": "form"}}]
    contacts = [
        await made("/api/contacts", email=f"person-{n}@example.org", tags=["vip"], subscriptions=agreed)
        for n in range(8)
    ]
    draft = {"name": "Autumn", "content": {"email": EMAIL}, "audience": {"tags": {"any": ["vip"]}}}
    sent = await made("/api/campaigns", **draft)
    assert (await api.post(f"/api/campaigns/{sent}/launch")).status_code == 202
    async with asyncio.timeout(60):
        while sink.count < len(contacts):
            await sink.next_arrival()
    drafts = [await made("/api/campaigns", **draft) for _ in range(24)]
    slow = [await made("/api/campaigns", **draft, rate_limit_per_second=0.001) for _ in range(5)]
    for campaign in slow:
        assert (await api.post(f"/api/campaigns/{campaign}/launch")).status_code == 202
    variants = [{"name": name, "content": {"email": {"subject": f"{name} says hello"}}} for name in "AB"]
    compared = {"variants": variants, "metric": "conversion_rate", "conversion": {"event": "purchase"}}
    which = {**draft, "kind": "experiment", "experiment": {**compared, "decide": "manual", "test_fraction": 0.5}}
    experiments = [await made("/api/campaigns", **which) for _ in range(16)]
    for experiment in experiments[4:]:
        assert (await api.post(f"/api/campaigns/ab-tests/{experiment}/start")).status_code == 202
    template = {"name": "House", "subject": "Hi", "html": EMAIL["html"]}
    templates = [await made("/api/templates", **template) for _ in range(6)]
    segments = [await made("/api/segments", name="Friends", kind="static") for _ in range(6)]
    dynamic = [
        await made("/api/segments", name="VIPs", criteria={"field": "tags", "contains": "vip"}) for _ in range(2)
    ]
    welcome = {"trigger": {"type": "api"}, "steps": [{"type": "wait", "duration": "90 days"}]}
    automations = [await made("/api/automations", name=f"Welcome {n}", **welcome) for n in range(24)]
    for automation in automations[:18]:
        assert (await api.post(f"/api/automations/{automation}/activate")).status_code == 202
    entering = {"contacts": [{"id": each} for each in contacts]}
    assert (await api.post(f"/api/automations/{automations[0]}/execute", json=entering)).status_code == 202
    keys = [await made("/api/keys", name="spare") for _ in range(3)]
    file = b"Email Address\na@example.org\nnonsense\n"
    upload = await api.post("/api/contacts/import", content=file, headers={"content-type": "text/csv"})
    (page,) = (part for part in message_from_bytes(sink.contents[0]).walk() if part.get_content_type() == "text/html")
    html = page.get_payload(decode=True)
    assert isinstance(html, bytes)
    tokens = {place: re.findall(rf"/{place}/([\w.-]+)", html.decode()) for place in ("t/o", "t/c", "u")}
    return {
        "campaigns": [sent, slow[0], drafts[0]],
        "drafts": drafts[1:4],
        "launched": drafts[4:7],
        "sent": drafts[7:9],
        "scheduled": drafts[9:14],
        "running": slow[1:2],
        "cancelled": slow[2:],
        "doomed-campaigns": drafts[14:20],
        "tested": drafts[20:],
        "startable-experiments": experiments[:4],
        "experiments": [*experiments[4:6], experiments[0]],
        "decided-experiments": experiments[6:12],
        "stopped-experiments": experiments[12:],
        "contacts": contacts[:5],
        "doomed-contacts": contacts[5:],
        "templates": templates[:3],
        "doomed-templates": templates[3:],
        "segments": [*segments[:2], dynamic[0]],
        "doomed-segments": segments[2:],
        "dynamic-segments": dynamic[1:],
        "automations": automations[:1],
        "held-automations": automations[1:2],
        "cancelled-automations": automations[2:18],
        "draft-automations": automations[18:21],
        "doomed-automations": automations[21:],
        "keys": keys,
        "imports": [upload.json()["id"]],
        "opens": tokens["t/o"],
        "clicks": tokens["t/c"],
        "unsubscribes": tokens["u"],
    }


@pytest.fixture
async def stack() -> AsyncIterator[Stack]:
    async with Sink() as sink:
        with folder() as data_dir:
            up = await asyncio.to_thread(Up, data_dir, CARILLON_SMTP_URL=sink.url)
            try:
                url, key = up.state["api_url"], up.key
                bearer = {"Authorization": f"Bearer {key}"}
                async with httpx.AsyncClient(base_url=url, headers=bearer, timeout=60) as api:
                    (own,) = (await api.get("/api/keys")).json()["items"]
                    yield Stack(url, key, own["id"], await some_of_everything(api, sink))
            finally:
                await asyncio.to_thread(up.__exit__)


@pytest.mark.timeout(900)  # 80 s on two idle cores, and many times that on busy ones
async def test_whatever_is_asked_the_answer_is_as_documented(app: FastAPI, stack: Stack, tmp_path: Path) -> None:
    dictionaries = "".join(f"[dictionaries.{name}]\nvalues = {json.dumps(ids)}\n" for name, ids in stack.ids.items())
    (tmp_path / "fuzzing.toml").write_text(CONFIG.read_text() + dictionaries)
    answers = tmp_path / "answers.json"
    run = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", tmp_path / "fuzzing.toml"),
        *("run", f"{stack.url}/openapi.json", "--checks", "all", "--warnings", "off"),
        cwd=CONFIG.parent.parent.parent,
        env=clean_environment()
        | {
            "CARILLON_API_KEY": stack.key,
            "CARILLON_FUZZING_OWN_KEY": stack.key_id,
            "CARILLON_FUZZING_IDS": json.dumps(stack.ids),
            "CARILLON_FUZZING_ANSWERS": str(answers),
        },
        stdout=PIPE,
        stderr=STDOUT,
    )
    told, _ = await run.communicate()
    assert run.returncode == 0, told.decode()
    async with httpx.AsyncClient(base_url=stack.url, headers={"Authorization": f"Bearer {stack.key}"}) as api:
        assert (await api.get("/readyz")).status_code == (await api.get("/api/account")).status_code == 200

    statuses: dict[str, dict[str, int]] = json.loads(answers.read_text())
    for path, method, operation in operations(app):
        answered = statuses[f"{method.upper()} {path}"]
        assert min(answered) < "400", f"never did what it is for: {method} {path} {answered}"
        varies = operation.keys() & {"parameters", "requestBody", "security"}
        assert sum(answered.values()) >= EXAMPLES or not varies, f"{method} {path} {answered}"
