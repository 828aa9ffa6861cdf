"""What `carillon up` keeps in its data directory beside its servers: keys, for our eyes only, and the lock."""

import asyncio
import fcntl
import os
from pathlib import Path
from time import monotonic

import psutil

from database.embedded import CannotStart


def write(file: Path, text: str) -> None:
    """All of it or nothing, for our eyes only."""
    unfinished = file.with_name(f"{file.name}.unfinished")
    unfinished.touch(0o600)
    with unfinished.open("w") as writing:
        writing.write(text)
        writing.flush()
        os.fsync(writing.fileno())
    unfinished.replace(file)


def read(file: Path) -> str | None:
    """What was written; None if nothing was."""
    return file.read_text() if file.exists() else None


def try_lock(data_dir: Path) -> int | None:
    """The lock, as `lock` gives it, if nobody holds it."""
    file = os.open(data_dir / "up.lock", os.O_RDWR | os.O_CREAT, 0o600)
    if _locked(file):
        return file
    os.close(file)
    return None


async def lock(data_dir: Path) -> int:
    """One tree per data directory. The watchdogs hold the lock too: those of a killed tree until it has ended.

    Returns:
        the open file: whoever has it open holds the lock.
    """
    file = os.open(data_dir / "up.lock", os.O_RDWR | os.O_CREAT, 0o600)
    deadline = monotonic() + 60
    while not _locked(file):
        holder = int(os.pread(file, 20, 0) or 0)
        if _lives(holder) or monotonic() > deadline:
            raise CannotStart(f"Carillon is up on {data_dir} already, as process {holder}")
        await asyncio.sleep(0.1)
    os.ftruncate(file, 0)
    os.pwrite(file, str(os.getpid()).encode(), 0)
    return file


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
