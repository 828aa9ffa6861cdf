"""How fast could mail leave this machine at best? Ready-made messages down the same connections, and nothing else."""

import asyncio
import multiprocessing
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import repeat
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from time import monotonic
from typing import cast
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import aiosmtplib
import uvloop

from activities.messages import Composer
from bench.letter import content
from channels.mime import Letter, write
from channels.smtp_exchange import Exchange
from database.eligibility import CONTACT_COLUMNS
from marketing.campaigns import EmailPlan
from marketing.content import prepare
from marketing.tracking import RecipientLinks, Tokens

TIMEOUT_SECONDS = 30.0


def messages_per_second(url: str, messages: int, *, processes: int, connections: int) -> float:
    """`messages` letters like the campaign's over `connections` connections of each process."""
    spawn = multiprocessing.get_context("spawn")  # a fork would inherit our event loop
    ready = spawn.Barrier(processes, timeout=120)
    lines = [spawn.Pipe(duplex=False) for _ in range(processes)]
    pushers = [
        spawn.Process(target=_push, args=(url, connections, messages // processes, ready, told), daemon=True)
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


def _push(url: str, connections: int, messages: int, ready: Barrier, told: Connection) -> None:
    letters = ready_made(messages)
    ready.wait()
    began = monotonic()  # the same clock in every process
    uvloop.run(_push_all(url, connections, iter(letters)))
    told.send((began, monotonic()))


async def _push_all(url: str, connections: int, letters: Iterator[Letter]) -> None:
    await asyncio.gather(*(_carry(url, letters) for _ in range(connections)))


async def _carry(url: str, letters: Iterator[Letter]) -> None:
    relay = urlsplit(url)
    client = aiosmtplib.SMTP(hostname=relay.hostname, port=relay.port, timeout=TIMEOUT_SECONDS)
    await client.connect()
    await client.ehlo()
    connection = Exchange(cast(asyncio.Transport, client.transport), client.esmtp_extensions, TIMEOUT_SECONDS)
    for letter in letters:  # shared by all connections of the process
        await connection.carry(letter, lambda: None)
    await connection.quit()


def ready_made(count: int) -> list[Letter]:
    """Letters as the campaign's are."""
    written = content()
    plan = EmailPlan(
        prepared=prepare(written),
        from_name=written.from_name,
        from_email=written.from_email,
        reply_to=None,
        account={},
        campaign={},
    )
    links = RecipientLinks("http://127.0.0.1:8000", Tokens(b"a key for messages that nobody reads"))
    composer = Composer(uuid4(), uuid4(), plan, links)
    now = datetime.now(UTC)
    return [write(composer.message(uuid4(), contact, now), int(now.timestamp())) for contact in repeat(_CONTACT, count)]


_CONTACT = dict.fromkeys(CONTACT_COLUMNS) | {
    "id": UUID(int=0),
    "email": "person-12345@example.org",
    "first_name": "Person 12345",
    "attributes": {"city": "Town 45", "plan": "yearly"},
    "tags": ["bench"],
}
