"""The mail server that takes what the benchmarks send: postfix's smtp-sink where there is one, else our own."""

import os
import shutil
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from channels.sink import run_sink
from local_stack import Part, free_port
from programs import Program

CONNECTIONS = "1000"  # that smtp-sink lets wait


class Relay(Part):
    """A process of its own, as a relay would be."""

    def __init__(self, kind: str, logs: Path) -> None:
        self.kind = kind
        self.port = free_port()
        self.program = Program(kind, logs / "sink.log")

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    async def start(self) -> None:
        await self.program.start(self._command())
        await self.program.until(self._listens, within_seconds=10)

    def _command(self) -> Sequence[str]:
        if self.kind == "smtp-sink":
            other_user = ["-u", "nobody"] if os.geteuid() == 0 else []
            return ["smtp-sink", *other_user, f"127.0.0.1:{self.port}", CONNECTIONS]
        return [sys.executable, "-m", "bench.relay", str(self.port)]

    async def _listens(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False


def best_kind() -> str:
    return "smtp-sink" if shutil.which("smtp-sink") else "channels.sink"


if __name__ == "__main__":
    run_sink(port=int(sys.argv[1]))
