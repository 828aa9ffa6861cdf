"""Who belongs to a segment, over HTTP?"""

from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text

from api.segment_members import TAGGED_AT_ONCE
from tests.audience import people
from tests.conftest import TestAccount
from tests.segments import members, of_contacts, segment

NOBODY = str(UUID(int=7))


async def changed(api: httpx.AsyncClient, method: str, segment_id: str, **named: Any) -> dict[str, Any]:
    answer = await api.request(method, f"/api/segments/{segment_id}/members", json=named)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def test_contacts_are_added_and_removed_one_by_one_by_whatever_names_them(
    api: httpx.AsyncClient, account: TestAccount
) -> None:
    made = await segment(api)
    (ada, ben) = [
        (await api.post("/api/contacts", json={"email": f"{name}@example.org", "external_id": name})).json()["id"]
        for name in ("ada", "ben")
    ]
    named = [{"id": ada}, {"email": "BEN@example.org"}, {"external_id": "ben"}, {"external_id": "Ada"}, {"id": NOBODY}]
    added = await changed(api, "POST", made, contacts=named)
    assert (added["changed"], added["size"]) == (2, 2)
    assert [each["contact_id"] for each in added["results"]] == [ada, ben, ben, None, None]
    assert [each["result"] for each in added["results"]] == ["added", "added", "added", "unknown", "unknown"]
    again = await changed(api, "POST", made, contacts=named[:1])
    assert (again["changed"], again["size"], again["results"][0]["result"]) == (0, 2, "unchanged")
    assert await members(api, made) == [ben, ada]

    gone = await changed(api, "DELETE", made, contacts=[{"external_id": "ada"}, {"email": "nobody@example.org"}])
    assert (gone["changed"], gone["size"]) == (1, 1)
    assert [each["result"] for each in gone["results"]] == ["removed", "unknown"]
    again = await changed(api, "DELETE", made, contacts=[{"id": ada}])
    assert (again["changed"], again["results"][0]["result"]) == (0, "unchanged")
    assert await members(api, made) == [ben]
    assert (await api.get(f"/api/segments/{made}")).json()["size"] == 1


async def test_everybody_with_a_tag_is_added_and_removed_however_many(
    api: httpx.AsyncClient, account: TestAccount
) -> None:
    made = await segment(api)
    many = TAGGED_AT_ONCE + 7
    others = await people(account, 3, name="other")
    await people(account, many)
    async with account.transaction() as tx:
        tag = "UPDATE contacts SET tags = '{vip, early}' WHERE first_name IS NOT NULL AND id <> ALL (:others)"
        await tx.execute(text(tag), {"others": others})
        await tx.execute(text("UPDATE contacts SET tags = '{vi}' WHERE id = ANY (:others)"), {"others": others})
    assert (await changed(api, "POST", made, tag="vip")) == {"changed": many, "size": many, "results": []}
    assert (await changed(api, "POST", made, tag="vip"))["changed"] == 0
    assert (await changed(api, "DELETE", made, tag="vi"))["changed"] == 0
    assert (await changed(api, "DELETE", made, tag="early")) == {"changed": many, "size": 0, "results": []}


async def test_members_have_pages_and_a_deleted_contact_is_none(api: httpx.AsyncClient, account: TestAccount) -> None:
    ids = await people(account, 5)
    made = await of_contacts(api, ids)
    path = f"/api/segments/{made}/members"
    first = (await api.get(path, params={"limit": 3})).json()
    rest = (await api.get(path, params={"limit": 3, "cursor": first["next_cursor"]})).json()
    listed = [*first["items"], *rest["items"]]
    assert [each["contact"]["id"] for each in listed] == sorted(map(str, ids), reverse=True)
    assert rest["next_cursor"] is None
    assert all(each["entered_at"] and each["contact"]["subscriptions"] for each in listed)
    assert (await api.delete(f"/api/contacts/{ids[0]}")).status_code == 204
    assert str(ids[0]) not in await members(api, made)


async def test_whoever_enters_or_leaves_gives_an_event(api: httpx.AsyncClient, account: TestAccount) -> None:
    (contact,) = await people(account, 1)
    made = await of_contacts(api, [contact], "VIPs")
    await changed(api, "DELETE", made, contacts=[{"id": str(contact)}])
    async with account.transaction() as tx:
        query = text("SELECT name, properties FROM events WHERE contact_id = :contact AND name LIKE 'segment.%'")
        told = {row.name: row.properties for row in await tx.execute(query, {"contact": contact})}
    about = {"segment_id": made, "name": "VIPs"}
    assert told == {"segment.entered": about, "segment.left": about}


async def test_the_criteria_of_a_dynamic_segment_say_who_belongs(api: httpx.AsyncClient) -> None:
    made = await segment(api, criteria={"field": "country", "is": "FR"})
    for method in ("POST", "DELETE"):
        for named in ({"tag": "vip"}, {"contacts": [{"id": NOBODY}]}):
            refused = await api.request(method, f"/api/segments/{made}/members", json=named)
            assert refused.status_code == 409
            assert "Change them" in refused.json()["detail"] and "static" in refused.json()["detail"]


@pytest.mark.parametrize(
    ("named", "path"),
    [
        ({}, "body"),
        ({"tag": "vip", "contacts": [{"id": NOBODY}]}, "body"),
        ({"contacts": []}, "body.contacts"),
        ({"contacts": [{"id": NOBODY}] * 1001}, "body.contacts"),
        ({"contacts": [{"id": NOBODY}, {}]}, "body.contacts.1"),
        ({"contacts": [{"id": NOBODY, "email": "a@example.org"}]}, "body.contacts.0"),
        ({"contacts": [{"id": "nobody"}]}, "body.contacts.0.id"),
        ({"tag": ""}, "body.tag"),
    ],
)
async def test_what_names_nobody_is_refused(api: httpx.AsyncClient, named: dict[str, Any], path: str) -> None:
    made = await segment(api)
    for method in ("POST", "DELETE"):
        refused = await api.request(method, f"/api/segments/{made}/members", json=named)
        assert (refused.status_code, refused.json()["errors"][0]["path"]) == (422, path)
