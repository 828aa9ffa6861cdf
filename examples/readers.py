"""What do people, and a machine, do with the messages that arrived? They have the messages and nothing else."""

import asyncio
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import httpx

from examples.inbox import Letter

BROWSER = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0"}
SCANNER = {"User-Agent": "ExampleMailGateway-LinkScanner/2.1 (bot)"}


@dataclass
class Readers:
    """Counts what was done, as it is done."""

    opened: int = 0
    clicked: int = 0
    scanned: int = 0
    unsubscribed: int = 0
    clickers: set[str] = field(default_factory=set)  # their addresses
    leavers: set[str] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        self.http = httpx.AsyncClient(headers=BROWSER, timeout=30)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.http.aclose()

    async def open(self, letter: Letter) -> None:
        """Their mail program loads the pictures."""
        answer = await self.http.get(letter.pixel)
        self.opened += answer.headers.get("content-type") == "image/gif"

    async def click(self, letter: Letter, number: int) -> str:
        """They follow a link; where it leads to."""
        answer = await self.http.get(letter.links[number])
        self.clicked += answer.status_code == 302
        self.clickers.add(letter.recipient)
        return str(answer.headers["location"])

    async def scan(self, letter: Letter) -> None:
        """A mail gateway looks where a link leads, before anybody reads the message."""
        answer = await self.http.head(letter.links[0], headers=SCANNER)
        self.scanned += answer.status_code == 302

    async def unsubscribe(self, letter: Letter) -> None:
        """Their mail program's own button (RFC 8058)."""
        answer = await self.http.post(letter.unsubscribe, data={"List-Unsubscribe": "One-Click"})
        self.unsubscribed += answer.status_code == 200
        self.leavers.add(letter.recipient)

    async def read(self, letters: list[Letter]) -> set[str]:
        """All open, every second one clicks, every fourth one leaves, one gateway scans. Where the clicks led to."""
        await asyncio.gather(*(self.open(letter) for letter in letters))
        clicking = letters[::2]
        led_to = await asyncio.gather(
            *(self.click(letter, number % len(letter.links)) for number, letter in enumerate(clicking))
        )
        await asyncio.gather(*(self.unsubscribe(letter) for letter in letters[::4]))
        await self.scan(letters[1])
        return set(led_to)
