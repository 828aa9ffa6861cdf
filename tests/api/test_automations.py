"""Can a marketer write an automation down, change it under those inside, and let contacts in, over HTTP?"""

from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import text
from temporalio.client import Client

from api.app import create_app
from database.engine import Database
from database.schema_automations import enrollments
from marketing.automations import AutomationDefinition
from tests.audience import EMAIL, people
from tests.conftest import PUBLIC_URL, SECRET_KEY, TestAccount, client_for
from tests.segments import segment
from workflows.code import Loaded, Written
from workflows.code_files import load

WAIT: Any = {"type": "wait", "duration": "1 day"}
WELCOME: dict[str, Any] = {
    "name": "Welcome",
    "trigger": {"type": "event", "event": "trial.started"},
    "steps": [WAIT, {"type": "send", "content": EMAIL}],
}


async def created(api: httpx.AsyncClient, **parts: Any) -> str:
    made = await api.post("/api/automations", json={**WELCOME, **parts})
    assert made.status_code == 201, made.text
    return f"/api/automations/{made.json()['id']}"


async def activated(api: httpx.AsyncClient, **parts: Any) -> str:
    path = await created(api, **parts)
    answer = await api.post(f"{path}/activate")
    assert answer.status_code == 202, answer.text
    return path


async def inside(account: TestAccount, path: str, contact: UUID, **values: Any) -> None:
    """Somebody who is in the automation."""
    row = {
        "account_id": account.id,
        "source_id": UUID(path.rpartition("/")[2]),
        "contact_id": contact,
        "cause": f"event:{uuid4()}",
        "state": "active",
        **values,
    }
    async with account.transaction() as tx:
        await tx.execute(enrollments.insert().values(row))


# -- written ---------------------------------------------------------------------------------------------------------


async def test_an_automation_is_a_draft_that_reads_as_it_was_written_with_ids_for_its_steps(
    api: httpx.AsyncClient,
) -> None:
    made = (await api.post("/api/automations", json=WELCOME)).json()
    assert (made["status"], made["version"], made["activated_at"]) == ("draft", 1, None)
    assert made["steps"] == [
        {**WAIT, "id": "wait-1"},
        {"id": "send-1", "type": "send", "channel": "email", "content": {**made["steps"][1]["content"], **EMAIL}},
    ]
    assert (made["reentry"], made["time_limit"], made["code"]) == ("once", "180 days", None)
    read = await api.get(f"/api/automations/{made['id']}")
    assert read.json() == made
    as_read = {name: made[name] for name in AutomationDefinition.model_fields}
    put = (await api.put(f"/api/automations/{made['id']}", json=as_read)).json()
    assert {**put, "updated_at": made["updated_at"]} == {**made, "inside": []}


async def test_what_is_wrong_is_told_with_its_path(api: httpx.AsyncClient) -> None:
    steps = [
        WAIT,
        {"type": "branch", "if": {"field": "country", "is": "FR"}, "then": [{"type": "send", "template": 3}]},
    ]
    refused = await api.post("/api/automations", json={**WELCOME, "steps": steps})
    assert refused.status_code == 422
    assert refused.json()["detail"] == "body.steps.1.then.0.template: takes a text."


async def test_an_automation_of_more_than_64_kib_is_refused(api: httpx.AsyncClient) -> None:
    long = {**EMAIL, "html": "x" * (64 << 10)}
    refused = await api.post("/api/automations", json={**WELCOME, "steps": [{"type": "send", "content": long}]})
    assert refused.status_code == 413 and "templates" in refused.json()["detail"]


async def test_automations_are_listed_newest_first_and_found_by_state_and_name(api: httpx.AsyncClient) -> None:
    for name in ("One", "Two", "Three"):
        await created(api, name=name)
    await api.post((await created(api, name="Four")) + "/activate")
    listed = (await api.get("/api/automations", params={"limit": 3})).json()
    assert [each["name"] for each in listed["items"]] == ["Four", "Three", "Two"]
    rest = (await api.get("/api/automations", params={"cursor": listed["next_cursor"]})).json()
    assert [each["name"] for each in rest["items"]] == ["One"] and rest["next_cursor"] is None
    active = (await api.get("/api/automations", params={"status": "active"})).json()["items"]
    assert [(each["name"], each["trigger"]) for each in active] == [("Four", WELCOME["trigger"])]
    found = (await api.get("/api/automations", params={"search": "thr"})).json()["items"]
    assert [each["name"] for each in found] == ["Three"]


