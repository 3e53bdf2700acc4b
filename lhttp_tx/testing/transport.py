"""
The connection of a client in memory: a list instead of a socket.

Used only by :class:`lhttp_tx.testing.Client`.
"""

from __future__ import annotations

from collections.abc import Callable

from zope.interface import implementer

from lhttp_tx.codec.codes import TOO_SLOW
from lhttp_tx.codec.limits import UNLIMITED
from lhttp_tx.codec.message import Message, parse
from lhttp_tx.engine.delivery import Delivery
from lhttp_tx.interfaces import ITransport

__all__ = ["Transport"]

_CONGESTED_SIZE = 65_536
"""
Bytes that may wait before the transport is congested, as in Twisted. ``unsent_size`` applies only to a congested
transport.
"""


@implementer(ITransport)
class Transport:
    """
    The connection of a client, as the server sees it.

    :ivar peer: the client's address.
    :ivar received: the messages that the client has received, and the test has not taken yet.
    :ivar close_code: the code with which the server closed the connection; ``None``: it has not closed it.
    :ivar close_reason: the reason with which the server closed the connection.
    :ivar connected: whether the connection is open.
    :ivar paused: whether the server has stopped reading.
    :ivar unsent: bytes from the server that wait because the client does not read.
    :ivar unsent_size: the most bytes that may wait while the transport is congested.
    """

    converts = compresses = False
    """The client gets messages as they are."""

    def __init__(
        self,
        peer: str,
        *,
        unsent_size: int,
        on_resume: Callable[[], None],
        on_close: Callable[[], None],
        on_undelivered: Callable[[list[tuple[bytes, bool]]], None],
    ) -> None:
        """
        :param on_resume: called when the server, or the client, reads again.
        :param on_close: called when the server has closed the connection.
        :param on_undelivered: called when the connection ends with the messages that the client has not read: for each
            its payload, and whether it is binary.
        """
        self.peer = peer
        self.received: list[Message] = []
        self.close_code: int | None = None
        self.close_reason = ""
        self.connected = True
        self.paused = False
        self.unsent = 0
        self.unsent_size = unsent_size
        self._on_resume = on_resume
        self._on_close = on_close
        self._on_undelivered = on_undelivered
        self._waiting: list[tuple[bytes, bool]] | None = None
        self._when_drained: Callable[[], None] | None = None

    @property
    def congested(self) -> bool:
        """Whether more than 64 KiB wait to be sent. The server then also stops reading from the client."""
        return self.unsent > _CONGESTED_SIZE

    def stop_reading(self) -> None:
        """Stop reading. Messages from the server wait."""
        if self._waiting is None:
            self._waiting = []

    def read_on(self) -> None:
        """Read the messages that have waited, and continue to read."""
        waiting, self._waiting, self.unsent = self._waiting, None, 0
        for payload, binary in waiting or ():
            self._take(payload, binary)
        self._on_resume()
        call, self._when_drained = self._when_drained, None
        if call is not None:
            call()

    def end(self) -> None:
        """End the connection, and report the messages that the client has not read."""
        self.connected = False
        waiting, self._waiting = self._waiting, None
        if waiting:
            self._on_undelivered(waiting)

    # ITransport

    def deliver(self, delivery: Delivery) -> None:
        """See :meth:`lhttp_tx.interfaces.ITransport.deliver`."""
        for payload in delivery.payloads:
            self.send(payload, delivery.binary)

    def call_when_drained(self, call: Callable[[], None]) -> None:
        """See :meth:`lhttp_tx.interfaces.ITransport.call_when_drained`."""
        if self.unsent:
            self._when_drained = call
        else:
            call()

    def send(self, payload: bytes, binary: bool) -> None:
        """See :meth:`lhttp_tx.interfaces.ITransport.send`."""
        if not self.connected or self.close_code is not None:
            return
        if self._waiting is None:
            self._take(payload, binary)
            return
        too_slow = self.congested and self.unsent + len(payload) > self.unsent_size
        self._waiting.append((payload, binary))
        self.unsent += len(payload)
        if too_slow:
            self.close(TOO_SLOW, "too slow: unsent messages pass the limit")

    def pause_reading(self) -> None:
        """See :meth:`lhttp_tx.interfaces.ITransport.pause_reading`."""
        self.paused = True

    def resume_reading(self) -> None:
        """See :meth:`lhttp_tx.interfaces.ITransport.resume_reading`."""
        self.paused = False
        self._on_resume()

    def close(self, code: int, reason: str) -> None:
        """See :meth:`lhttp_tx.interfaces.ITransport.close`. The connection ends immediately."""
        if self.close_code is None and self.connected:
            self.close_code, self.close_reason = code, reason
            self._on_close()

    def _take(self, payload: bytes, binary: bool) -> None:
        self.received.append(parse(payload, binary=binary, limits=UNLIMITED))
