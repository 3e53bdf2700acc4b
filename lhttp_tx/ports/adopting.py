"""
Listens on sockets that another process has opened.

Used by workers (:mod:`lhttp_tx.twistd.worker`), and by processes that replace others (:mod:`lhttp_tx.ports.takeover`).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.protocols.tls import TLSMemoryBIOFactory

from lhttp_tx.ports.sockets import adopt

__all__ = ["AdoptingReactor", "FindingReactor", "Place", "place_of"]

Place = tuple[str, int] | str
"""Where a socket listens: IP address and port number, or the path of a UNIX socket."""


class AdoptingReactor:
    """A reactor that listens on open sockets, one for each call, in order."""

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


class FindingReactor:
    """A reactor that listens on an open socket if one has the requested address. Otherwise it opens one."""

    def __init__(self, reactor: Any, take: Callable[[Place], int | None], make_room: Callable[[int], bool]) -> None:
        """
        :param reactor: the running reactor, for everything else.
        :param take: returns the file descriptor of the open socket at a place, which then belongs to this reactor;
            ``None`` if there is none.
        :param make_room: closes open sockets with a port number, if no other process needs them. Returns whether it has
            closed one.
        """
        self._reactor = reactor
        self._take = take
        self._make_room = make_room

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> IListeningPort:
        """Adopt the socket with this address, or open one."""
        descriptor = self._take((_normal(interface or "0.0.0.0"), port)) if port else None  # noqa: S104 - the address of all interfaces
        if descriptor is not None:
            return AdoptingReactor(self._reactor, descriptor).listenTCP(port, factory, backlog)
        try:
            return self._reactor.listenTCP(port, factory, backlog, interface)  # type: ignore[no-any-return]
        except CannotListenError:
            if not port or not self._make_room(port):
                raise
        return self._reactor.listenTCP(port, factory, backlog, interface)  # type: ignore[no-any-return]

    def listenSSL(
        self, port: int, factory: Any, contextFactory: Any, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        """Adopt the socket with this address, or open one, with TLS."""
        return self.listenTCP(port, TLSMemoryBIOFactory(contextFactory, False, factory), backlog, interface)

    def listenUNIX(
        self, address: str, factory: Any, backlog: int = 50, mode: int = 0o666, wantPID: bool = False
    ) -> IListeningPort:
        """Adopt the socket with this path, or open one."""
        descriptor = self._take(os.fsdecode(address))
        if descriptor is not None:
            return AdoptingReactor(self._reactor, descriptor).listenTCP(0, factory, backlog)
        return self._reactor.listenUNIX(address, factory, backlog, mode, wantPID)  # type: ignore[no-any-return]


def place_of(descriptor: int) -> Place:
    """Return where the socket with this file descriptor listens."""
    with socket.socket(fileno=os.dup(descriptor)) as sock:
        name = sock.getsockname()
        return os.fsdecode(name) if sock.family == socket.AF_UNIX else (_normal(name[0]), name[1])


def _normal(address: str) -> str:
    """Return an IP address in the system's spelling."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with suppress(OSError):
        return socket.inet_ntop(family, socket.inet_pton(family, address))
    return address
