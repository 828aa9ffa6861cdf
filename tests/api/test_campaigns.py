"""Can a marketer draft, check, launch and follow a campaign over HTTP?"""

import asyncio
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import httpx
import pytest
from temporalio.client import Client

from api.app import create_app
from channels.sink import Sink
from database import campaigns
from database.engine import Database
from local_stack import EmbeddedTemporal
from tests.audience import EMAIL, people
from tests.broadcast import arrived, come
from tests.conftest import PATIENCE, PUBLIC_URL, SECRET_KEY, TestAccount, client_for
from workflows import search_attributes
from workflows.campaigns import campaign_workflow_id
from workflows.connection import connect


def draft(**changes: Any) -> dict[str, Any]:
    return {"name": "Autumn", "content": {"email": EMAIL}, "audience": {"everyone": True}, **changes}


async def created(api: httpx.AsyncClient, **changes: Any) -> str:
    answer = await api.post("/api/campaigns", json=draft(**changes))
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def finished(temporal: Client, campaign_id: str) -> None:
    await temporal.get_workflow_handle(f"campaign-{campaign_id}").result()


async def test_a_campaign_goes_from_draft_to_the_inbox(
    api: httpx.AsyncClient, temporal: Client, worker: None, sink: Sink, account: TestAccount
) -> None:
    await people(account, 30)
    await people(account, 5, name="silent", subscribed=False)
    campaign = await created(api)
    reach = (await api.post(f"/api/campaigns/{campaign}/reach")).json()
    assert reach == {"total": 35, "sendable": 30, "skipped": {"no_consent": 5}}
    launched = await api.post(f"/api/campaigns/{campaign}/launch")
    assert launched.status_code == 202
    assert launched.json()["status"] == "running"
    await finished(temporal, campaign)
    assert (await api.get(f"/api/campaigns/{campaign}")).json()["status"] == "completed"
    stats = (await api.get(f"/api/campaigns/{campaign}/stats")).json()
    figures = {name: stats[name] for name in ("planned", "pending", "sent", "skipped", "failed", "uncertain")}
    assert figures == {"planned": 35, "pending": 0, "sent": 30, "skipped": 5, "failed": 0, "uncertain": 0}
    assert stats["skipped_by_reason"] == {"no_consent": 5}
    assert stats["per_channel"]["email"]["sent"] == 30
    assert sum(hour["sent"] for hour in stats["per_hour"]) == 30
    complete = stats["per_channel"]["email"].keys() - {"planned", "pending"} | {"hour"}
    assert all(hour.keys() == complete for hour in stats["per_hour"])
    assert len(arrived(sink, account)) == 30
    names = [event["name"] for event in (await api.get(f"/api/campaigns/{campaign}/events")).json()["items"]]
    assert names == ["campaign.completed", "campaign.audience_frozen", "campaign.launched"]


async def test_recipients_have_pages_reasons_and_filters(
    api: httpx.AsyncClient, temporal: Client, worker: None, account: TestAccount
) -> None:
    await people(account, 7)
    await people(account, 4, name="silent", subscribed=False)
    campaign = await created(api)
    await api.post(f"/api/campaigns/{campaign}/send")
    await finished(temporal, campaign)
    seen: list[dict[str, Any]] = []
    cursor = None
    while True:
        asked = {"limit": "3"} | ({"cursor": cursor} if cursor else {})
        page = (await api.get(f"/api/campaigns/{campaign}/recipients", params=asked)).json()
        seen += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert len({each["delivery_id"] for each in seen}) == len(seen) == 11
    skipped = await api.get(f"/api/campaigns/{campaign}/recipients", params={"state": "skipped"})
    assert {each["reason"] for each in skipped.json()["items"]} == {"no_consent"}
    assert len(skipped.json()["items"]) == 4
    sent = next(each for each in seen if each["state"] == "sent")
    assert sent["attempts"] == 1
    assert sent["reply"].startswith("250")
    assert sent["variant"] == ""
    broken = await api.get(f"/api/campaigns/{campaign}/recipients", params={"cursor": "nonsense"})
    assert broken.status_code == 422


