"""
The mode and the group of a UNIX socket's file, which decide who may connect.

Used by :mod:`lhttp_tx.service`, and by other modules that open the sockets of a server. Knows endpoints of Twisted.
"""

from __future__ import annotations

import os
import re
import socket
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import _parse, serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.internet.tcp import Port as TCPPort
from twisted.internet.unix import Port
from twisted.logger import Logger
from twisted.protocols.haproxy import proxyEndpoint
from twisted.python.failure import Failure
from zope.interface import implementer

from lhttp_tx.observe.reasons import reason_of
from lhttp_tx.ports.listening import close_now

__all__ = ["UNIXRights", "adopt", "check_socket_path", "find_group", "give_away", "is_unix", "lock_again", "read_mode",
           "unix_path"]  # fmt: skip

_log = Logger()

_GROUP_MODE = 0o660
"""The default mode of a socket with its own group."""

_CLOSED = 0o600
"""The mode until the group is set."""

_PROXY = "haproxy:"
"""The prefix of an endpoint's description for the PROXY protocol."""

_MAX_PATH = 107
"""The most bytes of the path of a UNIX socket (unix(7))."""

_OWN_MODE = re.compile(r"(?<!\\):mode=")
"""Finds a mode in the description."""


@dataclass(frozen=True, slots=True)
class UNIXRights:
    """
    The permissions of UNIX sockets.

    :ivar mode: the mode of their files; ``None``: 0660 if there is a group, otherwise the mode of the description.
    :ivar group: the name or the number of their group; ``None``: the group of the process.
    """

    mode: int | None = None
    group: str | None = None

    def endpoint(self, reactor: Any, description: str) -> IStreamServerEndpoint:
        """
        Return the endpoint of *description*. If its socket is a file, the socket gets these permissions.

        A ``mode=`` in the description takes precedence.
        """
        if not is_unix(description) or (self.mode is None and self.group is None):
            return serverFromString(_Adopting(reactor), description)  # type: ignore[no-any-return]
        if description.startswith(_PROXY):
            return proxyEndpoint(self.endpoint(reactor, description.removeprefix(_PROXY)))
        endpoint: IStreamServerEndpoint = serverFromString(reactor, description)
        mode = _GROUP_MODE if self.mode is None else self.mode
        found: Any = endpoint
        if _OWN_MODE.search(description):
            mode = found._mode
        found._mode = mode if self.group is None else _CLOSED
        return endpoint if self.group is None else _GroupEndpoint(endpoint, find_group(self.group), mode)

    def renew(self, description: str, path: Path) -> None:
        """
        Give these permissions to a socket that another process has made.

        Without a mode or a group, here or in the description, the socket keeps what it has. If the process may not
        change it, the log says so.

        :param description: the endpoint that listens on it.
        :param path: its file.
        """
        while description.startswith(_PROXY):
            description = description.removeprefix(_PROXY)
        mode = _GROUP_MODE if self.mode is None and self.group is not None else self.mode
        if _OWN_MODE.search(description):
            found: Any = serverFromString(None, description)
            mode = found._mode
        try:
            now = path.stat()
            if self.group is not None and (group := find_group(self.group)) != now.st_gid:
                os.chown(path, -1, group)
            if mode is not None and stat.S_IMODE(now.st_mode) != mode:
                path.chmod(mode)
        except (OSError, ValueError) as error:
            _log.error("{path} keeps its permissions: {why}", path=str(path), why=reason_of(error))


@implementer(IStreamServerEndpoint)
class _GroupEndpoint:
    """Sets the group of a socket, and only then its mode."""

    def __init__(self, endpoint: IStreamServerEndpoint, group: int, mode: int) -> None:
        self._endpoint = endpoint
        self._group = group
        self._mode = mode

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """
        Listen, then set the group and the mode of the socket.

        :returns: a Deferred that

            - succeeds with the port;
            - fails with :exc:`~twisted.internet.error.CannotListenError`, also if the process may not set the group of
              the socket.
        """

        def give(port: IListeningPort) -> IListeningPort:
            path = port.getHost().name  # type: ignore[attr-defined]
            try:
                os.chown(path, -1, self._group)
                os.chmod(path, self._mode)  # noqa: PTH101 - as the line above, which pathlib does not have
            except (OSError, ValueError) as error:  # the name of a socket without a file contains a NUL
                closing = maybeDeferred(close_now, port)
                closing.addErrback(lambda failure: _log.failure("closing a socket failed", failure))
                raise CannotListenError(None, path, error) from None
            return port

        return self._endpoint.listen(protocolFactory).addCallback(give)


