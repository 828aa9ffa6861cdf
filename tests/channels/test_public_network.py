"""Nobody has us connect to what is not for everybody: D11 of the faults that we are held against."""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, ip_address

import httpcore
import pytest
from httpcore import SOCKET_OPTION
from hypothesis import given
from hypothesis import strategies as st

from channels.public_network import Address, Blocked, PublicNetwork, is_public, networks
from channels.webhooks import WebhookCall, Webhooks
from tests.servers import said, serving


class Sockets(httpcore.AsyncMockBackend):
    """Opens none, and remembers what it was asked for."""

    def __init__(self) -> None:
        super().__init__([b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"])
        self.opened: list[str] = []

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - that is how httpcore calls it
        local_address: str | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        self.opened.append(host)
        return await super().connect_tcp(host, port, timeout, local_address, socket_options)


INWARD = [
    *("127.0.0.1", "127.255.255.254", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
    *("169.254.169.254", "100.64.0.1", "100.100.100.200", "168.63.129.16", "192.0.0.192", "198.18.0.1"),
    *("224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "192.0.2.1"),
    *("::", "::1", "fe80::1", "fe80::1%lo", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1"),
    # The same once more, within an address of IPv6: mapped, compatible, translated and tunnelled.
    *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe"),
    *("64:ff9b:1::7f00:1", "2002:7f00:1::", "2001:0:4136:e378:8000:63bf:80ff:fffe"),
]


@pytest.mark.parametrize("address", INWARD)
def test_an_address_that_is_not_for_everybody_is_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
)
def test_an_address_that_is_for_everybody_is_public(address: str) -> None:
    assert is_public(ip_address(address))


@given(st.integers(0, 2**32 - 1).map(IPv4Address))
def test_an_address_within_another_is_as_public_as_by_itself(address: IPv4Address) -> None:
    inner = int(address)
    mapped, translated = (ip_address(outer) for outer in (0xFFFF << 32 | inner, 0x64FF9B << 96 | inner))
    assert is_public(mapped) == is_public(translated) == is_public(address)


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.1", "0"),
        *("[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:127.0.0.1]"),
    ],
)
async def test_no_spelling_of_this_machine_opens_a_socket_to_it(host: str) -> None:
    sockets = Sockets()
    async with serving(said(200)) as server:
        with pytest.raises(Exception, match=r"can't be called|no host|no address"):
            await _post(PublicNetwork(sockets=sockets), f"http://{host}:{server.port}/")
        assert (sockets.opened, server.connections) == ([], 0)


async def test_a_name_that_answers_otherwise_the_second_time_is_asked_once_and_pinned() -> None:
    answers: list[Sequence[Address]] = [[ip_address("93.184.216.34")], [ip_address("127.0.0.1")]]

    async def ask(host: str, port: int) -> Sequence[Address]:
        return answers.pop(0)

    sockets = Sockets()
    await _post(PublicNetwork(ask=ask, sockets=sockets), "http://rebinding.test/")
    assert sockets.opened == ["93.184.216.34"]
    with pytest.raises(Blocked):  # and the next time it is looked at again
        await PublicNetwork(ask=lambda *_: ask("", 0), sockets=sockets).connect_tcp("rebinding.test", 80)
    assert sockets.opened == ["93.184.216.34"]


async def test_a_name_with_one_address_within_is_not_called_at_its_others() -> None:
    async def ask(host: str, port: int) -> Sequence[Address]:
        return [ip_address("93.184.216.34"), ip_address("10.0.0.1")]

    sockets = Sockets()
    with pytest.raises(Blocked, match=r"10\.0\.0\.1"):
        await PublicNetwork(ask=ask, sockets=sockets).connect_tcp("both.test", 443)
    assert sockets.opened == []


async def test_a_network_that_an_operator_allows_is_reached_and_no_other() -> None:
    network = PublicNetwork(networks(" 127.0.0.1, 10.0.0.0/8"))
    async with serving(said(200)) as server:
        await _post(network, server.url)
        assert server.connections == 1
    with pytest.raises(Blocked):
        await network.connect_tcp("127.0.0.2", 80)


async def test_the_next_address_is_tried_where_the_first_does_not_answer() -> None:
    async def ask(host: str, port: int) -> Sequence[Address]:
        return [ip_address("127.0.0.2"), ip_address("127.0.0.1")]

    async with serving(said(200)) as server:
        await _post(PublicNetwork(networks("127.0.0.0/8"), ask=ask), f"http://two.test:{server.port}/")
        assert server.connections == 1


async def _post(network: PublicNetwork, url: str) -> None:
    webhooks = Webhooks(network)
    try:
        await webhooks.call(WebhookCall("a-0", url, b"{}"), b"secret")
    finally:
        await webhooks.close()
