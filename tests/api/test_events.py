"""What others tell of, over the API."""

import asyncio
from typing import Any
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from temporalio.client import Client

from api.app import create_app
from api.events import Intake
from tests.conftest import PUBLIC_URL, SECRET_KEY, TestAccount, client_for
from tests.telemetry.test_metrics import Change

ZOE = {"email": "zoe@example.com"}
PURCHASE: dict[str, Any] = {"contact": ZOE, "name": "purchase", "value": 49.9, "currency": "EUR"}


async def tell(
    api: httpx.AsyncClient, events: object, status: int = 201, *, key: str | None = None
) -> list[dict[str, Any]]:
    answer = await api.post("/api/events", json=events, headers={"Idempotency-Key": key} if key else {})
    assert answer.status_code == status, answer.text
    results: list[dict[str, Any]] = answer.json()["results"]
    return results


async def stored(account: TestAccount) -> list[Any]:
    """What others told of, in the order of its ids."""
    async with account.transaction() as tx:
        found = "SELECT * FROM events WHERE name NOT LIKE 'contact.%' ORDER BY id"
        return list((await tx.execute(text(found))).all())


async def test_one_event_is_on_record_once_it_is_answered(api: httpx.AsyncClient, account: TestAccount) -> None:
    properties = {"order": "A-1001", "items": [1, {"a": 'é"\\, \t'}]}
    event = PURCHASE | {"properties": properties, "occurred_at": "2026-11-02T10:30:00+01:00"}
    (result,) = await tell(api, event)
    (row,) = await stored(account)
    assert result == {"status": 201, "id": str(row.id)}
    assert (row.name, str(row.value), row.currency, row.properties) == ("purchase", "49.9", "EUR", properties)
    assert row.occurred_at.isoformat() == "2026-11-02T09:30:00+00:00"
    assert not row.machine
    contact = (await api.get(f"/api/contacts/{row.contact_id}")).json()
    assert (contact["email"], contact["subscriptions"]) == ("zoe@example.com", [])


async def test_a_list_is_answered_in_its_order(api: httpx.AsyncClient, account: TestAccount) -> None:
    names = [f"step {n}" for n in range(100)]
    results = await tell(api, [PURCHASE | {"name": name} for name in names])
    rows = await stored(account)
    assert [row.name for row in rows] == names
    assert [result["id"] for result in results] == [str(row.id) for row in rows]


async def test_of_a_list_the_bad_are_refused_and_the_others_stored(
    api: httpx.AsyncClient, account: TestAccount
) -> None:
    events = [
        PURCHASE,
        {},
        PURCHASE | {"contact": {"id": str(UUID(int=7))}},
        PURCHASE | {"name": "message.sent"},
        5,
        PURCHASE,
    ]
    results = await tell(api, events, 207)
    assert [result["status"] for result in results] == [201, 422, 422, 422, 422, 201]
    assert [result.get("path") for result in results] == [None, "contact", "contact.id", "name", "", None]
    assert results[2]["detail"] == "There is no such contact."
    assert [result["id"] for result in (results[0], results[5])] == [str(row.id) for row in await stored(account)]


async def test_if_all_are_bad_nothing_is_stored_and_each_fault_is_told(
    api: httpx.AsyncClient, account: TestAccount
) -> None:
    stranger = PURCHASE | {"contact": {"id": str(UUID(int=7))}}
    for events, paths in (
        (PURCHASE | {"name": ""}, ["body.name"]),
        (stranger, ["body.contact.id"]),
        ([stranger], ["body.0.contact.id"]),
        ([stranger, {"name": "x"}, 5], ["body.0.contact.id", "body.1.contact", "body.2"]),
    ):
        refused = await api.post("/api/events", json=events)
        assert (refused.status_code, refused.headers["content-type"]) == (422, "application/problem+json")
        assert [each["path"] for each in refused.json()["errors"]] == paths
        assert refused.json()["detail"].startswith(f"{paths[0]}: ")
    assert await stored(account) == []


@pytest.mark.parametrize("body", [b"", b"{", b"5", b'"x"', b"null", b"[]", b"[" + b"{}," * 1000 + b"{}]", b"\xff"])
async def test_what_is_neither_an_event_nor_a_list_of_them_is_refused_as_a_whole(
    api: httpx.AsyncClient, account: TestAccount, body: bytes
) -> None:
    refused = await api.post("/api/events", content=body, headers={"content-type": "application/json"})
    assert 400 <= refused.status_code < 500
    assert refused.headers["content-type"] == "application/problem+json"
    assert "results" not in refused.json()


