"""Is every refusal told in the same form, with the next step?"""

from fastapi import FastAPI
from structlog.testing import capture_logs
from temporalio.client import Client

from api.app import create_app
from database.engine import Database
from local_stack import free_port
from tests.conftest import PUBLIC_URL, SECRET_KEY, client_for


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
