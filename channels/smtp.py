"""Sends e-mail over SMTP: a few connections that stay open, and the truth about what each answer means."""

import asyncio
import re
import socket
import ssl
from collections import deque
from collections.abc import Sequence
from math import inf
from time import monotonic, time
from typing import cast
from urllib.parse import unquote, urlsplit

import aiosmtplib

from channels.base import Deferred, Message, Receipt, Rejected, Unavailable, Uncertain
from channels.mime import Letter, one_line, write
from channels.smtp_exchange import Desk, Exchange, Parcel, Refused, Reply, Step
from channels.watch import watched

# scheme: its port, TLS from the start, STARTTLS (None: when offered)
_SCHEMES: dict[str, tuple[int, bool, bool | None]] = {
    "smtp": (25, False, None),
    "smtp+starttls": (587, False, True),
    "smtps": (465, True, False),
}
_ENHANCED_CODE = re.compile(r"5\.(\d{1,3})\.(\d{1,3})\b")
# RFC 3463 and RFC 7505: no such mailbox or domain, bad syntax, moved away, disabled. Not 5.2.2, a full mailbox.
_DEAD_ADDRESS = frozenset({"1.0", "1.1", "1.2", "1.3", "1.6", "1.10", "2.1"})
# RFC 4954: log in first, or again, or with something stronger. Our fault, not the message's.
_LOG_IN = frozenset({530, 534, 535, 538})