async def test_no_two_automations_have_one_name_but_one_that_is_deleted_gives_it_free(api: httpx.AsyncClient) -> None:
    first, second = await created(api), await created(api, name="Other")
    assert (await api.post("/api/automations", json=WELCOME)).status_code == 409
    assert (await api.put(second, json=WELCOME)).status_code == 409
    assert (await api.put(first, json=WELCOME)).status_code == 200
    assert (await api.delete(first)).status_code == 204
    assert (await api.get(first)).status_code == 404
    assert (await api.put(second, json=WELCOME)).status_code == 200


async def test_viewers_look_and_editors_change(api: httpx.AsyncClient, account: TestAccount, app: Any) -> None:
    path = await created(api)
    async with client_for(app, await account.key_for("viewer")) as viewer:
        for seen in ("", "/executions", "/enrollments", "/stats"):
            assert (await viewer.get(f"{path}{seen}")).status_code == 200
        refused = [await viewer.post("/api/automations", json=WELCOME), await viewer.put(path, json=WELCOME)]
        refused += [await viewer.post(f"{path}/{what}") for what in ("activate", "deactivate", "pause", "cancel")]
        refused += [await viewer.post(f"{path}/execute", json={"contacts": [{"id": str(account.id)}]})]
        refused += [await viewer.delete(path)]
        assert {answer.status_code for answer in refused} == {403}


# -- changed under those inside --------------------------------------------------------------------------------------


async def test_those_inside_finish_on_their_version_or_migrate_where_their_step_is_still_there(
    api: httpx.AsyncClient, account: TestAccount
) -> None:
    named: Any = [{**WAIT, "id": "pause"}, {"type": "tag", "add": ["x"], "id": "mark"}]
    path = await activated(api, steps=named)
    await api.post(f"{path}/pause")  # so that whoever is pending stays so
    one, two, three, four = await people(account, 4)
    await inside(account, path, one, step="pause")
    await inside(account, path, two, step="pause")
    await inside(account, path, three, step="mark")
    await inside(account, path, four, state="pending")
    changed = {**WELCOME, "steps": [{**WAIT, "duration": "2 days", "id": "pause"}, {"type": "exit", "id": "mark"}]}

    def at(becomes: list[dict[str, Any]]) -> dict[str, tuple[int, int]]:
        return {each["step"]: (each["contacts"], each["goes_on_in"]) for each in becomes}

    seen = (await api.put(path, json=changed, params={"inside": "migrate", "preview": True})).json()
    assert (seen["version"], at(seen["inside"])) == (2, {"": (1, 2), "mark": (1, 1), "pause": (2, 2)})
    assert (await api.get(path)).json()["version"] == 1, "a preview changes nothing"
    done = (await api.put(path, json=changed)).json()
    assert (done["version"], at(done["inside"])) == (2, {"": (1, 1), "mark": (1, 1), "pause": (2, 1)})
    assert (await api.get(path, params={"version": 1})).json()["steps"] == named
    assert (await api.get(path, params={"version": 3})).status_code == 404
    again = (await api.put(path, json={**changed, "name": "Hello"})).json()
    assert (again["version"], again["name"]) == (2, "Hello"), "a name alone makes no version"
    moved = (
        await api.put(path, json={**changed, "topic": None, "time_limit": "1 year"}, params={"inside": "migrate"})
    ).json()
    assert at(moved["inside"]) == {"": (1, 3), "mark": (1, 1), "pause": (2, 3)}
    pending = (await api.get(f"{path}/enrollments", params={"state": "pending"})).json()["items"]
    assert [each["version"] for each in pending] == [3]


async def test_an_active_automation_takes_no_definition_that_could_not_be_activated(api: httpx.AsyncClient) -> None:
    path = await activated(api)
    refused = await api.put(path, json={**WELCOME, "steps": [{"type": "send", "template": "nobody-has-it"}]})
    assert refused.status_code == 409 and "steps.0.template" in refused.json()["detail"]
    assert (await api.get(path)).json()["version"] == 1


async def test_an_automation_is_not_deleted_while_it_is_active_or_somebody_is_inside(
    api: httpx.AsyncClient, account: TestAccount
) -> None:
    path = await activated(api)
    (one,) = await people(account, 1)
    await inside(account, path, one)
    assert "active" in (await api.delete(path)).json()["detail"]
    assert (await api.post(f"{path}/deactivate")).json()["status"] == "paused"
    refused = await api.delete(path)
    assert (refused.status_code, refused.json()["inside"]) == (409, 1)
    assert (await api.delete(path, params={"inside": "cancel"})).status_code == 204
    assert (await api.get(path)).status_code == 404


# -- activated -------------------------------------------------------------------------------------------------------


