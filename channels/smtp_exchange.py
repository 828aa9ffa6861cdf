"""One SMTP connection's mail: as much in one write as the server allows, and what became of each letter."""

import asyncio
from collections import deque
from collections.abc import Collection, Sequence
from enum import StrEnum
from time import monotonic
from typing import NamedTuple, Protocol

from channels.base import Receipt
from channels.mime import Letter, one_line
from telemetry import metrics

_LONGEST_REPLY = 64 * 1024  # bytes; a server that never stops talking must not fill our memory
_HUNG_UP = "the server hung up"
_GOODBYE = 3.0  # seconds; nothing depends on the answer to QUIT


class Step(StrEnum):
    """Where in the exchange a letter stands. Only in `CONTENT` can the server have taken it (RFC 1047)."""

    RSET = "RSET"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    CONTENT = "the content"
    NO_CONTENT = "a dot alone"  # for a server that asks for content though it refused the recipient
    QUIT = "QUIT"


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


class Parcel(asyncio.Future[Receipt]):
    """A letter on its way. Whoever awaits it gets the receipt.

    Its content never begins after `begin_by` (as `time.monotonic` tells it), nor when nobody waits for it any more.
    """

    def __init__(self, letter: Letter, begin_by: float) -> None:
        super().__init__()
        self.letter = letter
        self.begin_by = begin_by
        self.exchange: Exchange | None = None
        self.first = False  # of its connection
        self.refused: Refused | None = None

    def fail(self, error: Exception) -> None:
        if not self.done():
            self.set_exception(error)

    def cancel(self, msg: object = None) -> bool:
        cancelled = super().cancel(msg)
        if cancelled and self.exchange is not None:
            self.exchange.give_up(self)
        return cancelled


class Desk(Protocol):
    """Where exchanges get their parcels, and bring what became of them."""

    def next_for(self, exchange: "Exchange") -> Parcel | None:
        """What to carry beside or after the present letter; None: nothing now."""

    def answered(self, parcel: Parcel, answer: Reply | Refused) -> None: ...

    def resting(self, exchange: "Exchange") -> None:
        """It has nothing to carry, and no answer is due."""

    def gone(self, exchange: "Exchange", why: str, unanswered: Sequence[tuple[Parcel, Step]]) -> None:
        """It is of no more use. What it had begun, the oldest first, with the step that found no answer."""