class SmtpChannel:
    """E-mail by one SMTP relay.

    Args:
        url: `smtp://` (STARTTLS when offered), `smtp+starttls://` (demanded) or `smtps://`, then
            `user:password@host:port`, percent-encoded.
        connections: the most that are open at the same time.
        messages_per_connection: after so many, a connection is replaced.
        timeout: seconds until the relay is ready for a message's content, then again until it has answered.
        idle: seconds after which an unused connection is replaced rather than trusted.
        tls: whom to trust; unset: the system's certificate authorities.
        hostname: what we call ourselves in EHLO; unset: this machine's name.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str = "email",
        connections: int = 20,
        messages_per_connection: int = 1000,
        timeout: float = 30.0,
        idle: float = 60.0,
        tls: ssl.SSLContext | None = None,
        hostname: str | None = None,
    ) -> None:
        self.name = name
        self._relay = _Relay(url, timeout, tls, hostname)
        self._timeout = timeout
        self._connections = connections
        self._messages_per_connection = messages_per_connection
        self._longest_idle = idle
        self._waiting: deque[Parcel] = deque()
        self._idle: list[Exchange] = []  # the last one used is the first one taken: the rest may grow old
        self._seats = connections  # free ones: a connection has its seat until it is gone
        self._opening: set[asyncio.Task[None]] = set()
        self._clock: asyncio.TimerHandle | None = None
        self._closed: asyncio.Event | None = None

    @watched
    def send(self, message: Message, *, begin_by: float = inf) -> asyncio.Future[Receipt]:
        try:
            return self.post(write(message, int(time())), begin_by=begin_by)
        except Rejected as refusal:
            answer: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
            answer.set_exception(refusal)
            return answer

    def post(self, letter: Letter, *, begin_by: float = inf) -> asyncio.Future[Receipt]:
        """Send what is written already."""
        # This limit ends where the content begins: so whoever is too late for it was surely not sent.
        parcel = Parcel(letter, min(begin_by, monotonic() + self._timeout))
        self._waiting.append(parcel)
        self._hand_out()
        return parcel

    async def close(self) -> None:
        """Let the messages in flight finish, then say goodbye on every connection."""
        if self._closed is None:
            self._closed = asyncio.Event()
            self._hand_out()
            while self._idle:
                self._idle.pop().quit()
        if self._seats < self._connections:
            await self._closed.wait()

    # -- who carries what --------------------------------------------------------------------------------------------

    def _hand_out(self) -> None:
        """Give what waits to connections that rest, and open others as far as there are seats."""
        while self._waiting:
            rested = self._rested()
            if rested is None and not self._seats and self._closed is None:
                break
            parcel = self._next(rested)
            if rested and parcel:
                rested.carry(parcel)
            elif rested:
                self._idle.append(rested)
            elif parcel:
                self._open(parcel)
        if self._waiting:
            self._watch(min(self._waiting[0].begin_by, self._waiting[-1].begin_by))

    def _rested(self) -> Exchange | None:
        """An open connection that can be trusted with a message, if there is one."""
        now = asyncio.get_running_loop().time()
        while self._idle:
            exchange = self._idle.pop()
            if now - exchange.used_at < self._longest_idle:
                return exchange
            exchange.quit()
        return None

    def _next(self, exchange: Exchange | None) -> Parcel | None:
        """The first of those that wait and can still be carried, by this connection or a new one."""
        while self._waiting:
            parcel = self._waiting.popleft()
            if self._is_due(parcel) and (exchange is None or _fits(exchange, parcel)):
                return parcel
        return None

    def _is_due(self, parcel: Parcel) -> bool:
        """May it still go out? If not, say so."""
        if self._closed is not None:
            parcel.fail(Unavailable("This channel is closed."))
        elif monotonic() > parcel.begin_by:
            parcel.fail(Unavailable("The relay was not ready for it in time."))
        return not parcel.done()

    def _open(self, parcel: Parcel) -> None:
        """A new connection, and this parcel is its first."""
        self._seats -= 1
        opening = asyncio.create_task(self._connect(parcel))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)

    async def _connect(self, parcel: Parcel) -> None:
        try:
            async with asyncio.timeout(max(parcel.begin_by - monotonic(), 0.0)):
                exchange = await self._relay.connect(self)
        except TimeoutError:
            parcel.fail(Unavailable("The relay was not ready for it in time."))
        except Exception as error:  # Unavailable, or a bug: whoever waits is told, not left alone
            parcel.fail(error)
        else:
            if not parcel.done() and _fits(exchange, parcel):
                exchange.carry(parcel)
            else:
                exchange.go_on()
            return
        self._give_seat_back()

    def _give_seat_back(self) -> None:
        self._seats += 1
        self._hand_out()
        if self._closed is not None and self._seats == self._connections:
            self._closed.set()

    def _watch(self, moment: float) -> None:
        """Look, at this moment at the latest, whether somebody waits in vain."""
        loop = asyncio.get_running_loop()
        if self._clock is None or self._clock.when() > loop.time() + moment - monotonic():
            if self._clock is not None:
                self._clock.cancel()
            self._clock = loop.call_later(max(moment - monotonic(), 0.0) + 0.001, self._look_at_the_clock)

    def _look_at_the_clock(self) -> None:
        self._clock = None
        self._waiting = deque(parcel for parcel in self._waiting if self._is_due(parcel))
        if self._waiting:
            self._watch(min(parcel.begin_by for parcel in self._waiting))

    # -- what connections tell us ------------------------------------------------------------------------------------

    def next_for(self, exchange: Exchange) -> Parcel | None:
        if exchange.carried >= self._messages_per_connection or self._closed is not None:
            return None
        return self._next(exchange)

    def answered(self, parcel: Parcel, answer: Reply | Refused) -> None:
        if isinstance(answer, Refused):
            parcel.fail(_verdict(answer))
        elif not parcel.done():
            parcel.set_result(Receipt(parcel.letter.message_id, str(answer)))

    def resting(self, exchange: Exchange) -> None:
        if exchange.carried >= self._messages_per_connection or self._closed is not None:
            exchange.quit()
        else:
            self._idle.append(exchange)

    def gone(self, exchange: Exchange, why: str, unanswered: Sequence[tuple[Parcel, Step]]) -> None:
        if exchange in self._idle:
            self._idle.remove(exchange)
        for place, (parcel, step) in reversed(list(enumerate(unanswered))):
            if parcel.refused:
                self.answered(parcel, parcel.refused)
            elif step is Step.CONTENT:
                parcel.fail(Uncertain(f"{why} (at {step})"))
            elif place > 0:  # another's envelope was on its way behind that content
                self._waiting.appendleft(parcel)
            elif parcel.first:
                parcel.fail(Unavailable(f"{why} (at {step})"))
            elif self._is_due(parcel):
                # The connection died while idle, or had enough of us. It was surely not taken: try afresh, in its seat.
                self._seats += 1
                self._open(parcel)
                self._seats -= 1
        self._give_seat_back()


def _fits(exchange: Exchange, parcel: Parcel) -> bool:
    """Can the server take its addresses? If not, say so."""
    if exchange.takes(parcel.letter):
        return True
    parcel.fail(Rejected("The address needs SMTPUTF8 (RFC 6531), which the relay doesn't offer."))
    return False


class _Relay:
    """The server behind the URL: connects, secures and logs in with aiosmtplib, and hands the connection on."""

    def __init__(self, url: str, timeout: float, tls: ssl.SSLContext | None, hostname: str | None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in _SCHEMES or not parts.hostname:
            raise ValueError(f"An SMTP URL is {', '.join(f'{scheme}://host' for scheme in _SCHEMES)}.")
        port, self._use_tls, self._start_tls = _SCHEMES[parts.scheme]
        self._host = parts.hostname
        self._port = parts.port or port
        self._user = unquote(parts.username) if parts.username else None
        self._password = unquote(parts.password) if parts.password else None
        self._timeout = timeout
        self._tls = tls or ssl.create_default_context()
        self._hostname = hostname or socket.gethostname()

    async def connect(self, desk: Desk) -> Exchange:
        client = aiosmtplib.SMTP(timeout=self._timeout)
        try:
            await client.connect(
                hostname=self._host,
                port=self._port,
                username=self._user,
                password=self._password,
                use_tls=self._use_tls,
                start_tls=self._start_tls,
                tls_context=self._tls,
                local_hostname=self._hostname,
            )
            if client.is_ehlo_or_helo_needed:
                await client.ehlo()
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:  # ValueError: a host name that can't be one
            client.close()
            raise Unavailable(one_line(f"{self._host}:{self._port}: {error}")) from error
        except BaseException:
            client.close()
            raise
        return Exchange(cast(asyncio.Transport, client.transport), client.esmtp_extensions, self._timeout, desk)


def _verdict(refused: Refused) -> Rejected | Deferred | Unavailable:
    """What an answer means for the message: never, later, or nothing at all."""
    code, text = refused.reply.code, refused.reply.text
    if code == 421 or code in _LOG_IN:
        return Unavailable(str(refused))
    if code // 100 == 4:
        return Deferred(str(refused))
    if detail := _ENHANCED_CODE.match(text):
        dead = f"{detail[1]}.{detail[2]}" in _DEAD_ADDRESS
    else:
        # Without the finer code, only an answer to the address itself is about the address.
        dead = refused.step is Step.RCPT and code in (550, 551, 553)
    return Rejected(str(refused), suppress=dead)
