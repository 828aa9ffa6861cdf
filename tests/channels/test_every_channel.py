"""What every channel must do. A new channel gets an entry here, and nothing more."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest

from channels.base import Channel, Message, Rejected, Sender, Unavailable
from channels.outbox import Outbox
from channels.sink import Sink
from channels.smtp import SmtpChannel
from tests.channels.messages import a_message


@dataclass
class Subject:
    """A channel, and who has received something by it so far."""

    channel: Channel
    recipients: Callable[[], list[str]]


@asynccontextmanager
async def outbox() -> AsyncIterator[Subject]:
    channel = Outbox()
    yield Subject(channel, lambda: [message.to for message in channel.messages])


@asynccontextmanager
async def smtp() -> AsyncIterator[Subject]:
    async with Sink() as sink:
        channel = SmtpChannel(sink.url, connections=4, timeout=5)
        yield Subject(channel, lambda: [received.recipient for received in sink.received])
        await channel.close()


CHANNELS = {"outbox": outbox, "smtp": smtp}


@pytest.fixture(params=CHANNELS)
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    async with AsyncExitStack() as stack:
        yield await stack.enter_async_context(CHANNELS[request.param]())


async def test_a_message_arrives_and_its_receipt_names_it(subject: Subject) -> None:
    message = a_message()
    receipt = await subject.channel.send(message)
    assert subject.recipients() == ["ann@example.org"]
    assert message.delivery_id.hex in receipt.provider_id
    assert receipt.reply


async def test_it_has_a_name(subject: Subject) -> None:
    assert subject.channel.name


@pytest.mark.parametrize(
    "message",
    [
        a_message(subject="Grüße aus 東京 🔔", text="Ж" * 3000, html="<p>漢字</p>"),
        a_message("jörg@example.org", sender=Sender("Jörg", "jörg@example.com")),
        a_message("ann@xn--mnchen-3ya.example"),
        a_message(subject="", text="", html=""),
        a_message(text="x" * 500_000, html=None),
        a_message(subject="a\r\nBcc: eve@example.net", text="\r\n.\r\nMAIL FROM:<eve@example.net>", html="\0\u2028."),
        a_message(sender=Sender('"\r\nBcc: eve@example.net\r\n\r\n', "news@example.com"), reply_to="x@example.com"),
        a_message(headers={"List-Unsubscribe": "<https://example.com/\r\nBcc: eve@example.net>"}),
    ],
    ids=["unicode", "smtputf8", "idna", "empty", "large", "dots", "name", "header"],
)
async def test_any_text_reaches_exactly_its_recipient(subject: Subject, message: Message) -> None:
    await subject.channel.send(message)
    assert subject.recipients() == [message.to]


@pytest.mark.parametrize(
    "message",
    [
        a_message(""),
        a_message("ann"),
        a_message("ann@example.org\r\nRCPT TO:<eve@example.net>"),
        a_message("ann@example.org>,<eve@example.net"),
        a_message("ann@example.org, eve@example.net"),
        a_message("ann@\0example.org"),
        a_message("ann@example.org\u2028"),
        a_message("a" * 65 + "@example.org"),
        a_message("ann@" + "a." * 200 + "org"),
        a_message("ann@\ud800.org"),
        a_message(sender=Sender("News", "news@example.com> SIZE=1\r\nRCPT TO:<eve@example.net")),
        a_message(reply_to="x@example.com\r\nBcc: eve@example.net"),
        a_message(headers={"X-Bells\r\nBcc": "eve@example.net"}),
        a_message(headers={"Bcc": "eve@example.net"}),
    ],
)
async def test_what_cannot_be_sent_is_rejected_and_reaches_nobody(subject: Subject, message: Message) -> None:
    with pytest.raises(Rejected) as rejected:
        await subject.channel.send(message)
    assert rejected.value.reply
    assert not rejected.value.suppress  # only a provider knows that an address is dead
    assert subject.recipients() == []
    await subject.channel.send(a_message())


async def test_many_sends_at_once_all_arrive_once(subject: Subject) -> None:
    messages = [a_message(f"user{number}@example.org") for number in range(300)]
    receipts = await asyncio.gather(*(subject.channel.send(message) for message in messages))
    assert sorted(subject.recipients()) == sorted(message.to for message in messages)
    assert len({receipt.provider_id for receipt in receipts}) == 300


async def test_cancelled_sends_disturb_nobody_elses(subject: Subject) -> None:
    sending = [
        asyncio.ensure_future(subject.channel.send(a_message(f"user{number}@example.org"))) for number in range(60)
    ]
    await sending[0]
    for each in sending[1::3]:
        each.cancel()
    await asyncio.gather(*sending, return_exceptions=True)
    assert [each for each in sending[::3] + sending[2::3] if each.exception()] == []
    await asyncio.gather(*(subject.channel.send(a_message(f"late{number}@example.org")) for number in range(10)))
    arrived = subject.recipients()
    assert len(set(arrived)) == len(arrived) >= 50


async def test_a_closed_channel_is_unavailable_and_can_be_closed_again(subject: Subject) -> None:
    await subject.channel.send(a_message())
    await subject.channel.close()
    await subject.channel.close()
    with pytest.raises(Unavailable):
        await subject.channel.send(a_message())
    assert len(subject.recipients()) == 1