async def test_an_address_in_the_name_of_a_campaign_is_not_handed_to_temporal(
    api: httpx.AsyncClient, temporal: Client, worker: None, account: TestAccount
) -> None:
    await people(account, 1)
    campaign = await created(api, name="For jo@example.org")
    assert (await api.post(f"/api/campaigns/{campaign}/launch")).json()["name"] == "For jo@example.org"
    await finished(temporal, campaign)
    run = temporal.get_workflow_handle(f"campaign-{campaign}")
    assert await (await run.describe()).static_summary() == "For [address]"
    history = str((await run.fetch_history()).events)
    assert "For [address]" in history and "jo@" not in history


async def test_an_address_in_a_reason_is_kept_and_not_handed_to_temporal(
    api: httpx.AsyncClient, temporal: Client, worker: None, sink: Sink, account: TestAccount
) -> None:
    await people(account, 200)
    campaign = await created(api, rate_limit_per_second=0.001)
    await api.post(f"/api/campaigns/{campaign}/launch")
    await come(sink, account)
    for move in ("pause", "resume", "pause", "cancel"):
        said = f"jo@example.org says: {move}"
        answer = await api.post(f"/api/campaigns/{campaign}/{move}", json={"reason": said})
        assert answer.json()["status_reason"] == said
    await finished(temporal, campaign)
    events = (await api.get(f"/api/campaigns/{campaign}/events")).json()["items"]
    reasons = [event["properties"]["reason"] for event in events if "reason" in event["properties"]]
    assert sorted(reasons) == sorted(f"jo@example.org says: {move}" for move in ("pause", "resume", "pause", "cancel"))
    history = str((await temporal.get_workflow_handle(f"campaign-{campaign}").fetch_history()).events)
    assert "[address] says: resume" in history and "jo@" not in history


async def test_a_hundred_launches_at_once_start_one_run(
    api: httpx.AsyncClient, temporal: Client, worker: None, sink: Sink, account: TestAccount
) -> None:
    await people(account, 20)
    campaign = await created(api)
    answers = await asyncio.gather(*(api.post(f"/api/campaigns/{campaign}/launch") for _ in range(100)))
    codes = sorted(answer.status_code for answer in answers)
    assert codes == [202] + [409] * 99
    await finished(temporal, campaign)
    assert len(arrived(sink, account)) == len(set(arrived(sink, account))) == 20


async def test_pause_resume_and_cancel_over_the_api(
    api: httpx.AsyncClient, temporal: Client, worker: None, sink: Sink, account: TestAccount
) -> None:
    await people(account, 2 * PATIENCE)
    campaign = await created(api, rate_limit_per_second=1)
    await api.post(f"/api/campaigns/{campaign}/launch")
    await come(sink, account)
    paused = await api.post(f"/api/campaigns/{campaign}/pause", json={"reason": "Wrong price"})
    assert (paused.json()["status"], paused.json()["status_reason"]) == ("paused", "Wrong price")
    refused = await api.post(f"/api/campaigns/{campaign}/pause")
    assert refused.status_code == 409
    assert refused.json()["allowed"] == ["cancel", "resume"]
    assert (refused.json()["status"], refused.json()["campaign_status"]) == (409, "paused")
    resumed = await api.post(f"/api/campaigns/{campaign}/resume")
    assert resumed.json()["status"] == "running"
    await come(sink, account, len(arrived(sink, account)) + 1)
    cancelled = await api.post(f"/api/campaigns/{campaign}/cancel", json={"reason": "Sold out"})
    assert cancelled.json()["status"] == "cancelled"
    await finished(temporal, campaign)
    stats = (await api.get(f"/api/campaigns/{campaign}/stats")).json()
    assert stats["sent"] + stats["skipped"] == 2 * PATIENCE
    assert stats["pending"] == 0
    assert len(arrived(sink, account)) == stats["sent"] < 2 * PATIENCE


async def test_what_was_launched_can_not_be_changed_but_duplicated(
    api: httpx.AsyncClient, temporal: Client, worker: None
) -> None:
    campaign = await created(api)
    await api.post(f"/api/campaigns/{campaign}/launch")
    await finished(temporal, campaign)
    refused = await api.put(f"/api/campaigns/{campaign}", json=draft(name="Changed"))
    assert refused.status_code == 409
    assert refused.json()["allowed"] == ["delete"]
    copy = (await api.post(f"/api/campaigns/{campaign}/duplicate")).json()
    assert (copy["name"], copy["status"]) == ("Copy of Autumn", "draft")
    changed = await api.put(f"/api/campaigns/{copy['id']}", json=draft(name="Changed"))
    assert changed.json()["name"] == "Changed"


