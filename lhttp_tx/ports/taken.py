"""
The listening sockets that a process has taken from the previous one, and those that the next one can take.

A part of :mod:`lhttp_tx.ports.takeover`.
"""

from __future__ import annotations

import json
import os
import socket
import stat
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.logger import Logger
from zope.interface import implementer

from lhttp_tx.ports.adopting import AdoptingReactor, FindingReactor, Place, place_of

__all__ = ["MakeEndpoint", "Taken", "TakeoverFailed", "Watched", "check_takeover", "receive", "remove"]

_log = Logger()

_MAX_PATH = 95
"""The most bytes of the path. Systems allow at least 103. A new socket first adds a point and its process number."""

MakeEndpoint = Callable[[Any, str], IStreamServerEndpoint]


class TakeoverFailed(Exception):
    """The sockets of the running server cannot be taken. The text says why, and what to do."""


def check_takeover(path: Path, owners: Collection[int] | None) -> bool:
    """
    Check that a server can listen at a path.

    :param owners: the users that the other server may run as; ``None``: it is not known.
    :returns: whether a socket is there, which may be that of a running server.
    :raises TakeoverFailed: if it cannot, or if something is there that is not a socket, or belongs to another user.
    """
    if len(os.fsencode(path)) > _MAX_PATH:
        raise TakeoverFailed(f"the path is too long for a UNIX socket; choose one of at most {_MAX_PATH} bytes")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise TakeoverFailed(f"the server may not make files in {path.parent}, or it is not there")
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise TakeoverFailed(f"{path}: {error.strerror}") from None
    if not stat.S_ISSOCK(found.st_mode):
        raise TakeoverFailed(f"{path} is not a socket; name another path, or remove it")
    if owners is not None and found.st_uid not in owners:
        raise TakeoverFailed(f"{path} belongs to another user; name a path in a directory of the server's own")
    return True


class Taken:
    """
    Sockets that were taken, until an endpoint of this process listens on them.

    :ivar adopted: the descriptions of the endpoints that listen on them.
    """

    def __init__(self, be_alone: Callable[[], bool]) -> None:
        """
        :param be_alone: returns whether no other process needs the sockets, because the previous one was stopped. It
            may stop that process first.
        """
        self.adopted: set[str] = set()
        self._be_alone = be_alone
        self._descriptors: dict[str, list[int]] = {}

    def add(self, description: str, descriptor: int) -> None:
        """Add the socket of the endpoint with this description."""
        self._descriptors.setdefault(description, []).append(descriptor)

    def maker(self, make_endpoint: MakeEndpoint) -> MakeEndpoint:
        """
        Return a function that makes the same endpoints as *make_endpoint*. If a taken socket has the same description,
        or otherwise the same address, the endpoint listens on this socket.
        """

        def make(reactor: Any, description: str) -> IStreamServerEndpoint:
            descriptors = self._descriptors.get(description)
            if not descriptors:
                finding = FindingReactor(reactor, lambda place: self._take_at(description, place), self._make_room)
                return make_endpoint(finding if self._descriptors else reactor, description)
            self.adopted.add(description)
            adopting = AdoptingReactor(reactor, descriptors.pop(0))
            endpoint: IStreamServerEndpoint = serverFromString(adopting, description)
            return endpoint

        return make

    def _take_at(self, description: str, place: Place) -> int | None:
        for descriptors in self._descriptors.values():
            for descriptor in descriptors:
                if place_of(descriptor) == place:
                    descriptors.remove(descriptor)
                    self.adopted.add(description)
                    return descriptor
        return None

    def _make_room(self, number: int) -> bool:
        """Close the sockets with this port number, if no other process needs them. Return whether there was one."""
        found = [
            (descriptors, descriptor)
            for descriptors in self._descriptors.values()
            for descriptor in descriptors
            if not isinstance(place := place_of(descriptor), str) and place[1] == number
        ]
        if not found or not self._be_alone():
            return False
        for descriptors, descriptor in found:
            descriptors.remove(descriptor)
            os.close(descriptor)
        return True

    def close_rest(self) -> None:
        """Close the sockets that no endpoint listens on, and remove their files."""
        for description, descriptors in self._descriptors.items():
            for descriptor in descriptors:
                place = place_of(descriptor)
                os.close(descriptor)
                if isinstance(place, str) and place and not place.startswith("\0"):
                    remove(Path(place))
            if descriptors:
                _log.warn("{description}: the server no longer listens there", description=description)
        self._descriptors.clear()


@implementer(IStreamServerEndpoint)
class Watched:
    """An endpoint that reports its port when it listens."""

    def __init__(
        self, endpoint: IStreamServerEndpoint, description: str, listens: Callable[[str, IListeningPort], None]
    ) -> None:
        self._endpoint = endpoint
        self._description = description
        self._listens = listens

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Listen; see :class:`twisted.internet.interfaces.IStreamServerEndpoint`."""

        def tell(port: IListeningPort) -> IListeningPort:
            self._listens(self._description, port)
            return port

        return self._endpoint.listen(protocolFactory).addCallback(tell)


def remove(path: Path) -> None:
    """Remove the file of a UNIX socket, and the lock that Twisted has made beside it."""
    for each in (path, path.with_name(f"{path.name}.lock")):
        with suppress(OSError):
            each.unlink()


def receive(sock: socket.socket, *, time_limit: float, most: int, max_line: int) -> tuple[list[int], dict[str, Any]]:
    """
    Receive file descriptors, and the line of JSON after them.

    :param time_limit: the most seconds until they have arrived.
    :param most: the most descriptors.
    :param max_line: the most bytes of the line.
    :raises OSError: if they do not arrive in time.
    :raises ValueError: if something else arrives. Then the descriptors are closed.
    """
    data, descriptors = b"", []
    end = time.monotonic() + time_limit
    try:
        while not data.endswith(b"\n"):
            sock.settimeout(max(0.001, end - time.monotonic()))
            piece, found, _, _ = socket.recv_fds(sock, 65_536, most, socket.MSG_CMSG_CLOEXEC)
            descriptors += found
            data += piece
            if not piece or len(data) > 2 * max_line or len(descriptors) > most:
                raise ValueError("it hung up" if not piece else "it sent too much")
        answer = json.loads(data)
        if not isinstance(answer, dict):
            raise ValueError("not an object")
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        raise
    return descriptors, answer
