"""Lines of the log: one JSON object each, with ids and without addresses."""

import json
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import PurePath
from typing import Any

import pytest
import structlog
from sqlalchemy import text
from sqlalchemy.exc import DataError
from temporalio import activity
from temporalio.testing import ActivityEnvironment

from database.engine import Database
from marketing.discretion import ADDRESS
from telemetry import logs

Read = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def read() -> Iterator[Read]:
    """The lines so far, with logging as a worker has it; put back as it was afterwards."""
    root, written, configured = logging.getLogger(), StringIO(), structlog.get_config()
    before, root.handlers = (root.handlers, root.level), []  # those of pytest must not be closed
    logs.configure("info", "json")
    [handler] = root.handlers
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(written)
    yield lambda: [json.loads(line) for line in written.getvalue().splitlines()]
    root.handlers, root.level = before
    structlog.configure(**configured)
    structlog.contextvars.clear_contextvars()


def test_a_line_has_its_ids_and_its_moment(read: Read) -> None:
    structlog.get_logger().warning("a test", campaign_id="7")
    [line] = read()
    moment = datetime.fromisoformat(line.pop("timestamp"))
    assert abs(datetime.now(UTC) - moment) < timedelta(minutes=1)
    assert line == {"event": "a test", "level": "warning", "campaign_id": "7"}


def test_no_field_brings_an_address_along_whoever_logs_it(read: Read) -> None:
    structlog.get_logger().error("to jo@example.org", to=["jo@example.org", {"jo@example.org": ("jo@example.org",)}])
    logging.getLogger("a library").error("%s is wrong", "jo@example.org", extra={"whom": PurePath("jo@example.org")})
    try:
        raise ValueError("550 <jo@example.org> unknown")
    except ValueError:
        logging.getLogger("a library").exception("it failed")
    first, second, third = read()
    assert first["event"] == f"to {ADDRESS}" and first["to"] == [ADDRESS, {ADDRESS: [ADDRESS]}]
    assert second["event"] == f"{ADDRESS} is wrong" and second["whom"] == ADDRESS
    assert f"ValueError: 550 <{ADDRESS}> unknown" in third["exception"]
    assert "jo@" not in str([first, second, third])


async def test_a_line_of_an_activity_says_of_which(read: Read) -> None:
    @activity.defn
    async def try_it() -> None:
        structlog.get_logger().info("at work")

    await ActivityEnvironment().run(try_it)
    [line] = [line for line in read() if line["event"] == "at work"]
    assert {name: line[name] for name in ("activity", "workflow_id", "attempt")} == {
        "activity": "unknown",
        "workflow_id": "test",
        "attempt": 1,
    }


async def test_an_error_of_the_database_does_not_repeat_what_it_was_asked(database: Database) -> None:
    with pytest.raises(DataError) as failed:
        async with database.transaction(None) as tx:
            await tx.execute(text("SELECT CAST(:address AS uuid), :other"), {"address": "7", "other": "jo@example.org"})
    assert "jo@example.org" not in str(failed.value)