async def test_a_deleted_campaign_is_gone_from_lists_and_a_running_one_stays(api: httpx.AsyncClient) -> None:
    campaign = await created(api)
    assert (await api.delete(f"/api/campaigns/{campaign}")).status_code == 204
    assert (await api.get(f"/api/campaigns/{campaign}")).status_code == 404
    assert (await api.get("/api/campaigns")).json()["items"] == []


async def test_a_scheduled_campaign_waits_and_can_be_cancelled(
    api: httpx.AsyncClient, temporal: Client, worker: None, sink: Sink, account: TestAccount
) -> None:
    await people(account, 3)
    campaign = await created(api)
    moment = {"send_at": "2031-11-27T09:00", "timezone": "Europe/Paris"}
    scheduled = await api.post(f"/api/campaigns/{campaign}/schedule", json=moment)
    assert scheduled.status_code == 202
    assert scheduled.json()["status"] == "scheduled"
    assert scheduled.json()["schedule"]["timezone"] == "Europe/Paris"
    cancelled = await api.post(f"/api/campaigns/{campaign}/cancel")
    assert cancelled.json()["status"] == "cancelled"
    await finished(temporal, campaign)
    assert arrived(sink, account) == []


@pytest.mark.parametrize("zone", ["Europe/Paris", "recipient"])
async def test_a_moment_that_has_passed_is_refused(api: httpx.AsyncClient, zone: str) -> None:
    campaign = await created(api)
    moment = {"send_at": "2020-01-01T09:00", "timezone": zone}
    refused = await api.post(f"/api/campaigns/{campaign}/schedule", json=moment)
    assert refused.status_code == 422
    assert "has passed" in refused.json()["detail"]


async def test_every_problem_is_told_at_once(api: httpx.AsyncClient, account: TestAccount) -> None:
    ids = await people(account, 3)
    assert ids
    html = '<p>Hi {{ contact.last_name }}</p><a href="ftp://example.com">x</a>{{ contact.nickname }}'
    content = {"subject": "Hi", "html": html, "from_name": "X", "from_email": "news@elsewhere.test"}
    answer = await api.post("/api/campaigns", json={"name": "Bad", "content": {"email": content}})
    campaign = answer.json()["id"]
    validation = (await api.post(f"/api/campaigns/{campaign}/validate")).json()
    assert not validation["launchable"]
    codes = {problem["code"] for problem in validation["problems"]}
    assert {"no_audience", "foreign_sender"} <= codes
    assert len(codes) >= 5, codes
    refused = await api.post(f"/api/campaigns/{campaign}/launch")
    assert refused.status_code == 409
    assert refused.json()["problems"]
    await api.put(f"/api/campaigns/{campaign}", json=draft(content={"email": {**EMAIL, "html": html}}))
    problems = (await api.post(f"/api/campaigns/{campaign}/validate")).json()["problems"]
    missing = [problem for problem in problems if problem["code"] == "missing_fallback"]
    assert {(problem["variable"], problem["count"]) for problem in missing} >= {("contact.last_name", 3)}


async def test_a_broken_subject_hides_nothing_that_is_wrong_in_the_body(
    api: httpx.AsyncClient, account: TestAccount
) -> None:
    await people(account, 3)
    html = '<a href="foo">{{ contact.last_name }}{{ nope }}</a>'
    campaign = await created(api, content={"email": {**EMAIL, "subject": "{{ 1 | nope }}", "html": html}})
    problems = (await api.post(f"/api/campaigns/{campaign}/validate")).json()["problems"]
    assert [(problem["code"], problem["part"]) for problem in problems] == [
        ("unusable_content", "subject"),
        ("unknown_variable", None),
        ("invalid_link", "html"),
        ("no_unsubscribe_link", "html"),
        ("missing_fallback", "content"),
    ]


