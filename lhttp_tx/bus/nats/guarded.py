"""
The client of nats-py, with two changes: it can insist on TLS, and it is faster.

The greeting of a server says whether to use TLS. nats-py believes it, but the greeting itself is not encrypted. An
attacker on the network could remove the request for TLS, and would then get the password unencrypted.

For each message, nats-py needs several microseconds, a queue, and a turn of a task. So this client subscribes,
publishes and pings without it, and takes the messages of its subscriptions before nats-py sees them
(:mod:`lhttp_tx.bus.nats.tap`). nats-py only connects, checks at long intervals whether the server still answers, and
ends the connection. Only :mod:`lhttp_tx.bus.nats.link` uses this module.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable
from typing import Any

from nats.aio.client import Client
from nats.errors import Error

from lhttp_tx.bus.nats.incoming import Incoming, Run
from lhttp_tx.bus.nats.origins import Origin
from lhttp_tx.bus.nats.tap import Receiver, Tap

__all__ = ["GuardedClient", "Pong"]

Pong = asyncio.Future[bool]
"""The answer to a ping. Cancelled if the connection has ended."""

_PING = b"PING\r\n"

NO_TLS = "the server offers no TLS, so nothing was sent to it; turn TLS on there, or leave out tls:// and --nats-tls-ca"
"""The reason for refusing a server."""

_REFUSED = re.compile(rb"-ERR 'Permissions Violation for (?:Subscription|Publish) to \"([^\"\r\n]*)\"")
_MAX_REFUSED = 10_000
"""The most refused subjects that are remembered until nats-py reports them."""


class GuardedClient(Client):
    """
    A client that can require TLS, and then sends nothing unencrypted.

    :ivar insists: whether the connection must be encrypted before the first byte is sent.
    :ivar receivers: the functions that take the messages of subscriptions, by the subscription's number in the
        protocol.
    :ivar taken: called with the messages of one read. It must not raise.
    :ivar broken: called with the reason when the stream of the server cannot be parsed, or the connection breaks.
    """

    insists = False

    def __init__(self, find: Callable[[bytes], Origin | None] | None = None) -> None:
        """:param find: returns the link that has sent a message, by its reply subject; ``None`` if it is not known."""
        super().__init__()
        self.receivers: dict[bytes, Receiver] = {}
        self.taken: Callable[[list[Run[Receiver]]], None] = _call_receivers
        self.broken: Callable[[str], None] = _ignore
        self._incoming = Incoming(self.receivers, find)
        self._refused: deque[str] = deque(maxlen=_MAX_REFUSED)
        self._pings: list[Callable[[Pong], None]] = []
        self._writing = False
        self._tap: Tap | None = None

    def send(self, commands: bytes) -> None:
        """
        Send commands of the NATS protocol unchanged, at the end of this turn of the reactor.

        If the server reads more slowly than the node writes, the commands wait. The caller must limit
        :attr:`pending_data_size`, which includes their bytes.

        :param commands: well-formed commands, of sizes that the server accepts.
        """
        client: Any = self
        client._pending.append(commands)
        client._pending_data_size += len(commands)
        self._write_soon()

    def ping(self, sent: Callable[[Pong], None]) -> None:
        """
        Ping the server, after everything that is sent in this turn of the reactor.

        Several calls in one turn cost one ping.

        :param sent: called when the ping is sent, with a future that is done when the answer has come.
        """
        self._pings.append(sent)
        self._write_soon()

    async def pinged(self) -> None:
        """Return when the server has answered a :meth:`ping`. If the connection is lost, this never returns."""
        answered = asyncio.get_running_loop().create_future()

        def answer(pong: Pong) -> None:
            if not (answered.done() or pong.cancelled()):
                answered.set_result(None)

        self.ping(lambda pong: pong.add_done_callback(answer))
        await answered

    def _write_soon(self) -> None:
        if not self._writing:
            self._writing = True
            asyncio.get_running_loop().call_soon(self._write)

    def _write(self) -> None:
        """
        Write the bytes that wait, and a ping after them. If the transport is full, :meth:`tap_writable` does so later.
        """
        self._writing = False
        client: Any = self
        tap = self._tap
        if tap is None or tap.full or not client.is_connected or tap.transport.is_closing():
            return
        pings = self._pings
        if pings:
            self._pings = []
            client._pending.append(_PING)
            pong = asyncio.get_running_loop().create_future()
            client._pongs.append(pong)
            for sent in pings:
                sent(pong)
        if client._pending:
            pending, client._pending, client._pending_data_size = client._pending, [], 0
            tap.transport.writelines(pending)

    def listen(self, receiver: Receiver) -> bytes:
        """Return a number for a new subscription. Messages of the subscription with this number go to *receiver*."""
        client: Any = self
        client._sid += 1
        number = b"%d" % client._sid
        self.receivers[number] = receiver
        return number

    def ignore(self, number: bytes) -> None:
        """Stop taking the messages of a subscription."""
        self.receivers.pop(number, None)
        self._incoming.forget()

    def ignore_all(self) -> None:
        """Stop taking messages."""
        self.receivers.clear()
        self._incoming.forget()

    def spelled(self, subject: str) -> str:
        """Return a refused subject in the server's spelling. nats-py reports it in lower case."""
        while self._refused:
            found = self._refused.popleft()
            if found.lower() == subject:
                return found
        return subject

    def _connect_command(self) -> bytes:
        """
        Return the first line that the client sends, which contains the credentials.

        From now on, this client reads the stream of the server before nats-py does. The server has sent its greeting,
        and waits for this line. If the client insists on TLS, it ignores the other servers that the greeting has
        announced: the greeting came before TLS, so anybody may have sent it. The server announces them again later.

        :raises Error: if :attr:`insists` is set and the connection is not encrypted.
        """
        client: Any = self
        writer: Any = getattr(client._transport, "_io_writer", None)
        if self.insists:
            if writer is None or writer.get_extra_info("ssl_object") is None:
                raise Error(NO_TLS)
            client._server_pool = [server for server in client._server_pool if not server.discovered]
        transport = writer.transport
        self._tap = Tap(transport, self._incoming, self)
        transport.set_protocol(self._tap)
        return super()._connect_command()

    async def _process_op_err(self, e: Exception) -> None:
        """
        End, because the connection is lost.

        nats-py would write the remaining bytes to the lost connection. That fails, in a task whose failure nobody
        handles, before nats-py has reported its end.
        """
        client: Any = self
        client._pending, client._pending_data_size = [], 0
        try:
            await super()._process_op_err(e)
        except OSError as error:  # something was sent meanwhile
            self.broken(str(error) or repr(error))

    # Callbacks of the tap

    def tap_took(self, runs: list[Run[Receiver]]) -> None:
        """Pass on messages."""
        self.taken(runs)

    def tap_broke(self, reason: str) -> None:
        """Pass on why the stream of the server cannot be parsed."""
        self.broken(reason)

    def tap_refused(self, lines: bytes) -> None:
        """Remember the subjects that the server has refused."""
        self._refused.extend(subject.decode("utf-8", "replace") for subject in _REFUSED.findall(lines))

    def tap_answered(self) -> bool:
        """Take the answer to the oldest ping, as nats-py does when it reads one."""
        client: Any = self
        if not client._pongs:
            return False
        pong = client._pongs.pop(0)
        if not pong.done():
            pong.set_result(True)
        client._pongs_received += 1
        client._pings_outstanding = 0
        return True

    def tap_writable(self) -> None:
        """Write the bytes that wait."""
        self._write()


def _call_receivers(runs: list[Run[Receiver]]) -> None:
    for run in runs:
        run.owner(run)


def _ignore(reason: str) -> None:
    """Do nothing: no link uses this client yet."""


if not {"_connect_command", "_process_op_err"} <= vars(Client).keys():  # another version could bypass the checks
    raise ImportError("this version of nats-py is not known to lhttp_tx; install another one")
