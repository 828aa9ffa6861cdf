"""What the API has acknowledged is on record, even if it is killed in the same moment."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import httpx
from sqlalchemy import text

from local_stack import EmbeddedTemporal, free_port
from tests.conftest import PUBLIC_URL, SECRET_KEY, TestAccount
from tests.sent import SentMessage, sent_messages

CLI = Path(__file__).parents[2] / "cli.py"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0"
VISITORS = 40
KILLED_AFTER = 600


@asynccontextmanager
async def api_process(
    database_url: str, temporal_address: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """`carillon api` on a free port; the second is its address."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, CLI, "api", "--port", str(port)),
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("CARILLON_")},
            "CARILLON_DATABASE_URL": database_url,
            "CARILLON_TEMPORAL_ADDRESS": temporal_address,
            "CARILLON_SECRET_KEY": SECRET_KEY.decode(),
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout
    said = b""
    async for line in process.stdout:
        said += line
        if b"running on" in line:
            break
    assert process.returncode is None, said
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_whatever_was_acknowledged_before_a_kill_is_stored(
    database_url: str, temporal_server: EmbeddedTemporal, account: TestAccount
) -> None:
    messages = await sent_messages(account, 1_500)
    acknowledged: dict[str, set[UUID]] = {
        "message.opened": set(),
        "message.clicked": set(),
        "message.unsubscribed": set(),
    }
    async with (
        api_process(database_url, temporal_server.address) as (process, address),
        httpx.AsyncClient(base_url=address, headers={"user-agent": FIREFOX}) as browser,
    ):

        async def visit(recipients: Iterator[SentMessage]) -> None:
            for number, message in enumerate(recipients):
                name = list(acknowledged)[number % 3]
                path = {
                    "message.opened": message.pixel,
                    "message.clicked": message.click(1),
                    "message.unsubscribed": message.unsubscribe,
                }[name].removeprefix(PUBLIC_URL)
                method = "POST" if name == "message.unsubscribed" else "GET"
                try:
                    answer = await browser.request(method, path)
                except httpx.TransportError:
                    return
                assert answer.status_code in {200, 302}
                acknowledged[name].add(message.delivery_id)
                if process.returncode is None and sum(map(len, acknowledged.values())) == KILLED_AFTER:
                    process.kill()

        await asyncio.gather(*(visit(iter(messages[n::VISITORS])) for n in range(VISITORS)))
        assert await process.wait() == -9

    async with account.transaction() as tx:
        rows = await tx.execute(text("SELECT name, delivery_id FROM events WHERE NOT machine"))
        stored = {(row.name, row.delivery_id) for row in rows}
    lost = {(name, delivery) for name, deliveries in acknowledged.items() for delivery in deliveries} - stored
    assert sum(map(len, acknowledged.values())) >= KILLED_AFTER
    assert lost == set()