class Exchange(asyncio.Protocol):
    """Takes over a transport on which somebody else has greeted, secured and authenticated.

    Driven by the server's answers alone, without a task of its own: each is matched by count to what was asked. Where
    the server offers PIPELINING, a letter's content and the envelope of the next leave in one write (RFC 2920, 3.1).
    One content at most is without its answer at any time: one letter at most is uncertain when the connection breaks.
    """

    def __init__(self, transport: asyncio.Transport, extensions: Collection[str], timeout: float, desk: Desk) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._pipelining = "pipelining" in extensions
        self._smtputf8 = "smtputf8" in extensions
        self._timeout = timeout
        self._desk = desk
        self._buffer = b""
        self._lines: list[bytes] = []
        self._due: deque[tuple[Step, Parcel | None]] = deque()  # the answers that the server owes us, in order
        self._unsaid: deque[tuple[Step, bytes]] = deque()  # the rest of an envelope, without PIPELINING
        self._half_way = False  # the server still holds the sender of a letter that it refused
        self._muted = False  # what we would write now could be answered by what has been said already
        self._lost = False
        self._limit = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.carried = 0
        self.used_at = self._loop.time()
        transport.set_protocol(self)
        metrics.smtp_connections.inc()

    @property
    def usable(self) -> bool:
        return not self._lost and not self._transport.is_closing()

    def takes(self, letter: Letter) -> bool:
        """Can this server take the letter's addresses?"""
        return self._smtputf8 or not letter.needs_smtputf8

    def carry(self, parcel: Parcel) -> None:
        """Begin with a letter, on a connection that rests."""
        self._write(self._envelope(parcel))
        self._await_envelope(parcel)

    def go_on(self) -> None:
        """Carry the next parcel, if there is one."""
        if parcel := self._desk.next_for(self):
            self.carry(parcel)
        else:
            self.used_at = self._loop.time()
            self._desk.resting(self)

    def quit(self) -> None:
        """Say goodbye, and hang up whatever the answer is."""
        self._due.append((Step.QUIT, None))
        self._write(b"QUIT\r\n")
        self._await(min(self._timeout, _GOODBYE))

    def give_up(self, parcel: Parcel) -> None:
        """Nobody waits for this letter any more: hang up, unless another's content would be lost with it."""
        if self._due and self._due[0][1] is parcel:
            self.abort("cancelled")

    def abort(self, why: str) -> None:
        """Hang up without a word."""
        if self._lost:
            return
        self._lost = True
        metrics.smtp_connections.dec()
        if self._timer is not None:
            self._timer.cancel()
        self._transport.abort()
        unanswered: dict[Parcel, Step] = {}
        for step, parcel in self._due:
            if parcel is not None:
                unanswered.setdefault(parcel, step)
        self._due.clear()
        self._desk.gone(self, why, list(unanswered.items()))

    # -- what we say -------------------------------------------------------------------------------------------------

    def _envelope(self, parcel: Parcel) -> bytes:
        """The commands up to DATA, or the first of them where each must be answered before the next."""
        letter = parcel.letter
        parcel.exchange = self
        parcel.refused = None
        parcel.first = not self.carried
        self.carried += 1
        parameters = " BODY=8BITMIME SMTPUTF8" if letter.needs_smtputf8 else ""
        commands = [
            (Step.MAIL, f"MAIL FROM:<{letter.mail_from}>{parameters}\r\n".encode()),
            (Step.RCPT, f"RCPT TO:<{letter.rcpt_to}>\r\n".encode()),
            (Step.DATA, b"DATA\r\n"),
        ]
        if self._half_way:  # without RSET, this MAIL would be one too many
            commands.insert(0, (Step.RSET, b"RSET\r\n"))
            self._half_way = False
        said = commands if self._pipelining else commands[:1]
        self._unsaid.extend(commands[len(said) :])
        self._due.extend((step, parcel) for step, _ in said)
        return b"".join([command for _, command in said])

    def _begin_content(self, parcel: Parcel) -> None:
        if self._muted or parcel.done() or monotonic() > parcel.begin_by or not self.usable:
            # Not a dot alone: it would be taken for an empty message. A server forgets what was cut before the dot.
            self._due.appendleft((Step.DATA, parcel))
            self.abort("too late for the content" if self.usable else _HUNG_UP)
            return
        # A dot that begins a line is doubled (RFC 5321 4.5.2). Content ends a line, so the last dot is alone.
        written = parcel.letter.content.replace(b"\r\n.", b"\r\n..") + b".\r\n"
        self._due.append((Step.CONTENT, parcel))
        if self._pipelining and (following := self._desk.next_for(self)):
            written += self._envelope(following)
        self._write(written)
        self._await(self._timeout)

    def _write(self, data: bytes) -> None:
        self._transport.write(data)

    # -- how long we wait for an answer ------------------------------------------------------------------------------

    def _await_envelope(self, parcel: Parcel) -> None:
        # On a connection that may have died in silence since its last letter, there must be time left for another.
        limit = self._timeout if parcel.first else self._timeout / 2
        self._await(min(limit, max(parcel.begin_by - monotonic(), 0.0)))

    def _await(self, seconds: float) -> None:
        # One time limit for all the answers to one write: a server that drips one byte at a time gains nothing by it.
        self._limit = self._loop.time() + seconds
        if self._timer is not None and self._timer.when() > self._limit:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_at(self._limit, self._look_at_the_clock)

    def _look_at_the_clock(self) -> None:
        # The timer is left running from letter to letter: to stop one and to start one costs more than to look.
        self._timer = None
        if not self._due:
            return
        if self._loop.time() >= self._limit:
            self.abort("no answer in time")
        else:
            self._timer = self._loop.call_at(self._limit, self._look_at_the_clock)

    # -- what the server says ----------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._lost:
            return
        replies = self._replies(data)
        if replies is None:
            self.abort("the answer was not SMTP")
            return
        asked = len(self._due)
        unfinished = len(self._buffer) + sum(map(len, self._lines))
        excess = len(replies) > asked or unfinished > (_LONGEST_REPLY if len(replies) < asked else 0)
        self._muted = excess
        for reply in replies[:asked]:
            self._take(reply)
            if self._lost:
                return
        if excess:  # the next answer could be taken for the wrong question's
            self.abort("the server said more than it was asked")
        elif not self._due:
            self.go_on()

    def _replies(self, data: bytes) -> list[Reply] | None:
        """What is complete by now; None if it is not SMTP."""
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        replies = []
        for line in lines:
            if not line[:3].isdigit() or line[3:4] not in b" -\r":
                return None
            self._lines.append(line[4:])
            if line[3:4] != b"-":
                replies.append(Reply(int(line[:3]), tuple(self._lines)))
                self._lines = []
        return replies

    def _take(self, reply: Reply) -> None:
        step, parcel = self._due.popleft()
        if step is Step.QUIT or parcel is None:
            self.abort("we said goodbye")
            return
        if reply.code == 421:  # The server is about to hang up, and has not taken it.
            self._due.appendleft((Step.DATA if step is Step.CONTENT else step, parcel))
            self.abort(str(Refused(step, reply)))
            return
        accepted = reply.code == 354 if step is Step.DATA else reply.code // 100 == 2 or step is Step.NO_CONTENT
        refused = None if accepted else Refused(step, reply)
        if refused and (step is Step.RSET or reply.code // 100 not in (4, 5)):
            self._due.appendleft((step, parcel))
            self.abort(f"an answer that settles nothing: {reply}")
            return
        parcel.refused = parcel.refused or refused
        if step is Step.CONTENT:
            self._desk.answered(parcel, refused or reply)
            if self._due and (following := self._due[0][1]):
                self._await_envelope(following)
        elif self._unsaid and not parcel.refused:
            following_step, command = self._unsaid.popleft()
            self._due.append((following_step, parcel))
            self._write(command)
        elif step is Step.DATA and accepted and not parcel.refused:
            self._begin_content(parcel)
        elif step is Step.DATA and accepted:
            # RFC 2920 3.1: a server may ask for content though it refused the recipient. It gets none.
            self._due.append((Step.NO_CONTENT, parcel))
            self._write(b".\r\n")
        elif parcel.refused and not self._due:
            self._unsaid.clear()
            self._half_way = True
            self._desk.answered(parcel, parcel.refused)

    def connection_lost(self, error: Exception | None) -> None:
        self.abort(f"connection lost: {error}" if error else _HUNG_UP)
