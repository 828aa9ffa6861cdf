"""What every case stands on: a stack as people start it, a mail server that is the witness, and a seed."""

import asyncio
import os
import secrets
import signal
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from time import monotonic
from typing import Any

import httpx
import psutil

from channels.sink import Received, Sink
from tests.up import Up, folder

# Connections of a worker, and how many `deliver` run at once for one campaign with how many messages in hand each.
CONNECTIONS = 20
UNDER_WAY = 4 * 50
WORKERS = ("worker 1", "worker 2")
OVER = ("completed", "cancelled", "failed")

Answer = dict[str, Any]


@dataclass(frozen=True)
class Scale:
    """How much of everything."""

    messages: int
    messages_in_passing: int  # where the damage needs no time
    rate: int | None  # messages per second that the relay bears at the most, so that damage falls into the middle
    rate_for_long_damage: int | None
    outage_seconds: float
    measure_seconds: int  # for a rate
    lease_seconds: int
    patience_seconds: int  # with one case


SMALL = Scale(
    messages=8_000,
    messages_in_passing=2_000,
    rate=1_000,
    rate_for_long_damage=250,
    outage_seconds=20,  # longer than a turn of `deliver`: Temporal is missed
    measure_seconds=5,
    lease_seconds=10,
    patience_seconds=240,
)
FULL = Scale(
    messages=100_000,
    messages_in_passing=100_000,
    rate=None,
    rate_for_long_damage=None,
    outage_seconds=60,
    measure_seconds=60,
    lease_seconds=60,
    patience_seconds=900,
)


class Witness(Sink):
    """The mail server. What it received is the truth; people of one case are told by how their addresses begin."""

    def __init__(self) -> None:
        super().__init__(keep=1)
        self.by_group: defaultdict[str, list[Received]] = defaultdict(list)
        self.letters: dict[str, bytes] = {}  # the last to each of those
        self.letters_to: set[str] = set()

    def take(self, recipient: str, content: bytes) -> None:
        super().take(recipient, content)
        self.by_group[recipient.partition("-")[0]].append(self.received[-1])
        if recipient in self.letters_to:
            self.letters[recipient] = content


