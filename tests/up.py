"""One `carillon up`, started as people start it, for tests that need the whole stack as processes of its own."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import httpx
import psutil

from database.embedded import make_data_dir
from programs import WATCHDOG

CLI = Path(__file__).parent.parent / "cli.py"
FREE_PORTS = ("--api-port", "0", "--temporal-port", "0", "--temporal-ui-port", "0")


class Up:
    """One `carillon up`, and what it has said so far."""

    def __init__(self, data_dir: Path, *arguments: str, **env: str) -> None:
        self.data_dir = data_dir
        self.arguments = arguments
        self.env = env
        self.said = ""
        self.start()

    def start(self) -> None:
        """Also again, after `cut_power`."""
        self.process = subprocess.Popen(
            [sys.executable, CLI, "up", "--data-dir", self.data_dir, *FREE_PORTS, *self.arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.data_dir,
            env=clean_environment() | self.env,
            start_new_session=True,
        )
        self.watchdog = watchdog(self.process.pid)
        self.hear("Ctrl-C")
        self.programs = [psutil.Process(pid) for pid in self.state["programs"].values()]

    def hear(self, words: str) -> str:
        """The next line with these words."""
        assert self.process.stdout
        for line in self.process.stdout:
            self.said += line
            if words in line:
                return line
        raise AssertionError(f"It ended without a word of {words!r}:\n{self.said}")

    @property
    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads((self.data_dir / "up.json").read_text())
        return state

    @property
    def key(self) -> str:
        return next(word for word in self.said.split() if word.startswith("car_"))

    def account(self, key: str) -> int:
        answer = httpx.get(f"{self.state['api_url']}/api/account", headers={"Authorization": f"Bearer {key}"})
        return answer.status_code

    def cut_power(self) -> None:
        """End every process of the tree at once: servers, workers, watchdogs and all."""
        family = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=20)
        self.process.communicate()
        call_off(self.watchdog)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.communicate(timeout=60)
        call_off(self.watchdog)


def watchdog(pid: int) -> subprocess.Popen[bytes]:
    """Ends a process after us, however we end, unless it is told that all is well."""
    command = ["/bin/sh", "-c", WATCHDOG, "tests-watchdog", str(pid)]
    silent = subprocess.DEVNULL
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=silent, stderr=silent, start_new_session=True)


def call_off(dog: subprocess.Popen[bytes]) -> None:
    if dog.returncode is None:
        dog.communicate(b"all is well\n")


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("CARILLON_")}


@contextmanager
def folder() -> Iterator[Path]:
    made = make_data_dir(None)
    yield made
    shutil.rmtree(made)