async def test_it_is_not_activated_while_those_are_leaving_who_waited_when_it_was_cancelled(
    api: httpx.AsyncClient, account: TestAccount
) -> None:
    path = await created(api)
    (one,) = await people(account, 1)
    await inside(account, path, one, state="pending")
    refused = await api.post(f"{path}/activate")
    assert refused.status_code == 409 and "still leaving" in refused.json()["detail"]
    async with account.transaction() as tx:
        await tx.execute(text("UPDATE enrollments SET state = 'cancelled', left_at = now()"))
    assert (await api.post(f"{path}/activate")).status_code == 202


@pytest.mark.parametrize(
    ("parts", "place", "words"),
    [
        ({"steps": [{"type": "send", "template": "nobody-has-it"}]}, "steps.0.template", "no template 'nobody"),
        (
            {
                "steps": [
                    {"type": "branch", "if": {"bucket": [0, 9]}, "else": [{"type": "send", "content": {"html": "x"}}]}
                ]
            },
            "steps.0.else.0.content.subject",
            "The subject is empty",
        ),
        (
            {"steps": [{"type": "send", "content": {**EMAIL, "from_email": "me@elsewhere.example"}}]},
            "steps.0.content.from_email",
            "is no sender domain",
        ),
        ({"steps": [{"type": "send", "channel": "sms", "template": "a"}]}, "steps.0.channel", "Nothing sends by sms"),
        (
            {"steps": [{"type": "add_to", "segment": str(UUID(int=7))}]},
            "steps.0.segment",
            "There is no static segment",
        ),
        ({"entry": {"segment": str(UUID(int=7))}}, "entry", "There is no segment"),
        ({"exit_on": [{"if": {"segment": str(UUID(int=7))}}]}, "exit_on.0.if", "There is no segment"),
        ({"trigger": {"type": "segment_left", "segment": str(UUID(int=7))}}, "trigger.segment", "There is no segment"),
        ({"topic": "unheard-of"}, "topic", "has no topic"),
        ({"steps": [{"type": "activity", "name": "reserve"}]}, "steps.0.name", "no activity 'reserve'"),
        ({"steps": [{"type": "notify", "text": "{{ contact."}]}, "steps.0.text", "line 1"),
        ({"steps": [{"type": "create_campaign", "campaign": {"name": "C"}}]}, "steps.0.campaign", "no e-mail to send"),
    ],
)
async def test_what_stands_in_the_way_is_told_with_its_place(
    api: httpx.AsyncClient, parts: Any, place: str, words: str
) -> None:
    refused = await api.post((await created(api, **parts)) + "/activate")
    assert refused.status_code == 409
    (first, *_) = refused.json()["problems"]
    assert first["part"].startswith(place) and words in first["message"], first


async def test_contacts_are_added_to_static_segments_alone(api: httpx.AsyncClient) -> None:
    dynamic = await segment(api, criteria={"field": "country", "is": "FR"})
    path = await created(api, steps=[{"type": "add_to", "segment": dynamic}])
    refused = await api.post(f"{path}/activate")
    assert "no static segment" in refused.json()["detail"]


async def test_what_is_known_of_events_only_is_no_problem_and_what_newcomers_may_have_is_a_warning(
    api: httpx.AsyncClient,
) -> None:
    content = {**EMAIL, "subject": "{{ event.order }} for {{ contact.attributes.nickname }}"}
    path = await created(api, steps=[{"type": "send", "content": content}])
    activated = await api.post(f"{path}/activate")
    assert activated.status_code == 202, activated.text
    assert [each["code"] for each in activated.json()["warnings"]] == ["unknown_variable"]


async def test_automations_that_set_each_other_off_are_refused_with_the_circle_named(api: httpx.AsyncClient) -> None:
    vips = await segment(api, "VIPs")
    on_tag, on_vip = {"type": "tag_added", "tag": "x"}, {"type": "segment_entered", "segment": vips}
    await activated(api, name="A", trigger=on_vip, steps=[{"type": "tag", "add": ["x"]}])
    harmless = await activated(api, name="B", trigger=on_tag, steps=[WAIT])
    other = await created(api, name="C", trigger=on_tag, steps=[{"type": "add_to", "segment": "VIPs"}])
    for refused in (
        await api.post(f"{other}/activate"),
        await api.put(harmless, json={"name": "C2", "trigger": on_tag, "steps": [{"type": "add_to", "segment": vips}]}),
    ):
        assert refused.status_code == 409
        assert [each["name"] for each in refused.json()["circle"]] in (["C", "A", "C"], ["C2", "A", "C2"])
        assert "→ “A” →" in refused.json()["detail"]


