"""`carillon backup`, `restore` and `reconcile`: how is the record kept elsewhere, and what is true when it comes back?

A backup is a zip file with the record as pg_dump writes it and the secret key, without which links in messages that
have left are dead. Temporal's data is not in it: the sweep starts again whatever the record calls open.
"""

import asyncio
import json
import os
import shutil
import subprocess
import zipfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psycopg
from alembic.util import CommandError
from pydantic import AwareDatetime, BaseModel

from database import data_dir, reconciliation
from database.embedded import CannotStart, make_data_dir, postgres_binaries, postgres_identity
from database.engine import APPLICATION_ROLE, Database
from database.migrate import migrate
from database.reconciliation import Held
from local_stack import EmbeddedPostgres

EARLIER = "The record was restored from an earlier moment"
FORMAT = 1
ABOUT, SECRET_KEY, RECORD = "carillon.json", "secret_key", "record.dump"
_PIECE = 1 << 18

# How many bytes are done, and of how many if that is known.
Tell = Callable[[int, int | None], None]


class About(BaseModel, strict=True):
    """What a backup tells of itself: everything in it is from `moment`, or later."""

    format: int
    moment: AwareDatetime


@dataclass(frozen=True)
class Restored:
    """The record as of `moment`, and what of it may have gone on since then."""

    moment: datetime
    held: list[Held]
    with_secret_key: bool


# -- backup ----------------------------------------------------------------------------------------------------------


async def back_up(folder: Path, file: Path, tell: Tell) -> None:
    """Write the record and the secret key into a new file, for our eyes only; the stack may run meanwhile."""
    if file.exists():
        raise CannotStart(f"{file} is there already: a backup never replaces one")
    unfinished = file.with_name(f"{file.name}.unfinished")
    try:
        unfinished.unlink(missing_ok=True)
        writing = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise CannotStart(f"{file} can't be written: {error.strerror}") from None
    try:
        with os.fdopen(writing, "wb") as target:
            async with _record_in(folder) as url:
                # The moment before pg_dump looks: what was sent from here on, the backup may not know.
                about = About(format=FORMAT, moment=datetime.now(UTC))
                with zipfile.ZipFile(target, "w") as archive:
                    archive.writestr(ABOUT, about.model_dump_json())
                    if secret_key := data_dir.read(folder / SECRET_KEY):
                        archive.writestr(SECRET_KEY, secret_key)
                    with archive.open(RECORD, "w", force_zip64=True) as record:
                        await _dump(url, record.write, tell)
            target.flush()
            os.fsync(target.fileno())
        unfinished.replace(file)
    except OSError as error:
        raise CannotStart(f"{file} can't be written: {error.strerror}") from None
    finally:
        unfinished.unlink(missing_ok=True)


@asynccontextmanager
async def _record_in(folder: Path) -> AsyncIterator[str]:
    """The URL of the database in a data directory; its server is started if Carillon is not up."""
    folder = folder.expanduser().resolve()
    if not (folder / "postgres").exists():
        raise CannotStart(f"{folder} holds no record: name the --data-dir of `carillon up`")
    lock = data_dir.try_lock(folder)
    if lock is None:
        state = data_dir.read(folder / "up.json")
        if state is None:
            raise CannotStart(f"Carillon is starting or ending on {folder}: try again in a moment")
        yield json.loads(state)["migration_database_url"]
        return
    try:
        async with EmbeddedPostgres(folder, kept_open=[lock]) as postgres:
            yield postgres.url
    finally:
        os.close(lock)


async def _dump(url: str, write: Callable[[bytes], object], tell: Tell) -> None:
    process = await _run("pg_dump", url, "--format=custom", "--no-owner")
    assert process.stdout
    done = 0
    async with _ended(process, "PostgreSQL did not give its record"):
        while piece := await process.stdout.read(_PIECE):
            await asyncio.to_thread(write, piece)
            done += len(piece)
            tell(done, None)


# -- restore ---------------------------------------------------------------------------------------------------------


