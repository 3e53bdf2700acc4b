"""
Handles the HTTP requests of one connection, within limits of bytes and time.

:mod:`lhttp_tx.web.site` makes a channel for each connection. twisted.web reads the requests. This module adds the
limits that twisted.web lacks: for clients that do not read, for bodies that are too large or too slow, and for
connections that never end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from time import thread_time
from types import MappingProxyType
from typing import Any, Protocol

from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.http import parse_qs

from lhttp_tx.errors import Refused
from lhttp_tx.guard.admission import Admission, Place
from lhttp_tx.guard.heads import check_headers, origin_form
from lhttp_tx.guard.proxied import is_proxied
from lhttp_tx.guard.reads import LEAST_READ, TURN, begin_reading, pace
from lhttp_tx.observe.rationing import RationedLogger
from lhttp_tx.transports.websocket.factory import LHTTPServerFactory
from lhttp_tx.transports.websocket.handshake import read_handshake
from lhttp_tx.web.heads import HeadChannel
from lhttp_tx.web.websocket import hand_over

__all__ = ["BoundedChannel", "BoundedRequest"]

_LEAST_CHUNK = 64
"""The fewest bytes of a body's limit that each chunk uses up. This also limits the number of chunks."""

_LINGER = 1.0
"""Seconds within which a client that sent too much can read the reason, before its connection is closed."""

_CLOSING_TIME = 30.0
"""Seconds within which a client must read the last answer, before its connection is dropped."""


class ChannelOwner(Protocol):
    """
    The factory of a channel, as the channel sees it, such as :class:`lhttp_tx.web.site.LHTTPSite`.

    :ivar admission: counts connections without a WebSocket; ``None``: they are not counted.
    :ivar max_body_size: the most bytes of a request's body.
    :ivar head_timeout: seconds within which a request's head must be complete.
    :ivar body_timeout: seconds within which its body must be complete.
    :ivar lifetime: seconds after which a connection is closed.
    :ivar reactor: the running reactor.
    """

    admission: Admission | None
    max_body_size: int
    head_timeout: float
    body_timeout: float
    lifetime: float
    reactor: Any

    def find_websocket(self, path: bytes) -> LHTTPServerFactory | None:
        """See :meth:`lhttp_tx.web.site.LHTTPSite.find_websocket`."""


