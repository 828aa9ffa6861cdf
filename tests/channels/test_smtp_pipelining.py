"""What becomes of a letter whose envelope is on its way before the letter ahead of it has been answered."""

import asyncio
import random
import time
from collections import Counter

import pytest

from channels.base import Deferred, Receipt, Rejected, Unavailable, Uncertain
from channels.sink import Misdeed, Moment, Sink
from channels.smtp import SmtpChannel
from tests.channels.messages import a_message
from tests.channels.test_smtp_exchange import greet, scripted

PIPELINING = "250-PIPELINING\r\n"
ENVELOPE = b"250 Sender\r\n250 Recipient\r\n354 Go on\r\n"

# What the server does at which step, what the sender must be told, and whether the server has the message then.
FATES: dict[str, tuple[str, str | Misdeed, type, bool]] = {
    "unknown": ("RCPT", "550 5.1.1 User unknown", Rejected, False),
    "greylisted": ("RCPT", "450 4.2.0 Greylisted", Deferred, False),
    "unwanted": ("DATA", "554 5.7.1 No", Rejected, False),
    "spam": ("CONTENT", "554 5.6.0 Spam", Rejected, False),
    "full": ("CONTENT", "452 4.3.1 Disk full", Deferred, False),
    "shutdown": ("RCPT", "421 4.3.2 Shutting down", Unavailable, False),
    "busy": ("CONTENT", "421 4.3.2 Too busy", Unavailable, False),
    "strange": ("RCPT", "354 What?", Unavailable, False),
    "cut-early": ("RCPT", Misdeed.CUT, Unavailable, False),
    "cut-at-data": ("DATA", Misdeed.CUT, Unavailable, False),
    "cut": ("CONTENT", Misdeed.CUT, Uncertain, False),
    "cut-late": ("CONTENT", Misdeed.KEEP_AND_CUT, Uncertain, True),
}


def fateful(moment: Moment) -> str | Misdeed | None:
    step, verdict, _, _ = FATES.get(moment.recipient.partition(".")[0], ("", "", None, False))
    return verdict if moment.step == step else None


@pytest.mark.parametrize("pipelining", [True, False])
@pytest.mark.parametrize("connections", [1, 3])
@pytest.mark.parametrize("seed", range(3))
async def test_each_is_told_the_truth_whatever_befell_those_before_it(
    seed: int, connections: int, pipelining: bool
) -> None:
    chance = random.Random(seed)
    fates = [chance.choice(["fine", "fine", "fine", *FATES]) for _ in range(150)]
    people = [f"{fate}.{number}@example.org" for number, fate in enumerate(fates)]
    async with Sink(policy=fateful) as sink:
        sink.pipelining = pipelining
        channel = SmtpChannel(sink.url, connections=connections, timeout=5, messages_per_connection=40)
        outcomes = await asyncio.gather(*(channel.send(a_message(who)) for who in people), return_exceptions=True)
        await channel.close()
    expected = [FATES[fate][2] if fate in FATES else Receipt for fate in fates]
    assert [type(outcome) for outcome in outcomes] == expected
    taken = Counter(received.recipient for received in sink.received)
    assert taken == Counter(who for who, fate in zip(people, fates, strict=True) if fate not in FATES or FATES[fate][3])


@pytest.mark.parametrize(("extensions", "ends"), [(PIPELINING, b"DATA\r\n"), ("", b"\r\n.\r\n")])
async def test_the_next_envelope_leaves_with_the_content_where_the_server_offers_it(
    extensions: str, ends: bytes
) -> None:
    written: list[bytes] = []

    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await greet(reader, writer, extensions)
        if extensions:
            await reader.readuntil(b"DATA\r\n")
            writer.write(ENVELOPE)
        else:
            for answer in ENVELOPE.splitlines(keepends=True):
                await reader.readline()
                writer.write(answer)
        written.append(await reader.read(100_000))
        writer.write(b"554 No\r\n")
        if extensions:
            writer.write(b"554 No\r\n" * 3)
        else:
            await reader.readline()
            writer.write(b"554 No\r\n")
        await reader.readline()

    async with scripted(server) as url:
        channel = SmtpChannel(url, connections=1, timeout=5)
        answers = await asyncio.gather(*(channel.send(a_message()) for _ in range(2)), return_exceptions=True)
        assert [type(answer) for answer in answers] == [Rejected, Rejected]
        assert written[0].endswith(ends)
        await channel.close()


