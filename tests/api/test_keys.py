"""Who may call the API, and who may not any more?"""

import asyncio

import httpx
from fastapi import FastAPI

from database import keys
from tests.conftest import TestAccount, client_for


async def test_a_new_key_works_and_a_revoked_one_does_not(app: FastAPI, api: httpx.AsyncClient) -> None:
    created = (await api.post("/api/keys", json={"name": "Shop", "role": "viewer"})).json()
    async with client_for(app, created["secret"]) as shop:
        assert (await shop.get("/api/account")).status_code == 200
        assert (await api.delete(f"/api/keys/{created['id']}")).status_code == 204
        refused = await shop.get("/api/account")
    assert refused.status_code == 401
    assert refused.headers["content-type"] == "application/problem+json"
    assert "revoked" in refused.json()["detail"]


async def test_the_secret_is_shown_once_and_kept_nowhere(api: httpx.AsyncClient, account: TestAccount) -> None:
    created = (await api.post("/api/keys", json={"name": "Shop"})).json()
    listed = await api.get("/api/keys")
    assert created["secret"] not in listed.text
    assert [key["name"] for key in listed.json()["items"]] == ["Shop", "owner"]


async def test_the_last_owner_key_cannot_be_revoked(api: httpx.AsyncClient) -> None:
    (own,) = (await api.get("/api/keys")).json()["items"]
    refused = await api.delete(f"/api/keys/{own['id']}")
    assert refused.status_code == 409
    assert "another owner key" in refused.json()["detail"]


async def test_roles_hold(app: FastAPI, account: TestAccount) -> None:
    settings = {"name": "Renamed"}
    async with client_for(app, await account.key_for("editor")) as editor:
        assert (await editor.get("/api/account")).status_code == 200
        assert (await editor.put("/api/account", json=settings)).status_code == 403
        assert (await editor.get("/api/keys")).status_code == 403


async def test_without_a_key_there_is_a_hint(app: FastAPI) -> None:
    async with client_for(app, None) as nobody:
        refused = await nobody.get("/api/account")
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    assert "Authorization: Bearer" in refused.json()["detail"]


async def test_keys_have_pages(api: httpx.AsyncClient) -> None:
    for number in range(4):
        await api.post("/api/keys", json={"name": f"key {number}"})
    names: list[str] = []
    cursor: str | None = None
    while True:
        page = (await api.get("/api/keys", params={"limit": 2} | ({"cursor": cursor} if cursor else {}))).json()
        names += [key["name"] for key in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert names == ["key 3", "key 2", "key 1", "key 0", "owner"]


async def test_guessing_keys_is_slowed_down(app: FastAPI) -> None:
    transport = httpx.ASGITransport(app, client=("127.0.0.9", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://carillon.test") as guesser:
        answers = [
            (await guesser.get("/api/account", headers={"Authorization": f"Bearer guess-{n}"})).status_code
            for n in range(25)
        ]
    assert answers == [401] * 20 + [429] * 5


async def test_who_guesses_keys_locks_nobody_out_but_newcomers(
    app: FastAPI, account: TestAccount, other_account: TestAccount
) -> None:
    transport = httpx.ASGITransport(app, client=("127.0.0.10", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://carillon.test") as office:

        async def ask(key: str) -> int:
            return (await office.get("/api/account", headers={"Authorization": f"Bearer {key}"})).status_code

        assert await ask(account.key) == 200
        assert [await ask(f"guess-{n}") for n in range(21)] == [401] * 20 + [429]
        assert await ask(account.key) == 200
        assert await ask(other_account.key) == 429  # as good as a guess that hits
        async with account.transaction() as tx:
            await keys.revoke(tx, (await keys.page(tx, after=None, limit=1))[0].id)
        assert [await ask(account.key), await ask(account.key)] == [401, 429]


async def test_those_who_ask_together_are_told_apart(
    app: FastAPI, account: TestAccount, other_account: TestAccount
) -> None:
    async def asked(key: str) -> tuple[int, str | None]:
        async with client_for(app, key) as client:
            answer = await client.get("/api/account")
            return answer.status_code, answer.json().get("id")

    secrets = [account.key, other_account.key, "car_wrong", account.key, other_account.key]
    own, theirs = (200, str(account.id)), (200, str(other_account.id))
    assert await asyncio.gather(*map(asked, secrets)) == [own, theirs, (401, None), own, theirs]
