"""Which addresses may be reached for somebody who only gave us a name? Decided where the socket is opened.

A name is resolved once, and what it was resolved to is what is connected to. So a name that answers otherwise the next
time, and an address in decimal, in hexadecimal or within another one, all come down to the address of a socket.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import httpcore
from httpcore import SOCKET_OPTION

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# An IPv4 address as a gateway between the two spells it (RFC 6052).
_GATEWAY = IPv6Network("64:ff9b::/96")
# What IPv6 has for everybody, less the tunnels that have an IPv4 address inside (RFC 7526).
_UNICAST, _TUNNELS = IPv6Network("2000::/3"), IPv6Network("2002::/16")
# Public to look at, but a cloud's own: for protocols (RFC 6890), and of the machines of Azure.
_INWARD = (IPv4Network("192.0.0.0/24"), IPv4Network("168.63.129.16/32"))


class Blocked(Exception):
    """This address is not for everybody."""


def networks(text: str) -> list[Network]:
    """Addresses and networks, with commas.

    Raises:
        ValueError: one of them is neither.
    """
    return [ip_network(each.strip()) for each in text.split(",") if each.strip()]


def is_public(address: Address) -> bool:
    """May anybody on the internet reach it?"""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in _GATEWAY:
            return is_public(IPv4Address(int(address) & 0xFFFF_FFFF))
        return address in _UNICAST and address not in _TUNNELS and address.is_global and not address.is_multicast
    return address.is_global and not address.is_multicast and not any(address in each for each in _INWARD)


Resolve = Callable[[str, int], Awaitable[Sequence[Address]]]


async def resolve(host: str, port: int) -> Sequence[Address]:
    """What the system makes of a name, or of any spelling of an address.

    Raises:
        OSError: there is no such host.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(ip_address(str(each[4][0])) for each in found))


class PublicNetwork(httpcore.AsyncNetworkBackend):
    """Opens sockets to public addresses, and to those that an operator allows.

    Args:
        allow: networks that may be reached though they are not public.
        ask: resolves names.
        sockets: opens them.
    """

    def __init__(
        self,
        allow: Iterable[Network] = (),
        *,
        ask: Resolve = resolve,
        sockets: httpcore.AsyncNetworkBackend | None = None,
    ) -> None:
        self._allow = tuple(allow)
        self._ask = ask
        self._sockets = sockets or httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - that is how httpcore calls it
        local_address: str | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """To the first of the host's addresses that answers.

        Raises:
            Blocked: one of its addresses is not for everybody: then none of them is tried.
        """
        try:
            found = await self._ask(host, port)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"There is no host {host}.") from error
        for address in found:
            if not self._allowed(address):
                raise Blocked(f"{host} is {address}, which is not for everybody")
        failed: Exception = httpcore.ConnectError(f"There is no host {host}.")
        for address in found:
            try:
                return await self._sockets.connect_tcp(str(address), port, timeout, local_address, socket_options)
            except httpcore.ConnectError as error:
                failed = error
        raise failed

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def _allowed(self, address: Address) -> bool:
        return is_public(address) or any(address in each for each in self._allow)
