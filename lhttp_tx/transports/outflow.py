"""
Writes bytes to a client that may not read fast enough.

The layer below :mod:`lhttp_tx.web.events.stream`, :mod:`lhttp_tx.transports.tcp` and other transports on a stream of
bytes. It works like :mod:`lhttp_tx.transports.websocket.connection`: it has the same limit, and writes to an idle
socket at once.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.interfaces import IPushProducer, ISSLTransport
from twisted.internet.tcp import Server as TCPServer
from zope.interface import implementer

from lhttp_tx.guard.reads import begin_reading

__all__ = ["Outflow", "Unread"]

_CONGESTED_SIZE = 65_536
"""The fewest bytes that a transport holds when it asks to pause: the size of Twisted's buffer."""


class Unread:
    """The messages of one stream that may still wait to be sent, for a hook that asks for undelivered messages."""

    __slots__ = ("_kept", "_size")

    def __init__(self) -> None:
        self._kept: deque[tuple[int, list[bytes], bool]] = deque()
        self._size = 0

    def add(self, size: int, payloads: list[bytes], binary: bool, held: int) -> None:
        """
        Remember messages for as long as some bytes of their events wait.

        :param size: bytes of their events.
        :param held: bytes that wait, including these.
        """
        self._kept.append((size, payloads, binary))
        self._size += size
        while self._size - self._kept[0][0] >= held and len(self._kept) > 1:
            self._size -= self._kept.popleft()[0]

    def take(self, held: int) -> list[tuple[bytes, bool]]:
        """
        Return the messages of which no byte has left the server, in order, and whether each is binary.

        :param held: bytes that wait.
        """
        unsent: list[tuple[bytes, bool]] = []
        while self._kept:
            size, payloads, binary = self._kept.pop()
            held -= size
            if held < 0:  # a part of this has left
                break
            unsent[:0] = [(payload, binary) for payload in payloads]
        self._kept.clear()
        self._size = 0
        return unsent


@implementer(IPushProducer)
class Outflow:
    """
    The bytes that leave for one client.

    :ivar transport: its connection; ``None`` before :meth:`connect`.
    :ivar ended: whether nothing is written any more.
    """

    __slots__ = ("_bottom", "_congested", "_on_drained", "_socket", "_unsent_size", "ended", "transport")

    def __init__(self) -> None:
        self.transport: Any = None
        self.ended = False
        self._bottom: Any = None
        self._socket: socket.socket | None = None
        self._congested = False
        self._unsent_size = 0
        self._on_drained: Callable[[], None] | None = None

    def connect(self, transport: Any, patience: float) -> None:
        """
        Write to *transport* from now on.

        :param patience: seconds for which a TCP client may leave bytes unacknowledged before the system drops the
            connection; 0: the default of the system. The client of a stream sends no answers, so the server cannot
            detect otherwise that the client is gone. Not all systems have this option.
        """
        self.transport = transport
        self._bottom = begin_reading(transport)
        if type(transport) is TCPServer and not transport.TLS:
            self._socket = transport.socket
        found = getattr(self._bottom, "socket", None)
        if patience and hasattr(socket, "TCP_USER_TIMEOUT") and found is not None:
            with suppress(OSError):  # a UNIX socket
                found.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(patience * 1000))
        with suppress(Exception):  # not every transport is a TCP connection
            transport.setTcpNoDelay(True)
        transport.registerProducer(self, True)

    @property
    def is_secure(self) -> bool:
        """Whether the connection is encrypted, as far as the server can see."""
        return bool(ISSLTransport.providedBy(self.transport))

    def write(self, data: bytes, limit: int) -> bool:
        """
        Write bytes now. An idle TCP socket takes them at once.

        :param limit: bytes that may wait.
        :returns: whether they were taken; ``False`` if too many would wait.
        """
        rest = data
        if self._congested:
            self._unsent_size = self.held() + len(data)
            if self._unsent_size > limit:
                return False
        elif self._socket is not None and not (self.transport.dataBuffer or self.transport._tempDataBuffer):
            try:
                sent = self._socket.send(data)
            except OSError:
                sent = 0  # the transport itself will find the error
            if sent == len(data):
                return True
            rest = data[sent:]
        self.transport.write(rest)
        return True

    def held(self) -> int:
        """Return how many bytes wait to be sent, as far as the transport shows it."""
        bottom = self._bottom
        if bottom is None or getattr(self.transport, "_appSendBuffer", None):
            return self._unsent_size
        held: int = len(bottom.dataBuffer) - bottom.offset + bottom._tempDataLen
        return held

    def when_drained(self, call: Callable[[], None]) -> None:
        """Call *call* once, as soon as nothing is held."""
        self._on_drained = call
        self.watch_drain()

    def watch_drain(self) -> None:
        """Call the waiting function if nothing is held; otherwise ask the buffering transport to report it."""
        call, bottom = self._on_drained, self._bottom
        if call is None:
            return
        if not self.held():
            self._on_drained = None
            call()
        elif bottom is not None and bottom.producer is not None and not bottom.producerPaused:
            # It reports that it is empty only if it has reported before that it is full.
            bottom.producerPaused = True
            bottom.producer.pauseProducing()

    def pauseProducing(self) -> None:
        """Called when the transport's buffer is full."""
        if not self._congested:
            self._congested = True
            self._unsent_size = _CONGESTED_SIZE

    def resumeProducing(self) -> None:
        """Called when the transport has sent everything."""
        self._congested = False
        self._unsent_size = 0
        if self._on_drained is not None:
            self.watch_drain()

    def stopProducing(self) -> None:
        """Called when the transport is gone; its protocol is told, too."""
