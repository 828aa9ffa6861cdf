"""How fast could mail leave this machine at best? Ready-made messages by the same channel, and nothing else."""

import asyncio
import multiprocessing
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import repeat
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from time import monotonic, time
from uuid import UUID, uuid4

import uvloop

from bench import letter
from channels.base import Message, Receipt
from channels.mime import Letter, write
from channels.smtp import SmtpChannel
from database.eligibility import CONTACT_COLUMNS

TIMEOUT_SECONDS = 30.0
WAITING = 4  # letters for each connection


def messages_per_second(url: str, messages: int, *, processes: int, connections: int, as_bytes: bool = False) -> float:
    """`messages` like the campaign's, rendered before, over `connections` connections of each process.

    `as_bytes`: even their MIME is written before, so that nothing is left but the wire.
    """
    spawn = multiprocessing.get_context("spawn")  # a fork would inherit our event loop
    ready = spawn.Barrier(processes, timeout=120)
    lines = [spawn.Pipe(duplex=False) for _ in range(processes)]
    pushers = [
        spawn.Process(target=_push, args=(url, connections, messages // processes, as_bytes, ready, told), daemon=True)
        for _, told in lines
    ]
    for pusher in pushers:
        pusher.start()
    try:
        times: list[tuple[float, float]] = []
        for line, _ in lines:
            if not line.poll(240):
                raise TimeoutError("the ready-made messages did not leave within 4 minutes")
            times.append(line.recv())
    finally:
        for pusher in pushers:
            pusher.terminate()
            pusher.join()
    began, ended = min(start for start, _ in times), max(end for _, end in times)
    return messages / (ended - began)


def _push(url: str, connections: int, messages: int, as_bytes: bool, ready: Barrier, told: Connection) -> None:
    rendered = ready_made(messages)
    written = [write(message, int(time())) for message in rendered] if as_bytes else []
    ready.wait()
    began = monotonic()  # the same clock in every process
    uvloop.run(_push_all(url, connections, written or rendered))
    told.send((began, monotonic()))


async def _push_all(url: str, connections: int, ready: Sequence[Message | Letter]) -> None:
    """As many on their way as keep every connection busy; each that has arrived is followed by another."""
    channel = SmtpChannel(url, connections=connections, timeout=TIMEOUT_SECONDS)
    left, rest = len(ready), iter(ready)
    arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def follow() -> None:
        if (one := next(rest, None)) is not None:
            answer = channel.post(one) if isinstance(one, Letter) else channel.send(one)
            answer.add_done_callback(count)

    def count(answer: asyncio.Future[Receipt]) -> None:
        nonlocal left
        left -= 1
        if error := answer.exception():
            arrived.set_exception(error)
        elif not left:
            arrived.set_result(None)
        follow()

    for _ in range(WAITING * connections):
        follow()
    await arrived
    await channel.close()


def ready_made(count: int) -> list[Message]:
    """Messages as the campaign's are."""
    composer = letter.composer(uuid4())
    now = datetime.now(UTC)
    return [composer.message(uuid4(), contact, now) for contact in repeat(_CONTACT, count)]


_CONTACT = dict.fromkeys(CONTACT_COLUMNS) | {
    "id": UUID(int=0),
    "email": "person-12345@example.org",
    "first_name": "Person 12345",
    "attributes": {"city": "Town 45", "plan": "yearly"},
    "tags": ["bench"],
}
