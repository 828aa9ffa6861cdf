"""Does a repeated POST have one effect?"""

import asyncio

import httpx
import pytest
from fastapi import FastAPI

from database.schema import idempotency_keys
from tests.api.test_campaigns import draft
from tests.conftest import TestAccount, client_for


async def campaigns(api: httpx.AsyncClient) -> int:
    return len((await api.get("/api/campaigns")).json()["items"])


async def test_the_same_request_gets_the_same_answer(api: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": "one"}
    first = await api.post("/api/campaigns", json=draft(), headers=headers)
    second = await api.post("/api/campaigns", json=draft(), headers=headers)
    assert first.status_code == second.status_code == 201
    assert first.json() == second.json()
    assert second.headers["idempotency-replayed"] == "true"
    assert await campaigns(api) == 1


async def test_another_body_or_path_is_refused(api: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": "one"}
    await api.post("/api/campaigns", json=draft(), headers=headers)
    other = await api.post("/api/campaigns", json=draft(name="Other"), headers=headers)
    assert other.status_code == 422
    assert "another body" in other.json()["detail"]
    elsewhere = await api.post("/api/keys", json={"name": "x"}, headers=headers)
    assert elsewhere.status_code == 422
    assert await campaigns(api) == 1


async def test_many_at_once_have_one_effect(api: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": "one"}
    answers = await asyncio.gather(*(api.post("/api/campaigns", json=draft(), headers=headers) for _ in range(20)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len({answer.json()["id"] for answer in answers if answer.status_code == 201}) == 1
    assert await campaigns(api) == 1


async def test_keys_of_different_accounts_do_not_meet(api: httpx.AsyncClient, stranger: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": "one"}
    mine = await api.post("/api/campaigns", json=draft(), headers=headers)
    theirs = await stranger.post("/api/campaigns", json=draft(), headers=headers)
    assert mine.json()["id"] != theirs.json()["id"]


async def test_nobody_is_answered_what_another_api_key_was(app: FastAPI, account: TestAccount) -> None:
    headers = {"Idempotency-Key": "one"}
    async with client_for(app, account.key) as owner, client_for(app, await account.key_for("viewer")) as viewer:
        assert (await owner.post("/api/campaigns", json=draft(), headers=headers)).status_code == 201
        assert (await viewer.post("/api/campaigns", json=draft(), headers=headers)).status_code == 403


async def test_a_secret_is_not_kept_and_its_request_has_one_effect_all_the_same(
    app: FastAPI, api: httpx.AsyncClient, account: TestAccount
) -> None:
    new, headers = {"name": "Shop", "role": "owner"}, {"Idempotency-Key": "one"}
    first = await api.post("/api/keys", json=new, headers=headers)
    assert first.status_code == 201
    again = await api.post("/api/keys", json=new, headers=headers)
    assert again.status_code == 409
    assert "revoke" in again.json()["detail"]
    assert [key["name"] for key in (await api.get("/api/keys")).json()["items"]] == ["Shop", "owner"]
    async with account.transaction() as tx:
        (kept,) = await tx.execute(idempotency_keys.select())
    assert kept.status == 201
    assert kept.body is None


async def test_a_refusal_to_make_a_secret_is_kept(api: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": "one"}
    answers = [await api.post("/api/keys", json={"name": ""}, headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [422, 422]
    assert answers[1].headers["idempotency-replayed"] == "true"


async def test_a_wrong_key_claims_nothing(app: FastAPI, account: TestAccount) -> None:
    headers = {"Idempotency-Key": "one"}
    async with client_for(app, "car_wrong") as nobody:
        assert (await nobody.post("/api/campaigns", json=draft(), headers=headers)).status_code == 401
    async with client_for(app, account.key) as api:
        assert (await api.post("/api/campaigns", json=draft(), headers=headers)).status_code == 201


@pytest.mark.parametrize("key", [b"", b"x" * 256, b"\x00", b"\xe9", b"a\tb"])
async def test_a_key_that_is_too_long_or_unprintable_is_refused(api: httpx.AsyncClient, key: bytes) -> None:
    refused = await api.post("/api/campaigns", json=draft(), headers={b"Idempotency-Key": key})
    assert refused.status_code == 400


async def test_an_address_that_no_database_holds_is_not_found(api: httpx.AsyncClient) -> None:
    assert (await api.post("/api/%00", headers={"Idempotency-Key": "one"})).status_code == 404
