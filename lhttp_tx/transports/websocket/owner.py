"""
The attributes of a factory that its connections use.

:mod:`lhttp_tx.transports.websocket.connection` uses it for its types.
"""

from __future__ import annotations

from typing import Any, Protocol

from lhttp_tx.auth.gate import Gate
from lhttp_tx.codec.views import View
from lhttp_tx.engine.engine import Engine
from lhttp_tx.guard.admission import Admission, Place
from lhttp_tx.transports.websocket.coded import CodedFraming
from lhttp_tx.transports.websocket.compression import Deflate, Gzip
from lhttp_tx.transports.websocket.frames import Framing
from lhttp_tx.transports.websocket.handshake import Handshake
from lhttp_tx.transports.websocket.outbox import Outbox
from lhttp_tx.transports.websocket.timers import ExactTimer

__all__ = ["ConnectionOwner"]


class ConnectionOwner(Protocol):
    """
    The factory of a connection, as the connection sees it:
    :class:`lhttp_tx.transports.websocket.factory.LHTTPServerFactory`.

    :ivar admission: counts connections by address.
    :ivar countConnections: the number of connections.
    :ivar draining: whether the server is stopping.
    :ivar engine: the engine of its session.
    :ivar gate: identifies clients; ``None`` if the server does not authenticate them.
    :ivar gzip: compresses messages for clients that ask for it; ``None`` if the server does not compress.
    :ivar outbox: collects what the server writes because of one read.
    :ivar plain: whether only the access rules and Autobahn check handshakes.
    :ivar trimmed: whether the class of its connections has the attributes that Autobahn would set on each of them.
    """

    admission: Admission
    countConnections: int
    draining: bool
    engine: Engine
    gate: Gate | None
    gzip: Gzip | None
    outbox: Outbox
    plain: bool
    reactor: Any
    trimmed: bool
    _batched_timer: ExactTimer  # Autobahn's name

    def check(self, handshake: Handshake, place: Place | None = None) -> None:
        """See :meth:`lhttp_tx.transports.websocket.factory.LHTTPServerFactory.check`."""

    def admits(self, handshake: Handshake, connections: int, place: Place | None = None) -> bool:
        """See :meth:`lhttp_tx.transports.websocket.factory.LHTTPServerFactory.admits`."""

    def deflate(self, window_bits: int) -> Deflate:
        """See :meth:`lhttp_tx.transports.websocket.factory.LHTTPServerFactory.deflate`."""

    def coded(self, view: View, frames: Framing) -> CodedFraming:
        """See :meth:`lhttp_tx.transports.websocket.factory.LHTTPServerFactory.coded`."""
