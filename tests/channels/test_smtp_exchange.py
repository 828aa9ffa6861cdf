"""What becomes of a message when the server says something odd, at an odd time, or in odd pieces."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from channels.base import Deferred, Rejected, Unavailable
from channels.smtp import SmtpChannel
from tests.channels.messages import a_message

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def scripted(script: Script) -> AsyncIterator[str]:
    """A server that says what it likes; the URL of it."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await script(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield f"smtp://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, extensions: str = "") -> None:
    writer.write(b"220 scripted.test\r\n")
    await reader.readline()
    writer.write(f"250-scripted.test\r\n{extensions}250 HELP\r\n".encode())


async def test_a_greeting_of_554_or_none_at_all_is_unavailable() -> None:
    async def unfriendly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"554 5.3.2 Not today\r\n")
        await reader.read()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    for script in (unfriendly, silent):
        async with scripted(script) as url:
            with pytest.raises(Unavailable):
                await SmtpChannel(url, timeout=0.2).send(a_message())


async def test_a_server_that_drips_a_byte_at_a_time_is_left_after_the_time_limit() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await greet(reader, writer)
        while not writer.is_closing():
            writer.write(b"2")
            await writer.drain()
            await asyncio.wait([asyncio.create_task(reader.read())], timeout=0.02)

    async with scripted(drip) as url:
        with pytest.raises(Unavailable):
            await SmtpChannel(url, timeout=0.3).send(a_message())


@pytest.mark.parametrize("answer", [b"hello\r\n", b"2500 OK\r\n", b"250-" + b"x" * 70_000 + b"\r\n", b"354 Go on\r\n"])
async def test_an_answer_that_is_not_smtp_is_unavailable(answer: bytes) -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await greet(reader, writer)
        await reader.readline()
        writer.write(answer)
        await reader.read()

    async with scripted(babble) as url:
        with pytest.raises(Unavailable):
            await SmtpChannel(url, timeout=2).send(a_message())


async def test_an_answer_too_many_is_never_taken_for_the_next_message() -> None:
    async def eager(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await greet(reader, writer)
        for _ in range(2):
            await reader.readline()
            writer.write(b"250 OK\r\n")
        await reader.readline()
        writer.write(b"354 Go on\r\n")
        await reader.readuntil(b"\r\n.\r\n")
        writer.write(b"250 Taken\r\n250 Taken\r\n")  # the second would be the next message's
        await reader.read()

    async with scripted(eager) as url:
        channel = SmtpChannel(url, connections=1, timeout=2)
        assert (await channel.send(a_message())).reply == "250 Taken"
        await channel.send(a_message())  # on a fresh connection
        await channel.close()


async def test_answers_in_any_number_of_pieces_and_lines_are_understood() -> None:
    async def say(writer: asyncio.StreamWriter, answer: bytes) -> None:
        for byte in answer:
            writer.write(bytes([byte]))
            await asyncio.sleep(0)

    async def stutter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await greet(reader, writer, "250-PIPELINING\r\n")
        await reader.readuntil(b"DATA\r\n")
        await say(writer, b"250-2.1.0 Sender\r\n250 2.1.0 OK\r\n251 2.1.5 Will forward\r\n354 Go on\r\n")
        await reader.readuntil(b"\r\n.\r\n")
        await say(writer, b"250-2.0.0 Taken\r\n250-and\r\n250 queued as 1\x007\r\n")
        await reader.readline()

    async with scripted(stutter) as url:
        channel = SmtpChannel(url)
        assert (await channel.send(a_message())).reply == "250 2.0.0 Taken and queued as 1 7"
        await channel.close()


async def test_a_server_that_wants_content_for_a_refused_recipient_gets_none() -> None:
    content: list[bytes] = []

    async def odd(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await greet(reader, writer, "250-PIPELINING\r\n")
        await reader.readuntil(b"DATA\r\n")
        writer.write(b"250 OK\r\n550 5.1.1 Unknown\r\n354 Go on\r\n")
        content.append(await reader.readline())
        writer.write(b"554 No valid recipients\r\n")
        content.append(await reader.readline())
        await reader.readuntil(b"DATA\r\n")
        writer.write(b"250 OK\r\n" * 3 + b"554 Enough\r\n")
        await reader.readline()

    async with scripted(odd) as url:
        channel = SmtpChannel(url, connections=1)
        with pytest.raises(Rejected, match="Unknown"):
            await channel.send(a_message())
        with pytest.raises(Rejected, match="Enough"):
            await channel.send(a_message())
        assert content == [b".\r\n", b"RSET\r\n"]
        await channel.close()


async def test_a_server_that_leaves_as_it_asks_for_the_content_took_nothing() -> None:
    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await greet(reader, writer, "250-PIPELINING\r\n")
        await reader.readuntil(b"DATA\r\n")
        writer.write(b"250 OK\r\n250 OK\r\n354 Go on\r\n421 On second thoughts\r\n")

    async with scripted(leave) as url:
        with pytest.raises(Unavailable):
            await SmtpChannel(url).send(a_message())


async def test_an_international_address_needs_a_relay_that_takes_it() -> None:
    def commands_only(extensions: str) -> Script:
        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await greet(reader, writer, extensions)
            line = (await reader.readline()).decode()
            writer.write(f"450 {line}".encode())
            await reader.readline()
            writer.write(b"250 OK\r\n")
            await reader.read()

        return script

    message = a_message("jörg@example.org")
    async with scripted(commands_only("")) as url:
        with pytest.raises(Rejected, match="SMTPUTF8"):
            await SmtpChannel(url).send(message)
    async with scripted(commands_only("250-SMTPUTF8\r\n250-8BITMIME\r\n")) as url:
        with pytest.raises(Deferred, match=r"MAIL FROM:<news@example\.com> BODY=8BITMIME SMTPUTF8"):
            await SmtpChannel(url).send(message)