class Ground:
    """One stack, on which case after case does its damage."""

    def __init__(self, up: Up, sink: Witness, http: httpx.AsyncClient, scale: Scale) -> None:
        self.up = up
        self.sink = sink
        self.http = http
        self.scale = scale
        self.chance = Random()

    def start_over(self, chance: Random) -> None:
        """For the next case: chance begins anew, and the mail server behaves."""
        self.chance = chance
        self.sink.policy = None
        self.sink.delay = 0.0

    # -- the damage --------------------------------------------------------------------------------------------------

    def pid(self, program: str) -> int:
        found: int = self.up.state["programs"][program]
        return found

    def hit(self, program: str, how: signal.Signals) -> None:
        """Send a signal to a program and all that it started."""
        family = psutil.Process(self.pid(program))
        for process in (*family.children(recursive=True), family):
            os.kill(process.pid, how)

    async def freeze_in_the_act(self) -> tuple[str, set[str]]:
        """SIGSTOP a worker of which the mail server has messages that it has not acknowledged.

        Returns:
            the worker, and for whom these messages are. If both have some, chance has chosen one of them.
        """
        first = self.chance.choice(WORKERS)
        await self.sink.next_arrival()  # from here to the signal nothing else is done: none of them is acknowledged
        for worker in sorted(WORKERS, key=lambda each: each != first):
            ports = {each.laddr.port for each in psutil.Process(self.pid(worker)).net_connections("tcp")}
            if taken := {to for port, to in self.sink.unanswered.items() if port in ports}:
                self.hit(worker, signal.SIGSTOP)
                return worker, taken
        raise AssertionError("the mail server acknowledges at once, or has its messages from somebody else")

    async def kill(self, program: str) -> float:
        """kill -9, and wait until `carillon up` has brought it back; how many seconds that took."""
        os.kill(self.pid(program), signal.SIGKILL)
        began = monotonic()
        await self.hear(f"{program} is up again")
        return monotonic() - began

    async def hear(self, words: str) -> None:
        """Wait until `carillon up` says so."""
        await asyncio.to_thread(self.up.hear, words)

    async def freeze(self, program: str, seconds: float) -> bool:
        """Let a program stand still for so long. True if nothing arrived in the last second: it was missed."""
        self.hit(program, signal.SIGSTOP)
        try:
            await self.lasts(seconds - 1)
            before = self.sink.count
            await self.lasts(1)
            return self.sink.count == before
        finally:
            self.hit(program, signal.SIGCONT)

    async def lasts(self, seconds: float) -> None:
        """The damage takes its time, or silence is listened to for so long."""
        await asyncio.sleep(seconds)

    def moments(self, count: int, messages: int) -> list[int]:
        """When to strike: after how many messages; spread by chance over the first four fifths."""
        return sorted(self.chance.sample(range(messages // 20, messages * 4 // 5), count))

    def slow_down(self, rate: int | None, workers: int = len(WORKERS)) -> None:
        """Make the mail server take no more than so many messages per second; None: as fast as it can."""
        self.sink.delay = workers * CONNECTIONS / rate if rate else 0.0

    # -- the API -----------------------------------------------------------------------------------------------------

    async def ask(self, method: str, path: str, **request: Any) -> Answer:
        answer = await self.http.request(method, path, **request)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        found: Answer = answer.json()
        return found

    async def pages(self, path: str, asked: dict[str, str]) -> AsyncIterator[Answer]:
        """Everything of a list."""
        page: Answer = {"next_cursor": ""}
        while (cursor := page["next_cursor"]) is not None:
            params = {**asked, "limit": "200"} | ({"cursor": cursor} if cursor else {})
            page = await self.ask("GET", path, params=params)
            for each in page["items"]:
                yield each

    async def looks(self, path: str) -> AsyncIterator[Answer]:
        """The same question again and again, also while nobody is there to answer it."""
        give_up = monotonic() + self.scale.patience_seconds
        while True:
            try:
                answer = await self.http.get(path)
                if answer.is_success:
                    yield answer.json()
                else:
                    assert answer.status_code == 503, f"{path}: {answer.status_code} {answer.text}"
            except httpx.TransportError:
                pass
            assert monotonic() < give_up, f"{path} has not come to an end"
            await asyncio.sleep(0.1)


@asynccontextmanager
async def ground(scale: Scale, *, workers: int = len(WORKERS)) -> AsyncIterator[Ground]:
    """`carillon up` in a fresh folder, and its mail server, until the block ends."""
    key = f"car_{secrets.token_urlsafe(24)}"
    with folder() as data_dir:
        async with Witness() as sink:
            env = {
                "CARILLON_API_KEY": key,
                "CARILLON_SMTP_URL": sink.url,
                "CARILLON_SMTP_CONNECTIONS": str(CONNECTIONS),
                "CARILLON_SMTP_TIMEOUT_SECONDS": "5",
                "CARILLON_LEASE_SECONDS": str(scale.lease_seconds),
            }
            starting = asyncio.create_task(asyncio.to_thread(lambda: Up(data_dir, "--workers", str(workers), **env)))
            try:
                up = await asyncio.shield(starting)
                async with client(up.state["api_url"], key) as http:
                    it = Ground(up, sink, http, scale)
                    account = {"name": "Example Outfitters", "sender_domains": ["example.com"]}
                    address = {"postal_address": "1 Example Street, Paris", "error_threshold": 0.2}
                    await it.ask("PUT", "/api/account", json=account | address)
                    yield it
            finally:  # in a thread: until it has ended, it may have mail for the witness
                await asyncio.to_thread((await starting).__exit__)


def client(url: str, key: str) -> httpx.AsyncClient:
    """Uses no connection that the API may be about to close, as it does after five idle seconds."""
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.AsyncClient(base_url=url, headers=headers, timeout=60, limits=httpx.Limits(keepalive_expiry=2))
