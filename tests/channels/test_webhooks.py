"""Calls to other people's servers: signed, bounded, and truthful about what became of them."""

import asyncio
import hmac
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from dataclasses import replace
from hashlib import sha256
from uuid import UUID

import pytest

from channels.base import Rejected, Unavailable
from channels.public_network import PublicNetwork, networks
from channels.webhooks import LONGEST_ANSWER, WebhookCall, Webhooks
from marketing.webhooks import WebhookSecrets, call_id, signed
from tests.servers import Request, said, serving

SECRET = b"a secret of 32 bytes, or nearly."
CALL = WebhookCall("a-0", "http://unset.test", b'{"a":1}')


@pytest.fixture
async def webhooks() -> AsyncIterator[Webhooks]:
    webhooks = Webhooks(PublicNetwork(networks("127.0.0.0/8")), timeout=5)
    yield webhooks
    await webhooks.close()


async def test_a_call_carries_its_body_and_a_seal_that_its_receiver_can_check(webhooks: Webhooks) -> None:
    async with serving(said(201, b'{"took": true}')) as server:
        reply = await webhooks.call(replace(CALL, url=f"{server.url}/in?a=1", headers={"X-Key": "k"}), SECRET)
    (request,) = server.requests
    assert (reply.status, reply.body) == (201, b'{"took": true}')
    assert (request.method, request.target, request.body) == ("POST", "/in?a=1", b'{"a":1}')
    assert request.headers["x-key"] == "k" and request.headers["content-type"] == "application/json"
    sealed = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode() + request.body
    expected = b64encode(hmac.new(SECRET, sealed, sha256).digest()).decode()
    assert request.headers["webhook-id"] == "a-0"
    assert request.headers["webhook-signature"] == f"v1,{expected}"


def test_the_seal_is_the_one_of_standard_webhooks() -> None:
    """The worked example of https://www.standardwebhooks.com's verifiers."""
    secret = b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = signed(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_each_account_has_a_secret_of_its_own_and_each_step_of_each_pass_an_id() -> None:
    secrets, one, other = WebhookSecrets(b"k" * 32), UUID(int=1), UUID(int=2)
    assert len({secrets.of(one), secrets.of(other), WebhookSecrets(b"l" * 32).of(one)}) == 3
    assert secrets.of(one) == WebhookSecrets(b"k" * 32).of(one) == b64decode(secrets.spelled(one)[len("whsec_") :])
    assert len({call_id(one, 0), call_id(one, 1), call_id(other, 0)}) == 3


@pytest.mark.parametrize("status", [400, 401, 404, 410, 422])
async def test_what_a_server_refuses_is_not_tried_again(status: int, webhooks: Webhooks) -> None:
    async with serving(said(status, b"no such list")) as server:
        with pytest.raises(Rejected, match=f"{status} no such list"):
            await webhooks.call(replace(CALL, url=server.url), SECRET)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503])
async def test_what_a_server_cannot_take_now_may_be_tried_later(status: int, webhooks: Webhooks) -> None:
    async with serving(said(status)) as server:
        with pytest.raises(Unavailable, match=str(status)):
            await webhooks.call(replace(CALL, url=server.url), SECRET)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(status: int, webhooks: Webhooks) -> None:
    async with (
        serving(said(200)) as metadata,
        serving(said(status, location=f"{metadata.url}/latest/meta-data")) as server,
    ):
        with pytest.raises(Rejected, match="redirects"):
            await webhooks.call(replace(CALL, url=server.url), SECRET)
        assert metadata.connections == 0


@pytest.mark.parametrize(
    "url",
    [
        *("file:///etc/passwd", "gopher://127.0.0.1:70/x", "ftp://127.0.0.1/", "//127.0.0.1/", "127.0.0.1", ""),
        *("http://", "http://user:pass@127.0.0.1/", "http://127.0.0.1:22/", "http://127.0.0.1:99999/", "http://a b:x/"),
        "http://①②⑦.⓪.⓪.①/",
    ],
)
async def test_what_is_no_address_of_the_web_is_not_called(url: str, webhooks: Webhooks) -> None:
    with pytest.raises(Rejected):
        await webhooks.call(replace(CALL, url=url), SECRET)


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "metadata"},
        {"Webhook-Id": "x"},
        {"Content-Length": "0"},
        {"X": "a\r\nY: b"},
        {"X\r\n": "a"},
        {"X": "ü"},
    ],
)
async def test_headers_that_would_say_something_else_are_refused(headers: dict[str, str], webhooks: Webhooks) -> None:
    async with serving(said(200)) as server:
        with pytest.raises(Rejected, match="header"):
            await webhooks.call(replace(CALL, url=server.url, headers=headers), SECRET)
        assert server.connections == 0


async def test_no_more_than_64_KiB_of_an_answer_is_read(webhooks: Webhooks) -> None:
    written = 0

    async def pour(_: Request, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:  # until the other end hangs up
            writer.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
            await writer.drain()
            written += 0x10000

    async with serving(pour) as server:
        reply = await webhooks.call(replace(CALL, url=server.url), SECRET)
    assert len(reply.body) == LONGEST_ANSWER


async def test_a_server_that_says_nothing_is_waited_for_no_longer_than_it_may_take() -> None:
    async def silent(_: Request, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    webhooks = Webhooks(PublicNetwork(networks("127.0.0.1")), timeout=0.1)
    async with serving(silent) as server:
        with pytest.raises(Unavailable, match="has not answered within"):
            await webhooks.call(replace(CALL, url=server.url), SECRET)
    await webhooks.close()


async def test_a_host_that_is_not_there_may_be_there_later(webhooks: Webhooks) -> None:
    async with serving(said(200)) as server:
        pass
    with pytest.raises(Unavailable, match="can't be reached"):
        await webhooks.call(replace(CALL, url=server.url), SECRET)
    with pytest.raises(Unavailable, match="no host"):
        await webhooks.call(replace(CALL, url="http://nowhere.invalid/"), SECRET)


async def test_many_calls_share_as_many_connections_as_they_may() -> None:
    webhooks = Webhooks(PublicNetwork(networks("127.0.0.1")), connections=8)
    async with serving(said(200)) as server:
        call = replace(CALL, url=server.url)
        await asyncio.gather(*(webhooks.call(replace(call, id=f"a-{n}"), SECRET) for n in range(200)))
        assert len({each.headers["webhook-id"] for each in server.requests}) == 200
        assert server.connections <= 8
    await webhooks.close()
