"""Can a marketer see who would get what, and when, without anybody getting anything?"""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from temporalio.client import Client

from api import rehearsals
from api.app import create_app
from channels.sink import Sink
from database.engine import Database
from local_stack import EmbeddedTemporal
from marketing.assignment import bucket
from marketing.experiments import Experiment, experiment_key
from tests.audience import EMAIL, people
from tests.broadcast import arrived
from tests.conftest import PATIENCE, PUBLIC_URL, SECRET_KEY, TestAccount, client_for
from workflows.code_files import READY_MADE, load
from workflows.connection import connect

MONTH: dict[str, Any] = {
    "name": "A month",
    "trigger": {"type": "api"},
    "goal": {"event": "upgrade"},
    "steps": [
        {"id": "welcome", "type": "send", "content": EMAIL},
        {"type": "wait_for", "event": "purchase", "within": "10 days", "then": [{"type": "tag", "add": ["buyer"]}]},
        {"type": "wait", "duration": "20 days"},
        {
            "type": "branch",
            "if": {"event": "message.clicked", "within": "30 days"},
            "then": [{"type": "webhook", "url": "https://hooks.example.com/fans", "data": {"who": "fans"}}],
            "else": [{"id": "again", "type": "send", "content": EMAIL}],
        },
    ],
}


async def automation(api: httpx.AsyncClient, **parts: Any) -> str:
    made = await api.post("/api/automations", json={**MONTH, **parts})
    assert made.status_code == 201, made.text
    return f"/api/automations/{made.json()['id']}/rehearse"


async def told(api: httpx.AsyncClient, path: str, **wanted: Any) -> dict[str, Any]:
    answer = await api.post(path, json=wanted)
    assert answer.status_code == 200, answer.text
    timeline: dict[str, Any] = answer.json()
    return timeline


def outcomes(contact: dict[str, Any], kind: str) -> list[tuple[str, str]]:
    return [(each["name"] or each["step"], each["outcome"]) for each in contact["happenings"] if each["kind"] == kind]


# -- what is told ----------------------------------------------------------------------------------------------------


async def test_each_contact_takes_its_own_way_and_the_timeline_says_why(
    api: httpx.AsyncClient, account: TestAccount
) -> None:
    fan, buyer, customer = map(str, await people(account, 3))
    script = [
        f"{fan} clicks welcome on day 2",
        f"{buyer} purchases 50 EUR on day 3",
        f"{customer} does upgrade on day 12",
    ]
    timeline = await told(api, await automation(api), contacts=[fan, buyer, customer], script=script, texts=True)
    first, second, third = timeline["contacts"]
    assert outcomes(first, "send") == [("welcome", "sent")]
    assert outcomes(first, "wait_for") == [("wait_for-1", "did not happen")]
    assert outcomes(first, "branch") == [("branch-1", "yes")]
    asked = next(each for each in first["happenings"] if each["kind"] == "branch")
    assert asked["what"] == "With at least one “message.clicked” event in the last 30 days?"
    (call,) = next(each["calls"] for each in first["happenings"] if each["kind"] == "webhook")
    assert (call["url"], call["body"]["data"]) == ("https://hooks.example.com/fans", {"who": "fans"})
    message = next(each["message"] for each in first["happenings"] if each["kind"] == "send")
    assert message["subject"] and message["text"]
    assert outcomes(second, "wait_for") == [("wait_for-1", "happened")]
    assert outcomes(second, "tag") and outcomes(second, "send") == [("welcome", "sent"), ("again", "sent")]
    assert (third["state"], third["reason"], third["converted"]) == ("exited", "goal", True)
    assert timeline["summary"]["ended"] == {"completed": 2, "exited: goal": 1}


