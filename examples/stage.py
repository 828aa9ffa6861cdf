"""What the demo runs on: `carillon up` and `carillon sink`, each as a user would type it, in a folder of their own."""

import contextlib
import json
import os
import secrets
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import local_stack
from local_stack import free_port
from programs import Program

CLI = Path(local_stack.__file__).with_name("cli.py")
WORKERS = 2


@dataclass(frozen=True)
class Stage:
    """Where everything is, once it is ready."""

    api_url: str
    temporal_ui_url: str
    api_key: str
    record: Path  # the SMTP server's own list of what it took
    letters: Path  # and each message as a file


@asynccontextmanager
async def set_up(folder: Path) -> AsyncIterator[Stage]:
    """Start everything below an empty folder; end it, in order, with the block."""
    sink = Program("The SMTP server", folder / "logs" / "sink.log")
    up = Program("carillon up", folder / "logs" / "up.log", patience_seconds=60)
    record, letters = folder / "record.txt", folder / "letters"
    smtp_port, key = free_port(), f"car_demo_{secrets.token_hex(16)}"

    async def stack_is_up() -> bool:
        return (folder / "up.json").exists()

    async def sink_listens() -> bool:
        with socket.socket() as caller:
            return caller.connect_ex(("127.0.0.1", smtp_port)) == 0

    # Nothing of the user's own settings, lest a demo writes to their real database or real people.
    env = {name: value for name, value in os.environ.items() if not name.startswith("CARILLON_")}
    env |= {"CARILLON_API_KEY": key, "CARILLON_SMTP_URL": f"smtp://127.0.0.1:{smtp_port}"}
    taking: list[str | Path] = ["sink", "--port", str(smtp_port), "--record", record, "--letters", letters]
    serving: list[str | Path] = ["up", "--data-dir", folder, "--workers", str(WORKERS)]
    # Any free ports: the usual ones may be taken, or be taken a moment later by somebody else who is starting now.
    serving += ["--api-port", "0", "--temporal-port", "0", "--temporal-ui-port", "0"]
    try:
        with contextlib.chdir(folder):  # away from a .env
            await sink.start([sys.executable, CLI, *taking], env=env)
            await up.start([sys.executable, CLI, *serving], env=env)
        await up.until(stack_is_up, within_seconds=90)
        await sink.until(sink_listens)
        state = json.loads((folder / "up.json").read_text())
        yield Stage(state["api_url"], state["temporal_ui_url"], key, record, letters)
    finally:
        await up.stop()
        await sink.stop()
