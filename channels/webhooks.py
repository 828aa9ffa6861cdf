"""Calls that an author has us make to a server of their choice: signed, bounded, and to public addresses only."""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import time

import httpcore
import httpx

from channels.base import Rejected, Unavailable
from channels.public_network import Blocked, PublicNetwork
from marketing.webhooks import signed

LONGEST_ANSWER = 64 * 1024
_QUOTED = 200  # characters of an answer that people are shown
# Later may be better: too slow, too early, too many (RFC 9110, 8470, 6585).
_LATER = frozenset({408, 425, 429})
# Ports that web servers have. What else a public host listens on below 1,024 is not meant for us.
_WEB = frozenset({80, 443})
# What the connection and the seal decide.
_OURS = frozenset(
    {
        *("host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "expect"),
        *("user-agent", "accept-encoding"),
    }
)
_NAME, _VALUE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}"), re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")


@dataclass(frozen=True, slots=True)
class WebhookCall:
    """One call. `id` is the same whenever it is repeated."""

    id: str
    url: str
    body: bytes
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server said that took the call (2xx); `body` is cut at 64 KiB."""

    status: int
    body: bytes


class Webhooks:
    """Makes calls, over connections that it keeps for a while.

    Args:
        network: opens the sockets.
        timeout: seconds for one call, from the question for the host's address to the end of the answer.
        connections: at once.
    """

    def __init__(self, network: PublicNetwork | None = None, *, timeout: float = 10.0, connections: int = 50) -> None:
        self.timeout = timeout
        self.connections = connections
        self._pool = httpcore.AsyncConnectionPool(
            max_connections=connections,
            keepalive_expiry=15.0,
            network_backend=network or PublicNetwork(),
        )
        self._turns = asyncio.Semaphore(connections)

    async def call(self, call: WebhookCall, secret: bytes) -> Reply:
        """Make a call. Safe to call concurrently; a call waits for its turn, and its time begins then.

        Raises:
            Rejected: never again: not an address for us, or the server said so (3xx, 4xx).
            Unavailable: later, perhaps (no answer, 408, 425, 429, 5xx).
        """
        url = checked(call.url)
        headers = {
            "host": url.netloc.decode("ascii"),
            "user-agent": "Carillon",
            "accept-encoding": "identity",
            "content-type": "application/json",
            **_checked_headers(call.headers),
        }
        target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        async with self._turns:
            sealed = {**headers, **signed(secret, call.id, int(time()), call.body)}
            try:
                async with asyncio.timeout(self.timeout):
                    return await self._exchange(call, target, sealed)
            except Blocked as error:
                raise Rejected(f"This address can't be called: {error}.") from error
            except TimeoutError as error:
                raise Unavailable(f"{url.host} has not answered within {self.timeout:g} s.") from error
            except httpcore.LocalProtocolError as error:
                raise Rejected(f"This can't be sent: {error}") from error
            except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError) as error:
                why = str(error) or type(error).__name__
                raise Unavailable(f"{url.host} can't be reached: {why}") from error

    async def close(self) -> None:
        await self._pool.aclose()

    async def _exchange(self, call: WebhookCall, url: httpcore.URL, headers: Mapping[str, str]) -> Reply:
        # Redirects are not followed: what is signed for one server is not for another.
        async with self._pool.stream(call.method, url, headers=list(headers.items()), content=call.body) as response:
            read = bytearray()
            async for chunk in response.aiter_stream():
                read += chunk
                if len(read) >= LONGEST_ANSWER:
                    break
            body = bytes(read[:LONGEST_ANSWER])
        if 200 <= response.status < 300:
            return Reply(response.status, body)
        said = f"{response.status} {body[:_QUOTED].decode(errors='replace').strip()}".strip()
        if 300 <= response.status < 400:
            raise Rejected(f"{said}: redirects are not followed, give the address where it leads.")
        if response.status in _LATER or response.status >= 500:
            raise Unavailable(said)
        raise Rejected(said)


def checked(text: str) -> httpx.URL:
    """An address that may be called, as far as can be told from how it is written.

    Raises:
        Rejected: it may not.
    """
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, UnicodeError) as error:
        raise Rejected(f"This is no address: {error}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise Rejected("Give an address with http:// or https://.")
    if url.userinfo:
        raise Rejected("Give no password in the address; a header is the place for it.")
    if url.port is not None and url.port not in _WEB and not 1024 <= url.port < 65_536:
        raise Rejected("Give an address on port 80, 443 or any from 1024 on.")
    return url


def _checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if name.lower() in _OURS or name.lower().startswith("webhook-"):
            raise Rejected(f"The header {name} is set by Carillon.")
        if not (_NAME.fullmatch(name) and _VALUE.fullmatch(value)):
            raise Rejected(f"The header {name[:100]!r} can't be sent: names and values are printable ASCII.")
    return {name.lower(): value for name, value in headers.items()}