async def test_what_is_not_sent_says_why(api: httpx.AsyncClient, account: TestAccount) -> None:
    (silent,) = await people(account, 1, subscribed=False)
    timeline = await told(api, await automation(api), contacts=[str(silent)], script=["clicks welcome on day 1"])
    (contact,) = timeline["contacts"]
    sent = next(each for each in contact["happenings"] if each["kind"] == "send")
    assert (sent["outcome"], sent["why"]) == ("skipped", "the contact has not agreed to get this")
    acted = next(each for each in contact["happenings"] if each["kind"] == "act")
    assert (acted["outcome"], acted["why"]) == ("could not", "welcome was not sent to this contact until then")


async def test_a_sample_is_the_same_whenever_it_is_asked_for_and_has_those_only_who_may_enter(
    api: httpx.AsyncClient, account: TestAccount
) -> None:
    await people(account, 10)
    (member,) = await people(account, 1, name="vip")
    path = await automation(api)
    first, again = [[each["contact_id"] for each in (await told(api, path, sample=5))["contacts"]] for _ in range(2)]
    assert first == again and len(first) == 5
    chosen = await automation(api, name="For some", entry={"field": "email", "starts_with": "vip-"})
    assert [each["contact_id"] for each in (await told(api, chosen))["contacts"]] == [str(member)]


async def test_a_drip_and_a_broadcast_are_rehearsed_as_they_are_written(
    api: httpx.AsyncClient, account: TestAccount
) -> None:
    (contact,) = await people(account, 1)
    messages = [
        {"content": EMAIL},
        {"content": EMAIL, "after": "2 days"},
        {"content": EMAIL, "after": {"from_entry": "7 days"}},
    ]
    drip = {"name": "Drip", "kind": "drip", "messages": messages, "audience": {"everyone": True}}
    tomorrow = datetime.now(UTC).replace(tzinfo=None) + timedelta(days=1)
    schedule = {"send_at": f"{tomorrow:%Y-%m-%dT09:00}", "timezone": "Europe/Paris"}
    broadcast = {"name": "Broadcast", "content": {"email": EMAIL}, "audience": {"everyone": True}, "schedule": schedule}
    for written, days in ((drip, [0, 2, 7]), (broadcast, None)):
        made = (await api.post("/api/campaigns", json=written)).json()
        timeline = await told(api, f"/api/campaigns/{made['id']}/rehearse")
        (only,) = timeline["contacts"]
        assert only["contact_id"] == str(contact) and only["state"] == "completed"
        sent = [datetime.fromisoformat(each["at"]) for each in only["happenings"] if each["kind"] == "send"]
        starts_at = datetime.fromisoformat(timeline["starts_at"])
        assert days is None or [(each - starts_at).days for each in sent] == days
        assert days or f"{sent[0]:%d %H}" in (f"{tomorrow:%d} 07", f"{tomorrow:%d} 08")
    nobody = (await api.post("/api/campaigns", json={"name": "Nothing yet"})).json()
    answer = await api.post(f"/api/campaigns/{nobody['id']}/rehearse")
    assert answer.status_code == 409 and "nothing to send" in answer.json()["detail"]
    over = {
        **drip,
        "name": "Over",
        "messages": [{"content": EMAIL}],
        "calendar": {"every": "day", "until": "2026-01-31"},
    }
    made = (await api.post("/api/campaigns", json=over)).json()
    answer = await api.post(f"/api/campaigns/{made['id']}/rehearse")
    assert answer.status_code == 409 and "last day of its calendar has passed" in answer.json()["detail"]


async def test_what_is_malformed_is_told_in_our_words(api: httpx.AsyncClient) -> None:
    answer = await api.post(f"/api/automations/{uuid4()}/rehearse", json={"starts_at": "2027-03-27T08:00:00"})
    detail = "body.starts_at: takes a moment with its offset, such as 2026-11-02T09:30:00Z."
    assert (answer.status_code, answer.json()["detail"]) == (422, detail)