def is_unix(description: str) -> bool:
    """Return whether the endpoint of *description* is a UNIX socket, also if it uses the PROXY protocol."""
    while description.startswith(_PROXY):
        description = description.removeprefix(_PROXY)
    return description.startswith("unix:")


def unix_path(description: str) -> str | None:
    r"""
    Return the path of the UNIX socket that an endpoint listens on; ``None`` for other endpoints.

    >>> unix_path(r"unix:/run/a\:b:mode=600")
    '/run/a:b'
    >>> unix_path("tcp:8081")
    """
    if not is_unix(description):
        return None
    while description.startswith(_PROXY):
        description = description.removeprefix(_PROXY)
    places, named = _parse(description)
    return str(named.get("address", places[1] if len(places) > 1 else ""))


def check_socket_path(path: str) -> None:
    """
    Check that the process can make a UNIX socket.

    :param path: its path. The name of a socket without a file begins with NUL, and only its size is checked.
    :raises ValueError: if it cannot. The text says why, and what to do.
    """
    size = len(os.fsencode(path))
    if size > _MAX_PATH:
        raise ValueError(f"a UNIX socket may have a path of {_MAX_PATH} bytes, not of {size}; choose a shorter one")
    if path.startswith("\0"):
        return
    folder = Path(path).absolute().parent
    if not folder.is_dir():
        raise ValueError(f"there is no directory {folder}; make it, or name another path")
    if Path(path).exists() and not Path(path).is_socket():
        raise ValueError("this is no socket; name another path, or remove it")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"the server may not make files in {folder}; let its user do so, or name another path")


class _AdoptedPort(Port):
    """
    A UNIX socket that another process has made. That process owns its file and permissions.

    When Twisted's own class begins to listen, it would give everybody access. When it stops, it would remove the file,
    and shut the socket down for all processes that have it.
    """

    _shouldShutdown = False

    def startListening(self) -> None:
        """Accept connections."""
        port: Any = self
        port.factory.doStart()
        port.socket, port._preexistingSocket = port._preexistingSocket, None
        port.socket.listen(port.backlog)
        port.fileno = port.socket.fileno
        port.connected = True
        port.numberAccepts = 100
        port.startReading()

    def connectionLost(self, reason: Failure) -> None:
        """Stop listening."""
        TCPPort.connectionLost(self, reason)


def adopt(reactor: Any, descriptor: int, family: int, factory: Any) -> IListeningPort:
    """
    Listen on a socket that another process has made. If it is a UNIX socket, do not change its file.

    :param descriptor: its file descriptor, which still belongs to the caller.
    """
    if family != socket.AF_UNIX:
        return reactor.adoptStreamPort(descriptor, family, factory)  # type: ignore[no-any-return]
    port: Any = _AdoptedPort._fromListeningDescriptor(reactor, descriptor, factory)  # type: ignore[no-untyped-call]
    port.startListening()
    return port  # type: ignore[no-any-return]


def give_away(port: Any) -> None:
    """
    Leave the socket of *port* to another process that also has it.

    From now on, closing the port neither shuts down the socket nor removes its file.
    """
    port._shouldShutdown = False
    if isinstance(port, Port):
        port.__class__ = _AdoptedPort


def lock_again(path: Path) -> None:
    """
    Note in the lock beside a UNIX socket, if there is one, that this process now has the socket.

    Otherwise the lock would name a process that is gone, and the next server that wants this path would remove the
    socket.
    """
    lock = path.with_name(f"{path.name}.lock")
    new = path.with_name(f"{path.name}.lock.{os.getpid()}")
    with suppress(OSError):
        if lock.is_symlink():
            new.symlink_to(str(os.getpid()))
            new.replace(lock)


class _Adopting:
    """A reactor that adopts sockets with :func:`adopt`, such as those of ``systemd:``."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> IListeningPort:
        return adopt(self._reactor, fileDescriptor, addressFamily, factory)


def read_mode(text: str) -> int:
    """
    Return the mode that the octal digits in *text* stand for.

    :raises ValueError: if it is not a mode, or if the server itself could not use the socket with this mode.
    """
    if not re.fullmatch(r"0?[67][0-7]{2}", text):
        raise ValueError(f"{text!r} is not a mode for a socket; write it in octal digits, such as 660")
    return int(text, 8)


read_mode.coerceDoc = "Octal digits, such as 660."  # type: ignore[attr-defined]


def find_group(name: str) -> int:
    """
    Return the number of a group.

    :param name: its name, or its number.
    :raises ValueError: if there is no such group.
    """
    from grp import getgrnam  # not on every platform

    try:
        return int(name) if re.fullmatch("[0-9]{1,9}", name) else getgrnam(name).gr_gid
    except KeyError:
        raise ValueError(f"there is no group {name!r}") from None
