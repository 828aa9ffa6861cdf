"""Is every refusal told in the same form, with the next step?"""

import asyncio

import httpx
import psycopg
from fastapi import FastAPI
from sqlalchemy import text
from structlog.testing import capture_logs
from temporalio.client import Client

from api.app import create_app
from database.engine import Database
from local_stack import free_port
from tests.conftest import PUBLIC_URL, SECRET_KEY, TestAccount, client_for


async def test_while_the_database_is_away_everybody_is_asked_to_try_again(temporal: Client) -> None:
    nobody_there = Database(f"postgresql://nobody@127.0.0.1:{free_port()}/nothing")
    app: FastAPI = create_app(nobody_there, temporal, public_url=PUBLIC_URL, secret_key=SECRET_KEY)
    async with client_for(app, "car_of_somebody") as api:
        with capture_logs() as lines:
            answers = [await api.get("/api/account"), await api.post("/api/events", json={})]
    await nobody_there.close()
    for answer in answers:
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "3")
        assert answer.headers["content-type"] == "application/problem+json"
        assert "Try again" in answer.json()["detail"]
    assert [line["event"] for line in lines if line["log_level"] == "error"] == ["database away"] * 2


async def test_whoever_loses_the_connection_in_the_middle_is_asked_to_try_again(
    api: httpx.AsyncClient, account: TestAccount, database_url: str
) -> None:
    """In the middle: behind somebody who holds the key of the event."""
    event = {"contact": {"email": "zoe@example.com"}, "name": "purchase", "idempotency_key": "1"}
    claim = "INSERT INTO event_keys (account_id, key, event_id, told) VALUES (:account_id, '1', uuidv7(), '')"
    waiting = "SELECT pid FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"
    async with account.transaction() as tx:
        await tx.execute(text(claim), {"account_id": account.id})
        asked = asyncio.create_task(api.post("/api/events", json=event))
        async with asyncio.timeout(10), await psycopg.AsyncConnection.connect(database_url, autocommit=True) as owner:
            while not (behind := await (await owner.execute(waiting)).fetchone()):
                pass
            await owner.execute("SELECT pg_terminate_backend(%s)", behind)
        answer = await asked
        await tx.rollback()
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "3")
    assert (await api.post("/api/events", json=event)).status_code == 201
