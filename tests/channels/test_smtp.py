"""What the SMTP channel makes of every answer, and of none."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import AuthResult

from channels.base import Deferred, Message, Receipt, Rejected, Unavailable, Uncertain
from channels.sink import Misdeed, Moment, Policy, Sink
from channels.smtp import SmtpChannel
from tests.channels.messages import a_message

RELAY_PEM = Path(__file__).with_name("relay.pem")


def at(step: str, verdict: str | Misdeed, *, to: str = "bad@example.org") -> Policy:
    """Answers so to messages for one recipient at one step, and takes everything else."""

    def policy(moment: Moment) -> str | Misdeed | None:
        return verdict if moment.step == step and moment.recipient in (to, "") else None

    return policy


@asynccontextmanager
async def relay(policy: Policy | None = None, **options: Any) -> AsyncIterator[tuple[Sink, SmtpChannel]]:
    """A sink, and a channel to it whose one connection is used again and again."""
    async with Sink(policy=policy) as sink:
        channel = SmtpChannel(sink.url, **{"connections": 1, "timeout": 5, **options})
        yield sink, channel
        await channel.close()


async def outcome(sending: Awaitable[Receipt]) -> Receipt | Exception:
    try:
        return await sending
    except (Rejected, Deferred, Unavailable, Uncertain) as error:
        return error


@pytest.mark.parametrize("pipelining", [True, False])
@pytest.mark.parametrize(
    ("step", "reply", "expected"),
    [
        ("RCPT", "550 5.1.1 User unknown", Rejected),
        ("RCPT", "450 4.2.0 Greylisted", Deferred),
        ("DATA", "451 4.3.0 Try again later", Deferred),
        ("DATA", "554 5.7.1 No", Rejected),
        ("CONTENT", "452 4.3.1 Disk full", Deferred),
        ("CONTENT", "554 5.6.0 Spam", Rejected),
    ],
)
async def test_a_refusal_is_told_as_it_is_and_the_connection_stays_usable(
    step: str, reply: str, expected: type[Exception], pipelining: bool
) -> None:
    async with relay(at(step, reply)) as (sink, channel):
        sink.pipelining = pipelining
        refused = await outcome(channel.send(a_message("bad@example.org")))
        assert type(refused) is expected
        assert reply in str(refused)
        await channel.send(a_message("good@example.org"))
        assert [received.recipient for received in sink.received] == ["good@example.org"]
        assert sink.connections == 1


@pytest.mark.parametrize(
    ("reply", "suppress"),
    [
        ("550 No such user", True),
        ("550 5.1.1 <bad@example.org>: Recipient address rejected: User unknown", True),
        ("550-5.1.1 The account\r\n550 5.1.1 does not exist", True),
        ("550 5.2.1 Mailbox disabled", True),
        ("551 5.1.6 User moved", True),
        ("556 5.1.10 Recipient address has a null MX", True),
        ("552 5.2.2 Mailbox full", False),
        ("550 5.7.1 Blocked by policy", False),
        ("554 5.7.1 Relay access denied", False),
        ("500 What?", False),
    ],
)
async def test_only_a_dead_address_is_suppressed(reply: str, suppress: bool) -> None:
    async with relay(at("RCPT", reply)) as (_, channel):
        with pytest.raises(Rejected) as rejected:
            await channel.send(a_message("bad@example.org"))
        assert rejected.value.suppress is suppress


async def test_spam_after_the_content_is_no_dead_address_unless_the_server_says_so() -> None:
    async with relay(at("CONTENT", "550 Looks like spam")) as (sink, channel):
        spam = await outcome(channel.send(a_message("bad@example.org")))
        assert isinstance(spam, Rejected)
        assert not spam.suppress
        sink.policy = at("CONTENT", "550 5.1.1 User unknown")
        unknown = await outcome(channel.send(a_message("bad@example.org")))
        assert isinstance(unknown, Rejected)
        assert unknown.suppress


@pytest.mark.parametrize("step", ["MAIL", "RCPT", "DATA", "CONTENT"])
async def test_a_421_says_nothing_about_the_message(step: str) -> None:
    async with relay(at(step, "421 4.3.2 Shutting down")) as (sink, channel):
        with pytest.raises(Unavailable, match="421"):
            await channel.send(a_message("bad@example.org"))
        sink.policy = None
        await channel.send(a_message("bad@example.org"))
        assert sink.count == 1


async def test_a_relay_that_wants_a_login_first_costs_no_message_its_life() -> None:
    async with relay(at("MAIL", "530 5.7.0 Authentication required")) as (_, channel):
        with pytest.raises(Unavailable, match="530"):
            await channel.send(a_message())


async def test_a_relay_that_hangs_up_every_few_messages_loses_and_doubles_nothing() -> None:
    def tired(moment: Moment) -> str | None:
        return "421 4.7.0 Enough of you" if moment.on_connection >= 25 else None

    async with relay(tired, connections=4) as (sink, channel):
        messages = [a_message(f"user{n}@example.org") for n in range(500)]
        outcomes = await asyncio.gather(*(outcome(channel.send(message)) for message in messages))
        assert all(isinstance(each, Receipt) for each in outcomes)
        assert (sink.count, sink.duplicates) == (500, [])


@pytest.mark.parametrize("step", ["MAIL", "RCPT", "DATA"])
async def test_a_connection_cut_before_the_content_took_nothing(step: str) -> None:
    async with relay(at(step, Misdeed.CUT)) as (sink, channel):
        assert isinstance(await outcome(channel.send(a_message("bad@example.org"))), Unavailable)
        assert sink.count == 0


@pytest.mark.parametrize(("misdeed", "taken"), [(Misdeed.CUT, 0), (Misdeed.KEEP_AND_CUT, 1)])
async def test_a_connection_cut_after_the_final_dot_leaves_nobody_knowing(misdeed: Misdeed, taken: int) -> None:
    async with relay(at("CONTENT", misdeed)) as (sink, channel):
        assert isinstance(await outcome(channel.send(a_message("bad@example.org"))), Uncertain)
        assert sink.count == taken  # and it was not tried a second time
        assert isinstance(await outcome(channel.send(a_message("good@example.org"))), Receipt)


async def test_cuts_in_one_of_a_hundred_leave_exactly_those_uncertain() -> None:
    def sometimes(moment: Moment) -> Misdeed | None:
        cut = moment.step == "CONTENT" and moment.recipient.endswith("00@example.org")
        return Misdeed.KEEP_AND_CUT if cut else None

    async with relay(sometimes, connections=10) as (sink, channel):
        messages = [a_message(f"user{n}@example.org") for n in range(100, 1100)]
        outcomes = await asyncio.gather(*(outcome(channel.send(message)) for message in messages))
        uncertain = [m.to for m, o in zip(messages, outcomes, strict=True) if isinstance(o, Uncertain)]
        assert uncertain == [f"user{n}00@example.org" for n in range(1, 11)]
        assert sum(isinstance(o, Receipt) for o in outcomes) == 990
        assert (sink.count, sink.duplicates) == (1000, [])


@pytest.mark.parametrize(
    ("step", "expected"), [("MAIL", Unavailable), ("RCPT", Unavailable), ("DATA", Unavailable), ("CONTENT", Uncertain)]
)
async def test_a_silent_server_is_left_after_the_time_limit(step: str, expected: type[Exception]) -> None:
    async with relay(at(step, Misdeed.HANG), timeout=0.2) as (_, channel):
        assert type(await outcome(channel.send(a_message("bad@example.org")))) is expected


async def test_those_who_wait_for_a_connection_of_a_silent_relay_are_surely_not_sent() -> None:
    async with relay(at("MAIL", Misdeed.HANG), connections=2, timeout=0.2) as (_, channel):
        async with asyncio.timeout(1):
            outcomes = await asyncio.gather(*(outcome(channel.send(a_message())) for _ in range(50)))
        assert {type(each) for each in outcomes} == {Unavailable}


async def test_a_421_even_to_the_content_sends_the_message_once_on_a_new_connection() -> None:
    def tired(moment: Moment) -> str | None:
        return "421 Enough" if moment.step == "CONTENT" and moment.on_connection else None

    async with relay(tired) as (sink, channel):
        for _ in range(3):
            await channel.send(a_message())
        assert (sink.count, sink.duplicates, sink.connections) == (3, [], 3)


async def test_idle_connections_that_died_cost_no_message() -> None:
    async with relay(connections=5) as (sink, channel):
        await asyncio.gather(*(channel.send(a_message()) for _ in range(5)))
        sink.hang_up()
        await asyncio.gather(*(channel.send(a_message()) for _ in range(5)))
        assert (sink.count, sink.duplicates) == (10, [])


async def test_a_pooled_connection_that_no_longer_answers_is_replaced_without_losing_the_message() -> None:
    async with relay(timeout=0.3) as (sink, channel):
        await channel.send(a_message())
        sink.policy = lambda moment: Misdeed.HANG if moment.on_connection else None
        await channel.send(a_message("second@example.org"))
        assert [received.recipient for received in sink.received] == ["ann@example.org", "second@example.org"]


async def test_a_connection_is_replaced_after_its_number_of_messages_and_after_a_long_rest() -> None:
    async with relay(messages_per_connection=3) as (sink, channel):
        for _ in range(7):
            await channel.send(a_message())
        assert sink.connections == 3
    async with relay(idle=0) as (sink, channel):
        for _ in range(3):
            await channel.send(a_message())
        assert sink.connections == 3


async def test_there_are_never_more_connections_than_allowed() -> None:
    most = 0

    def watch(moment: Moment) -> None:
        nonlocal most
        most = max(most, len(sink.conversations))

    async with relay(watch, connections=3, messages_per_connection=5) as (sink, channel):
        await asyncio.gather(*(channel.send(a_message()) for _ in range(60)))
        assert most == 3


async def test_a_cancelled_send_gives_its_place_back_and_its_connection_up() -> None:
    asked = asyncio.Event()

    def hang(moment: Moment) -> Misdeed | None:
        if moment.recipient != "bad@example.org":
            return None
        asked.set()
        return Misdeed.HANG

    async with relay(hang) as (sink, channel):
        await channel.send(a_message())
        sending = asyncio.ensure_future(channel.send(a_message("bad@example.org")))
        await asked.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await channel.send(a_message("good@example.org"))
        assert (sink.count, sink.connections) == (2, 2)


async def test_nobody_listening_is_unavailable() -> None:
    async with Sink() as sink:
        url = sink.url
    for nobody in (url, f"smtp://{'x' * 70}.test", "smtp://relay.invalid"):
        with pytest.raises(Unavailable):
            await SmtpChannel(nobody).send(a_message())


async def test_content_arrives_byte_for_byte_whatever_its_dots() -> None:
    dots = "\n".join([".", "..", ".hidden", "", "end.", ". ", "...", "." * 300])
    async with relay() as (sink, channel):
        await channel.send(a_message(text=dots, html=dots))
        await channel.send(a_message(text="x\n.\n" * 50_000, html=None))
        assert sink.count == 2
        assert b"\r\n..hidden\r\n" not in sink.contents[0]
        assert sink.contents[0].count(b"\r\n.hidden\r\n") == 2
        assert sink.contents[1].count(b"=2E\r\n") == 50_000


async def test_an_international_address_arrives_as_it_is() -> None:
    async with relay() as (sink, channel):
        await channel.send(a_message("jörg@example.org"))
        assert sink.received[0].recipient == "jörg@example.org"


def server_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(RELAY_PEM)
    return context


def trusting_tls() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=RELAY_PEM)


def login(server: object, session: object, envelope: object, mechanism: str, data: Any) -> AuthResult:
    return AuthResult(success=(data.login, data.password) == (b"ann@example.com", b"p@ss/word:1"), handled=False)


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")  # aiosmtpd doesn't see the TLS of smtps
@pytest.mark.parametrize("scheme", ["smtp", "smtp+starttls", "smtps"])
async def test_every_form_of_url_encrypts_and_logs_in(scheme: str) -> None:
    async with Sink(
        tls=server_tls(), implicit_tls=scheme == "smtps", auth_required=True, authenticator=login,
        auth_require_tls=scheme != "smtps",
    ) as sink:  # fmt: skip
        url = f"{scheme}://ann%40example.com:p%40ss%2Fword%3A1@127.0.0.1:{sink.port}"
        channel = SmtpChannel(url, tls=trusting_tls(), connections=2)
        await asyncio.gather(*(channel.send(a_message()) for _ in range(20)))
        assert (sink.count, sink.connections) == (20, 2)
        await channel.close()
        wrong = SmtpChannel(url.replace("word", "wurd"), tls=trusting_tls())
        with pytest.raises(Unavailable, match="535"):
            await wrong.send(a_message())


@pytest.mark.parametrize("scheme", ["smtp", "smtp+starttls", "smtps"])
async def test_a_certificate_that_nobody_vouches_for_is_not_accepted(scheme: str) -> None:
    async with Sink(tls=server_tls(), implicit_tls=scheme == "smtps") as sink:
        with pytest.raises(Unavailable, match="certificate"):
            await SmtpChannel(f"{scheme}://127.0.0.1:{sink.port}").send(a_message())
        assert sink.count == 0


async def test_tls_that_is_demanded_but_not_offered_sends_nothing() -> None:
    async with Sink() as sink:
        with pytest.raises(Unavailable, match="STARTTLS"):
            await SmtpChannel(f"smtp+starttls://127.0.0.1:{sink.port}").send(a_message())
        assert sink.count == 0


@pytest.mark.parametrize("url", ["", "http://example.com", "smtp://", "smtp:relay", "smtp://relay:port"])
def test_a_url_that_is_none_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match=r"smtp|Port"):
        SmtpChannel(url)


async def test_a_closed_channel_sends_nothing_more_but_lets_those_in_flight_finish() -> None:
    async with relay(connections=3) as (sink, channel):
        sending: list[asyncio.Future[Receipt]] = []
        messages: list[Message] = [a_message() for _ in range(3)]
        for message in messages:
            sending.append(asyncio.ensure_future(channel.send(message)))
        await asyncio.sleep(0)  # each has taken its place
        await channel.close()
        assert [type(each) for each in await asyncio.gather(*sending)] == [Receipt] * 3
        assert sink.count == 3
        with pytest.raises(Unavailable):
            await channel.send(a_message())