async def test_each_gets_the_place_in_an_experiment_that_it_will_really_have(
    api: httpx.AsyncClient, account: TestAccount
) -> None:
    await people(account, 60)
    subjects = {"question": "Have you seen it?", "with a number": "24 new things"}
    variants = [{"name": name, "content": {"email": {"subject": subject}}} for name, subject in subjects.items()]
    written = {
        "variants": variants,
        "metric": "click_rate",
        "holdout": 0.3,
        "test_fraction": 0.5,
        "control": "question",
    }
    whole = {"kind": "experiment", "content": {"email": EMAIL}, "audience": {"everyone": True}}
    made = (await api.post("/api/campaigns", json={"name": "Which?", **whole, "experiment": written})).json()
    timeline = await told(api, f"/api/campaigns/{made['id']}/rehearse", sample=60)
    cells, key = Experiment.model_validate(written).cells, experiment_key(UUID(made["id"]))
    seen = set()
    for each in timeline["contacts"]:
        led, *sent = [happening for happening in each["happenings"] if happening["kind"] in ("split", "send")]
        assert led["outcome"] == (cells.of(bucket(key, UUID(each["contact_id"]))) or "rest")
        got = {**subjects, "rest": subjects["question"]}.get(led["outcome"])
        assert [happening["message"]["subject"] for happening in sent] == [got for _ in range(got is not None)]
        seen.add((led["outcome"], led["why"]))
    assert seen == {
        ("question", ""),
        ("with a number", ""),
        ("holdout", "the contact is held out, to tell what sending brings"),
        ("rest", "waits for the winner; what is shown is the control, “question”, at the latest moment"),
    }


async def rest_of(api: httpx.AsyncClient, experiment: dict[str, Any]) -> dict[str, Any]:
    """What one of those who wait for the winner is shown."""
    test = {"metric": "click_rate", "test_fraction": 0.01, **experiment}
    whole = {"kind": "experiment", "content": {"email": EMAIL}, "audience": {"everyone": True}}
    made = (await api.post("/api/campaigns", json={"name": f"Which? {uuid4()}", **whole, "experiment": test})).json()
    timeline = await told(api, f"/api/campaigns/{made['id']}/rehearse", sample=20)
    return next(each for each in timeline["contacts"] if outcomes(each, "split") == [("experiment", "rest")])


def sent_at(contact: dict[str, Any]) -> list[datetime]:
    return [datetime.fromisoformat(each["at"]) for each in contact["happenings"] if each["kind"] == "send"]


@pytest.mark.parametrize(
    ("now", "later", "latest"),
    [
        (None, ("T09:00", "UTC"), "T10:00"),  # an hour after the last variant has left
        (None, ("T09:00", "recipient"), "T22:00"),  # in the last zone
        (("T07:30", "UTC"), ("T09:00", "UTC"), "+1 T07:30"),  # at the local time that the control has tried
    ],
)
async def test_the_rest_is_shown_the_latest_moment_at_which_it_may_be_sent(
    api: httpx.AsyncClient,
    account: TestAccount,
    now: tuple[str, str] | None,
    later: tuple[str, str],
    latest: str,
) -> None:
    await people(account, 20, timezone="Europe/Paris")
    day = datetime.now(UTC) + timedelta(days=2)

    def schedule(at: tuple[str, str] | None) -> dict[str, str] | None:
        return at and {"send_at": f"{day:%Y-%m-%d}{at[0]}", "timezone": at[1]}

    variants = [{"name": "now", "schedule": schedule(now)}, {"name": "later", "schedule": schedule(later)}]
    contact = await rest_of(api, {"variants": variants, "decide": {"after": "1 hour"}})
    *tomorrow, at = latest.split()
    due = datetime.fromisoformat(f"{day + timedelta(days=len(tomorrow)):%Y-%m-%d}{at}+00:00")
    assert [each - due < timedelta(minutes=2) and each >= due for each in sent_at(contact)] == [True]


