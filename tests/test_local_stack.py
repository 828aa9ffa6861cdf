"""The embedded servers: made, killed, brought back, and closed to others."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import psycopg
import pytest
from google.protobuf.duration_pb2 import Duration
from temporalio.api.workflowservice.v1 import RegisterNamespaceRequest

from database.embedded import CannotStart, first_closed, make_data_dir, postgres_identity
from local_stack import EmbeddedPostgres, EmbeddedTemporal, ensure_free
from programs import Program
from workflows import search_attributes
from workflows.connection import connect

ROOT = Path(__file__).parent.parent


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """Not `tmp_path`: root's is closed to the account that PostgreSQL runs as."""
    folder = make_data_dir(None)
    yield folder
    shutil.rmtree(folder)


async def ask(postgres: EmbeddedPostgres, query: str) -> list[tuple[object, ...]]:
    async with await psycopg.AsyncConnection.connect(postgres.url, autocommit=True) as connection:
        answer = await connection.execute(query)
        return await answer.fetchall() if answer.description else []


async def test_what_postgres_stored_is_there_after_a_restart_and_after_kill_9(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir) as postgres:
        await ask(postgres, "CREATE TABLE kept (line int)")
        await ask(postgres, "INSERT INTO kept VALUES (1)")
    async with EmbeddedPostgres(data_dir) as postgres:
        await ask(postgres, "INSERT INTO kept VALUES (2)")
        backends = psutil.Process(postgres.program.pid).children()
        os.kill(postgres.program.pid or 0, signal.SIGKILL)
        await postgres.program.ended()
        psutil.wait_procs(backends, timeout=20)
        await postgres.start()
        assert await ask(postgres, "SELECT line FROM kept ORDER BY line") == [(1,), (2,)]


async def test_after_a_power_cut_the_numbers_of_strangers_do_not_stop_the_next_start(data_dir: Path) -> None:
    """Another boot gives old numbers to others: to a program of the same user, or to another PostgreSQL."""
    postgres = EmbeddedPostgres(data_dir, durable=False)
    await postgres.start()
    family = [psutil.Process(postgres.program.pid), *psutil.Process(postgres.program.pid).children()]
    for process in family:
        with suppress(psutil.NoSuchProcess):  # it ends by itself without its parent
            process.kill()
    await postgres.stop()
    psutil.wait_procs(family, timeout=20)
    left = [postgres.cluster.folder / name for name in ("postmaster.pid", ".s.PGSQL.5432.lock")]
    lines = [file.read_text().splitlines() for file in left]
    stranger = await asyncio.create_subprocess_exec("sleep", "60", **postgres.cluster.identity)
    async with EmbeddedPostgres(durable=False) as another:
        for pid in (os.getpid(), stranger.pid, another.program.pid):
            for file, (_, *rest) in zip(left, lines, strict=True):
                file.write_text("\n".join([str(pid), *rest, ""]))
                if postgres.cluster.identity:
                    shutil.chown(file, "nobody")
            async with EmbeddedPostgres(data_dir, durable=False) as again:
                assert await ask(again, "SELECT 1") == [(1,)]
    stranger.kill()
    await stranger.wait()


async def test_a_folder_that_was_left_half_made_is_made_anew(data_dir: Path) -> None:
    (data_dir / "postgres.unfinished").mkdir()
    (data_dir / "postgres.unfinished" / "PG_VERSION").write_text("18\n")
    async with EmbeddedPostgres(data_dir, durable=False) as postgres:
        assert await ask(postgres, "SELECT 1") == [(1,)]


