"""`carillon up`, typed as people type it: it comes up, comes back, ends in order and carries on."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from local_stack import EmbeddedTemporal, free_port
from tests.up import CLI, FREE_PORTS, Up, clean_environment, folder

pytestmark = pytest.mark.long
OWN_KEY = "car_of_the_operator_herself"


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with folder() as made:
        yield made


@pytest.fixture(scope="module")
def running() -> Iterator[Up]:
    with folder() as data_dir, Up(data_dir) as up:
        yield up


def test_the_table_says_where_everything_is_and_all_of_it_answers(running: Up) -> None:
    for line in ("API docs", "Temporal UI", f"{running.data_dir}", "127.0.0.1:1025", "shown only now"):
        assert line in running.said
    assert httpx.get(f"{running.state['api_url']}/readyz").json() == {"status": "ok"}
    assert httpx.get(f"{running.state['api_url']}/docs").status_code == 200
    assert httpx.get(running.state["temporal_ui_url"]).status_code == 200
    assert running.account(running.key) == 200
    assert (running.data_dir / "secret_key").stat().st_mode & 0o777 == 0o600
    assert list(running.state["programs"]) == ["PostgreSQL", "Temporal", "API", "worker 1", "worker 2"]


def test_api_and_workers_log_in_as_one_who_owns_nothing_and_know_nobody_else(running: Up) -> None:
    for name in ("API", "worker 1", "worker 2"):
        environment = psutil.Process(running.state["programs"][name]).environ()
        assert environment["CARILLON_DATABASE_URL"].startswith("postgresql://carillon_login@")
        assert "CARILLON_MIGRATION_DATABASE_URL" not in environment


def test_metrics_of_every_program_of_ours_are_where_the_table_and_the_file_say(running: Up) -> None:
    urls = running.state["metrics_urls"]
    assert list(urls) == ["API", "worker 1", "worker 2"]
    for url in urls.values():
        assert url in running.said
        assert "carillon_messages_total" in httpx.get(url).text


@pytest.mark.parametrize("name", ["worker 1", "API", "Temporal", "PostgreSQL"])
def test_a_program_that_is_killed_comes_back_by_itself(running: Up, name: str) -> None:
    os.kill(running.state["programs"][name], signal.SIGKILL)
    running.hear(f"{name} ended (-9)")
    running.hear(f"{name} is up again")
    assert httpx.get(f"{running.state['api_url']}/readyz", timeout=30).json() == {"status": "ok"}
    assert running.account(running.key) == 200


def test_programs_that_are_killed_at_the_same_moment_all_come_back(running: Up) -> None:
    for pid in running.state["programs"].values():
        os.kill(pid, signal.SIGKILL)
    heard = [running.hear("is up again") for _ in running.state["programs"]]
    assert {line.split("] ")[1].removesuffix(" is up again\n") for line in heard} == running.state["programs"].keys()
    assert running.account(running.key) == 200


def test_a_second_one_on_the_same_directory_is_turned_away(running: Up) -> None:
    said = refusal("up", "--data-dir", str(running.data_dir), *FREE_PORTS)
    assert said == f"carillon: Carillon is up on {running.data_dir} already, as process {running.process.pid}\n"


def test_a_port_in_use_is_told_in_one_line(running: Up, data_dir: Path) -> None:
    port = httpx.URL(running.state["api_url"]).port
    said = refusal("up", "--data-dir", str(data_dir), *FREE_PORTS, "--api-port", str(port))
    assert said == f"carillon: Port {port} is in use: end what listens there, or choose another port\n"


def test_every_port_is_looked_at_before_anything_is_started(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for option in ("--api-port", "--temporal-port", "--temporal-ui-port"):
            said = refusal("up", "--data-dir", str(data_dir), *FREE_PORTS, option, port)
            assert said == f"carillon: Port {port} is in use: end what listens there, or choose another port\n"
    port = str(free_port())
    said = refusal("up", "--data-dir", str(data_dir), *FREE_PORTS, "--temporal-port", port, "--temporal-ui-port", port)
    assert said == f"carillon: Port {port} is given twice: the API, Temporal and its UI need one each\n"
    assert not (data_dir / "postgres").exists()


def test_a_key_that_a_failed_start_made_is_shown_by_the_next_one_and_by_no_other(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:  # so that no worker gets ready
        port = str(taken.getsockname()[1])
        said = refusal("up", "--data-dir", str(data_dir), *FREE_PORTS, CARILLON_WORKER_METRICS_PORT=port)
    assert said.startswith("carillon: worker 1 ended while starting")
    unshown = data_dir / "first_api_key"
    key = unshown.read_text()
    with Up(data_dir, "--workers", "0") as up:
        assert up.key == key
        assert up.account(key) == 200
        assert not unshown.exists()


def test_with_servers_of_others_it_starts_none(
    database_url: str, temporal_server: EmbeddedTemporal, data_dir: Path
) -> None:
    env = reachable(database_url, temporal_server.address) | {"CARILLON_API_KEY": OWN_KEY}
    with Up(data_dir, "--workers", "0", **env) as up:
        assert list(up.state["programs"]) == ["API"]
        assert f"that of {temporal_server.address}" in up.said
        assert "the one in CARILLON_API_KEY" in up.said
        assert up.account(OWN_KEY) == 200


def test_migrate_alone_prepares_the_servers_that_the_settings_name(
    database_url: str, temporal_server: EmbeddedTemporal
) -> None:
    done = carillon("migrate", **reachable(database_url, temporal_server.address), CARILLON_API_KEY=OWN_KEY)
    assert (done.returncode, done.stdout) == (0, "The database and Temporal are ready.\n")
    done = carillon("migrate", **reachable(database_url, temporal_server.address))
    assert "with CARILLON_API_KEY=<your own>, which adds an owner key" in done.stdout


@pytest.mark.parametrize("command", ["migrate", "api", "worker"])
def test_a_temporal_namespace_that_is_not_there_is_told_in_one_line(
    command: str, database_url: str, temporal_server: EmbeddedTemporal
) -> None:
    env = reachable(database_url, temporal_server.address) | {"CARILLON_SECRET_KEY": "s" * 32}
    line = refusal(command, **env, CARILLON_TEMPORAL_NAMESPACE="nope")
    assert line == (
        "carillon: There is no Temporal namespace 'nope' (CARILLON_TEMPORAL_NAMESPACE): make it with "
        "`temporal operator namespace create --namespace nope`, or name another\n"
    )


@pytest.mark.parametrize(
    ("arguments", "env", "said"),
    [
        (["up", "--data-dir", "/dev/null/below"], {}, "The data directory /dev/null/below can't be written"),
        (["up", *FREE_PORTS], {"CARILLON_DATABASE_URL": "postgresql://me:hidden@127.0.0.1:1/x"}, "PostgreSQL does not"),
        (["up", *FREE_PORTS], {"CARILLON_LOG_FORMAT": "xml"}, "CARILLON_LOG_FORMAT: "),
        (["api"], {}, "Set CARILLON_DATABASE_URL"),
        (["worker"], {"CARILLON_SECRET_KEY": "short"}, "CARILLON_SECRET_KEY: "),
        (["worker"], {}, "Set CARILLON_SECRET_KEY"),
        (["migrate"], {"CARILLON_DATABASE_URL": "nonsense"}, "CARILLON_DATABASE_URL: must be written as"),
        (["migrate"], {"CARILLON_DATABASE_URL": "postgresql://u:hidden%zz@h/x"}, "CARILLON_DATABASE_URL is no URL"),
        (["api"], {"CARILLON_DATABASE_URL": "postgresql+psycopg://u:hidden@h/x"}, "CARILLON_DATABASE_URL: must be"),
        (["worker"], {"CARILLON_MIGRATION_DATABASE_URL": "postgresql://u:p@hidden@h/x"}, "CARILLON_MIGRATION_DATABASE"),
        (["up"], {"CARILLON_SMTP_URL": "smtp://u:hidden/more@h"}, "CARILLON_SMTP_URL: must be written as smtp://"),
        (["worker"], {"CARILLON_PUBLIC_URL": "nonsense"}, "CARILLON_PUBLIC_URL: must be written as http://host"),
        (["up"], {"CARILLON_LOG_LEVEL": "loud"}, "CARILLON_LOG_LEVEL: Input should be 'debug', 'info', 'warning' or"),
        (["migrate"], {"CARILLON_API_KEY": "hidden"}, "CARILLON_API_KEY: must have at least 20 characters"),
    ],
)
def test_what_stands_in_the_way_is_told_in_one_line(
    arguments: list[str], env: dict[str, str], said: str, data_dir: Path
) -> None:
    line = refusal(*arguments, CARILLON_DATA_DIR=str(data_dir), **env)
    assert line.startswith(f"carillon: {said}")
    assert "hidden" not in line


def test_a_temporal_server_that_does_not_answer_is_told_in_one_line(database_url: str) -> None:
    address = f"127.0.0.1:{free_port()}"
    line = refusal("worker", **reachable(database_url, address), CARILLON_SECRET_KEY="s" * 32)
    assert line == f"carillon: Temporal does not answer at {address} (CARILLON_TEMPORAL_ADDRESS)\n"


def test_it_ends_in_order_and_the_next_one_carries_on_even_after_kill_9(running: Up) -> None:
    first, data_dir = running, running.data_dir
    programs = [psutil.Process(pid) for pid in first.state["programs"].values()]
    os.killpg(first.process.pid, signal.SIGINT)  # as Ctrl-C in a terminal does
    assert first.process.wait(timeout=60) == 0
    assert not any(program.is_running() for program in programs)
    assert not (data_dir / "up.json").exists()
    assert "database system is shut down" in (data_dir / "logs" / "postgres.log").read_text()

    with Up(data_dir) as second:
        assert "shown at the first start" in second.said
        assert "CARILLON_API_KEY=<your own>" in second.said
        assert second.account(first.key) == 200
        second.process.kill()
        with Up(data_dir) as third:
            assert not any(program.is_running() for program in second.programs)
            assert third.account(first.key) == 200
            third.process.terminate()
            assert third.process.wait(timeout=60) == 0
    assert not any(program.is_running() for program in third.programs)


def reachable(database_url: str, address: str) -> dict[str, str]:
    return {"CARILLON_DATABASE_URL": database_url, "CARILLON_TEMPORAL_ADDRESS": address}


def carillon(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(CLI), *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd="/",
        env=clean_environment() | env,
        timeout=60,
    )


def refusal(*arguments: str, **env: str) -> str:
    """What the command said on its way out with status 1: one line."""
    done = carillon(*arguments, **env)
    assert done.returncode == 1, done
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr
