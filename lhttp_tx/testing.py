"""
Testing processors and filters without sockets and real time.

>>> from lhttp_tx import Message, processor
>>> from lhttp_tx.testing import Server
>>> @processor("echo")
... def echo(request):
...     request.reply()
>>> client = Server(processors=[echo]).connect()
>>> client.send(Message("echo", body="hello"))
>>> client.take()
[<Message echo Headers([]) 23 bytes text>]

The engine, the hub and the bus are the real ones; only the connection is a fake, and the clock stands still until it
is advanced.
"""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.task import Clock
from zope.interface import implementer

from lhttp_tx.bus.memory import MemoryBus
from lhttp_tx.engine import Engine
from lhttp_tx.filters.multipart import MultipartFilter
from lhttp_tx.filters.pubsub import PublishFilter, SubscribeFilter, UnsubscribeFilter
from lhttp_tx.hub import Hub
from lhttp_tx.interfaces import IBus, IHeaderFilter, IProcessor, ISessionTransport
from lhttp_tx.limits import DEFAULT_LIMITS, Limits
from lhttp_tx.message import Message, parse
from lhttp_tx.processors import Registry
from lhttp_tx.session import Session

__all__ = ["Client", "Server", "split_frames"]


class Server:
    """
    A server in memory.

    :ivar engine: the real engine.
    :ivar clock: its clock; ``clock.advance(seconds)`` lets time pass.
    :ivar bus: its bus.
    """

    def __init__(
        self,
        *,
        processors: Iterable[IProcessor] = (),
        filters: Iterable[IHeaderFilter] = (),
        limits: Limits = DEFAULT_LIMITS,
        bus: IBus | None = None,
    ) -> None:
        """
        :param processors: the processors under test.
        :param filters: header filters; they run after the server's own, as in the real server.
        :param limits: the bounds of a message and of a connection.
        :param bus: the bus; two servers with one bus are a cluster.
        """
        self.clock = Clock()
        self.bus = MemoryBus() if bus is None else bus
        registry = Registry()
        for processor in processors:
            registry.add(processor)
        self.engine = Engine(
            hub=Hub(bus=self.bus),
            clock=self.clock,
            registry=registry,
            filters=[MultipartFilter(), SubscribeFilter(), PublishFilter(), UnsubscribeFilter(), *filters],
            limits=limits,
        )

    def connect(self, peer: str = "test") -> Client:
        """Return a client that has just connected; *peer* is its address."""
        return Client(self.engine, peer)


@implementer(ISessionTransport)
class Client:
    """
    A client of a :class:`Server`, and its connection at once.

    :ivar peer: its address.
    :ivar session: the server's side of it.
    :ivar received: the messages that it got and that were not taken yet.
    :ivar close_code: the code with which the server closed the connection, or ``None``.
    :ivar close_reason: the reason that the server gave.
    :ivar reading_paused: whether the server has stopped reading from it; what is sent meanwhile waits.
    """

    def __init__(self, engine: Engine, peer: str) -> None:
        self.peer = peer
        self.received: list[Message] = []
        self.close_code: int | None = None
        self.close_reason = ""
        self.reading_paused = False
        self.connected = True
        self._unread: list[tuple[bytes, bool]] = []
        self._opened = False
        self.session: Session = engine.open_session(self)
        self._opened = True
        if self.close_code is not None:
            self.disconnect()

    def send(self, message: Message | bytes | str) -> None:
        """
        Send a message to the server.

        :param message: a message, or the payload of a WebSocket message: a str is sent as text, bytes as binary.
        :raises ConnectionError: if the connection has ended.
        """
        if not self.connected or self.close_code is not None:
            raise ConnectionError("the connection has ended")
        if isinstance(message, Message):
            payload, binary = message.raw, message.binary
        elif isinstance(message, str):
            payload, binary = message.encode("utf-8"), False
        else:
            payload, binary = message, True
        self._unread.append((payload, binary))
        self._deliver()

    def take(self) -> list[Message]:
        """Return what was received since the last call."""
        taken, self.received = self.received, []
        return taken

    def disconnect(self) -> None:
        """End the connection, as a peer does that goes away."""
        if self.connected:
            self.connected = False
            self.session.connection_lost()

    def _deliver(self) -> None:
        while self._unread and not self.reading_paused:
            self.session.receive(*self._unread.pop(0))

    # ISessionTransport

    def send_frame(self, frame: bytes) -> None:
        """Called by the server."""
        if self.connected and self.close_code is None:
            self.received.extend(parse(payload, binary=binary) for payload, binary in split_frames(frame))

    def pause_reading(self) -> None:
        """Called by the server."""
        self.reading_paused = True

    def resume_reading(self) -> None:
        """Called by the server."""
        self.reading_paused = False
        self._deliver()

    def close(self, code: int, reason: str) -> None:
        """Called by the server; the connection ends at once, as with a client that answers the close."""
        if self.close_code is None:
            self.close_code, self.close_reason = code, reason
            if self._opened:
                self.disconnect()


def split_frames(data: bytes) -> list[tuple[bytes, bool]]:
    """
    Return the payloads of whole unmasked data frames, and whether each is binary.

    :raises ValueError: if *data* is anything else.
    """
    payloads = []
    position = 0
    while position < len(data):
        first, size = data[position], data[position + 1]
        position += 2
        if first not in (0x81, 0x82) or size > 127:
            raise ValueError(f"not a whole unmasked data frame: {data[:16]!r}")
        if size > 125:
            width = 2 if size == 126 else 8
            size = int.from_bytes(data[position : position + width], "big")
            position += width
        payload = data[position : position + size]
        if len(payload) != size:
            raise ValueError(f"frame of {size} bytes is cut off after {len(payload)}")
        payloads.append((payload, first == 0x82))
        position += size
    return payloads