async def restore(file: Path, folder: Path, tell: Tell) -> Restored:
    """Make a data directory from a backup. What may have been sent since then is held (database/reconciliation.py)."""
    folder = folder.expanduser().resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CannotStart(f"{folder} holds something already: move it away, or name another --data-dir")
    unfinished = folder.with_name(f"{folder.name}.restoring")
    if unfinished.exists():
        raise CannotStart(f"{unfinished} is left of a restore that broke off: remove it")
    try:
        with zipfile.ZipFile(file) as archive:
            about = About.model_validate_json(archive.read(ABOUT))
            if about.format != FORMAT:
                raise CannotStart(f"{file} was made by another version of Carillon: restore it with that one")
            secret_key = archive.read(SECRET_KEY).decode() if SECRET_KEY in archive.namelist() else None
            make_data_dir(unfinished)
            try:
                held = await _fill(unfinished, archive, about.moment, tell)
                if secret_key:
                    data_dir.write(unfinished / SECRET_KEY, secret_key)
                unfinished.rename(folder)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    except (zipfile.BadZipFile, KeyError, ValueError):
        raise CannotStart(f"{file} is no backup of Carillon, or it is damaged") from None
    except OSError as error:
        raise CannotStart(f"{error.filename or file} can't be used: {error.strerror}") from None
    return Restored(about.moment, held, secret_key is not None)


async def _fill(folder: Path, archive: zipfile.ZipFile, moment: datetime, tell: Tell) -> list[Held]:
    async with EmbeddedPostgres(folder) as postgres:
        await _make_roles(postgres.url)
        total = archive.getinfo(RECORD).file_size
        process = await _run("pg_restore", postgres.url, "--no-owner", "--single-transaction", "--exit-on-error")
        assert process.stdin
        async with _ended(process, "PostgreSQL did not take the record"):
            with archive.open(RECORD) as record, suppress(BrokenPipeError, ConnectionResetError):
                done = 0
                while piece := await asyncio.to_thread(record.read, _PIECE):
                    process.stdin.write(piece)
                    await process.stdin.drain()
                    done += len(piece)
                    tell(done, total)
                process.stdin.close()
                await process.stdin.wait_closed()
        try:
            await asyncio.to_thread(migrate, postgres.url)
        except CommandError:
            raise CannotStart("The backup was made by a newer version of Carillon: restore it with that one") from None
        async with await psycopg.AsyncConnection.connect(postgres.url, autocommit=True) as connection:
            await connection.execute("ANALYZE")  # the planner must not take full tables for empty
        return await hold(postgres.url, f"The record was restored from a backup of {moment:%Y-%m-%d %H:%M:%S} UTC")


async def _make_roles(url: str) -> None:
    """Roles belong to the server, not to the database, and are in no dump of it."""
    async with await psycopg.AsyncConnection.connect(url) as connection:
        await connection.execute(f"CREATE ROLE {APPLICATION_ROLE} NOLOGIN")
        await connection.execute(f"GRANT {APPLICATION_ROLE} TO CURRENT_USER")


# -- what may have been sent since then --------------------------------------------------------------------------------


async def hold(url: str, what: str) -> list[Held]:
    """Hold what may have been sent after the moment of a record that was restored; nobody else may be at work on it."""
    reason = f"{what}: what was sent after that, it does not know."
    database = Database(url, pool_size=1)
    try:
        if others := await reconciliation.others_connected(database):
            raise CannotStart(f"{others} others are connected to the database: end every API and worker first")
        return await reconciliation.hold(database, reason, now=datetime.now(UTC))
    finally:
        await database.close()


async def reconcile(folder: Path) -> list[Held]:
    """`hold` for a data directory that was put back by other means, such as a snapshot of the disk."""
    async with _record_in(folder) as url:
        return await hold(url, EARLIER)


# -- PostgreSQL's own programs -----------------------------------------------------------------------------------------


async def _run(program: str, url: str, *options: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        postgres_binaries(postgres_identity()) / program,
        *options,
        f"--dbname={url}",
        stdin=subprocess.PIPE if program == "pg_restore" else subprocess.DEVNULL,
        stdout=subprocess.DEVNULL if program == "pg_restore" else subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
    )


@asynccontextmanager
async def _ended(process: asyncio.subprocess.Process, failed: str) -> AsyncIterator[None]:
    """The program has ended well behind the block; it never outlives it."""
    assert process.stderr
    complaints = asyncio.create_task(process.stderr.read())
    try:
        yield
        if await process.wait():
            last = (await complaints).decode(errors="replace").strip().splitlines()[-1:] or ["it did not say why"]
            raise CannotStart(f"{failed}: {last[0]}")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        complaints.cancel()
