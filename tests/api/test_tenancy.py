"""Does an account ever see, learn of or change anything of another, whatever it asks with whichever ids?"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import select, text
from temporalio.client import Client

from activities import launches
from api.paging import pair_cursor
from database import campaigns
from database.schema import metadata
from marketing.webhooks import WebhookSecrets
from tests.api.test_imports import finished
from tests.api.test_openapi import operations, resolved
from tests.audience import EMAIL
from tests.conftest import SECRET_KEY, TestAccount
from tests.sent import SentMessage, links, sent_messages

MARK = "only-theirs"
ADDRESS = f"{MARK}@example.net"


@dataclass(frozen=True)
class Theirs:
    """An account that has one of everything, each marked."""

    account: TestAccount
    ids: dict[str, str]  # by the names of parameters
    message: SentMessage

    async def rows(self) -> dict[str, list[Any]]:
        """Every row that the account has, by table."""
        async with self.account.transaction() as tx:
            return {
                table.name: sorted((await tx.execute(select(table))).all(), key=repr)
                for table in metadata.sorted_tables
            }

    async def secrets(self) -> set[str]:
        """Every id, address and marked word."""
        rows = [row for rows in (await self.rows()).values() for row in rows]
        ids = {str(value) for row in rows for value in row if isinstance(value, UUID)}
        emails = {row.email for row in (await self.rows())["contacts"] if row.email}
        return ids | emails | {MARK, WebhookSecrets(SECRET_KEY).spelled(self.account.id)}


@pytest.fixture
async def theirs(api: httpx.AsyncClient, account: TestAccount, temporal: Client, worker: None) -> Theirs:
    async def made(path: str, **body: object) -> str:
        answer = await api.post(path, json=body)
        assert answer.is_success, answer.text
        return str(answer.json()["id"])

    topics = [{"key": MARK, "name": MARK, "description": MARK}]
    settings = {"name": MARK, "sender_domains": ["example.com"], "postal_address": MARK, "topics": topics}
    assert (await api.put("/api/account", json=settings)).status_code == 200
    contact = await made(
        "/api/contacts", email=ADDRESS, first_name=MARK, external_id=MARK, tags=[MARK], attributes={MARK: MARK}
    )
    template = await made("/api/templates", name=MARK, subject=MARK, html=EMAIL["html"])
    draft = {"name": MARK, "content": {"email": {"template_id": template}}, "audience": {"contact_ids": [contact]}}
    await made("/api/campaigns", **draft)
    variants = [{"name": name, "content": {"email": {"subject": MARK}}} for name in (MARK, "B")]
    which = {**draft, "kind": "experiment", "experiment": {"variants": variants, "metric": "click_rate"}}
    experiment = await made("/api/campaigns", **which | {"content": {"email": EMAIL}})
    segment = await made("/api/segments", name=MARK, kind="static")
    assert (await api.post(f"/api/segments/{segment}/members", json={"tag": MARK})).json()["changed"] == 1
    trigger = {"type": "tag_added", "tag": MARK}
    tagging = {"name": MARK, "trigger": trigger, "steps": [{"type": "tag", "add": [MARK]}], "goal": {"event": MARK}}
    automation = await made("/api/automations", **tagging)
    upload = await api.post("/api/contacts/import", content=f"Email\n{MARK}\n", headers={"content-type": "text/csv"})
    await finished(api, temporal, upload.json()["id"])
    (message,) = await sent_messages(account, topic=MARK)
    assert (await api.get(message.pixel)).status_code == 200
    async with account.transaction() as tx:
        note = "INSERT INTO notifications (account_id, kind, text) VALUES (:account, 'note', :mark)"
        await tx.execute(text(note), {"account": account.id, "mark": MARK})
        entered = {"account_id": account.id, "source_id": automation, "contact_id": contact, "cause": MARK}
        await tx.execute(metadata.tables["enrollments"].insert().values(entered))
        await tx.execute(text("UPDATE deliveries SET state = 'uncertain', reason = 'connection_lost'"))
        as_launched = {"name": MARK, "plan": {"email": {"from_email": "news@example.com"}}}
        launched = metadata.tables["campaigns"].update().where(text("id = :id").bindparams(id=message.campaign_id))
        await tx.execute(launched.values(definition={"name": MARK}, **as_launched))
        joined = {"account_id": account.id, "source_id": message.campaign_id, "contact_id": contact, "cause": MARK}
        await tx.execute(metadata.tables["enrollments"].insert().values(joined))
        tested = await campaigns.read(tx, UUID(experiment))
        assert tested
        await launches.launch(tx, account.id, tested, datetime.now(UTC))
        await tx.execute(text("UPDATE campaign_meters SET next_slot_at = now()"))  # Python knows no moment before all
        seen = {"account_id": account.id, "campaign_id": experiment, "contact_id": contact, "variant": MARK}
        when = {name: datetime.now(UTC) for name in ("not_before", "leased_at", "finished_at")}
        sent = {**seen, **when, "channel": "email", "shard": 0, "state": "sent"}
        await tx.execute(metadata.tables["deliveries"].insert().values(sent))
    ids = {
        "contact_id": contact,
        "experiment_id": experiment,
        "automation_id": automation,
        "template_id": template,
        "segment_id": segment,
        "campaign_id": str(message.campaign_id),
        "source_id": str(message.campaign_id),
        "delivery_id": str(message.delivery_id),
        "key_id": await made("/api/keys", name=MARK),
        "import_id": upload.json()["id"],
    }
    return Theirs(account, ids, message)


def queries(operation: dict[str, Any], ids: dict[str, str]) -> Iterator[dict[str, str]]:
    """Nothing; then every parameter that can name something of others, one at a time."""
    yield {}
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "query":
            name = parameter["name"]
            schemas = parameter["schema"].get("anyOf", [parameter["schema"]])
            if name == "cursor" and "pattern" in schemas[0]:
                yield {name: pair_cursor(UUID(ids["contact_id"]), UUID(ids["delivery_id"]))}
            elif name == "cursor":
                yield from ({name: each} for each in ids.values())
            elif any(each.get("format") == "uuid" for each in schemas):
                yield {name: ids[name]}
            elif name in ("search", "tag", "name"):
                yield {name: MARK}


async def test_every_route_hides_all_of_another_account(
    app: FastAPI, api: httpx.AsyncClient, stranger: httpx.AsyncClient, theirs: Theirs
) -> None:
    before, secrets = await theirs.rows(), await theirs.secrets()
    asked = [each for each in operations(app) if each[0].startswith("/api/")]
    assert len(asked) > 35
    for path, method, operation in asked:
        if method == "get" and not path.endswith(("/stats", "/performance", "/history")):  # which are numbers
            own = (await api.get(path.format(**theirs.ids))).text
            assert any(secret in own for secret in secrets), f"nothing to be hidden in {path}"
        body = operation.get("requestBody", {}).get("content", {}).get("application/json")
        example = (body.get("example") or resolved(app, body["schema"]).get("example")) if body else None
        for query in queries(operation, theirs.ids):  # a parameter that none of the ids is for ends here
            answer = await stranger.request(method, path.format(**theirs.ids), params=query, json=example)
            said = f"{method} {path} {query}: {answer.status_code} {answer.text}"
            if "{" in path:
                assert answer.status_code == 404, said
                assert answer.headers["content-type"] == "application/problem+json", said
            given = {*theirs.ids.values(), *query.values()}
            assert not any(secret in answer.text for secret in secrets - given), said
    assert await theirs.rows() == before


# -- ids in bodies ---------------------------------------------------------------------------------------------------

IDS_IN_CRITERIA = {"segment", "is", "is_not", "in", "not_in"}  # but for `segment` those of a campaign, compared
IDS_IN_AUDIENCES = {"contact_ids", "segments", "exclude_segments"} | IDS_IN_CRITERIA
IDS_IN_BODIES = {
    "post /api/campaigns": IDS_IN_AUDIENCES | {"template_id", "template"},
    "put /api/campaigns/{campaign_id}": IDS_IN_AUDIENCES | {"template_id", "template"},
    "post /api/automations": IDS_IN_AUDIENCES | {"template", "template_id"},
    "put /api/automations/{automation_id}": IDS_IN_AUDIENCES | {"template", "template_id"},
    "post /api/automations/{automation_id}/execute": {"id"},
    "post /api/automations/{automation_id}/rehearse": {"contact", "id"},
    "post /api/campaigns/{campaign_id}/rehearse": {"contact", "id"},
    "post /api/events": {"id"},
    "post /api/segments": IDS_IN_CRITERIA,
    "put /api/segments/{segment_id}": IDS_IN_CRITERIA,
    "post /api/segments/preview": IDS_IN_CRITERIA,
    "post /api/segments/compare": {"segments"},
    "post /api/segments/{segment_id}/members": {"id"},
    "delete /api/segments/{segment_id}/members": {"id"},
    "post /api/campaigns/{campaign_id}/preview": {"contact_ids"},
    "post /api/campaigns/{campaign_id}/ab-tests": {"template_id"},
    "post /api/campaigns/ab-tests/{experiment_id}/track": {"id"},
    "post /api/deliveries/resolve": {"campaign_id", "delivery_ids"},
}


def ids_in(app: FastAPI, schema: Any, seen: set[str] | None = None) -> set[str]:
    """The properties that are ids or lists of them, however deep."""
    found: set[str] = set()
    seen = set() if seen is None else seen
    if isinstance(schema, list):
        return found.union(*(ids_in(app, each, seen) for each in schema))
    if not isinstance(schema, dict) or schema.get("$ref") in seen:  # criteria hold criteria
        return found
    seen.update({schema["$ref"]} if "$ref" in schema else ())
    schema = resolved(app, schema)
    for name, inner in schema.get("properties", {}).items():
        choices = inner.get("anyOf", [inner])
        items = [each["items"] for each in choices if "items" in each]
        if any(each.get("format") == "uuid" for each in choices + items):
            found.add(name)
    inside = (*schema.get("properties", {}).values(), *_parts(schema))
    return found.union(*(ids_in(app, inner, seen) for inner in inside))


def _parts(schema: dict[str, Any]) -> list[Any]:
    return [schema[name] for name in ("anyOf", "oneOf", "items") if name in schema]


async def test_every_body_with_ids_is_known_here(app: FastAPI) -> None:
    bodies = {
        f"{method} {path}": ids_in(app, body["schema"])
        for path, method, operation in operations(app)
        if (body := operation.get("requestBody", {}).get("content", {}).get("application/json"))
    }
    assert {route: ids for route, ids in bodies.items() if ids} == IDS_IN_BODIES


async def test_a_campaign_of_another_accounts_template_and_contacts_says_and_reaches_nothing(
    stranger: httpx.AsyncClient, theirs: Theirs
) -> None:
    before, secrets = await theirs.rows(), await theirs.secrets() - set(theirs.ids.values())
    own = {"name": "Mine", "audience": {"contact_ids": [theirs.ids["contact_id"]]}}
    borrowed = own | {"content": {"email": {"template_id": theirs.ids["template_id"]}}}
    drip = own | {"kind": "drip", "messages": [{"template": theirs.ids["template_id"]}]}
    for body in (borrowed, drip, own | {"content": {"email": EMAIL}}):
        made = await stranger.post("/api/campaigns", json=body)
        path = f"/api/campaigns/{made.json()['id']}"
        answers = [made, await stranger.put(path, json=body)]
        answers += [await stranger.post(f"{path}/{verb}") for verb in ("validate", "reach", "duplicate", "launch")]
        answers += [await stranger.post(f"{path}/preview", json={"contact_ids": [theirs.ids["contact_id"]]})]
        answers += [await stranger.post(f"{path}/preview", json={})]
        answers += [await stranger.get(f"{path}/{what}") for what in ("recipients", "events", "stats")]
        for answer in answers:
            assert not any(secret in answer.text for secret in secrets), answer.text
        assert answers[3].json()["total"] == 0
        assert answers[6].status_code == (409 if body in (borrowed, drip) else 404)
        assert answers[8].json()["items"] == []
    assert await theirs.rows() == before


async def test_another_accounts_segments_can_be_named_nowhere(stranger: httpx.AsyncClient, theirs: Theirs) -> None:
    before, secrets = await theirs.rows(), await theirs.secrets() - set(theirs.ids.values())
    looking = {"name": "Mine", "criteria": {"not": {"segment": theirs.ids["segment_id"]}}}
    own = (await stranger.post("/api/segments", json={"name": "Mine", "kind": "static"})).json()["id"]
    named = {"contacts": [{"id": theirs.ids["contact_id"]}, {"email": ADDRESS}, {"external_id": MARK}]}
    refused = [
        await stranger.post("/api/segments", json=looking),
        await stranger.post("/api/segments/preview", json={"criteria": looking["criteria"]}),
        await stranger.post("/api/segments/compare", json={"segments": [own, theirs.ids["segment_id"]]}),
    ]
    assert [answer.status_code for answer in refused] == [422, 422, 404]
    added = await stranger.post(f"/api/segments/{own}/members", json=named)
    assert [each["result"] for each in added.json()["results"]] == ["unknown"] * 3
    for audience in ({"segments": [theirs.ids["segment_id"]]}, {"filter": looking["criteria"]}):
        made = await stranger.post(
            "/api/campaigns", json={"name": "Mine", "content": {"email": EMAIL}, "audience": audience}
        )
        path = f"/api/campaigns/{made.json()['id']}"
        launched = await stranger.post(f"{path}/launch")
        assert launched.status_code == 409 and "unknown_segment" in launched.text
        reach = await stranger.post(f"{path}/reach")
        assert reach.status_code == 409 and "unknown_segment" in reach.text
        refused += [made, launched, reach]
    for answer in refused:
        assert not any(secret in answer.text for secret in secrets), answer.text
    assert await theirs.rows() == before


async def test_an_automation_of_another_accounts_things_and_contacts_says_and_does_nothing(
    stranger: httpx.AsyncClient, theirs: Theirs
) -> None:
    before, secrets = await theirs.rows(), await theirs.secrets() - set(theirs.ids.values())
    steps: list[dict[str, Any]] = [
        {"type": "add_to", "segment": theirs.ids["segment_id"]},
        {"type": "send", "template": theirs.ids["template_id"]},
        {"type": "send", "template": MARK},
        {"type": "send", "content": {"template_id": theirs.ids["template_id"]}},
        {"type": "branch", "if": {"segment": theirs.ids["segment_id"]}},
    ]
    named = {"contacts": [{"id": theirs.ids["contact_id"]}, {"email": ADDRESS}, {"external_id": MARK}]}
    for number, step in enumerate([*steps, {"type": "exit"}]):
        body = {"name": f"Mine {number}", "trigger": {"type": "tag_added", "tag": MARK}, "steps": [step]}
        made = await stranger.post("/api/automations", json=body)
        path = f"/api/automations/{made.json()['id']}"
        activated = await stranger.post(f"{path}/activate")
        assert activated.status_code == (409 if step in steps else 202)
        answers = [made, activated, await stranger.post(f"{path}/execute", json=named)]
        for contact in (theirs.ids["contact_id"], ADDRESS, {"id": theirs.ids["contact_id"]}):
            answers.append(await stranger.post(f"{path}/rehearse", json={"contacts": [contact]}))
            assert answers[-1].status_code in (404, 409, 422), answers[-1].text
        if step not in steps:
            assert [each["result"] for each in answers[2].json()["results"]] == ["unknown"] * 3
        for answer in answers:
            assert not any(secret in answer.text for secret in secrets - {MARK, ADDRESS}), answer.text
    assert await theirs.rows() == before


async def test_nobody_resolves_another_accounts_messages(stranger: httpx.AsyncClient, theirs: Theirs) -> None:
    before = await theirs.rows()
    for action in ("accept", "resend"):
        whole = {"action": action, "campaign_id": theirs.ids["campaign_id"]}
        assert (await stranger.post("/api/deliveries/resolve", json=whole)).status_code == 404
        one = {"action": action, "delivery_ids": [theirs.ids["delivery_id"]]}
        answer = (await stranger.post("/api/deliveries/resolve", json=one)).json()
        assert answer["resolved"] == 0 and answer["campaigns"] == []
        assert [each["why"] for each in answer["not_resolved"]] == ["There is no such delivery."]
    assert await theirs.rows() == before


# -- the routes of recipients ----------------------------------------------------------------------------------------

OUTSIDE = {"/healthz", "/readyz", "/t/o/{token}", "/t/c/{token}", "/u/{token}", "/p/{token}"}


async def test_the_token_alone_opens_the_routes_of_recipients_and_for_its_own_account(
    app: FastAPI, stranger: httpx.AsyncClient, theirs: Theirs, other_account: TestAccount
) -> None:
    assert {path for path, *_ in operations(app) if not path.startswith("/api/")} == OUTSIDE
    message, own = theirs.message, other_account.id
    for url in (message.pixel, message.click(1), message.unsubscribe, message.preferences):
        assert (await stranger.get(url)).status_code in (200, 302)  # whoever asks, with whichever key
    before, secrets = await theirs.rows(), await theirs.secrets()
    mixed = [
        links.pixel(own, message.delivery_id),
        links.click(own, message.delivery_id, 1),
        links.unsubscribe(own, message.contact_id, message.delivery_id),
        links.preferences(own, message.contact_id, message.delivery_id),
    ]
    for url in mixed:
        for method in ("GET", "POST"):
            answer = await stranger.request(method, url, data={"do": "leave everything"} if method == "POST" else None)
            assert not any(secret in answer.text for secret in secrets), answer.text
            assert answer.status_code in (404, 405) or "Nothing to do" in answer.text, answer.text
    assert await theirs.rows() == before
