"""Sends e-mail over SMTP: a few connections that stay open, and the truth about what each answer means."""

import asyncio
import re
import socket
import ssl
from functools import partial
from time import time
from typing import cast
from urllib.parse import unquote, urlsplit

import aiosmtplib

from channels.base import Deferred, Message, Receipt, Rejected, Unavailable, Uncertain
from channels.mime import Letter, one_line, write
from channels.smtp_exchange import Broken, Exchange, Refused, Step
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
        self._free = asyncio.Semaphore(connections)
        self._idle: list[Exchange] = []  # the last one used is the first one taken: the rest may grow old
        self._closed = False

    @watched
    async def send(self, message: Message) -> Receipt:
        letter = write(message, int(time()))
        try:
            # This limit ends where the content begins: so whoever is too late for it was surely not sent.
            async with asyncio.timeout(self._timeout) as limit, self._free:
                return await self._send(letter, limit)
        except TimeoutError:
            raise Unavailable(f"The relay was not ready for it within {self._timeout:g} s.") from None

    async def close(self) -> None:
        """Let the messages in flight finish, then say goodbye on every connection."""
        if self._closed:
            return
        self._closed = True
        for _ in range(self._connections):
            await self._free.acquire()
        await asyncio.gather(*(connection.quit() for connection in self._idle))
        self._idle.clear()
        for _ in range(self._connections):
            self._free.release()

    async def _pooled(self) -> Exchange | None:
        """An open connection that can be trusted with a message, if there is one."""
        now = asyncio.get_running_loop().time()
        while self._idle:
            connection = self._idle.pop()
            if not connection.usable:
                continue
            if connection.carried < self._messages_per_connection and now - connection.used_at < self._longest_idle:
                return connection
            await connection.quit()
        return None

    async def _send(self, letter: Letter, limit: asyncio.Timeout) -> Receipt:
        if self._closed:
            raise Unavailable("This channel is closed.")
        if pooled := await self._pooled():
            try:
                return await self._carry(pooled, letter, limit)
            except Unavailable:  # It died while idle, or had enough of us. The letter was surely not taken: try afresh.
                if limit.when() is None:
                    limit.reschedule(asyncio.get_running_loop().time() + self._timeout)
        return await self._carry(await self._relay.connect(), letter, limit)

    async def _carry(self, connection: Exchange, letter: Letter, limit: asyncio.Timeout) -> Receipt:
        try:
            if not connection.takes(letter):
                raise Rejected("The address needs SMTPUTF8 (RFC 6531), which the relay doesn't offer.")
            reply = await connection.carry(letter, partial(limit.reschedule, None))
        except Refused as refused:
            raise _verdict(refused) from refused
        except Broken as broken:
            raise (Uncertain if broken.step is Step.CONTENT else Unavailable)(str(broken)) from broken
        finally:
            if connection.usable:
                self._idle.append(connection)
        return Receipt(letter.message_id, str(reply))


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

    async def connect(self) -> Exchange:
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
        return Exchange(cast(asyncio.Transport, client.transport), client.esmtp_extensions, self._timeout)


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
