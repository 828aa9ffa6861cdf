"""How does the demo ask Carillon? Over HTTP, as anybody does."""

import asyncio
from collections.abc import AsyncIterator
from time import monotonic
from types import TracebackType
from typing import Any, Self

import httpx

LOOK_EVERY_SECONDS = 0.1
PATIENCE_SECONDS = 90  # for an import, or for a campaign

Answer = dict[str, Any]


class WentWrong(Exception):
    """The story can't go on."""


class Client:
    """The control API."""

    def __init__(self, url: str, key: str) -> None:
        self.http = httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=30)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.http.aclose()

    async def fetch(self, method: str, path: str, **request: Any) -> httpx.Response:
        try:
            answer = await self.http.request(method, path, **request)
        except httpx.TransportError as error:
            raise WentWrong(f"{method} {path} was not answered: {error!r}") from error
        if answer.is_error:
            raise WentWrong(f"{method} {path} answered {answer.status_code}: {answer.text}")
        return answer

    async def call(self, method: str, path: str, **request: Any) -> Answer:
        answer: Answer = (await self.fetch(method, path, **request)).json()
        return answer

    async def looks(self, path: str) -> AsyncIterator[Answer]:
        """The same question again and again, for whoever waits for a certain answer."""
        give_up = monotonic() + PATIENCE_SECONDS
        while monotonic() < give_up:
            yield await self.call("GET", path)
            await asyncio.sleep(LOOK_EVERY_SECONDS)
        raise WentWrong(f"{path} has not come to an end within {PATIENCE_SECONDS} s")

    async def recipients(self, path: str, state: str) -> list[Answer]:
        """Those of a campaign whose message is in this state."""
        found: list[Answer] = []
        asked = {"state": state, "limit": "200"}
        while True:
            page = await self.call("GET", f"{path}/recipients", params=asked)
            found += page["items"]
            if page["next_cursor"] is None:
                return found
            asked["cursor"] = page["next_cursor"]