async def test_what_an_automation_looks_at_is_looked_at_while_it_is_there(
    api: httpx.AsyncClient, account: TestAccount
) -> None:
    async def subjects() -> set[str]:
        async with account.transaction() as tx:
            return set((await tx.execute(text("SELECT role || ' ' || subject FROM automation_subjects"))).scalars())

    waits = {"type": "wait_for", "event": "reply", "within": "1 day"}
    path = await created(api, steps=[waits], goal={"event": "purchase"})
    assert await subjects() == set()
    await api.post(f"{path}/activate")
    always = {"exit unsubscribed", "exit contact.deleted"}
    before = {"trigger event:trial.started", "goal event:purchase", "wait event:reply"}
    assert await subjects() == before | always
    await api.put(path, json={**WELCOME, "trigger": {"type": "tag_added", "tag": "x"}})
    # Those inside wait for the reply still.
    assert await subjects() == {"trigger tag:x", "wait event:reply"} | always
    await api.post(f"{path}/deactivate")
    assert await subjects() == {"trigger tag:x", "wait event:reply"} | always
    await api.delete(path)
    assert await subjects() == set()


async def test_what_an_active_automation_uses_is_not_deleted(api: httpx.AsyncClient) -> None:
    vips = await segment(api, "VIPs")
    template = {"name": "House", "subject": "Hi", "html": EMAIL["html"], "from_email": EMAIL["from_email"]}
    by_name = (await api.post("/api/templates", json=template)).json()["id"]
    by_id = (await api.post("/api/templates", json={**template, "name": "Other"})).json()["id"]
    leads = await segment(api, "Leads")
    sends = [{"type": "send", "template": "House"}, {"type": "send", "template": by_id}]
    path = await created(api, steps=[*({"type": "add_to", "segment": each} for each in (vips, "Leads")), *sends])
    assert (await api.put(f"/api/templates/{by_name}", json=template)).status_code == 200
    await api.post(f"{path}/activate")
    used = [f"/api/segments/{vips}", f"/api/segments/{leads}", f"/api/templates/{by_name}", f"/api/templates/{by_id}"]
    for each in used:
        refused = await api.delete(each)
        assert refused.status_code == 409
        assert [user["name"] for user in refused.json()["used_by"]] == ["Welcome"]
    assert (await api.put(f"/api/templates/{by_name}", json={**template, "name": "Home"})).status_code == 409
    renamed = await api.put(f"/api/segments/{leads}", json={"name": "Prospects", "kind": "static"})
    assert (renamed.status_code, [user["name"] for user in renamed.json()["used_by"]]) == (409, ["Welcome"])
    assert (await api.put(f"/api/segments/{vips}", json={"name": "Best", "kind": "static"})).status_code == 200
    assert (await api.put(f"/api/templates/{by_id}", json={**template, "name": "Another"})).status_code == 200
    await api.post(f"{path}/deactivate")
    await api.delete(path)
    for each in used:
        assert (await api.delete(each)).status_code == 204


async def test_what_those_inside_an_earlier_version_need_is_not_deleted(
    api: httpx.AsyncClient, account: TestAccount
) -> None:
    template = {"name": "House", "subject": "Hi", "html": EMAIL["html"], "from_email": EMAIL["from_email"]}
    letter = (await api.post("/api/templates", json=template)).json()["id"]
    used = [f"/api/segments/{await segment(api, 'Leads')}", f"/api/templates/{letter}"]
    steps = [{"type": "add_to", "segment": "Leads"}, {"type": "send", "template": "House"}]
    path = await created(api, steps=steps)
    assert (await api.post(f"{path}/activate")).status_code == 202
    (one,) = await people(account, 1)
    await inside(account, path, one, version=1)
    assert (await api.put(path, json={**WELCOME, "steps": [{"type": "wait", "duration": "1 day"}]})).status_code == 200
    for each in used:
        refused = await api.delete(each)
        assert (refused.status_code, [user["name"] for user in refused.json()["used_by"]]) == (409, ["Welcome"])
    async with account.transaction() as tx:
        await tx.execute(text("UPDATE enrollments SET state = 'completed', left_at = now()"))
    for each in used:
        assert (await api.delete(each)).status_code == 204


# -- in Python -------------------------------------------------------------------------------------------------------


def written(version: int = 3, **terms: Any) -> Written:
    definition = AutomationDefinition.model_validate(
        {"name": "greet", "code": "greet", "trigger": {"type": "tag_added", "tag": "x"}, **terms}
    )

    async def greet(*_: Any) -> None:
        """Never run here."""

    return Written("greet", version, definition, greet, Path("greet.py"), 1)


