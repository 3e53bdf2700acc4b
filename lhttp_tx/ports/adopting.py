"""
Listens on sockets that another process has opened.

Workers use it (:mod:`lhttp_tx.twistd.worker`), and processes that take the place of others
(:mod:`lhttp_tx.ports.takeover`).
"""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.protocols.tls import TLSMemoryBIOFactory

from lhttp_tx.ports.sockets import adopt

__all__ = ["AdoptingReactor"]


class AdoptingReactor:
    """A reactor that listens on sockets that are already open, in the order of the calls."""

    def __init__(self, reactor: Any, first: int) -> None:
        """
        :param reactor: the running reactor, for everything else.
        :param first: the file descriptor of the first socket.
        """
        self._reactor = reactor
        self._next = first

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def endpoint(self, _: Any, description: str) -> Any:
        """Return the endpoint for *description*, which takes over an open socket."""
        return serverFromString(self, description)

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> IListeningPort:
        """Adopt the next socket."""
        descriptor = self._next
        self._next += 1
        with socket.socket(fileno=os.dup(descriptor)) as sock:
            family = sock.family
        adopted = adopt(self._reactor, descriptor, family, factory)
        os.close(descriptor)
        adopted.backlog = backlog  # type: ignore[attr-defined]
        return adopted

    def listenSSL(
        self, port: int, factory: Any, contextFactory: Any, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        """Adopt the next socket, with TLS."""
        return self.listenTCP(port, TLSMemoryBIOFactory(contextFactory, False, factory), backlog)

    def listenUNIX(
        self, address: str, factory: Any, backlog: int = 50, mode: int = 0o666, wantPID: bool = False
    ) -> IListeningPort:
        """Adopt the next socket."""
        return self.listenTCP(0, factory, backlog)

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> IListeningPort:
        """Adopt the next socket. *fileDescriptor* is valid only in the supervisor."""
        return self.listenTCP(0, factory)
