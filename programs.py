"""A program that we start, watch and stop; it ends with us, however we end."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from database.embedded import CannotStart, Identity

# Ends a program after us: the pipe closes when we die, even of SIGKILL; one line in it means that all is well.
# PR_SET_PDEATHSIG would do on Linux alone, and follows the thread that forked instead of the process.
WATCHDOG = """
read -r _ && exit
kill -TERM "$1"
waited=0
while [ $waited -lt 45 ]; do kill -0 "$1" || exit; sleep 1; waited=$((waited + 1)); done
kill -KILL "$1"
"""


class EndedEarly(CannotStart):
    """A program ended before it was ready."""


@dataclass
class Program:
    """A child process in a session of its own: Ctrl-C reaches us alone, and we choose the order in which things end."""

    name: str
    log: Path
    stop_signals: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGKILL)
    patience_seconds: float = 40.0  # A worker takes up to 30 s to finish what it has in hand.
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
                umask=0o077,
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
        began = monotonic()
        try:
            async with asyncio.timeout(within_seconds):
                while not await ready():
                    if not self.pid:
                        raise EndedEarly(f"{self.name} ended while starting: {self.last_words()} (see {self.log})")
                    # What takes long is known a tenth later: to ask more often would take the time that it starts in.
                    await asyncio.sleep(max(0.03, (monotonic() - began) / 10))
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