async def test_the_owner_is_no_superuser_and_may_become_the_roles_that_it_makes() -> None:
    async with EmbeddedPostgres(durable=False) as postgres:
        assert await ask(postgres, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") == [(False,)]
        await ask(postgres, "CREATE ROLE lesser NOLOGIN")
        await ask(postgres, "SET ROLE lesser")


async def test_postgres_has_no_port_and_lets_in_only_who_the_kernel_vouches_for() -> None:
    async with EmbeddedPostgres(durable=False) as postgres:
        assert await ask(postgres, "SHOW listen_addresses") == [("",)]
        assert postgres.cluster.folder.stat().st_mode & 0o777 == 0o700
        await ask(postgres, "CREATE ROLE somebody_else LOGIN")
        with pytest.raises(psycopg.OperationalError, match="Peer authentication failed"):
            await psycopg.AsyncConnection.connect(postgres.url.replace("//carillon@", "//somebody_else@"))


async def test_a_path_too_long_for_a_socket_gets_a_short_folder_that_goes_with_the_server(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir / ("a long way down " * 5), durable=False) as postgres:
        short = postgres.cluster.socket_folder
        assert len(os.fsencode(short)) < 50
        assert await ask(postgres, "SELECT 1") == [(1,)]
    assert not short.exists()


async def test_without_a_data_directory_nothing_stays_behind() -> None:
    async with EmbeddedPostgres(durable=False) as postgres, EmbeddedTemporal(durable=False) as temporal:
        folders = [postgres.data_dir, temporal.data_dir]
        assert all(folder.exists() for folder in folders)
    assert not any(folder.exists() for folder in folders)


async def test_what_temporal_stored_is_there_after_kill_9(data_dir: Path) -> None:
    async with EmbeddedTemporal(data_dir) as server:
        client = await connect(server.address)
        run = await client.start_workflow("Nobody", id="kept", task_queue="nobody-listens")
        os.kill(server.program.pid or 0, signal.SIGKILL)
        await server.program.ended()
        await server.start()
        description = await (await connect(server.address)).get_workflow_handle("kept").describe()
        assert description.run_id == run.result_run_id
        assert (data_dir / "temporal.sqlite-wal").exists()


async def test_search_attributes_are_registered_once_however_often_they_are_asked_for(
    temporal_server: EmbeddedTemporal,
) -> None:
    client = await connect(temporal_server.address)
    fresh = RegisterNamespaceRequest(
        namespace="fresh", workflow_execution_retention_period=Duration(seconds=24 * 60 * 60)
    )
    await client.workflow_service.register_namespace(fresh)
    client = await connect(temporal_server.address, namespace="fresh")
    assert await search_attributes.unknown(client) == list(search_attributes.SEARCH_ATTRIBUTES)
    for _ in range(2):
        await search_attributes.register(client)
    assert await search_attributes.unknown(client) == []


async def test_a_port_in_use_is_told_in_one_line(temporal_server: EmbeddedTemporal, data_dir: Path) -> None:
    with pytest.raises(CannotStart, match=f"Port {temporal_server.port} is in use"):
        ensure_free(temporal_server.port)
    with pytest.raises(CannotStart, match=f"Port {temporal_server.port} is in use"):
        await EmbeddedTemporal(data_dir, port=temporal_server.port).start()


async def test_a_temporal_binary_that_is_not_there_is_told_in_one_line(data_dir: Path) -> None:
    with pytest.raises(CannotStart, match="No Temporal server at /nowhere/temporal"):
        await EmbeddedTemporal(data_dir, binary=Path("/nowhere/temporal")).start()


async def test_a_program_that_ends_while_it_starts_is_quoted(tmp_path: Path) -> None:
    program = Program("Echo", tmp_path / "echo.log")
    await program.start(["/bin/sh", "-c", "echo the disk is full; exit 3"])

    async def never() -> bool:
        return False

    with pytest.raises(CannotStart, match="Echo ended while starting: the disk is full"):
        await program.until(never)


async def test_a_program_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    program = Program("Idler", tmp_path / "idler.log")
    await program.start(["tail", "-f", "/dev/null"])

    async def never() -> bool:
        return False

    with pytest.raises(CannotStart, match=r"Idler was not ready within 0\.1 s"):
        await program.until(never, within_seconds=0.1)
    assert program.pid is None


async def test_a_program_that_will_not_stop_is_killed(tmp_path: Path) -> None:
    program = Program("Mule", tmp_path / "mule.log", patience_seconds=0.2)
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
    await program.start([sys.executable, "-c", deaf])

    async def is_deaf() -> bool:
        return "deaf" in program.log.read_text()

    await program.until(is_deaf)
    await program.stop()
    assert await program.ended() == -signal.SIGKILL


def test_servers_end_after_the_process_that_started_them_even_after_kill_9() -> None:
    script = """
import asyncio
from local_stack import EmbeddedPostgres, EmbeddedTemporal

async def main():
    async with EmbeddedPostgres(durable=False) as postgres, EmbeddedTemporal(durable=False) as temporal:
        print(postgres.program.pid, temporal.program.pid, postgres.data_dir, temporal.data_dir, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        *pids, one_folder, other_folder = parent.stdout.readline().split()
        servers = [psutil.Process(int(pid)) for pid in pids]
        parent.kill()
        _, alive = psutil.wait_procs(servers, timeout=20)
    assert not alive
    shutil.rmtree(one_folder)
    shutil.rmtree(other_folder)


def test_a_folder_that_cannot_be_made_is_told_in_one_line(data_dir: Path) -> None:
    (data_dir / "a file").touch()
    with pytest.raises(CannotStart, match="can't be written: Not a directory"):
        make_data_dir(data_dir / "a file" / "below")


def test_a_closed_folder_is_named_when_postgres_must_run_as_somebody_else(data_dir: Path) -> None:
    closed = data_dir / "closed"
    (closed / "inner").mkdir(parents=True)
    closed.chmod(0o700)
    identity = postgres_identity()
    assert first_closed(closed / "inner", identity) == (closed if identity else None)
