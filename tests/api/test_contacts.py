"""The people that campaigns reach, over the API."""

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import insert

from database.schema import subscriptions
from tests.conftest import TestAccount, client_for

ZOE: dict[str, Any] = {
    "email": "Zoe@Example.com",
    "phone": "06 12 34 56 78",
    "country": "FR",
    "external_id": "crm-1",
    "first_name": "Zoë",
    "attributes": {"plan": "gold", "pets": [{"name": "Rex"}]},
    "tags": ["vip"],
    "timezone": "europe/paris",
}
AGREED = {"channel": "email", "status": "subscribed", "consent": {"how": "form", "where": "https://example.com/join"}}


async def save(api: httpx.AsyncClient, status: int = 201, **contact: Any) -> dict[str, Any]:
    saved = await api.post("/api/contacts", json=contact)
    assert saved.status_code == status, saved.text
    body: dict[str, Any] = saved.json()
    return body


async def test_a_contact_is_added_in_normal_form_and_read_back(api: httpx.AsyncClient) -> None:
    added = await save(api, **ZOE)
    assert added["email"] == "zoe@example.com"
    assert added["phone"] == "+33612345678"
    assert added["timezone"] == "Europe/Paris"
    assert added["attributes"] == ZOE["attributes"]
    assert added["subscriptions"] == []
    assert (await api.get(f"/api/contacts/{added['id']}")).json() == added


@pytest.mark.parametrize(
    "key", [{"email": "ZOE@example.com"}, {"phone": "+33612345678"}, {"external_id": "crm-1"}], ids=str
)
async def test_whoever_is_known_is_changed_not_added_again(api: httpx.AsyncClient, key: dict[str, str]) -> None:
    added = await save(api, **ZOE)
    changed = await save(api, 200, **key, last_name="Durand", attributes={"plan": None, "city": "Paris"})
    assert changed["id"] == added["id"]
    assert (changed["first_name"], changed["last_name"]) == ("Zoë", "Durand")
    assert changed["attributes"] == {"pets": [{"name": "Rex"}], "city": "Paris"}
    assert changed["tags"] == ["vip"]


async def test_what_belongs_to_two_contacts_is_a_conflict_that_names_the_other(api: httpx.AsyncClient) -> None:
    zoe = await save(api, **ZOE)
    await save(api, email="ann@example.com")
    refused = await api.post("/api/contacts", json={"email": "ann@example.com", "external_id": "crm-1"})
    assert refused.status_code == 409
    assert "This email is that of contact" in refused.json()["detail"]
    shared = await api.post("/api/contacts", json={"email": "bob@example.com", "phone": "+33612345678"})
    assert shared.status_code == 409
    assert shared.json()["contact_id"] == zoe["id"]


async def test_the_address_of_someone_known_by_their_external_id_may_change(api: httpx.AsyncClient) -> None:
    zoe = await save(api, **ZOE)
    moved = await save(api, 200, external_id="crm-1", email="zoe@example.org")
    assert (moved["id"], moved["email"]) == (zoe["id"], "zoe@example.org")


