"""`carillon contacts import`, typed as people type it, against a real server."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from local_stack import free_port
from tests.conftest import TestAccount

ROOT = Path(__file__).parents[1]


@pytest.fixture
async def url(app: FastAPI) -> AsyncIterator[str]:
    """The API on a port of its own."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", lifespan="off"))
    serving = asyncio.create_task(server.serve())
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client, asyncio.timeout(10):
        while True:
            with suppress(httpx.TransportError):
                await client.get("/healthz")
                break
            await asyncio.sleep(0)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    await serving


@pytest.fixture
async def proxy() -> AsyncIterator[str]:
    """What stands before an API that is down, and answers in HTML."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        page = b"<html>Bad Gateway</html>"
        await reader.readuntil(b"\r\n0\r\n\r\n")  # the end of a body in chunks
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\nConnection: close\r\n")
        writer.write(b"Content-Length: %d\r\n\r\n%s" % (len(page), page))
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def carillon(*words: str | Path, key: str = "") -> tuple[int, str]:
    """What the command answered, and what it said."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        ROOT / "cli.py",
        *words,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={"CARILLON_API_KEY": key, "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


@pytest.mark.usefixtures("worker")
async def test_the_example_is_imported_and_its_rejects_are_written(
    url: str, account: TestAccount, tmp_path: Path
) -> None:
    rejects = tmp_path / "rejects.csv"
    words = ("contacts", "import", ROOT / "examples" / "contacts.csv", "--tag", "demo", "--rejects", rejects)
    status, said = await carillon(*words, "--url", url, key=account.key)
    assert status == 0, said
    assert "1,000 rows, 980 added, 20 rejected" in said
    assert rejects.read_text(encoding="utf-8-sig").startswith("Carillon line,Carillon reason,Email Address")


async def test_what_stands_in_the_way_is_told_in_one_line(
    url: str, proxy: str, account: TestAccount, tmp_path: Path
) -> None:
    file = tmp_path / "list.csv"
    file.write_text("Email\na@example.com\n")
    for words, key, hint in (
        (("--url", url, "--map", "Email=emial"), account.key, "is no field"),
        (("--url", url), "car_wrong_but_long_enough", "wrong or was revoked"),
        (("--url", "http://127.0.0.1:9"), account.key, "does not answer"),
        (("--url", url), "", "set CARILLON_API_KEY"),
        (("--url", url), "é", "CARILLON_API_KEY: must have"),
        (("--url", url, "--rejects", tmp_path / "missing" / "x.csv"), account.key, "missing is no folder"),
        (("--url", proxy), account.key, "/api/contacts/import answers 502 Bad Gateway"),
    ):
        status, said = await carillon("contacts", "import", file, *words, key=key)
        assert status == 1
        assert hint in said.splitlines()[-1]
        assert "Traceback" not in said


@pytest.mark.usefixtures("worker")
async def test_the_counts_are_told_even_if_the_rejects_cannot_be_written(
    url: str, account: TestAccount, tmp_path: Path
) -> None:
    file = tmp_path / "list.csv"
    file.write_text("Email\na@example.com\nnobody\n")
    words = ("contacts", "import", file, "--rejects", "/dev/full", "--url", url)
    status, said = await carillon(*words, key=account.key)
    assert status == 1
    assert "2 rows, 1 added, 1 rejected" in said
    assert "No space left" in said.splitlines()[-1]
