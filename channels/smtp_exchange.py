"""One SMTP connection's mail: MAIL, RCPT and DATA in one write where the server allows it, and what became of each."""

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress
from enum import StrEnum
from typing import NamedTuple

from channels.mime import Letter, one_line
from telemetry import metrics

_LONGEST_REPLY = 64 * 1024  # bytes; a server that never stops talking must not fill our memory
_HUNG_UP = "the server hung up"
_GOODBYE = 3.0  # seconds; nothing depends on the answer to QUIT


class Step(StrEnum):
    """Where in the exchange a message stands. Only in `CONTENT` can the server have taken it (RFC 1047)."""

    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    CONTENT = "the content"
    RSET = "RSET"
    QUIT = "QUIT"


_ENVELOPE = (Step.MAIL, Step.RCPT, Step.DATA)


class Reply(NamedTuple):
    """What the server said, such as `550 5.1.1 User unknown`."""

    code: int
    lines: tuple[bytes, ...]

    @property
    def text(self) -> str:
        return one_line(b" ".join(self.lines).decode(errors="replace"))[:500]

    def __str__(self) -> str:
        return f"{self.code} {self.text}"


class Refused(Exception):
    """The server answered, and not with yes."""

    def __init__(self, step: Step, reply: Reply) -> None:
        super().__init__(f"{reply} (to {step})")
        self.step = step
        self.reply = reply


class Broken(Exception):
    """No answer: the connection was lost, or the time is up, or what came was not SMTP."""

    def __init__(self, step: Step, why: str) -> None:
        super().__init__(f"{why} (at {step})")
        self.step = step


