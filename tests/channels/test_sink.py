"""The witness must be beyond doubt: what it acknowledged it has recorded, and what it recorded it tells."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import aiosmtplib
import pytest

from channels.base import Unavailable, Uncertain
from channels.sink import Misdeed, Sink
from channels.smtp import SmtpChannel
from tests.channels.messages import a_message

ROOT = Path(__file__).parents[2]


async def test_it_counts_and_tells_what_came_twice() -> None:
    async with Sink(keep=2) as sink:
        channel = SmtpChannel(sink.url)
        again = a_message("again@example.org")
        for message in (again, a_message("b@example.org"), again, a_message("c@example.org")):
            await channel.send(message)
        await channel.close()
        assert sink.count == 4
        assert [received.recipient for received in sink.duplicates] == ["again@example.org"]
        assert [received.recipient for received in sink.received] == ["again@example.org", "c@example.org"]
        assert again.delivery_id.hex in sink.duplicates[0].message_id


async def test_it_tells_whom_it_has_not_answered_yet() -> None:
    async with Sink(delay=0.2) as sink:
        channel = SmtpChannel(sink.url)
        sending = asyncio.ensure_future(channel.send(a_message("slow@example.org")))
        await sink.next_arrival()
        assert list(sink.unanswered.values()) == ["slow@example.org"]
        await sending
        assert sink.unanswered == {}
        await channel.close()


async def test_a_connection_that_has_rested_has_its_whole_patience_for_the_next_message() -> None:
    async with Sink() as sink, aiosmtplib.SMTP(hostname="127.0.0.1", port=sink.port) as client:
        await client.sendmail("a@example.com", ["b@example.org"], "Message-ID: <1@example.com>\r\n\r\nHello\r\n")
        (conversation,) = sink.conversations
        resting = conversation._timeout_handle
        await client.mail("a@example.com")
        assert resting is not None and resting.cancelled()


async def test_a_plain_client_of_another_make_gets_along_with_it() -> None:
    async with Sink() as sink:
        async with aiosmtplib.SMTP(hostname="127.0.0.1", port=sink.port) as client:
            await client.noop()
            await client.vrfy("ann@example.org")
            for number in range(3):
                text = f"Message-ID: <{number}@example.com>\r\n\r\n.dot\r\n..\r\n"
                await client.sendmail("a@example.com", ["b@example.org", "c@example.org"], text)
            with pytest.raises(aiosmtplib.SMTPResponseException, match="503"):
                await client.rcpt("d@example.org")
            await client.mail("a@example.com")
            await client.rset()
            await client.mail("a@example.com")
        assert sink.count == 6
        assert sink.received[0].message_id == "<0@example.com>"
        assert sink.contents[0].endswith(b"\r\n\r\n.dot\r\n..\r\n")


async def test_commands_in_any_number_of_pieces_are_understood() -> None:
    async with Sink() as sink:
        reader, writer = await asyncio.open_connection("127.0.0.1", sink.port)
        await reader.readline()
        writer.write(b"EHLO test\r\n")
        while (await reader.readline())[3:4] == b"-":
            pass
        mail = b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n"
        for byte in mail + b"Message-ID: <1>\r\n\r\nx\r\n.\r\n" + mail + b".\r\n" + b"NONSENSE\r\nQUIT\r\n":
            writer.write(bytes([byte]))
            await writer.drain()
        answers = (await reader.read()).decode().splitlines()
        assert [answer[:3] for answer in answers] == [
            "250",
            "250",
            "354",
            "250",
            "250",
            "250",
            "354",
            "250",
            "500",
            "221",
        ]
        assert list(sink.contents) == [b"Message-ID: <1>\r\n\r\nx\r\n", b""]
        writer.close()


async def test_a_sink_of_its_own_records_what_it_acknowledged_even_when_it_is_killed(tmp_path: Path) -> None:
    record = tmp_path / "record"
    program = (
        "import sys; from pathlib import Path; from channels.sink import run_sink; "
        "run_sink(port=0, record=Path(sys.argv[1]), listening=lambda sink: print(sink.port, flush=True))"
    )
    for number, ending in ((1, signal.SIGKILL), (2, signal.SIGTERM)):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, str(record), cwd=ROOT, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        channel = SmtpChannel(f"smtp://127.0.0.1:{int(await process.stdout.readline())}")
        messages = [a_message(f"user{number}-{each}@example.org") for each in range(50)]
        await asyncio.gather(*(channel.send(message) for message in messages))
        os.kill(process.pid, ending)
        assert await process.wait() == (-signal.SIGKILL if ending == signal.SIGKILL else 0)
        lines = [line.split() for line in record.read_text().splitlines()][-50:]
        assert {(line[1], line[2]) for line in lines} == {
            (f"<{message.delivery_id.hex}@example.com>", message.to) for message in messages
        }
        with pytest.raises(Unavailable):
            await channel.send(a_message())
        await channel.close()


async def test_a_test_can_wait_for_the_next_message() -> None:
    async with Sink() as sink:
        channel = SmtpChannel(sink.url)
        waiting = [asyncio.create_task(sink.next_arrival()) for _ in range(2)]
        await channel.send(a_message())
        await asyncio.gather(*waiting)
        assert sink.count == 1
        await channel.close()


async def test_it_misbehaves_as_asked() -> None:
    async with Sink(policy=lambda moment: Misdeed.CUT if moment.in_all >= 1 else None) as sink:
        channel = SmtpChannel(sink.url, timeout=2)
        await channel.send(a_message())
        with pytest.raises(Unavailable):
            await channel.send(a_message())
        await channel.close()
        assert sink.count == 1


async def test_a_slow_one_has_the_message_long_before_it_says_so() -> None:
    async with Sink(delay=60) as sink:
        channel = SmtpChannel(sink.url)
        sending = asyncio.ensure_future(channel.send(a_message("a@example.org")))
        await sink.next_arrival()
        assert not sending.done()
        assert sink.count == 1
        sink.hang_up()
        with pytest.raises(Uncertain):
            await sending


async def test_a_slow_one_answers_every_message_in_the_end() -> None:
    async with Sink(delay=0.001) as sink:
        channel = SmtpChannel(sink.url, connections=2)
        await asyncio.gather(*(channel.send(a_message(f"{n}@example.org")) for n in range(20)))
        await channel.close()
        assert sink.count == 20