async def test_a_hundred_requests_at_once_make_one_contact(api: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(
        *(api.post("/api/contacts", json={"email": "race@example.com", "attributes": {f"n{n}": n}}) for n in range(100))
    )
    assert sorted({answer.status_code for answer in answers}) == [200, 201]
    (contact,) = (await api.get("/api/contacts")).json()["items"]
    assert len(contact["attributes"]) == 100


async def test_a_patch_changes_what_it_names_and_null_forgets(api: httpx.AsyncClient) -> None:
    zoe = await save(api, **ZOE)
    path = f"/api/contacts/{zoe['id']}"
    patched = (await api.patch(path, json={"phone": None, "tags": ["a", "a"], "attributes": {"plan": None}})).json()
    assert (patched["phone"], patched["tags"], patched["first_name"]) == (None, ["a"], "Zoë")
    assert patched["attributes"] == {"pets": [{"name": "Rex"}]}
    nameless = await api.patch(path, json={"email": None, "external_id": None})
    assert nameless.status_code == 409
    assert "at least one of" in nameless.json()["detail"]


async def test_a_patch_cannot_take_the_address_of_another_contact(api: httpx.AsyncClient) -> None:
    zoe = await save(api, **ZOE)
    ann = await save(api, email="ann@example.com")
    refused = await api.patch(f"/api/contacts/{ann['id']}", json={"email": "zoe@EXAMPLE.com"})
    assert refused.status_code == 409
    assert refused.json()["contact_id"] == zoe["id"]


async def test_a_subscription_is_kept_with_its_proof_and_the_one_before(api: httpx.AsyncClient) -> None:
    zoe = await save(api, **ZOE, subscriptions=[AGREED])
    path = f"/api/contacts/{zoe['id']}"
    left = {
        "channel": "email",
        "status": "unsubscribed",
        "consent": {"at": "2026-11-02T09:30:00Z", "how": "phone call"},
    }
    (subscription,) = (await api.patch(path, json={"subscriptions": [left]})).json()["subscriptions"]
    assert subscription["status"] == "unsubscribed"
    assert subscription["consent"]["at"] == "2026-11-02T09:30:00Z"
    assert subscription["consent"]["proof"]["before"]["how"] == "form"
    unexplained = {"channel": "email", "status": "subscribed"}
    refused = await api.patch(path, json={"subscriptions": [unexplained]})
    assert refused.status_code == 422
    assert "consent.how" in refused.json()["detail"]


async def test_a_subscription_from_before_proof_was_asked_for_is_shown_all_the_same(
    api: httpx.AsyncClient, account: TestAccount
) -> None:
    zoe = await save(api, **ZOE)
    async with account.transaction() as tx:
        values = {"account_id": account.id, "contact_id": zoe["id"], "channel": "email", "status": "subscribed"}
        await tx.execute(insert(subscriptions).values(values))
    for answer in (await api.get(f"/api/contacts/{zoe['id']}"), await api.get("/api/contacts")):
        assert answer.status_code == 200
        assert '"subscribed"' in answer.text


async def test_a_deleted_contact_is_gone_and_the_address_is_free_again(api: httpx.AsyncClient) -> None:
    zoe = await save(api, **ZOE)
    path = f"/api/contacts/{zoe['id']}"
    assert (await api.delete(path)).status_code == 204
    assert [(await api.get(path)).status_code, (await api.delete(path)).status_code] == [404, 404]
    assert (await api.patch(path, json={"tags": []})).status_code == 404
    assert (await save(api, **ZOE))["id"] != zoe["id"]


async def test_lists_have_pages_and_filters(api: httpx.AsyncClient) -> None:
    for name in ("Ann", "Anna", "Bob", "Cleo", "Zoë"):
        await save(api, email=f"{name[0].lower()}.{len(name)}@example.com", first_name=name, tags=[name[0]])

    async def names(**query: Any) -> list[str]:
        page = (await api.get("/api/contacts", params=query)).json()
        return [contact["first_name"] for contact in page["items"]]

    first = (await api.get("/api/contacts", params={"limit": 3})).json()
    assert [contact["first_name"] for contact in first["items"]] == ["Zoë", "Cleo", "Bob"]
    assert await names(limit=3, cursor=first["next_cursor"]) == ["Anna", "Ann"]
    assert await names(tag="A") == ["Anna", "Ann"]
    assert await names(search="ann") == ["Anna", "Ann"]
    assert await names(search="B.3@") == ["Bob"]
    assert await names(created_from="2100-01-01T00:00:00Z") == []
    assert len(await names(created_until="2100-01-01T00:00:00Z")) == 5


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ({"email": "nobody"}, "must have an @-sign"),
        ({"email": "a@example.com", "phone": "12"}, "no phone number"),
        ({"email": "a@example.com", "timezone": "Paris"}, "Europe/Paris"),
        ({"email": "a@example.com", "first_name": "a\0b"}, "control characters"),
        ({"email": "a@example.com", "attributes": {"a": {"b": {"c": {"d": 1}}}}}, "3 levels"),
        ({"email": "a@example.com", "atributes": {}}, "atributes"),
        ({"first_name": "Zoë"}, "at least one of"),
    ],
)
async def test_malformed_contacts_say_what_is_wrong(api: httpx.AsyncClient, wrong: dict[str, Any], hint: str) -> None:
    refused = await api.post("/api/contacts", json=wrong)
    assert refused.status_code == 422
    assert hint in refused.text
    assert "Value error" not in refused.text


@pytest.mark.parametrize(
    "wrong", [{"topic": "a\0"}, {"consent": {"how": "a\0"}}, {"consent": {"how": "form", "where": "a\0"}}], ids=str
)
async def test_text_that_cannot_be_stored_is_malformed(api: httpx.AsyncClient, wrong: dict[str, Any]) -> None:
    refused = await api.post("/api/contacts", json=ZOE | {"subscriptions": [AGREED | wrong]})
    assert (refused.status_code, "control characters" in refused.text) == (422, True)
    for query in ({"search": "a\0"}, {"tag": "a\0"}):
        assert (await api.get("/api/contacts", params=query)).status_code == 422


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"])
async def test_moments_at_the_ends_of_time_are_malformed(api: httpx.AsyncClient, moment: str) -> None:
    agreed = AGREED | {"consent": {"how": "form", "at": moment}}
    answers = [
        await api.post("/api/contacts", json=ZOE | {"subscriptions": [agreed]}),
        *[await api.get("/api/contacts", params={name: moment}) for name in ("created_from", "created_until")],
        *[await api.get("/api/campaigns", params={name: moment}) for name in ("created_from", "created_to")],
    ]
    for answer in answers:
        assert (answer.status_code, "1900 to 2200" in answer.json()["detail"]) == (422, True)


async def test_nobody_sees_or_touches_another_accounts_contacts(
    api: httpx.AsyncClient, stranger: httpx.AsyncClient
) -> None:
    zoe = await save(api, **ZOE)
    path = f"/api/contacts/{zoe['id']}"
    assert (await stranger.get("/api/contacts")).json()["items"] == []
    answers = [await stranger.get(path), await stranger.patch(path, json={"tags": []}), await stranger.delete(path)]
    assert [answer.status_code for answer in answers] == [404, 404, 404]
    assert (await save(stranger, **ZOE))["id"] != zoe["id"]


async def test_a_viewer_may_look_and_not_touch(app: FastAPI, account: TestAccount) -> None:
    async with client_for(app, await account.key_for("viewer")) as viewer:
        assert (await viewer.get("/api/contacts")).status_code == 200
        assert (await viewer.post("/api/contacts", json=ZOE)).status_code == 403
        assert (await viewer.post("/api/contacts/import", content=b"Email\n")).status_code == 403


async def test_a_number_is_no_moment(api: httpx.AsyncClient) -> None:
    for path in ("/api/contacts?created_from=0.5", "/api/contacts?created_until=1793611800"):
        assert (await api.get(path)).status_code == 422
    for name in ("created_from", "created_to"):
        refused = await api.get("/api/campaigns", params={name: "1793611800"})
        assert refused.status_code == 422 and "ISO 8601" in refused.json()["detail"]
