"""Does a repeated POST have one effect?"""

import asyncio

import httpx
from fastapi import FastAPI

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


async def test_a_wrong_key_claims_nothing(app: FastAPI, account: TestAccount) -> None:
    headers = {"Idempotency-Key": "one"}
    async with client_for(app, "car_wrong") as nobody:
        assert (await nobody.post("/api/campaigns", json=draft(), headers=headers)).status_code == 401
    async with client_for(app, account.key) as api:
        assert (await api.post("/api/campaigns", json=draft(), headers=headers)).status_code == 201


async def test_a_key_that_is_too_long_is_refused(api: httpx.AsyncClient) -> None:
    refused = await api.post("/api/campaigns", json=draft(), headers={"Idempotency-Key": "x" * 256})
    assert refused.status_code == 400