@pytest.fixture
async def with_code(account: TestAccount, database: Database, temporal: Client) -> Any:
    """The API of a process that found the automation `greet`, in this version."""

    def client(found: Written) -> httpx.AsyncClient:
        code = Loaded({(found.name, found.version): found}, {})
        return client_for(
            create_app(database, temporal, public_url=PUBLIC_URL, secret_key=SECRET_KEY, code=code), account.key
        )

    return client


async def test_code_is_named_and_tells_what_it_is_by_itself(with_code: Any) -> None:
    async with with_code(written()) as api:
        made = await api.post("/api/automations", json={"name": "Greeting", "code": "greet"})
        assert made.status_code == 201, made.text
        read = made.json()
        assert (read["name"], read["code"], read["version"], read["steps"]) == ("Greeting", "greet", 3, [])
        assert read["trigger"] == {"type": "tag_added", "tag": "x"}
        path = f"/api/automations/{read['id']}"
        as_read = {name: read[name] for name in AutomationDefinition.model_fields}
        assert (await api.put(path, json=as_read)).status_code == 200
        differs = await api.put(path, json={"name": "Greeting", "code": "greet", "reentry": "always"})
        assert differs.status_code == 422 and "body.reentry" in differs.json()["detail"]
        unknown = await api.post("/api/automations", json={"name": "x", "code": "grete"})
        assert unknown.status_code == 422 and unknown.json()["detail"].endswith(" There are greet.")
        assert (await api.post(f"{path}/activate")).status_code == 202
        assert (await api.put(path, json=WELCOME)).status_code == 409
    async with with_code(written(4, reentry="always")) as api:
        assert (await api.get(path)).json()["version"] == 3
        newer = (await api.post(f"{path}/activate")).json()
        assert (newer["version"], newer["reentry"]) == (4, "always")


NUDGE = {"name": "Nudge", "code": "nudge"}
SENDING = """\
from workflows.journey import automation, on_event

ENGAGED = {{"all": [{{"segment": "{looked_into}"}}]}}

@automation("nudge", trigger=on_event("contact.subscribed"))
async def nudge(contact, journey):
    await greet(journey)
    if not await journey.matches(ENGAGED):
        await journey.add_to("Sleepers")
    await journey.send(template_of(contact))

async def greet(journey):
    await journey.send("Hello")

async def not_called(journey):
    await journey.send("Nobody gets this")

def template_of(contact):
    return "Only the pass knows"
"""


async def test_what_the_text_of_code_names_must_be_there_and_stay(
    account: TestAccount, database: Database, temporal: Client, tmp_path: Path
) -> None:
    app = create_app(database, temporal, public_url=PUBLIC_URL, secret_key=SECRET_KEY)
    async with client_for(app, account.key) as api:
        looked_into = await segment(api, "Readers")
        (tmp_path / "nudge.py").write_text(SENDING.format(looked_into=looked_into))
        app.state.code = load([tmp_path])
        path = f"/api/automations/{(await api.post('/api/automations', json=NUDGE)).json()['id']}"
        refused = await api.post(f"{path}/activate")
        found = {each["part"]: each["code"] for each in refused.json()["problems"]}
        assert refused.status_code == 409
        assert found == {"nudge.py:9.segment": "unknown_segment", "nudge.py:13.template": "no_template"}

        unstoppable = {**EMAIL, "name": "Hello", "html": "<p>No way out.</p>"}
        hello = f"/api/templates/{(await api.post('/api/templates', json=unstoppable)).json()['id']}"
        sleepers = await api.post("/api/segments", json={"name": "Sleepers", "kind": "static"})
        refused = await api.post(f"{path}/activate")
        assert [each["part"] for each in refused.json()["problems"]] == ["nudge.py:13.template.html"], refused.text
        assert (await api.put(hello, json={**EMAIL, "name": "Hello"})).status_code == 200
        assert (await api.post(f"{path}/activate")).status_code == 202

        used = [hello, f"/api/segments/{looked_into}", f"/api/segments/{sleepers.json()['id']}"]
        for each in used:
            refused = await api.delete(each)
            assert (refused.status_code, [user["name"] for user in refused.json()["used_by"]]) == (409, ["Nudge"])
        assert (await api.put(hello, json={**EMAIL, "name": "Good day"})).status_code == 409
        assert (await api.put(used[2], json={"name": "Dozers", "kind": "static"})).status_code == 409
        assert (await api.post(f"{path}/cancel")).status_code == 200
        for each in used:
            assert (await api.delete(each)).status_code == 204