async def test_the_rest_of_an_experiment_that_a_person_decides_is_shown_waiting(
    api: httpx.AsyncClient, account: TestAccount
) -> None:
    await people(account, 20)
    contact = await rest_of(api, {"variants": [{"name": "A"}, {"name": "B"}], "decide": "manual"})
    assert sent_at(contact) == []
    (led,) = [each for each in contact["happenings"] if each["kind"] == "split"]
    assert led["why"] == "waits for the winner, which a person chooses: nobody knows when"


# -- what is left untouched ------------------------------------------------------------------------------------------

TABLES = text("""
    SELECT table_name FROM information_schema.tables
    WHERE table_schema = 'public' AND table_type = 'BASE TABLE' ORDER BY 1
""")


async def rows(account: TestAccount) -> dict[str, str]:
    """All that the account sees, table by table."""
    async with account.transaction() as tx:
        names = [row.table_name for row in await tx.execute(TABLES)]
        readable = [
            each
            for each in names
            if (await tx.execute(text(f"SELECT has_table_privilege('{each}', 'SELECT')"))).scalar()
        ]
        query = (
            "SELECT md5(coalesce(string_agg(md5(CAST(t AS text)), '' ORDER BY md5(CAST(t AS text))), '')) FROM {} AS t"
        )
        return {each: (await tx.execute(text(query.format(each)))).scalar_one() for each in readable}


async def test_a_rehearsal_leaves_no_trace_and_reaches_nobody(
    api: httpx.AsyncClient, account: TestAccount, sink: Sink
) -> None:
    contacts = [str(each) for each in await people(account, 3)]
    path = await automation(api)
    before = await rows(account)
    figures = (await api.get("/metrics")).text
    await told(api, path, contacts=contacts, script=["clicks welcome on day 1", "unsubscribes on day 2"])
    assert await rows(account) == before
    assert arrived(sink, account) == []

    def counted(page: str) -> list[str]:
        others = ("carillon_http_", "carillon_database_")
        ours = (line for line in page.splitlines() if line.startswith("carillon_") and not line.startswith(others))
        return [line for line in ours if not line.endswith(" 0.0")]

    assert counted((await api.get("/metrics")).text) == counted(figures)


async def test_contacts_may_be_named_as_for_execute_too(api: httpx.AsyncClient, account: TestAccount) -> None:
    one, two, three, four = await people(account, 4)
    async with account.transaction() as tx:
        await tx.execute(text("UPDATE contacts SET external_id = 'crm-1' WHERE id = :id"), {"id": two})
        email = (await tx.execute(text("SELECT email FROM contacts WHERE id = :id"), {"id": three})).scalar_one()
    named = [{"id": str(one)}, {"external_id": "crm-1"}, {"email": email.upper()}, str(four), str(one)]
    timeline = await told(api, await automation(api), contacts=named)
    assert [each["contact_id"] for each in timeline["contacts"]] == [str(each) for each in (one, two, three, four)]


async def test_a_month_for_a_hundred_contacts_takes_seconds(api: httpx.AsyncClient, account: TestAccount) -> None:
    await people(account, 100)
    path = await automation(api)
    began = time.process_time()
    script = ["clicks welcome on day 2", "purchases 10 EUR on day 9"]
    timeline = await told(api, path, sample=100, script=script)
    assert timeline["summary"]["sent"] == {"welcome": 100}
    assert datetime.fromisoformat(timeline["ends_at"]) - datetime.fromisoformat(timeline["starts_at"]) > timedelta(
        days=28
    )
    assert time.process_time() - began < 30


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "status", "says"),
    [
        ({"contacts": ["nobody@example.com"]}, 404, "There is no such contact: nobody@example.com."),
        ({"contacts": [{"external_id": "crm-7"}]}, 404, "There is no such contact: crm-7."),
        ({"contacts": [{"email": "a@example.com", "external_id": "crm-7"}]}, 422, "exactly one of"),
        ({"script": ["dances on day 1"]}, 422, "'clicks welcome on day 2'"),
        ({"starts_at": "2020-01-01T00:00:00Z"}, 422, "has passed"),
        ({"sample": 5, "contacts": ["a@example.com"]}, 422, "not both"),
        ({"sample": 101}, 422, "100"),
        ({}, 409, "Nobody may enter now"),
    ],
)
async def test_what_cannot_be_rehearsed_says_what_to_do(
    api: httpx.AsyncClient, wanted: dict[str, Any], status: int, says: str
) -> None:
    answer = await api.post(await automation(api), json=wanted)
    assert answer.status_code == status and says in answer.text, answer.text


