"""
Creates the connections of one engine, with their common options.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.compress import PerMessageDeflateOffer, PerMessageDeflateOfferAccept
from autobahn.websocket.protocol import WebSocketProtocol
from twisted.internet.interfaces import IAddress

from lhttp_tx.auth.gate import Gate
from lhttp_tx.codec.views import View
from lhttp_tx.engine.engine import Engine
from lhttp_tx.errors import Refused
from lhttp_tx.guard.access import AccessPolicy
from lhttp_tx.guard.admission import Admission, Place
from lhttp_tx.guard.heads import check_counts
from lhttp_tx.transports.websocket.coded import CodedFraming
from lhttp_tx.transports.websocket.compression import Deflate, Gzip
from lhttp_tx.transports.websocket.coroutines import ask_inspect
from lhttp_tx.transports.websocket.counted import counted_protocol
from lhttp_tx.transports.websocket.frames import Framing
from lhttp_tx.transports.websocket.handshake import Handshake
from lhttp_tx.transports.websocket.outbox import Outbox
from lhttp_tx.transports.websocket.protocol import LHTTPServerProtocol
from lhttp_tx.transports.websocket.timers import ExactTimer

__all__ = ["LHTTPServerFactory"]

ask_inspect()

_HANDSHAKE_METHODS = ("onConnect", "processHandshake", "succeedHandshake")
"""Methods with which a subclass may decide about handshakes. If it has one, Autobahn handles every handshake."""

_ON_DEMAND = frozenset({"send_queue", "trafficStats", "utf8validator"})
"""Attributes of an Autobahn connection that most connections never use. They are made on first use."""

_CLIENT_WINDOW_BITS, _SERVER_WINDOW_BITS = 10, 13
"""Window sizes of permessage-deflate, as powers of two: of what clients compress, and of what the server compresses."""


class _OnDemand:
    """An attribute of a connection that is made on first use."""

    def __init__(self, name: str, make: Callable[[], object]) -> None:
        self._name = name
        self._make = make

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        value = vars(instance)[self._name] = self._make()
        return value


class LHTTPServerFactory(WebSocketServerFactory):
    """Makes the connections of one engine. Listen with it directly, or mount it with a web resource."""

    protocol = LHTTPServerProtocol  # type: ignore[assignment]
    _configured: Any = None
    _compresses = False
    trimmed = False
    plain = False

    def __init__(
        self,
        *,
        engine: Engine,
        reactor: Any,
        policy: AccessPolicy | None = None,
        gate: Gate | None = None,
        admission: Admission | None = None,
        max_connections: int = 10_000,
        ping_interval: float = 30.0,
        ping_timeout: float = 10.0,
        handshake_timeout: float = 5.0,
        close_timeout: float = 2.0,
        deflate: bool = False,
        gzip: bool = True,
    ) -> None:
        """
        :param engine: opens the sessions.
        :param reactor: the running reactor.
        :param policy: the access rules; ``None`` for the defaults.
        :param gate: authenticates clients; ``None``: the server does not authenticate them.
        :param admission: limits the connections of each address; ``None``: no limit.
        :param max_connections: connections at one time, 0 for no limit; more get status 503.
        :param ping_interval: seconds between pings, 0 for none.
        :param ping_timeout: seconds within which a ping must be answered.
        :param handshake_timeout: seconds within which the opening handshake must be complete.
        :param close_timeout: seconds within which a peer must answer a close before it is dropped.
        :param deflate: whether clients may ask for the extension permessage-deflate.
        :param gzip: whether clients may ask for gzip-compressed messages.
        """
        super().__init__(server="", reactor=reactor)
        if engine.counters is not None:
            self.protocol = counted_protocol(engine.counters)
        self._declines = self.perMessageCompressionAccept
        self.gzip = Gzip() if gzip else None
        self._deflates: dict[int, Deflate] = {}
        self._coded: dict[tuple[View, Framing], CodedFraming] = {}
        self._batched_timer = ExactTimer(reactor)
        self.engine = engine
        self.policy = AccessPolicy() if policy is None else policy
        self.gate = gate
        self.admission = Admission(reactor) if admission is None else admission
        self.outbox = Outbox(engine.hub, reactor)
        engine.hub.bracket(self.outbox.cork, self.outbox.uncork)
        self.draining = self.starting = self.closed = False
        largest = 2 * engine.limits.message_size
        self.setProtocolOptions(
            webStatus=False,
            versions=[13],  # older versions have the origin in another header
            failByDrop=False,
            allowNullOrigin=True,  # each call sets it; the policy decides
            maxConnections=max_connections,
            maxFramePayloadSize=largest,
            maxMessagePayloadSize=largest,
            autoPingInterval=ping_interval,
            autoPingTimeout=ping_timeout,
            openHandshakeTimeout=handshake_timeout,
            closeHandshakeTimeout=close_timeout,
        )
        if deflate:
            self.setProtocolOptions(perMessageCompressionAccept=self._accept_deflate, allowNullOrigin=True)

    def deflate(self, window_bits: int) -> Deflate:
        """Return the encoding for clients that agreed to permessage-deflate with a window of this size."""
        found = self._deflates.get(window_bits)
        if found is None:
            found = self._deflates[window_bits] = Deflate(window_bits)
        return found

    def coded(self, view: View, frames: Framing) -> CodedFraming:
        """Return the encoding for clients that get this view of messages in these frames."""
        found = self._coded.get((view, frames))
        if found is None:
            found = self._coded[view, frames] = CodedFraming(view, frames)
        return found

    def _accept_deflate(self, offers: list[Any]) -> PerMessageDeflateOfferAccept | None:
        """
        Agree to the first offer that a client makes.

        The server keeps nothing from one message to the next, and asks the client for the same, or at least for a
        small window (RFC 7692, section 7.1).
        """
        for offer in offers:
            if isinstance(offer, PerMessageDeflateOffer) and offer.request_max_window_bits != 8:
                return PerMessageDeflateOfferAccept(
                    offer,
                    request_no_context_takeover=offer.accept_no_context_takeover,
                    request_max_window_bits=_CLIENT_WINDOW_BITS if offer.accept_max_window_bits else 0,
                    no_context_takeover=True,
                    window_bits=min(offer.request_max_window_bits or 15, _SERVER_WINDOW_BITS),
                    max_message_size=2 * self.engine.limits.message_size,
                )
        return None

    def setProtocolOptions(self, **options: Any) -> None:  # type: ignore[override]
        """Set Autobahn's options for connections that are made from now on."""
        super().setProtocolOptions(**options)
        self._configured = None

    def setSessionParameters(self, *arguments: Any, **options: Any) -> None:
        """Set Autobahn's parameters for connections that are made from now on."""
        super().setSessionParameters(*arguments, **options)
        self._configured = None

    def close(self) -> None:
        """Note that the server has closed all clients. Until it starts again, nobody would get a publication."""
        self.closed = True

    def check(self, handshake: Handshake, place: Place | None = None) -> None:
        """
        Check whether the access rules allow an opening handshake.

        :param place: the place of its connection; ``None`` if it does not count.
        :raises Refused: if a rule forbids it; with status 400 if it has too many parts, 503 while the server is
            stopping, 429 if its address has too many connections.
        """
        headers = handshake.headers
        if self.draining:
            raise Refused(503, "server is going away")
        check_counts(handshake.target, headers)
        self.policy.check_host(headers.get("host"))
        self.policy.check_origin(headers.get("origin"), headers.get("host"))
        if place is not None:
            place.check(headers)

    def admits(self, handshake: Handshake, connections: int, place: Place | None = None) -> bool:
        """
        Return whether the server may accept *handshake* without Autobahn.

        ``True`` means that Autobahn and the access rules would accept it, too. ``False`` does not refuse the handshake:
        Autobahn and the access rules then decide. If there is a gate, the gate decides after this.

        :param connections: the number of connections, including this one.
        :param place: the place of this one; ``None`` if it does not count.
        """
        if self._configured is None or not issubclass(self._configured, self.protocol):
            self._configure()
        if not self.plain or 0 < self.maxConnections < connections:
            return False
        if self._compresses and "sec-websocket-extensions" in handshake.headers:
            return False
        try:
            self.check(handshake, place)
        except Refused:
            return False
        return True

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Return a new connection. Its class holds the options, so that no connection holds a copy of them."""
        if self._configured is None or not issubclass(self._configured, self.protocol):
            self._configure()
        protocol = self._configured()
        protocol.factory = self
        return protocol

    def _configure(self) -> None:
        """Make the class of the connections, and find out which handshakes its options leave to Autobahn."""
        kind: Any = self.protocol
        options = {name: getattr(self, name) for name in WebSocketServerProtocol.CONFIG_ATTRS}
        # A function on a class would become a method.
        options = {name: staticmethod(found) if callable(found) else found for name, found in options.items()}
        self._configured = type(kind.__name__, (kind,), options)
        self.trimmed = False
        self._trim()
        self._compresses = self.perMessageCompressionAccept is not self._declines
        self.plain = (
            13 in self.versions
            and self.allowedOrigins == ["*"]
            and not (self.server or self.headers or self.externalPort or self.trustXForwardedFor or self.trackTimings)
            and all(getattr(kind, name) is getattr(LHTTPServerProtocol, name) for name in _HANDSHAKE_METHODS)
        )

    def _trim(self) -> None:
        """
        Set the initial attributes of Autobahn's connections on their class, once.

        This halves the memory of an idle connection, and the time to make it. If a later Autobahn has an attribute that
        connections may not be able to share, Autobahn sets all of them as usual.
        """
        pattern = self._configured()
        pattern.factory = self
        pattern.openHandshakeTimeout = 0
        own = {*vars(pattern)}
        WebSocketProtocol._connectionMade(pattern)
        found = {name: value for name, value in vars(pattern).items() if name not in own}
        for name, value in found.items():
            if name in _ON_DEMAND:
                setattr(self._configured, name, _OnDemand(name, type(value)))
            elif value is None or isinstance(value, bool | int | float | str | bytes):
                setattr(self._configured, name, value)
            else:
                return
        self.trimmed = True