async def test_a_preview_shows_what_a_contact_would_get_and_why_not(
    api: httpx.AsyncClient, worker: None, sink: Sink, account: TestAccount
) -> None:
    (known,) = await people(account, 1)
    (silent,) = await people(account, 1, name="silent", subscribed=False)
    campaign = await created(api)
    asked = {"contact_ids": [str(known), str(silent)], "send_to": ["colleague@example.com"]}
    answer = (await api.post(f"/api/campaigns/{campaign}/preview", json=asked)).json()
    first, second = answer["previews"]
    assert first["subject"] == "Hello Person 1"
    assert "https://shop.example.com/autumn" in first["html"]
    assert "The collection" in first["text"]
    assert first["skipped"] is None
    assert "List-Unsubscribe" in first["headers"]
    assert first["headers"]["Feedback-ID"].startswith(f"{UUID(campaign).hex}:broadcast:")
    assert second["skipped"] == "no_consent"
    assert answer["tests"] == {"colleague@example.com": "sent"}
    tests = [content for content in sink.contents if b"Subject: [Test] Hello Person 1" in content]
    assert tests
    assert not any(b"Feedback-ID" in content for content in tests), "tests are in no figures, Gmail's included"
    stats = (await api.get(f"/api/campaigns/{campaign}/stats")).json()
    assert stats["planned"] == 0


async def test_without_contacts_a_preview_is_for_somebody_made_up(api: httpx.AsyncClient, worker: None) -> None:
    campaign = await created(api)
    answer = (await api.post(f"/api/campaigns/{campaign}/preview", json={"send_to": ["Boss@mail.test"]})).json()
    (preview,) = answer["previews"]
    assert (preview["contact_id"], preview["subject"]) == (None, "Hello there")
    assert answer["tests"] == {"boss@mail.test": "sent"}


async def test_operators_find_test_messages_by_their_kind(
    api: httpx.AsyncClient, worker: None, temporal: Client, account: TestAccount
) -> None:
    campaign = await created(api)
    await api.post(f"/api/campaigns/{campaign}/preview", json={"send_to": ["boss@mail.test"]})
    query = f"Kind = 'test' AND AccountId = '{account.id}'"
    while not (found := [run.id async for run in temporal.list_workflows(query)]):
        pass
    assert [id.startswith(f"test-{campaign}/") for id in found] == [True]


async def test_a_stored_template_gives_what_the_campaign_does_not_say(
    api: httpx.AsyncClient, account: TestAccount
) -> None:
    await people(account, 1)
    template = {"name": "House", "channel": "email", "subject": "From the template", "html": EMAIL["html"]}
    stored = (await api.post("/api/templates", json=template)).json()
    content = {"template_id": stored["id"], "from_name": "X", "from_email": "news@example.com"}
    campaign = await created(api, content={"email": content})
    answer = (await api.post(f"/api/campaigns/{campaign}/preview", json={})).json()
    assert answer["previews"][0]["subject"] == "From the template"


async def test_campaigns_are_listed_filtered_and_paged(api: httpx.AsyncClient) -> None:
    for number in range(5):
        await created(api, name=f"Sale {number}" if number % 2 else f"News {number}")
    page = (await api.get("/api/campaigns", params={"limit": 2})).json()
    assert [each["name"] for each in page["items"]] == ["News 4", "Sale 3"]
    rest = (await api.get("/api/campaigns", params={"cursor": page["next_cursor"]})).json()
    assert [each["name"] for each in rest["items"]] == ["News 2", "Sale 1", "News 0"]
    assert rest["next_cursor"] is None
    found = (await api.get("/api/campaigns", params={"search": "sale"})).json()["items"]
    assert len(found) == 2
    assert (await api.get("/api/campaigns", params={"status": "running"})).json()["items"] == []
    assert len((await api.get("/api/campaigns", params={"channel": "email"})).json()["items"]) == 5
    past = {"created_to": "2020-01-01T00:00:00Z"}
    assert (await api.get("/api/campaigns", params=past)).json()["items"] == []


@pytest.mark.parametrize("moment", ["0001-01-01T00:00", "9999-12-31T23:59"])
async def test_schedules_at_the_ends_of_time_are_malformed(api: httpx.AsyncClient, moment: str) -> None:
    campaign = await created(api)
    for zone in ("recipient", "Pacific/Kiritimati", "Etc/GMT+12"):
        schedule = {"send_at": moment, "timezone": zone}
        for answer in (
            await api.post("/api/campaigns", json=draft(schedule=schedule)),
            await api.put(f"/api/campaigns/{campaign}", json=draft(schedule=schedule)),
            await api.post(f"/api/campaigns/{campaign}/schedule", json=schedule),
        ):
            assert (answer.status_code, "1900 to 2200" in answer.json()["detail"]) == (422, True)


