"""
Makes the connections of one server on plain streams.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory

from lhttp_tx.transports.tcp.owner import Owner
from lhttp_tx.transports.tcp.protocol import TCPProtocol
from lhttp_tx.transports.websocket.factory import LHTTPServerFactory

__all__ = ["TCPFactory"]


class TCPFactory(Factory):
    """Makes the connections. Listen with it."""

    noisy = False

    def __init__(self, factory: LHTTPServerFactory) -> None:
        """:param factory: makes the WebSockets of the server, among which these connections count."""
        self._owner = Owner(factory)

    def go_away(self) -> None:
        """See :meth:`lhttp_tx.transports.tcp.owner.Owner.go_away`."""
        self._owner.go_away()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Return a new connection."""
        return TCPProtocol(self._owner)
