"""`carillon automations`, typed as people type it."""

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import uvicorn
from sqlalchemy import text
from temporalio.client import Client

from api.app import create_app
from automations_command import loaded
from database.engine import Database
from local_stack import EmbeddedTemporal, free_port
from tests.audience import EMAIL
from tests.commands import carillon
from tests.conftest import PATIENCE, PUBLIC_URL, SECRET_KEY, TestAccount
from tests.database.test_code_automations import inside_code
from tests.workflows.test_code_checks import TAGGED, WRITTEN, inside
from workflows.code_files import READY_MADE, load

ROOT = Path(__file__).parents[1]
BROKEN = """\
import time

TODAY = time.time()
"""


async def automations(*words: str | Path, **environment: str) -> tuple[int, str]:
    return await carillon("automations", *words, **environment)


async def test_list_shows_each_version_with_what_it_is_about_and_its_place() -> None:
    status, said = await automations("list")
    assert status == 0
    found = {line.split()[0]: line for line in said.splitlines()}
    assert found.keys() >= {"welcome", "winback", "birthday", "milestone", "abandoned_cart"}
    assert "“contact.subscribed”" in found["welcome"] and "automations/welcome.py:" in found["welcome"]


def test_a_folder_that_looks_like_it_and_is_not_read_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    loaded()
    assert capsys.readouterr().err == ""
    (tmp_path / "automations").mkdir()
    loaded()
    told = f"carillon: {tmp_path}/automations is not read: CARILLON_AUTOMATIONS=automations has it read\n"
    assert capsys.readouterr().err == told


async def test_list_tells_who_is_inside_and_who_waits_for_a_file(database_url: str, account: TestAccount) -> None:
    await inside_code(account, 3, "welcome", 1)
    await inside_code(account, 2, "long-gone", 4)
    status, said = await automations("list", CARILLON_DATABASE_URL=database_url)
    assert status == 0
    found = {line.split()[0]: line for line in said.splitlines()}
    assert re.search(r" 7 +3 +1 +/", found["welcome"])
    assert re.search(r" 4 +2 +1 +no file has it any more", found["long-gone"])


async def test_graph_draws_the_steps() -> None:
    status, said = await automations("graph", "abandoned_cart")
    assert status == 0
    assert said.startswith("flowchart TD\n") and "Send “cart-reminder”" in said


