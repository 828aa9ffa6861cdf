"""The stack that is measured: `carillon up` with its own servers, in a folder that goes away."""

import json
import os
import secrets
import shutil
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString
from uuid import UUID

import httpx
import psutil
import psycopg
from temporalio.api.workflowservice.v1 import GetSystemInfoRequest
from temporalio.client import Client

from bench.relay import Relay
from database.embedded import make_data_dir
from programs import Program
from workflows.connection import connect

CLI = Path(__file__).parent.parent / "cli.py"
AUTOMATIONS = Path(__file__).with_name("automations")


@dataclass
class Running:
    """A stack that is up."""

    api: httpx.AsyncClient  # as the owner of the one account
    account_id: UUID
    database_url: str  # of the role that owns the tables: row-level security does not hold it back
    temporal: Client
    secret_key: bytes  # that signs what recipients are given
    programs: Mapping[str, int]  # process ids

    def cpu_seconds(self) -> dict[str, float]:
        """What each program and its children have used so far."""
        return {name: sum(map(_used, _family(pid))) for name, pid in self.programs.items()}

    def worker_memory(self) -> dict[int, int]:
        """Bytes that each worker holds, by its process id."""
        workers = [pid for name, pid in self.programs.items() if name.startswith("worker")]
        return {pid: psutil.Process(pid).memory_info().rss for pid in workers}

    async def log_position(self) -> int:
        """How many bytes PostgreSQL has written to its log (WAL) so far."""
        return int(await self._ask("SELECT pg_current_wal_insert_lsn() - '0/0'"))

    async def database_size(self) -> int:
        """Bytes of its tables and indexes."""
        return int(await self._ask("SELECT pg_database_size(current_database())"))

    async def versions(self) -> dict[str, str]:
        """Of the servers."""
        temporal = await self.temporal.workflow_service.get_system_info(GetSystemInfoRequest())
        return {
            "postgresql": str(await self._ask("SHOW server_version")),
            "temporal-server": temporal.server_version,
        }

    async def _ask(self, sql: LiteralString) -> Any:
        async with await psycopg.AsyncConnection.connect(self.database_url) as connection:
            row = await (await connection.execute(sql)).fetchone()
        assert row
        return row[0]


@asynccontextmanager
async def running(relay_kind: str, workers: int) -> AsyncIterator[tuple[Running, Relay]]:
    """A fresh stack with its mail server, up until the block ends. Their watchdogs end both if we are killed."""
    folder = make_data_dir(None)
    key, secret_key = f"car_{secrets.token_urlsafe(32)}", secrets.token_urlsafe(32)
    try:
        async with Relay(relay_kind, folder / "logs") as relay:
            up = Program("carillon up", folder / "logs" / "up.log", patience_seconds=90)
            env = os.environ | {
                "CARILLON_API_KEY": key,
                "CARILLON_SECRET_KEY": secret_key,
                "CARILLON_SMTP_URL": relay.url,
                "CARILLON_PUBLIC_URL": "",
                "CARILLON_AUTOMATIONS": str(AUTOMATIONS),
            }
            ports = ("--api-port", "0", "--temporal-port", "0", "--temporal-ui-port", "0")
            await up.start(
                [sys.executable, CLI, "up", "--data-dir", folder, *ports, "--workers", str(workers)], env=env
            )
            try:
                state = folder / "up.json"

                async def is_up() -> bool:
                    return state.exists()

                await up.until(is_up)
                yield await _meet(json.loads(state.read_text()), key, secret_key), relay
            finally:
                await up.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _meet(state: dict[str, object], key: str, secret_key: str) -> Running:
    api = httpx.AsyncClient(
        base_url=str(state["api_url"]), headers={"Authorization": f"Bearer {key}"}, timeout=httpx.Timeout(60)
    )
    account = (await api.get("/api/account")).raise_for_status().json()
    changed = {name: value for name, value in account.items() if name not in ("id", "created_at", "updated_at")} | {
        "sender_domains": ["example.com"]
    }
    (await api.put("/api/account", json=changed)).raise_for_status()
    programs = state["programs"]
    assert isinstance(programs, dict)
    return Running(
        api,
        UUID(account["id"]),
        str(state["migration_database_url"]),
        await connect(str(state["temporal_address"])),
        secret_key.encode(),
        programs,
    )


def _family(pid: int) -> list[psutil.Process]:
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]


def _used(process: psutil.Process) -> float:
    """Its own time and that of its children that have ended."""
    with suppress(psutil.NoSuchProcess):
        return sum(process.cpu_times()[:4])
    return 0.0
