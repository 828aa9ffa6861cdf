"""Does a repeated POST have one effect?"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import httpx
import orjson
import pytest
from fastapi import FastAPI
from sqlalchemy import func, text, update
from starlette.requests import ClientDisconnect
from temporalio.client import Client

from api.app import create_app
from database.engine import Database
from database.imports import BLOCK
from database.schema import campaigns as campaigns_table
from database.schema import idempotency_keys
from tests.api.test_campaigns import draft
from tests.conftest import PUBLIC_URL, SECRET_KEY, TestAccount, client_for


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


async def age(account: TestAccount, **changes: Any) -> None:
    """Let an hour pass for every key of the account."""
    long_ago = func.now() - text("interval '1 hour'")
    async with account.transaction() as tx:
        await tx.execute(update(idempotency_keys).values(created_at=long_ago, **changes))


async def imports(api: httpx.AsyncClient) -> int:
    return len((await api.get("/api/contacts/import")).json()["items"])


async def test_a_request_that_another_has_taken_over_has_no_effect(
    api: httpx.AsyncClient, account: TestAccount
) -> None:
    headers = {"Idempotency-Key": "one"}
    others: list[httpx.Response] = []

    async def slowly() -> AsyncIterator[bytes]:
        await age(account)
        others.append(await api.post("/api/campaigns", content=body, headers=headers | json))
        yield body

    body, json = orjson.dumps(draft()), {"Content-Type": "application/json"}
    first = await api.post("/api/campaigns", content=slowly(), headers=headers | json)
    assert first.status_code == 409
    assert "taken over" in first.json()["detail"]
    assert others[0].status_code == 201
    assert await campaigns(api) == 1
    again = await api.post("/api/campaigns", content=body, headers=headers | json)
    assert again.json() == others[0].json()


async def test_a_long_upload_shows_life_and_is_not_doubled(api: httpx.AsyncClient, account: TestAccount) -> None:
    headers = {"Idempotency-Key": "one", "Content-Type": "text/csv"}
    row = b"someone@example.com\n"

    async def slowly() -> AsyncIterator[bytes]:
        yield b"email\n"
        await age(account)
        yield row * (2 * BLOCK // len(row))
        other = await api.post("/api/contacts/import", content=b"email\n" + row, headers=headers)
        assert other.status_code == 409
        assert "still at work" in other.json()["detail"]

    assert (await api.post("/api/contacts/import", content=slowly(), headers=headers)).status_code == 202
    assert await imports(api) == 1


async def test_an_upload_that_broke_off_may_be_repeated(api: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": "one", "Content-Type": "text/csv"}

    async def broken_off() -> AsyncIterator[bytes]:
        yield b"email\n"
        raise ClientDisconnect

    with pytest.raises(ClientDisconnect):
        await api.post("/api/contacts/import", content=broken_off(), headers=headers)
    assert (await api.post("/api/contacts/import", content=b"email\n", headers=headers)).status_code == 202
    assert await imports(api) == 1


async def test_an_effect_whose_answer_was_lost_is_not_repeated(api: httpx.AsyncClient, account: TestAccount) -> None:
    headers = {"Idempotency-Key": "one"}
    assert (await api.post("/api/campaigns", json=draft(), headers=headers)).status_code == 201
    # As it stands if the API dies before the answer is kept.
    await age(account, status=None, body_hash=None, headers=None, body=None)
    again = await api.post("/api/campaigns", json=draft(), headers=headers)
    assert again.status_code == 409
    assert "Look at what it did" in again.json()["detail"]
    assert await campaigns(api) == 1


async def test_a_request_that_failed_after_its_effect_is_not_repeated(
    database: Database, account: TestAccount, api: httpx.AsyncClient
) -> None:
    class Broken:
        async def start_workflow(self, *_: object, **__: object) -> None:
            raise RuntimeError("Nobody expected this.")

    app = create_app(database, cast(Client, Broken()), public_url=PUBLIC_URL, secret_key=SECRET_KEY)
    headers = {"Idempotency-Key": "one", "Content-Type": "text/csv"}
    async with client_for(app, account.key) as broken:
        with pytest.raises(RuntimeError):
            await broken.post("/api/contacts/import", content=b"email\n", headers=headers)
    await age(account)
    again = await api.post("/api/contacts/import", content=b"email\n", headers=headers)
    assert again.status_code == 409
    assert "was answered 500" in again.json()["detail"]
    assert again.json()["first"] == {"status": 500}
    assert await imports(api) == 1


async def test_what_failed_before_its_effect_can_be_repeated_at_once(
    api: httpx.AsyncClient, account: TestAccount
) -> None:
    """Nobody works on a campaign whose workflow was never started: 503, and nothing has changed."""
    headers = {"Idempotency-Key": "one"}
    campaign = (await api.post("/api/campaigns", json=draft())).json()["id"]
    async with account.transaction() as tx:
        await tx.execute(update(campaigns_table).values(state="paused"))
    answers = [await api.post(f"/api/campaigns/{campaign}/resume", headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [503, 503]
    assert all("idempotency-replayed" not in answer.headers for answer in answers)


async def test_a_failure_after_an_effect_is_told_again(api: httpx.AsyncClient, account: TestAccount) -> None:
    headers = {"Idempotency-Key": "one"}
    assert (await api.post("/api/campaigns", json=draft(), headers=headers)).status_code == 201
    problem = {"title": "Not available", "status": 503, "detail": "Later."}
    await age(account, status=503, body=orjson.dumps(problem))
    again = await api.post("/api/campaigns", json=draft(), headers=headers)
    assert (again.status_code, again.json()["first"]) == (409, problem)
    assert await campaigns(api) == 1


async def test_a_request_that_never_had_an_effect_frees_its_key(api: httpx.AsyncClient, account: TestAccount) -> None:
    headers = {"Idempotency-Key": "one"}
    assert (await api.post("/api/campaigns", json={}, headers=headers)).status_code == 422
    await age(account, status=None, body_hash=None, headers=None, body=None)
    assert (await api.post("/api/campaigns", json=draft(), headers=headers)).status_code == 201


@pytest.mark.parametrize("key", [b"", b"x" * 256, b"\x00", b"\xe9", b"a\tb"])
async def test_a_key_that_is_too_long_or_unprintable_is_refused(api: httpx.AsyncClient, key: bytes) -> None:
    refused = await api.post("/api/campaigns", json=draft(), headers={b"Idempotency-Key": key})
    assert refused.status_code == 400


async def test_an_address_that_no_database_holds_is_not_found(api: httpx.AsyncClient) -> None:
    assert (await api.post("/api/%00", headers={"Idempotency-Key": "one"})).status_code == 404