async def test_what_is_wrong_on_disk_is_told_without_a_traceback(tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text(BROKEN)
    listing = await asyncio.create_subprocess_exec(
        *(sys.executable, ROOT / "cli.py", "automations", "list"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd="/",  # where there is no .env
        env={"PYTHONPATH": str(ROOT), "CARILLON_AUTOMATIONS": str(tmp_path)},
    )
    told = (await listing.communicate())[0].decode()
    assert listing.returncode == 1
    assert told.startswith(f"carillon: automations can't be loaded:\n{file}:3: `time.time`")
    assert "Traceback" not in told


async def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    status, told = await automations("list", CARILLON_AUTOMATIONS=str(tmp_path / "gone"))
    assert status == 1 and "gone can't be read" in told


async def test_nothing_starts_with_automations_that_cannot_be_loaded(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, ROOT / "cli.py", "up", "--data-dir", tmp_path / "data"),
        stderr=asyncio.subprocess.PIPE,
        cwd="/",
        env={"PYTHONPATH": str(ROOT), "CARILLON_AUTOMATIONS": str(tmp_path)},
    )
    _, said = await started.communicate()
    assert started.returncode == 1
    assert said.decode().startswith(f"carillon: automations can't be loaded:\n{tmp_path / 'broken.py'}:3: ")
    assert not (tmp_path / "data").exists()


async def test_an_unknown_name_is_told() -> None:
    status, said = await automations("graph", "nobody")
    assert status == 1
    assert said.startswith("carillon: no file has an automation 'nobody', only abandoned_cart, birthday")


async def test_check_ends_with_status_1_if_any_would_break(
    temporal: Client, temporal_server: EmbeddedTemporal, tmp_path: Path
) -> None:
    async with inside(temporal, tmp_path) as found:

        async def check() -> tuple[int, str]:
            return await automations(
                *("check", "--automation", str(found.automation_id)),
                CARILLON_AUTOMATIONS=str(tmp_path),
                CARILLON_TEMPORAL_ADDRESS=temporal_server.address,
            )

        assert await check() == (0, "1 runs replayed: 0 would break.\n")
        found.write(WRITTEN.replace(TAGGED, ""))
        status, said = await check()
        assert status == 1
        assert said == (
            f"automation-{found.automation_id}/cohort-1: After “send:one”, 5 contacts took “tag:two”; the code on disk "
            "does not come to that.\n1 runs replayed: 1 would break.\n"
        )


async def test_check_needs_a_temporal_that_answers() -> None:
    status, said = await automations("check", CARILLON_TEMPORAL_ADDRESS="127.0.0.1:1")
    assert status == 1
    assert said == "carillon: Temporal does not answer at 127.0.0.1:1 (CARILLON_TEMPORAL_ADDRESS)\n"


@pytest.fixture(scope="module")
async def url(database: Database, temporal: Client) -> AsyncIterator[str]:
    """The API on a port of its own, with the automations that come with Carillon."""
    app = create_app(database, temporal, public_url=PUBLIC_URL, secret_key=SECRET_KEY, code=load([READY_MADE]))
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", lifespan="off"))
    serving = asyncio.create_task(server.serve())
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client, asyncio.timeout(PATIENCE):
        while True:
            with suppress(httpx.TransportError):
                await client.get("/healthz")
                break
            await asyncio.sleep(0)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    await serving


async def test_activate_makes_it_an_automation_of_the_account_once(url: str, account: TestAccount) -> None:
    status, refused = await automations("activate", "welcome", "--url", url, CARILLON_API_KEY=account.key)
    missing = re.findall(r"^(?:carillon: .*: )?(welcome.py:\d+)\.template: .*'(.*)'", refused, re.MULTILINE)
    assert status == 1 and [name for _, name in missing] == ["welcome", "showcase", "re-engagement"], refused
    async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {account.key}"}) as api:
        for name in ("welcome", "showcase", "re-engagement"):
            (await api.post("/api/templates", json={**EMAIL, "name": name})).raise_for_status()
    said = [await automations("activate", "welcome", "--url", url, CARILLON_API_KEY=account.key) for _ in range(2)]
    async with account.transaction() as tx:
        rows = (await tx.execute(text("SELECT id, code, state, version FROM automations"))).all()
    (made,) = rows
    assert tuple(made)[1:] == ("welcome", "active", 1)
    assert said == [(0, f"welcome, version 1, lets contacts in. Its id is {made.id}.\n")] * 2


async def test_what_the_api_refuses_is_told_in_its_words(url: str, account: TestAccount) -> None:
    status, said = await automations("activate", "nobody", "--url", url, CARILLON_API_KEY=account.key)
    assert status == 1
    assert said.startswith("carillon: body.code: no file of automations has 'nobody'. There are abandoned_cart, ")


async def test_graph_asks_for_what_no_file_has(url: str, account: TestAccount) -> None:
    steps = [{"type": "send", "template": "welcome"}, {"type": "exit", "reason": "enough"}]
    async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {account.key}"}) as api:
        made = await api.post("/api/automations", json={"name": "Ours", "trigger": {"type": "api"}, "steps": steps})
        assert made.status_code == 201, made.text
    status, said = await automations("graph", "Ours", "--url", url, CARILLON_API_KEY=account.key)
    assert status == 0
    assert said.splitlines()[1:] == [
        '    n1(["When the API says so"])',
        '    n2["Send “welcome”"]',
        "    n1 --> n2",
        '    n3(["Leaves: enough"])',
        "    n2 --> n3",
    ]
    status, said = await automations("graph", "Theirs", "--url", url, CARILLON_API_KEY=account.key)
    assert (status, said) == (1, "carillon: neither a file nor the account has an automation 'Theirs'\n")
