"""A real SMTP server that takes every message, keeps count of what it took, and misbehaves when a test asks it to."""

import asyncio
import os
import re
import signal
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from time import time
from types import TracebackType
from typing import Any, Self, cast

from aiosmtpd.smtp import SMTP, Envelope, Session

_LARGEST = 32 * 1024 * 1024  # bytes of one message
_ADDRESS = re.compile(rb"[^<]*<([^>]*)>")
_MESSAGE_ID = re.compile(rb"^message-id:\s*(\S+)", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Received:
    """A message that the sink took, at a Unix time in seconds."""

    message_id: str
    recipient: str
    at: float


@dataclass(frozen=True, slots=True)
class Moment:
    """Where a conversation stands when the policy is asked: at `MAIL`, `RCPT`, `DATA` or `CONTENT`."""

    step: str
    recipient: str  # empty at MAIL
    on_connection: int  # messages that this connection has brought before
    in_all: int  # messages that the sink has taken before


class Misdeed(Enum):
    """What a policy can do besides answering."""

    CUT = "hang up without an answer"
    HANG = "never answer"
    KEEP_AND_CUT = "take the message, then hang up without saying so"  # RFC 1047; at CONTENT only


# What to answer, such as "450 4.2.0 Greylisted" (after a 421 the sink hangs up), or a misdeed; None: accept.
Policy = Callable[[Moment], str | Misdeed | None]


class Sink:
    """`async with Sink() as sink:` listens on `sink.port` of this event loop, and forgets nothing that it took.

    Args:
        port: 0 takes a free one.
        record: a file that gets a line `<Unix time> <Message-ID> <recipient>` for each message, before it is
            acknowledged: it tells the truth even when this process is killed.
        letters: a folder that gets each message as a file: `000001.eml`, `000002.eml`, …
        keep: the most of `received` and `contents` that stay in memory. `count` and `duplicates` cover everything.
        policy: asked at every step, for tests of what can go wrong.
        delay: seconds between taking a message and saying so, as a busy relay has.
        tls: a server's certificate: offers STARTTLS, or speaks TLS from the start with `implicit_tls`.
        options: for `aiosmtpd.smtp.SMTP`, such as `auth_required` and `authenticator`.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        record: Path | None = None,
        letters: Path | None = None,
        keep: int = 100_000,
        keep_contents: int = 20,
        policy: Policy | None = None,
        delay: float = 0.0,
        tls: ssl.SSLContext | None = None,
        implicit_tls: bool = False,
        **options: Any,
    ) -> None:
        self.host = host
        self.port = port
        self.policy = policy
        self.delay = delay
        self.pipelining = True
        self.count = 0
        self.connections = 0  # ever opened
        self.received: deque[Received] = deque(maxlen=keep)
        self.contents: deque[bytes] = deque(maxlen=keep_contents)
        self.duplicates: list[Received] = []
        self._seen: set[int] = set()  # hashes of what came: two in a million are alike by chance once in 10^7 runs
        self._record = record
        self._record_fd = -1
        self._letters = letters
        self._scheme = "smtps" if implicit_tls else "smtp"
        self._implicit_tls = tls if implicit_tls else None
        self._options = {"tls_context": None if implicit_tls else tls, **options}
        self._server: asyncio.Server | None = None
        self.conversations: set[_Conversation] = set()
        self.unanswered: dict[int, str] = {}  # whose message was taken and not acknowledged yet, by port of the sender
        self._watchers: list[asyncio.Future[None]] = []

    @property
    def url(self) -> str:
        return f"{self._scheme}://{self.host}:{self.port}"

    async def __aenter__(self) -> Self:
        if self._letters is not None:
            self._letters.mkdir(parents=True, exist_ok=True)
        if self._record is not None:
            self._record_fd = os.open(self._record, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._conversation, self.host, self.port, ssl=self._implicit_tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.hang_up()
        await self._server.wait_closed()
        if self._record_fd >= 0:
            os.close(self._record_fd)

    def hang_up(self) -> None:
        """Cut every connection that is open now."""
        for conversation in list(self.conversations):
            conversation.cut()

    async def next_arrival(self) -> None:
        """Wait until one more message has been taken."""
        watcher = asyncio.get_running_loop().create_future()
        self._watchers.append(watcher)
        await watcher

    def take(self, recipient: str, content: bytes) -> None:
        """Count and record a message, before its sender is told."""
        found = _MESSAGE_ID.search(content, 0, content.find(b"\r\n\r\n"))
        received = Received(found[1].decode(errors="replace") if found else "", recipient, time())
        if self._letters is not None:
            (self._letters / f"{self.count + 1:06}.eml").write_bytes(content)
        if self._record_fd >= 0:
            os.write(self._record_fd, f"{received.at:.6f} {received.message_id} {recipient}\n".encode())
        key = hash((received.message_id, recipient))
        if key in self._seen:
            self.duplicates.append(received)
        self._seen.add(key)
        self.count += 1
        self.received.append(received)
        self.contents.append(content)
        for watcher in self._watchers:
            if not watcher.done():
                watcher.set_result(None)
        self._watchers.clear()

    def _conversation(self) -> "_Conversation":
        self.connections += 1
        return _Conversation(self, **self._options)

    async def handle_EHLO(
        self, _server: SMTP, session: Session, _envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        """aiosmtpd asks what to add to its answer."""
        session.host_name = hostname
        return [responses[0], *(["250-PIPELINING"] if self.pipelining else []), *responses[1:]]


class _Conversation(SMTP):
    """aiosmtpd greets, secures and authenticates; the mail itself takes this shorter way.

    aiosmtpd reads content line by line and addresses by their full grammar: 380 µs of CPU for a message of 4 KB, which
    would be charged to whoever is measured against it. This takes 40 µs.
    """

    def __init__(self, sink: Sink, **options: Any) -> None:
        super().__init__(sink, enable_SMTPUTF8=True, hostname="sink.test", ident="Carillon sink", **options)
        self._sink = sink
        self._out: asyncio.Transport | None = None
        self._steps = {b"MAIL": self._mail, b"RCPT": self._rcpt, b"DATA": self._data, b"RSET": self._rset}
        self._unread = bytearray()
        self._answers: list[bytes] = []
        self._has_sender = False
        self._recipients: list[str] = []
        self._in_content = False
        self._brought = 0
        self._deaf = False
        self._leaving = False
        self._is_slow = False  # a message was taken, and its sender is not told yet

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._out = cast(asyncio.Transport, transport)  # after STARTTLS this is called again, with the secured one
        self._port = transport.get_extra_info("peername")[1]
        self._sink.conversations.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._sink.conversations.discard(self)
        self._sink.unanswered.pop(self._port, None)
        super().connection_lost(error)

    def cut(self) -> None:
        self._deaf = True
        if self._out is not None:
            self._out.abort()

    def data_received(self, data: bytes) -> None:
        self._unread += data
        self._go_on()

    def _go_on(self) -> None:
        while self._unread and not self._deaf and not self._is_slow:
            if not (self._read_content() if self._in_content else self._read_command()):
                break
        if self._is_slow:
            return
        if self._answers and self._out is not None:
            self._out.write(b"\r\n".join((*self._answers, b"")))
            self._answers.clear()
        if self._leaving and self._out is not None:
            self._out.close()
        elif len(self._unread) > _LARGEST:
            self.cut()

    def _read_command(self) -> bool:
        end = self._unread.find(b"\n") + 1
        if not end:
            return False
        line = bytes(self._unread[:end])
        del self._unread[:end]
        step = self._steps.get(line[:4].upper())
        if step is not None and self._may_send():
            step(line)
        else:
            super().data_received(line)
        return True

    def _may_send(self) -> bool:
        """If not, aiosmtpd knows what to say."""
        return bool(
            self.session is not None
            and self.session.host_name
            and (self.session.authenticated or not self._auth_required)
            and (self._tls_protocol or not self.require_starttls)
        )

    def _mail(self, line: bytes) -> None:
        if not _ADDRESS.match(line):
            self._answers.append(b"501 5.5.4 MAIL FROM:<address>")
        elif self._has_sender:
            self._answers.append(b"503 5.5.1 Nested MAIL")
        elif self._accepts("MAIL", b"250 2.1.0 Sender OK"):
            self._has_sender = True
            self._reset_timeout()  # who rested for long has not less time for its message

    def _rcpt(self, line: bytes) -> None:
        found = _ADDRESS.match(line)
        if not found or not found[1]:
            self._answers.append(b"501 5.5.4 RCPT TO:<address>")
        elif not self._has_sender:
            self._answers.append(b"503 5.5.1 MAIL first")
        else:
            recipient = found[1].decode(errors="replace")
            if self._accepts("RCPT", b"250 2.1.5 Recipient OK", recipient):
                self._recipients.append(recipient)

    def _data(self, _line: bytes) -> None:
        if not self._recipients:
            self._answers.append(b"503 5.5.1 RCPT first")
        elif self._accepts("DATA", b"354 End with a dot", self._recipients[0]):
            self._in_content = True

    def _rset(self, _line: bytes) -> None:
        self._answers.append(b"250 2.0.0 OK")
        self._forget()

    def _forget(self) -> None:
        self._has_sender = self._in_content = False
        self._recipients = []

    def _read_content(self) -> bool:
        end = 0 if self._unread.startswith(b".\r\n") else self._unread.find(b"\r\n.\r\n") + 2
        if end == 1:
            return False
        # What begins with a dot got one more on its way (RFC 5321 4.5.2).
        content = (b"\r\n" + self._unread[:end]).replace(b"\r\n.", b"\r\n")[2:]
        del self._unread[: end + 3]
        self._reset_timeout()
        recipient = self._recipients[0]
        if self._accepts("CONTENT", b"250 2.0.0 Taken", recipient, content):
            self._brought += 1
        self._forget()
        if self._sink.delay:
            self._is_slow = True
            self._sink.unanswered[self._port] = recipient
            asyncio.get_running_loop().call_later(self._sink.delay, self._answer_late)
        return True

    def _answer_late(self) -> None:
        self._is_slow = False
        self._sink.unanswered.pop(self._port, None)
        self._go_on()

    def _accepts(self, step: str, yes: bytes, recipient: str = "", content: bytes | None = None) -> bool:
        verdict = None
        if self._sink.policy is not None:
            verdict = self._sink.policy(Moment(step, recipient, self._brought, self._sink.count))
        if content is not None and verdict in (None, Misdeed.KEEP_AND_CUT):
            for each in self._recipients:
                self._sink.take(each, content)
        if verdict is None:
            self._answers.append(yes)
        elif isinstance(verdict, str):
            self._answers.append(verdict.encode())
            self._deaf = self._leaving = verdict.startswith("421")
        else:
            self._deaf = True
            self._leaving = verdict is not Misdeed.HANG
        return verdict is None


def run_sink(
    host: str = "127.0.0.1",
    port: int = 1025,
    record: Path | None = None,
    letters: Path | None = None,
    listening: Callable[[Sink], None] = lambda _: None,
) -> Sink:
    """Run a sink until SIGINT or SIGTERM, and return it with its counts. `listening` is told when it can be used."""

    import uvloop  # not for Windows, where the rest of this file works

    async def run() -> Sink:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with Sink(host, port, record=record, letters=letters) as sink:
            listening(sink)
            await stop.wait()
        return sink

    return uvloop.run(run())
