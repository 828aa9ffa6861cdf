"""Is there anything to be said that makes the API fall over?"""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
from fastapi import FastAPI

from tests.api.test_openapi import ids_of, operations, resolved
from tests.conftest import TestAccount

UNSTORABLE = ["a\0b", "a\ud800b"]
EVILS = [*UNSTORABLE, 10**30, float("nan"), "0001-01-01T00:00:00+14:00", "9999-12-31T23:59"]


def poisoned(value: Any) -> Iterator[Any]:
    """The value with each evil in the place of each thing in it, one at a time."""
    yield from EVILS
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from ({**value, name: evil} for evil in poisoned(inner))
        yield from ({**value, name: "x"} for name in UNSTORABLE)
    elif isinstance(value, list):
        for inner in value[:1]:
            yield from ([evil] for evil in poisoned(inner))


async def test_no_query_is_answered_with_500(
    app: FastAPI, api: httpx.AsyncClient, account: TestAccount, worker: None
) -> None:
    ids = await ids_of(api, account)
    queries = [
        (method, path, f"{parameter['name']}={quote(str(evil).encode('utf-8', 'surrogatepass'))}")
        for path, method, operation in operations(app)
        for parameter in operation.get("parameters", ())
        if parameter["in"] == "query"
        for evil in EVILS
    ]
    assert len(queries) > 100
    for method, path, query in queries:
        answer = await api.request(method, f"{path.format(**ids)}?{query}")
        assert answer.status_code < 500, f"{method} {path}?{query}"


async def test_no_body_is_answered_with_500(
    app: FastAPI, api: httpx.AsyncClient, account: TestAccount, worker: None
) -> None:
    ids = await ids_of(api, account)
    bodies = [
        (method, path, evil)
        for path, method, operation in operations(app)
        if (body := operation.get("requestBody", {}).get("content", {}).get("application/json"))
        for evil in poisoned(body.get("example") or resolved(app, body["schema"])["example"])
    ]
    assert len(bodies) > 500
    for method, path, evil in bodies:
        headers = {"Content-Type": "application/json"}
        answer = await api.request(method, path.format(**ids), content=json.dumps(evil), headers=headers)
        assert answer.status_code < 500, f"{method} {path} {evil}"