async def test_a_thousand_events_are_one_request(api: httpx.AsyncClient, account: TestAccount) -> None:
    events = [PURCHASE | {"contact": {"external_id": f"crm-{n % 50}"}, "idempotency_key": f"{n}"} for n in range(1000)]
    results = await tell(api, events)
    assert {result["status"] for result in results} == {201}
    assert len({result["id"] for result in results}) == len(await stored(account)) == 1000
    assert [each["repeated"] for each in await tell(api, events)] == [True] * 1000
    assert len(await stored(account)) == 1000


async def test_a_key_stores_once_in_one_request_in_many_and_at_the_same_time(
    api: httpx.AsyncClient, account: TestAccount
) -> None:
    keyed = PURCHASE | {"idempotency_key": "order-1"}
    answers = await asyncio.gather(*(tell(api, [keyed, keyed] if n % 2 else keyed) for n in range(20)))
    results = [result for answer in answers for result in answer]
    (row,) = await stored(account)
    assert {result["id"] for result in results} == {str(row.id)}
    assert sorted(result["status"] for result in results) == [200] * 29 + [201]
    assert all(result.get("repeated", False) is (result["status"] == 200) for result in results)


async def test_a_key_that_is_told_again_with_another_event_is_refused(
    api: httpx.AsyncClient, account: TestAccount
) -> None:
    keyed = PURCHASE | {"idempotency_key": "order-1"}
    other = keyed | {"value": 50}
    (first,) = await tell(api, keyed)
    repeated, refused = await tell(api, [keyed, other], 207)
    assert repeated == {"status": 200, "id": first["id"], "repeated": True}
    assert (refused["status"], refused["path"]) == (422, "idempotency_key")
    assert "stands for another event" in refused["detail"]
    alone = await api.post("/api/events", json=other)
    assert (alone.status_code, alone.json()["errors"][0]["path"]) == (422, "body.idempotency_key")
    assert [str(row.id) for row in await stored(account)] == [first["id"]]


async def test_who_repeats_an_event_of_someone_deleted_since_is_told_the_first(
    api: httpx.AsyncClient, account: TestAccount
) -> None:
    keyed = PURCHASE | {"idempotency_key": "order-1"}
    (first,) = await tell(api, keyed)
    (row,) = await stored(account)
    assert (await api.delete(f"/api/contacts/{row.contact_id}")).status_code == 204
    assert await tell(api, keyed) == [{"status": 200, "id": first["id"], "repeated": True}]


async def test_a_bad_event_of_one_request_hurts_no_other(api: httpx.AsyncClient, account: TestAccount) -> None:
    stranger = PURCHASE | {"contact": {"id": str(UUID(int=7))}}
    answers = await asyncio.gather(*(api.post("/api/events", json=stranger if n % 3 else PURCHASE) for n in range(30)))
    assert [answer.status_code for answer in answers] == [422 if n % 3 else 201 for n in range(30)]
    assert len(await stored(account)) == 10


async def test_only_editors_and_owners_tell_of_events(
    app: FastAPI, api: httpx.AsyncClient, account: TestAccount
) -> None:
    viewer = {"Authorization": f"Bearer {await account.key_for('viewer')}"}
    assert (await api.post("/api/events", json=PURCHASE, headers=viewer)).status_code == 403


async def test_an_idempotency_key_of_the_request_has_one_effect_too(
    api: httpx.AsyncClient, account: TestAccount
) -> None:
    first = await tell(api, [PURCHASE], key="request-1")
    assert await tell(api, [PURCHASE], key="request-1") == first
    assert len(await stored(account)) == 1
    other = await api.post("/api/events", json=[PURCHASE] * 2, headers={"Idempotency-Key": "request-1"})
    assert other.status_code == 422


async def test_more_than_can_be_stored_is_put_off(temporal: Client, account: TestAccount) -> None:
    crowded = create_app(account.database, temporal, public_url=PUBLIC_URL, secret_key=SECRET_KEY)
    crowded.state.intake = Intake(account.database, most_waiting=0)
    async with client_for(crowded, account.key) as api:
        refused = await api.post("/api/events", json=PURCHASE)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "3")
    assert "again" in refused.json()["detail"]
    assert await stored(account) == []


async def test_events_are_counted_by_what_became_of_them(api: httpx.AsyncClient) -> None:
    outcomes = ("stored", "repeated", "refused", "put_off")
    counted = {outcome: Change("carillon_events_total", outcome=outcome) for outcome in outcomes}
    keyed = PURCHASE | {"idempotency_key": "order-1"}
    await tell(api, [keyed, keyed, PURCHASE, {}], 207)
    assert {outcome: change() for outcome, change in counted.items()} == {
        "stored": 2,
        "repeated": 1,
        "refused": 1,
        "put_off": 0,
    }
