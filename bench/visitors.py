"""A crowd that visits a server over HTTP from a process of its own: how fast are its answers, and how many come?"""

import asyncio
import multiprocessing
import re
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from statistics import quantiles
from time import monotonic
from typing import cast

import uvloop

CONNECTIONS = 512  # a crowd: a slow answer holds up nobody else
PATIENCE_SECONDS = 120.0
LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)


@dataclass(frozen=True)
class Visits:
    """What the crowd saw."""

    statuses: Counter[int]
    per_second: float
    p50: float  # milliseconds, from the moment at which a visit was due
    p99: float


def visit(port: int, requests: Sequence[bytes], *, rate: float | None = None, connections: int = CONNECTIONS) -> Visits:
    """Send the requests to 127.0.0.1: `rate` of them per second, or each as soon as a connection is free.

    Raises:
        TimeoutError: they were not all answered within two minutes.
    """
    spawn = multiprocessing.get_context("spawn")  # a fork would inherit our event loop
    line, told = spawn.Pipe(duplex=False)
    crowd = spawn.Process(target=_visit, args=(port, requests, rate, connections, told), daemon=True)
    crowd.start()
    told.close()  # ours: so that we hear of its end
    try:
        if not line.poll(PATIENCE_SECONDS):
            raise TimeoutError("the visitors were not all answered within two minutes")
        seen: Visits = line.recv()
    finally:
        crowd.terminate()
        crowd.join()
    return seen


def _visit(port: int, requests: Sequence[bytes], rate: float | None, connections: int, told: Connection) -> None:
    told.send(uvloop.run(Crowd(port, requests, rate, connections).go()))


class Crowd:
    """Visitors over connections that stay open, with one request at a time on each.

    A visit that is due while all are busy waits, and its time runs: a slow server is not asked less often.
    """

    def __init__(self, port: int, requests: Sequence[bytes], rate: float | None, connections: int) -> None:
        self._port = port
        self._requests = requests
        self._rate = rate
        self._connections = connections
        self._asked = 0
        self._free: deque[Visitor] = deque()  # they take turns: the server closes what is idle for 5 s
        self._late: deque[float] = deque()  # when they were due
        self._took: list[float] = []
        self._statuses: Counter[int] = Counter()

    async def go(self) -> Visits:
        loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = loop.create_future()
        for _ in range(self._connections):
            await loop.create_connection(lambda: Visitor(self), "127.0.0.1", self._port)
        self._began = monotonic()
        if self._rate:
            self._send_what_is_due()
        else:
            for visitor in list(self._free)[: len(self._requests)]:
                self._send(visitor, self._began)
        await self._over
        seconds, percentiles = monotonic() - self._began, quantiles(self._took, n=100)
        return Visits(self._statuses, len(self._took) / seconds, 1000 * percentiles[49], 1000 * percentiles[98])

    def _send_what_is_due(self) -> None:
        assert self._rate
        due_by_now = min(int((monotonic() - self._began) * self._rate) + 1, len(self._requests))
        for number in range(self._asked + len(self._late), due_by_now):
            due = self._began + number / self._rate
            if self._free:
                self._send(self._free.popleft(), due)
            else:
                self._late.append(due)
        if due_by_now < len(self._requests):
            asyncio.get_running_loop().call_later(0.001, self._send_what_is_due)

    def _send(self, visitor: "Visitor", due: float) -> None:
        visitor.ask(self._requests[self._asked], due)
        self._asked += 1

    def is_free(self, visitor: "Visitor") -> None:
        if self._late:
            self._send(visitor, self._late.popleft())
        else:
            self._free.append(visitor)

    def answered(self, visitor: "Visitor", status: int, due: float) -> None:
        now = monotonic()
        self._took.append(now - due)
        self._statuses[status] += 1
        if len(self._took) == len(self._requests):
            self._over.set_result(None)
        elif self._rate:
            self.is_free(visitor)
        elif self._asked < len(self._requests):
            self._send(visitor, now)

    def lost(self, error: Exception | None) -> None:
        if not self._over.done():
            self._over.set_exception(error or ConnectionResetError("the server closed a connection"))


class Visitor(asyncio.Protocol):
    """One connection."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._answer = b""
        self._due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # of uvloop, which does not say so
        self._crowd.is_free(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._crowd.lost(error)

    def ask(self, request: bytes, due: float) -> None:
        self._due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, end, body = self._answer.partition(b"\r\n\r\n")
        length = LENGTH.search(head + b"\r\n")
        if end and len(body) == (int(length[1]) if length else 0):
            self._answer = b""
            self._crowd.answered(self, int(head[9:12]), self._due)