async def test_a_pause_holds_though_no_worker_answers_and_a_resume_says_so(
    database: Database, account: TestAccount
) -> None:
    await people(account, 5)
    async with EmbeddedTemporal(durable=False) as deserted:
        temporal = await connect(deserted.address)
        await search_attributes.register(temporal)
        app = create_app(database, temporal, public_url=PUBLIC_URL, secret_key=SECRET_KEY, patience_seconds=0.2)
        async with client_for(app, account.key) as api:
            campaign = await created(api)
            assert (await api.post(f"/api/campaigns/{campaign}/launch")).status_code == 202
            paused = await api.post(f"/api/campaigns/{campaign}/pause")
            assert (paused.status_code, paused.json()["status"]) == (200, "paused")
            resumed = await api.post(f"/api/campaigns/{campaign}/resume")
            assert resumed.status_code == 503
            assert "No worker" in resumed.json()["detail"]
            cancelled = await api.post(f"/api/campaigns/{campaign}/cancel")
            assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")


async def test_what_is_shown_is_what_is_sent_however_close_a_change_comes_to_the_launch(
    api: httpx.AsyncClient, worker: None, account: TestAccount
) -> None:
    await people(account, 1)
    for attempt in range(8):
        campaign = await created(api)
        changed = draft(content={"email": {**EMAIL, "subject": f"Changed {attempt}"}})
        launched, put = await asyncio.gather(
            api.post(f"/api/campaigns/{campaign}/launch"), api.put(f"/api/campaigns/{campaign}", json=changed)
        )
        assert launched.status_code == 202
        assert put.status_code in (200, 409)
        shown = (await api.get(f"/api/campaigns/{campaign}")).json()["content"]["email"]["subject"]
        async with account.transaction() as tx:
            plan = await campaigns.load_plan(tx, UUID(campaign))
        assert plan.email.prepared.subject == shown


async def test_a_local_time_that_has_passed_for_some_is_refused_and_says_for_whom(
    api: httpx.AsyncClient, account: TestAccount
) -> None:
    await people(account, 1, name="early", timezone="Pacific/Kiritimati")
    await people(account, 1, name="late", timezone="Pacific/Niue")
    campaign = await created(api)
    # An hour from now in Niue; there are 25 hours between the two.
    local = (datetime.now(ZoneInfo("Pacific/Niue")) + timedelta(hours=1)).replace(tzinfo=None, microsecond=0)
    moment = {"send_at": local.isoformat(), "timezone": "recipient"}
    refused = await api.post(f"/api/campaigns/{campaign}/schedule", json=moment)
    assert refused.status_code == 409
    assert "Pacific/Kiritimati" in refused.json()["detail"]


async def test_other_accounts_see_nothing(api: httpx.AsyncClient, stranger: httpx.AsyncClient) -> None:
    campaign = await created(api)
    for path in ("", "/stats", "/recipients", "/events"):
        assert (await stranger.get(f"/api/campaigns/{campaign}{path}")).status_code == 404, path
    for path in ("/launch", "/pause", "/resume", "/cancel", "/duplicate", "/validate", "/reach"):
        assert (await stranger.post(f"/api/campaigns/{campaign}{path}")).status_code == 404, path
    assert (await stranger.post(f"/api/campaigns/{campaign}/preview", json={})).status_code == 404
    assert (await stranger.put(f"/api/campaigns/{campaign}", json=draft())).status_code == 404
    assert (await stranger.delete(f"/api/campaigns/{campaign}")).status_code == 404


async def test_a_launch_that_crashed_before_temporal_heard_is_swept_up(
    api: httpx.AsyncClient, temporal: Client, worker: None, account: TestAccount
) -> None:
    from tests.broadcast import broadcast
    from workflows.options import ORCHESTRATION
    from workflows.sweeps import SweepWorkflow

    await people(account, 5)
    sent = await broadcast(account)  # launched on record, and no workflow
    await temporal.execute_workflow(SweepWorkflow.run, id=f"sweep-{sent.id}", task_queue=ORCHESTRATION)
    await temporal.get_workflow_handle(campaign_workflow_id(sent.id)).result()
    assert await sent.ledger() == {"sent": 5}


async def test_an_unknown_zone_is_told_of_once(api: httpx.AsyncClient) -> None:
    schedule = {"send_at": "2126-11-27T09:00", "timezone": "Europe/Atlantis"}
    refused = (await api.post("/api/campaigns", json={"name": "Autumn", "schedule": schedule})).json()
    assert [each["path"] for each in refused["errors"]] == ["body.schedule.timezone"]
    assert "Europe/Paris" in refused["detail"]