async def test_an_answer_too_many_among_those_of_an_envelope_lets_no_content_begin() -> None:
    heard: list[bytes] = []

    async def eager(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await greet(reader, writer, PIPELINING)
        await reader.readuntil(b"DATA\r\n")
        writer.write(ENVELOPE)
        await reader.readuntil(b"\r\n.\r\n")
        if heard:
            writer.write(b"250 Taken the second time\r\n")
        else:
            heard.append(await reader.readuntil(b"DATA\r\n"))
            writer.write(b"250 Taken\r\n" + ENVELOPE + b"250 Taken\r\n")  # the last would be the second letter's
        heard.append(await reader.readline())

    async with scripted(eager) as url:
        channel = SmtpChannel(url, connections=1, timeout=2)
        first, second = channel.send(a_message()), channel.send(a_message("ben@example.org"))
        assert (await first).reply == "250 Taken"
        assert (await second).reply == "250 Taken the second time"
        await channel.close()
    assert b"RCPT TO:<ben@example.org>" in heard[0]
    assert heard[1] == b""  # not a byte of the second letter


async def test_one_that_nobody_waits_for_any_more_is_not_begun_and_costs_the_one_before_nothing() -> None:
    may_answer = asyncio.Event()
    rest = asyncio.get_running_loop().create_future()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await greet(reader, writer, PIPELINING)
        await reader.readuntil(b"DATA\r\n")
        writer.write(ENVELOPE)
        await reader.readuntil(b"\r\n.\r\n")
        await reader.readuntil(b"DATA\r\n")
        second.cancel()
        await may_answer.wait()
        writer.write(b"250 Taken\r\n" + ENVELOPE)
        rest.set_result(await reader.read())

    async with scripted(slow) as url:
        channel = SmtpChannel(url, connections=1, timeout=2)
        first, second = channel.send(a_message()), channel.send(a_message("ben@example.org"))
        with pytest.raises(asyncio.CancelledError):
            await second
        may_answer.set()
        assert (await first).reply == "250 Taken"
        assert await rest == b""  # a dot alone would be taken for an empty message
        await channel.close()


async def test_a_worker_that_was_frozen_past_its_time_begins_no_content() -> None:
    def freeze(moment: Moment) -> None:
        if moment.step == "DATA":
            time.sleep(0.1)  # nothing else runs in this process, as if it had been stopped

    async with Sink(policy=freeze) as sink:
        channel = SmtpChannel(sink.url, connections=1, timeout=5)
        begin_by = time.monotonic() + 0.05
        both = (channel.send(a_message(), begin_by=begin_by) for _ in range(2))
        outcomes = await asyncio.gather(*both, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [Unavailable, Unavailable]
        assert sink.count == 0
        await channel.close()


async def test_one_that_is_too_late_from_the_start_is_not_sent() -> None:
    async with Sink() as sink:
        channel = SmtpChannel(sink.url)
        with pytest.raises(Unavailable):
            await channel.send(a_message(), begin_by=time.monotonic() - 1)
        assert (sink.count, sink.connections) == (0, 0)
        await channel.close()


async def test_those_that_wait_behind_a_silent_content_leave_on_another_connection() -> None:
    def hang(moment: Moment) -> Misdeed | None:
        return Misdeed.HANG if moment.step == "CONTENT" and moment.recipient == "bad@example.org" else None

    async with Sink(policy=hang) as sink:
        channel = SmtpChannel(sink.url, connections=1, timeout=0.3)
        bad = channel.send(a_message("bad@example.org"))
        with pytest.raises(Uncertain):
            await bad
        assert (await channel.send(a_message("good@example.org"))).reply
        assert [received.recipient for received in sink.received] == ["good@example.org"]
        await channel.close()
