"""Are templates kept in versions, and kept apart?"""

from typing import Any
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI

from database import templates
from marketing.content import EmailContent, prepare
from tests.conftest import TestAccount, client_for

WELCOME = {
    "name": "Welcome",
    "channel": "email",
    "subject": "Welcome, {{ contact.first_name }}",
    "html": '<p>Hello</p><a href="{{ unsubscribe_url }}">Unsubscribe</a>',
    "from_name": "Example Outfitters",
    "from_email": "news@example.com",
}


async def created(api: httpx.AsyncClient, **changes: Any) -> dict[str, Any]:
    answer = await api.post("/api/templates", json=WELCOME | changes)
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def test_a_template_is_read_as_it_was_written(api: httpx.AsyncClient) -> None:
    template = await created(api)
    read = (await api.get(f"/api/templates/{template['id']}")).json()
    assert read == template
    assert {name: read[name] for name in WELCOME} == WELCOME
    assert (read["version"], read["newest_version"]) == (1, 1)


async def test_each_change_makes_a_version_and_the_earlier_ones_stay(api: httpx.AsyncClient) -> None:
    template = await created(api)
    changed = (await api.put(f"/api/templates/{template['id']}", json=WELCOME | {"subject": "Hi"})).json()
    assert (changed["version"], changed["subject"]) == (2, "Hi")
    newest = (await api.get(f"/api/templates/{template['id']}")).json()
    first = (await api.get(f"/api/templates/{template['id']}", params={"version": 1})).json()
    assert newest["subject"] == "Hi"
    assert (first["subject"], first["version"], first["newest_version"]) == (WELCOME["subject"], 1, 2)
    assert (await api.get(f"/api/templates/{template['id']}", params={"version": 3})).status_code == 404


async def test_a_deleted_template_is_gone(api: httpx.AsyncClient) -> None:
    template = await created(api)
    address = f"/api/templates/{template['id']}"
    assert (await api.delete(address)).status_code == 204
    assert [(await api.get(address)).status_code, (await api.delete(address)).status_code] == [404, 404]
    assert (await api.put(address, json=WELCOME)).status_code == 404
    assert (await api.get("/api/templates")).json()["items"] == []


async def test_templates_have_pages(api: httpx.AsyncClient) -> None:
    for number in range(5):
        await created(api, name=f"template {number}")
    first = (await api.get("/api/templates", params={"limit": 3})).json()
    rest = (await api.get("/api/templates", params={"limit": 3, "cursor": first["next_cursor"]})).json()
    names = [each["name"] for page in (first, rest) for each in page["items"]]
    assert names == [f"template {number}" for number in (4, 3, 2, 1, 0)]
    assert rest["next_cursor"] is None


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"html": "<p>\n{{ contact.x | frobnicate }}</p>"}, "body.html"),
        ({"subject": "{% include 'x' %}"}, "body.subject"),
        ({"html": None, "mjml": "<mjml><mj-body>"}, "body.mjml"),
        ({"html": None}, "body"),
        ({"mjml": "<mjml></mjml>"}, "body"),
        ({"name": ""}, "body.name"),
        ({"name": "a\0b"}, "body.name"),
        ({"subject": "a\0b"}, "body.subject"),
        ({"channel": "telegraph"}, "body.channel"),
        ({"colour": "red"}, "body.colour"),
    ],
)
async def test_what_cannot_be_used_is_refused_with_the_place(
    api: httpx.AsyncClient, changes: dict[str, Any], path: str
) -> None:
    refused = await api.post("/api/templates", json=WELCOME | changes)
    assert refused.status_code == 422, refused.text
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["errors"][0]["path"] == path


async def test_a_wrong_filter_is_told_with_its_line(api: httpx.AsyncClient) -> None:
    refused = await api.post("/api/templates", json=WELCOME | {"html": "<p>\n\n{{ contact.x | frobnicate }}</p>"})
    assert refused.json()["errors"] == [{"path": "body.html", "message": "unknown filter 'frobnicate'", "line": 3}]


async def test_templates_of_others_do_not_exist(api: httpx.AsyncClient, stranger: httpx.AsyncClient) -> None:
    address = f"/api/templates/{(await created(api))['id']}"
    assert (await stranger.get(address)).status_code == 404
    assert (await stranger.put(address, json=WELCOME)).status_code == 404
    assert (await stranger.delete(address)).status_code == 404
    assert (await stranger.get("/api/templates")).json()["items"] == []


async def test_viewers_read_and_editors_write(app: FastAPI, api: httpx.AsyncClient, account: TestAccount) -> None:
    address = f"/api/templates/{(await created(api))['id']}"
    async with client_for(app, await account.key_for("viewer")) as viewer:
        assert (await viewer.get(address)).status_code == 200
        assert (await viewer.put(address, json=WELCOME)).status_code == 403
        assert (await viewer.delete(address)).status_code == 403
    async with client_for(app, await account.key_for("editor")) as editor:
        assert (await editor.put(address, json=WELCOME)).status_code == 200


async def test_a_campaign_takes_from_its_template_what_it_does_not_say_itself(
    api: httpx.AsyncClient, account: TestAccount
) -> None:
    template = await created(api)
    content = EmailContent(template_id=UUID(template["id"]), subject="My own subject")
    async with account.transaction() as tx:
        filled = await templates.filled_in(tx, content)
    prepared = prepare(filled)
    assert filled.template_id is None
    assert (filled.subject, filled.from_email) == ("My own subject", "news@example.com")
    await api.put(f"/api/templates/{template['id']}", json=WELCOME | {"html": "<p>Changed</p>"})
    assert "Hello" in prepared.html, "what was prepared keeps the version that it was prepared with"


async def test_content_whose_template_is_gone_stays_as_it_was(account: TestAccount) -> None:
    content = EmailContent(template_id=UUID(int=7))
    async with account.transaction() as tx:
        assert await templates.filled_in(tx, content) == content