class Exchange(asyncio.Protocol):
    """Takes over a transport on which somebody else has greeted, secured and authenticated.

    Carries one letter at a time. `usable` says whether it can carry another.
    """

    def __init__(self, transport: asyncio.Transport, extensions: Collection[str], timeout: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._pipelining = "pipelining" in extensions
        self._smtputf8 = "smtputf8" in extensions
        self._timeout = timeout
        self._buffer = b""
        self._lines: list[bytes] = []
        self._replies: list[Reply] = []
        self._wanted = 0
        self._waiter: asyncio.Future[None] | None = None
        self._lost: str | None = None
        self._half_way = False  # the server still holds the sender of a letter whose recipient it refused
        self.carried = 0
        self.used_at = self._loop.time()
        transport.set_protocol(self)
        self._counted = self.usable
        metrics.smtp_connections.inc(self._counted)

    @property
    def usable(self) -> bool:
        return self._lost is None and not self._transport.is_closing()

    def takes(self, letter: Letter) -> bool:
        """Can this server take the letter's addresses?"""
        return self._smtputf8 or not letter.needs_smtputf8

    async def carry(self, letter: Letter, content_begins: Callable[[], None]) -> Reply:
        """Hand one letter over; the answer to its content. `content_begins` is called before nobody can know.

        Raises:
            Refused: at which step, and how.
            Broken: at which step. In `CONTENT` nobody can know what became of the letter.
        """
        self.carried += 1
        try:
            await self._envelope(letter)
            if not self.usable:  # lost together with the server's readiness: nothing of the content was written
                raise Broken(Step.DATA, self._lost or _HUNG_UP)
            content_begins()
            # A dot that begins a line is doubled (RFC 5321 4.5.2). Content ends a line, so the last dot is alone.
            content = letter.content.replace(b"\r\n.", b"\r\n..")
            (reply,) = await self._ask((Step.CONTENT,), content + b".\r\n")
            _check(Step.CONTENT, reply)
            return reply
        except Refused as refused:
            if refused.reply.code == 421:  # the server is about to hang up
                self.abort(str(refused))
            raise
        except BaseException as error:  # cancelled, too: an answer is still due, and must not be taken for another's
            self.abort(str(error))
            raise
        finally:
            self.used_at = self._loop.time()

    async def quit(self) -> None:
        """Say goodbye, and hang up whatever the answer is."""
        self._timeout = min(self._timeout, _GOODBYE)
        try:
            with suppress(Broken):
                await self._ask((Step.QUIT,), b"QUIT\r\n")
        finally:
            self._lost = self._lost or "closed"
            self._transport.close()

    def abort(self, why: str) -> None:
        """Hang up without a word; whoever waits for an answer learns why."""
        if self._lost is None:
            self._lost = why
            self._transport.abort()
        self._wake()

    async def _envelope(self, letter: Letter) -> None:
        """Everything up to the server's readiness for the content."""
        if self._half_way:  # without RSET, this MAIL would be one too many
            (reply,) = await self._ask((Step.RSET,), b"RSET\r\n")
            if reply.code != 250:
                raise Broken(Step.RSET, str(reply))
        self._half_way = True
        parameters = " BODY=8BITMIME SMTPUTF8" if letter.needs_smtputf8 else ""
        commands = (
            f"MAIL FROM:<{letter.mail_from}>{parameters}\r\n".encode(),
            f"RCPT TO:<{letter.rcpt_to}>\r\n".encode(),
            b"DATA\r\n",
        )
        if self._pipelining:
            replies = await self._ask(_ENVELOPE, b"".join(commands))
            try:
                for step, reply in zip(_ENVELOPE, replies, strict=False):
                    _check(step, reply)
            except Refused:
                # RFC 2920 3.1: a server may ask for content though it refused the recipient. It gets none.
                if replies[-1].code == 354:
                    with suppress(Broken):
                        await self._ask((Step.DATA,), b".\r\n")
                raise
        else:
            for step, command in zip(_ENVELOPE, commands, strict=True):
                (reply,) = await self._ask((step,), command)
                _check(step, reply)
        self._half_way = False

    async def _ask(self, steps: tuple[Step, ...], data: bytes) -> list[Reply]:
        """Write, and wait for one reply to each step; for fewer if one of them is a 421."""
        if not self.usable:
            raise Broken(steps[0], self._lost or _HUNG_UP)
        self._replies = []
        self._wanted = len(steps)
        self._waiter = self._loop.create_future()
        # One time limit for all the replies: a server that drips one byte at a time gains nothing by it.
        # On a connection that may have died in silence since its last letter, there must be time left for another.
        limit = self._timeout if self.carried <= 1 or steps[0] is Step.CONTENT else self._timeout / 2
        timer = self._loop.call_later(limit, self.abort, f"no answer within {limit:g} s")
        try:
            self._transport.write(data)
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None
        replies = self._replies
        if self._lost is not None and len(replies) < len(steps) and not (replies and replies[-1].code == 421):
            raise Broken(steps[len(replies)], self._lost)
        return replies

    def data_received(self, data: bytes) -> None:
        if self._waiter is None or self._waiter.done():
            # A goodbye into the silence, or an answer too many: the next could be taken for the wrong question's.
            self.abort(f"the server spoke out of turn: {one_line(data[:200].decode(errors='replace'))}")
            return
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            if not line[:3].isdigit() or line[3:4] not in b" -\r":
                self.abort("the answer was not SMTP")
                return
            self._lines.append(line[4:])
            if line[3:4] != b"-":
                self._replies.append(Reply(int(line[:3]), tuple(self._lines)))
                self._lines = []
        answered = len(self._replies) >= self._wanted or bool(self._replies and self._replies[-1].code == 421)
        unasked = len(self._buffer) + sum(map(len, self._lines))
        if len(self._replies) > self._wanted or unasked > (0 if answered else _LONGEST_REPLY):
            del self._replies[self._wanted :]  # what was asked for still counts
            self.abort("the server said more than it was asked")
        elif answered:
            self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        metrics.smtp_connections.dec(self._counted)
        self._counted = False
        self._lost = self._lost or (f"connection lost: {error}" if error else _HUNG_UP)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _check(step: Step, reply: Reply) -> None:
    accepted = reply.code == 354 if step is Step.DATA else reply.code // 100 == 2
    if accepted:
        return
    if reply.code // 100 in (4, 5):
        raise Refused(step, reply)
    raise Broken(step, f"an answer that settles nothing: {reply}")
