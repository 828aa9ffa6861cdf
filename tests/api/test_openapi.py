"""Does the OpenAPI document help whoever reads it, and hold what it says?"""

import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from tests.api.test_campaigns import created
from tests.audience import EMAIL, people
from tests.conftest import PUBLIC_URL, TestAccount, client_for

METHODS = ("get", "post", "put", "patch", "delete")


def operations(app: FastAPI) -> list[tuple[str, str, dict[str, Any]]]:
    paths = app.openapi()["paths"]
    return [(path, method, paths[path][method]) for path in paths for method in METHODS if method in paths[path]]


def resolved(app: FastAPI, schema: dict[str, Any]) -> dict[str, Any]:
    """The schema itself, whether it is referred to directly or as one that may be left out."""
    for each in (schema, *schema.get("anyOf", ())):
        if "$ref" in each:
            found: dict[str, Any] = app.openapi()["components"]["schemas"][each["$ref"].rpartition("/")[2]]
            return found
    return schema


async def test_every_json_body_has_an_example(app: FastAPI) -> None:
    without = [
        f"{method} {path}"
        for path, method, operation in operations(app)
        if (body := operation.get("requestBody", {}).get("content", {}).get("application/json"))
        and not ({"example", "examples"} & (set(body) | set(resolved(app, body["schema"]))))
    ]
    assert without == []


async def test_every_operation_says_what_it_does(app: FastAPI) -> None:
    silent = [f"{method} {path}" for path, method, operation in operations(app) if not operation.get("description")]
    assert silent == []


async def test_every_list_has_pages(app: FastAPI) -> None:
    lists = [
        (path, operation)
        for path, method, operation in operations(app)
        if method == "get"
        and "items"
        in resolved(
            app, operation["responses"].get("200", {}).get("content", {}).get("application/json", {}).get("schema", {})
        ).get("properties", {})
    ]
    assert len(lists) >= 6
    for path, operation in lists:
        assert {"cursor", "limit"} <= {parameter["name"] for parameter in operation["parameters"]}, path


async def test_every_post_under_api_takes_an_idempotency_key_and_nothing_else_does(app: FastAPI) -> None:
    for path, method, operation in operations(app):
        headers = [each["name"] for each in operation.get("parameters", ()) if each["in"] == "header"]
        expected = ["Idempotency-Key"] if method == "post" and path.startswith("/api/") else []
        assert headers == expected, f"{method} {path}"


async def test_the_routes_of_recipients_answer_as_they_are_described(app: FastAPI) -> None:
    described = [each for each in operations(app) if "{token}" in each[0]]
    assert len(described) == 6
    async with client_for(app, None) as nobody:
        for path, method, operation in described:
            forged = await nobody.request(method, path.format(token="forged"))
            assert forged.status_code == 404 and forged.content == b""
            assert "404" in operation["responses"]


async def ids_of(api: httpx.AsyncClient, account: TestAccount) -> dict[str, str]:
    """One of everything that an account can have, by the name of its path parameter."""
    (contact, *_) = await people(account, 1)
    template = {"name": "House", "channel": "email", "subject": "Hi", "html": EMAIL["html"]}
    automation = {"name": "Welcome", "trigger": {"type": "api"}, "steps": [{"type": "exit"}]}
    upload = await api.post(
        "/api/contacts/import", content="Email Address\na@example.org\n", headers={"content-type": "text/csv"}
    )
    return {
        "contact_id": str(contact),
        "campaign_id": await created(api),
        "experiment_id": await created(api, kind="experiment"),
        "automation_id": (await api.post("/api/automations", json=automation)).json()["id"],
        "template_id": (await api.post("/api/templates", json=template)).json()["id"],
        "key_id": (await api.post("/api/keys", json={"name": "x"})).json()["id"],
        "import_id": upload.json()["id"],
        "segment_id": (await api.post("/api/segments", json={"name": "Friends", "kind": "static"})).json()["id"],
    }


@pytest.mark.parametrize("key", [None, "car_wrong", "", "x" * 5000])
async def test_without_a_valid_key_every_route_under_api_answers_401(
    app: FastAPI, account: TestAccount, key: str | None
) -> None:
    paths = [each for each in operations(app) if each[0].startswith("/api/")]
    transport = httpx.ASGITransport(app, client=(f"127.1.0.{len(key or '') % 250}", 1))
    headers = {"Authorization": f"Bearer {key}"} if key is not None else {}
    async with httpx.AsyncClient(transport=transport, base_url=PUBLIC_URL, headers=headers) as nobody:
        for path, method, _ in paths:
            answer = await nobody.request(method, re.sub(r"{\w+}", str(account.id), path))
            assert answer.status_code in (401, 429), f"{method} {path}"


async def test_an_unknown_route_and_a_wrong_method_are_problems_too(app: FastAPI, account: TestAccount) -> None:
    async with client_for(app, account.key) as api:
        for answer in (await api.get("/api/nothing"), await api.delete("/api/account")):
            assert answer.status_code in (404, 405)
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["status"] == answer.status_code


async def test_a_wrong_method_is_told_every_right_one(api: httpx.AsyncClient) -> None:
    refused = await api.delete("/api/account")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, PUT")
    assert refused.json()["detail"] == "DELETE is not taken here, but GET, PUT."
    assert (await api.patch("/api/contacts/import")).headers["allow"] == "GET, POST"


async def test_a_body_that_is_no_text_is_refused_as_documented(app: FastAPI, api: httpx.AsyncClient) -> None:
    refused = await api.post("/api/keys", content=b"\xff", headers={"content-type": "application/json"})
    assert refused.status_code == 400 and refused.json()["title"] == "Bad Request"
    assert "400" in app.openapi()["paths"]["/api/keys"]["post"]["responses"]


async def test_the_api_page_asks_nobody_else_for_its_scripts(api: httpx.AsyncClient) -> None:
    page = (await api.get("/docs")).text
    sources = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert sources
    for source in sources:
        assert source.startswith("/"), source
        assert (await api.get(source)).status_code == 200


async def test_a_body_that_is_too_large_is_refused(api: httpx.AsyncClient) -> None:
    huge = b'{"name": "' + b"x" * (6 << 20) + b'"}'

    async def in_pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(huge), 1 << 16):
            yield huge[start : start + (1 << 16)]

    for body in (huge, in_pieces()):
        refused = await api.post("/api/keys", content=body, headers={"content-type": "application/json"})
        assert refused.status_code == 413
        assert "import" in refused.json()["detail"]