class BoundedRequest(server.Request):
    """Refuses a body that is too large before it is stored, and an ambiguous head."""

    _log: Any = RationedLogger("twisted.web.http")
    channel: Any
    _received = 0
    _least = 0
    _refused = False
    _lingering: IDelayedCall | None = None
    _target = _query = b""
    _args: dict[Any, Any]

    def gotLength(self, length: int | None) -> None:
        """Take the length of the body, and refuse the request if the body is too large."""
        super().gotLength(length)
        self._least = _LEAST_CHUNK if length is None else 0
        try:
            check_headers(self.channel.names)
        except Refused as refused:
            self._refuse(b"400 Bad Request", refused.reason)
            return
        if length is not None and length > self.channel.site.max_body_size:
            self._refuse_body()

    def handleContentChunk(self, data: bytes) -> None:
        """Keep a piece of the body, as long as there is not too much of it."""
        self._received += max(len(data), self._least)
        if self._received > self.channel.site.max_body_size:
            self._refuse_body()
        if not self._refused:
            super().handleContentChunk(data)

    def parseCookies(self) -> None:
        """Do nothing: :meth:`getCookie` parses cookies on first use. Thousands of them would take time."""

    def getCookie(self, key: bytes | str) -> Any:
        """Return the cookie called *key*, or ``None``."""
        if not self.received_cookies:
            super().parseCookies()
        return super().getCookie(key)

    @property
    def refused(self) -> bool:
        """Whether it was refused before it was complete: nothing that follows is looked at."""
        return self._refused

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Answer the request, unless it is refused."""
        if not self._refused:
            try:
                target = origin_form(path, self.getHeader(b"host"))
            except Refused as refused:
                self._refuse(b"400 Bad Request", refused.reason)
            else:
                self._target = target
                super().requestReceived(command, target.partition(b"?")[0], version)
                return
        self.channel.loseConnection()

    def process(self) -> None:
        """Answer the request. Give it back its query, which twisted.web has not parsed."""
        self.uri = self._target
        self._query = self._target.partition(b"?")[2]
        super().process()

    @property
    def args(self) -> dict[Any, Any]:
        """The parameters of the query and of a form. The query is parsed on first use."""
        if self._query:
            query, self._query = self._query, b""
            self._args = parse_qs(query, True) | self._args
        return self._args

    @args.setter
    def args(self, found: dict[Any, Any]) -> None:
        self._args = found

    def connectionLost(self, reason: Failure) -> None:
        """The client is gone."""
        if self._lingering is not None and self._lingering.active():
            self._lingering.cancel()
        super().connectionLost(reason)

    def _refuse_body(self) -> None:
        self._refuse(b"413 Content Too Large", f"body is larger than {self.channel.site.max_body_size} bytes")

    def _refuse(self, status: bytes, reason: str, headers: Mapping[str, str] = MappingProxyType({})) -> None:
        if self._refused:
            return
        self._refused = True
        self.requestHeaders.removeHeader(b"expect")
        kind, body = self._refusal(status, reason)
        told = {"Content-Type": kind, **headers, "Content-Length": str(len(body)), "Connection": "close"}
        lines = "".join([f"{name}: {value}\r\n" for name, value in told.items()]).encode("ascii")
        self.channel.transport.write(b"HTTP/1.1 %b\r\n%b\r\n%b" % (status, lines, body))
        self._lingering = self.channel.callLater(_LINGER, self.channel.loseConnection)

    def _refusal(self, status: bytes, reason: str) -> tuple[str, bytes]:
        """Return content type and body of a refusal."""
        return "text/plain; charset=utf-8", reason.encode("utf-8") + b"\n"


class BoundedChannel(HeadChannel):
    """
    Takes one request at a time, and none while the client does not read. Each request has a time limit.

    If a WebSocket takes over the connection, these limits no longer apply.

    :ivar place: the place of the connection among those of the server; ``None`` if they are not counted.
    """

    _log: Any = RationedLogger("twisted.web.http")
    abortTimeout = 1
    site: ChannelOwner
    transport: Any
    address: IAddress | None = None
    place: Place | None = None
    _deadline: IDelayedCall | None = None
    _end_of_life: IDelayedCall | None = None
    _bottom: FileDescriptor | None = None
    _yielding: IDelayedCall | None = None
    _turn_end = math.inf
    _untouched = True
    _old = False

    # Beginning and end

    def connectionMade(self) -> None:
        """Count the connection, and wait for its first request."""
        idle = self.timeOut
        if idle is not None and idle >= self.site.head_timeout:
            self.timeOut = None  # until the first byte, one timer serves both limits
        super().connectionMade()
        self.timeOut = idle
        if self.site.admission is not None:
            self.place = self.site.admission.enter(None if is_proxied(self.transport) else self.address)
            self.place.watch(self._make_room)
        self._limit(self.site.head_timeout)
        self._bottom = begin_reading(self.transport)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Stop counting the connection, and end its timers."""
        self.end_timers()
        if self.place is not None:
            self.place.leave()
        super().connectionLost(reason)

    def end_timers(self) -> None:
        """End all time limits, because the connection ends, or a WebSocket takes it over."""
        self._limit(None)
        for timer in (self._end_of_life, self._yielding):
            if timer is not None and timer.active():
                timer.cancel()
        self._end_of_life = self._yielding = None

    def loseConnection(self) -> None:
        """Close the connection when the client has read the remaining data, or its time for this is over."""
        if self.place is not None:
            self.place.rest()
        self._drop_in(_CLOSING_TIME)
        super().loseConnection()

    def timeoutConnection(self) -> None:
        """Close the connection. This can be frequent, so the log gets no line for each."""
        self._drop_in(self.abortTimeout)
        super().loseConnection()

    def forceAbortClient(self) -> None:
        """Drop the connection, without a line in the log."""
        self._abortingCall = None
        self.transport.abortConnection()

    def _drop_in(self, seconds: float) -> None:
        if self._abortingCall is None:
            self._abortingCall = self.callLater(seconds, self.forceAbortClient)

    def _make_room(self) -> None:
        """Drop the connection, because there are too many, and this one is idle."""
        self.end_timers()
        self.transport.abortConnection()

    # Reading

    def dataReceived(self, data: bytes) -> None:
        """Open a WebSocket at once if the data is a plain handshake. Otherwise handle the data as HTTP."""
        size = len(data) + len(self._buffer)
        begin = thread_time() if size >= LEAST_READ else 0.0
        if not self._busyReceiving:
            self._turn_end = self.site.reactor.seconds() + TURN if begin else math.inf
        self._take(data)
        if begin and self.transport is not None:
            # Bytes that are kept for later were no work yet. Bytes that were kept before are.
            size -= len(self._buffer)
            if size >= LEAST_READ:
                pace(self._bottom, size, thread_time() - begin)

    def _take(self, data: bytes) -> None:
        if self.broken or (self.requests and self.requests[-1].refused):
            return
        if self._untouched:
            self._untouched = False
            if self.place is not None and not self.place.move(self.transport.getPeer()):
                self.transport.abortConnection()
                return
            if self._open_websocket(data):
                return
            self.setTimeout(self.timeOut)
            self._end_of_life = self.callLater(self.site.lifetime, self._grow_old)
        if self._deadline is None and not self._handlingRequest and not self.paused:
            self._limit(self.site.head_timeout)
        if self.place is not None and not self._handlingRequest:
            self.place.wait()
        super().dataReceived(data)
        self._look_around()

    def allHeadersReceived(self) -> None:
        """Wait for the body."""
        self._limit(self.site.body_timeout)
        super().allHeadersReceived()

    def allContentReceived(self) -> None:
        """Answer a request that is complete."""
        self._limit(None)
        if self.place is not None:
            self.place.work()
        super().allContentReceived()

    def requestDone(self, request: Any) -> None:
        """Continue after a request was answered: at once, or in the next turn of the reactor."""
        super().requestDone(request)
        goes_on = self._busyReceiving and self._buffer and not self._handlingRequest and not self.paused
        if goes_on and self.site.reactor.seconds() > self._turn_end:
            self.paused = True
            self._networkProducer.pauseProducing()
            self._yielding = self.callLater(0, self._have_a_turn)
        self._look_around()

    def _have_a_turn(self) -> None:
        self._yielding = None
        if not self._waitingForTransport:
            self.resumeProducing()

    def _look_around(self) -> None:
        """When all data is used up, set the time limit for what the connection waits for now."""
        if self._busyReceiving or self._handlingRequest or self.transport is None or self._abortingCall is not None:
            return
        if self.paused:
            self._limit(None)
        elif not self.requests and not self._buffer:
            self._limit(None)
            if self.place is not None:
                self.place.rest()
            return
        elif self._deadline is None:
            self._limit(self.site.head_timeout)
        if self.place is not None:
            self.place.wait()

    def _open_websocket(self, data: bytes) -> bool:
        """
        Hand the connection over to a WebSocket if *data* is a handshake that can only succeed. Return whether it was.
        """
        handshake = read_handshake(data)
        if handshake is None:
            return False
        factory = self.site.find_websocket(handshake.path.encode("ascii"))
        if factory is None or not factory.admits(handshake, factory.countConnections + 1, self.place):
            return False
        protocol = factory.buildProtocol(self.transport.getPeer())
        protocol.opens_at_once = factory.gate is None
        hand_over(self, protocol)
        protocol.open(handshake, data[handshake.size :])
        return True

    # A client that does not read

    def pauseProducing(self) -> None:
        """Called when the transport's buffer is full: handle no other request until it has sent everything."""
        super().pauseProducing()
        self.paused = True
        self._networkProducer.pauseProducing()  # twisted.web does not do this during a request

    def resumeProducing(self) -> None:
        """Called when the transport has sent everything. Continue with the data that has arrived meanwhile."""
        if self._yielding is not None:
            self._waitingForTransport = False
            return
        self.paused = False
        super().resumeProducing()
        if not self._handlingRequest:
            if self._buffer:
                self.dataReceived(b"")
            else:
                self._look_around()
        elif sum(map(len, self._dataBuffer)) <= self._optimisticEagerReadSize:
            self._networkProducer.resumeProducing()

    # Time

    def _limit(self, seconds: float | None) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None if seconds is None else self.callLater(seconds, self.timeoutConnection)

    def _grow_old(self) -> None:
        """Called at the end of the lifetime: close the connection, after its current request if there is one."""
        self._old = True
        if not self.requests and not self._buffer:
            self.timeoutConnection()
        for request in self.requests:
            self.persistent = 0
            if not request.startedWriting:
                request.responseHeaders.setRawHeaders(b"connection", [b"close"])

    def checkPersistence(self, request: Any, version: bytes) -> bool:
        """Return whether another request may follow *request*."""
        if self._old:
            request.responseHeaders.setRawHeaders(b"connection", [b"close"])
        return not self._old and bool(super().checkPersistence(request, version))