async def test_somebody_who_acts_must_take_part(api: httpx.AsyncClient, account: TestAccount) -> None:
    one, other = map(str, await people(account, 2))
    answer = await api.post(
        await automation(api), json={"contacts": [one], "script": [f"{other} unsubscribes on day 1"]}
    )
    assert answer.status_code == 422 and "does not take part" in answer.text


async def test_strangers_and_viewers_rehearse_nothing(
    app: FastAPI, api: httpx.AsyncClient, stranger: httpx.AsyncClient, account: TestAccount
) -> None:
    path = await automation(api)
    assert (await stranger.post(path)).status_code == 404
    async with client_for(app, await account.key_for("viewer")) as viewer:
        assert (await viewer.post(path)).status_code == 403


async def test_one_rehearsal_at_a_time(app: FastAPI, api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsals, "PATIENCE_SECONDS", 0.01)
    path = await automation(api)
    async with app.state.rehearsing:
        answer = await api.post(path)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")


@pytest.fixture
async def without_skipping(database: Database) -> AsyncIterator[FastAPI]:
    """The API beside a Temporal server whose clock can't skip."""

    class Plain(EmbeddedTemporal):
        DYNAMIC_CONFIG = ("matching.enableFairness=true",)

    async with Plain(durable=False) as server:
        client: Client = await connect(server.address)
        yield create_app(database, client, public_url=PUBLIC_URL, secret_key=SECRET_KEY)


async def test_where_time_cannot_be_skipped_it_says_what_to_switch_on(
    without_skipping: FastAPI, account: TestAccount
) -> None:
    await people(account, 1)
    async with client_for(without_skipping, account.key) as api:
        answer = await api.post(await automation(api))
    assert answer.status_code == 501
    assert "frontend.WorkflowTimeSkippingEnabled" in answer.json()["detail"]


async def test_others_write_while_somebody_rehearses(api: httpx.AsyncClient, account: TestAccount) -> None:
    contacts = await people(account, 2)
    path = await automation(api)
    rehearsing = asyncio.create_task(told(api, path, contacts=[str(each) for each in contacts]))
    happened = 0
    while not rehearsing.done():
        event = {"name": "visit", "contact": {"id": str(contacts[0])}}
        answer = await api.post("/api/events", json=event)
        assert answer.is_success, answer.text
        happened += 1
    assert (await rehearsing)["summary"]["entered"] == 2 and happened > 1


async def test_an_automation_in_python_is_rehearsed_within_the_sandbox(
    database: Database, temporal: Client, account: TestAccount
) -> None:
    code = load([READY_MADE])
    patient: dict[str, Any] = {"rehearsal_seconds": PATIENCE}
    app = create_app(database, temporal, public_url=PUBLIC_URL, secret_key=SECRET_KEY, code=code, **patient)
    contacts = [str(each) for each in await people(account, 2)]
    async with client_for(app, account.key) as api:
        for name in ("cart-reminder", "cart-offer"):
            assert (await api.post("/api/templates", json={"name": name, **EMAIL})).status_code == 201
        made = await api.post("/api/automations", json={"name": "Carts", "code": "abandoned_cart"})
        path = f"/api/automations/{made.json()['id']}/rehearse"
        timeline = await told(api, path, contacts=contacts, script=[f"{contacts[0]} purchases after 3 hours"])
    assert [[name for name, _ in outcomes(each, "send")] for each in timeline["contacts"]] == [
        ["cart-reminder"],
        ["cart-reminder", "cart-offer"],
    ]
