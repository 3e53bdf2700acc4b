"""
The ports of a server: it listens on all of them or none, with a large backlog for simultaneous connections.

:mod:`lhttp_tx.service` has one :class:`Listeners`. :mod:`lhttp_tx.twistd.supervisor` opens its sockets with these
functions, too.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.internet.protocol import connectionDone
from twisted.internet.tcp import Port
from twisted.internet.unix import Port as UNIXPort
from twisted.logger import Logger
from twisted.python.failure import Failure

from lhttp_tx.observe.reasons import reason_of, tell_once

__all__ = [
    "ACCEPTS",
    "ACCEPT_TURN",
    "BACKLOG",
    "Listeners",
    "accept",
    "close_now",
    "limit_accepts",
    "listen_now",
    "widen",
]

_log = Logger()

BACKLOG = max(1_024, socket.SOMAXCONN)
"""Connections of one port that may wait to be accepted. The system has its own limit (net.core.somaxconn)."""

ACCEPTS = 4
"""Connections that a port accepts before it looks at the clock again."""

ACCEPT_TURN = 0.001
"""
Seconds for which a port may accept connections in one turn of the reactor, while the other clients wait. The rest stays
in the system's queue until the next turn. Twisted has no such limit: it accepts 100 connections in a turn, and 20 more
each time that so many wait.
"""

_UNSAID = (50, None)
"""Backlogs that nobody has chosen: Twisted's default, and ``None`` for a socket that another process has made."""


def widen(port: Any, description: str) -> None:
    """
    Give *port* the largest backlog that the system allows, unless *description* sets one.

    :param port: a port that already listens, perhaps on a socket that another process has made.
    """
    if isinstance(port, Port) and port.backlog in _UNSAID and ":backlog=" not in description:
        port.socket.listen(BACKLOG)


def limit_accepts(port: Any) -> None:
    """Let *port* accept connections for no more than :data:`ACCEPT_TURN` in one turn of the reactor."""
    if not isinstance(port, Port):
        return
    read = port.doRead
    seconds: Callable[[], float] = port.reactor.seconds  # type: ignore[attr-defined]

    def read_for_a_while() -> None:
        end = seconds() + ACCEPT_TURN
        while True:
            port.numberAccepts = ACCEPTS
            read()  # type: ignore[no-untyped-call]
            # Twisted raises the number if so many connections were waiting. Accepting may have closed the port.
            if port.numberAccepts <= ACCEPTS or not port.connected or port.disconnecting or seconds() >= end:
                return

    port.doRead = read_for_a_while  # type: ignore[method-assign]


def listen_now(endpoint: IStreamServerEndpoint, factory: IProtocolFactory, description: str) -> IListeningPort:
    """
    Listen on an endpoint that reports the outcome at once.

    :raises CannotListenError: if it cannot listen. Other errors of the endpoint are raised, too. The log says why.
    :raises ValueError: if it does not report the outcome at once. Then it does not listen later either. The log says
        so.
    """
    outcome: list[Any] = []
    listening = endpoint.listen(factory).addBoth(outcome.append)
    if not outcome:
        listening.addCallback(lambda _: _discard(outcome[0]))
        error = ValueError("it does not say at once whether it listens, as what is shared by workers must")
        _complain(Failure(error), description)
        raise error
    if isinstance(outcome[0], Failure):
        _complain(outcome[0], description)
        raise outcome[0].value.with_traceback(None) from None  # type: ignore[union-attr]
    port: IListeningPort = outcome[0]
    widen(port, description)
    return port


def accept(ports: Iterable[Any], accepts: bool) -> None:
    """Accept connections, or leave them in the system's queue while the server starts."""
    for port in ports:
        if hasattr(port, "stopReading"):
            (port.startReading if accepts else port.stopReading)()


def close_now(port: Any) -> Any:
    """
    Close *port* at once if possible.

    Twisted waits for the reactor's next turn. After a failed start, this turn may never come, and a UNIX socket would
    be left behind.

    :returns: the result of ``stopListening``, or ``None``.
    """
    if not isinstance(port, Port) or not port.connected:
        return port.stopListening()
    port.stopReading()
    port.connectionLost(connectionDone)
    return None


class Listeners:
    """
    The ports of one server.

    :ivar ports: the open ports.
    """

    def __init__(
        self,
        reactor: Any,
        factory: IProtocolFactory,
        *,
        make_endpoint: Callable[[Any, str], IStreamServerEndpoint],
        opened: Callable[[IListeningPort, str, IProtocolFactory], None],
    ) -> None:
        """
        :param reactor: the running reactor.
        :param factory: takes the connections, unless :meth:`open` gets another factory for an endpoint.
        :param make_endpoint: takes the reactor and a description, and returns the endpoint.
        :param opened: called with each port that listens, its description, and the factory that takes its connections.
            The port is then in :attr:`ports`.
        """
        self.ports: list[IListeningPort] = []
        self._reactor = reactor
        self._factory = factory
        self._make_endpoint = make_endpoint
        self._opened = opened
        self._opening: list[Deferred[Any]] = []
        self._failed: Failure | None = None
        self._inodes: dict[IListeningPort, int | None] = {}
        self._waiting: Deferred[None] | None = None
        self.is_open = False

    @property
    def intact(self) -> bool:
        """Whether all ports listen, as far as this process can tell."""
        return self._failed is None and not self._opening and all(map(self._is_intact, self.ports))

    def open(self, descriptions: Iterable[str], others: Iterable[tuple[str, IProtocolFactory]] = ()) -> Deferred[None]:
        """
        Listen on all of *descriptions*, then on *others*.

        :param others: more descriptions, each with the factory that takes the connections there.

        :returns: a Deferred that

            - succeeds when all listen;
            - fails with the first error that an endpoint reports later. The other ports stay open, and :attr:`intact`
              is false;
            - fails with :exc:`twisted.internet.defer.CancelledError` if the ports are closed first.
        :raises CannotListenError: if an endpoint fails at once. Other errors of endpoints are raised, too. Then no port
            listens.
        """
        self.is_open = True
        self._failed = None
        done = self._waiting = Deferred()
        try:
            for description, factory in (*((each, self._factory) for each in descriptions), *others):
                self._open(description, factory)
        except BaseException:
            self._waiting = None
            self._close(close_now)
            raise
        self._look()
        return done

    def _open(self, description: str, factory: IProtocolFactory) -> None:
        listening = self._make_endpoint(self._reactor, description).listen(factory)
        outcome: list[Any] = []
        listening.addBoth(outcome.append)
        if outcome and isinstance(outcome[0], Failure):
            _complain(outcome[0], description)
            raise outcome[0].value.with_traceback(None) from None  # type: ignore[union-attr]
        if outcome:
            self._listens(outcome[0], description, factory)
        else:
            self._opening.append(listening)
            listening.addCallback(lambda _: self._later(listening, outcome[0], description, factory))
            listening.addErrback(lambda failure: _log.failure("opening a port failed", failure))

    def _later(self, listening: Deferred[Any], outcome: Any, description: str, factory: IProtocolFactory) -> object:
        """Take the outcome of an endpoint that did not report it at once."""
        if listening not in self._opening:
            return _discard(outcome)
        self._opening.remove(listening)
        if isinstance(outcome, Failure):
            _complain(outcome, description)
            self._failed = self._failed or outcome
        else:
            self._listens(outcome, description, factory)
        self._look()
        return None

    def _listens(self, port: IListeningPort, description: str, factory: IProtocolFactory) -> None:
        self.ports.append(port)
        self._inodes[port] = _inode(port)
        widen(port, description)
        limit_accepts(port)
        self._opened(port, description, factory)

    def _look(self) -> None:
        """Fire the waiting Deferred if all ports listen, or one has failed."""
        waiting = self._waiting
        if waiting is None or (self._opening and self._failed is None):
            return
        self._waiting = None
        if self._failed is None:
            waiting.callback(None)
        else:
            waiting.errback(self._failed)

    def close(self) -> Deferred[None]:
        """
        Stop listening, and give up ports that do not listen yet.

        :returns: a Deferred that succeeds when all ports are closed.
        """
        return self._close(lambda port: port.stopListening())

    def _close(self, close: Callable[[Any], Any]) -> Deferred[None]:
        ports, self.ports = self.ports, []
        self._opening = []  # not cancelled: nobody would close a port that opens after its cancellation
        waiting, self._waiting = self._waiting, None
        self._inodes.clear()
        self._failed = None
        self.is_open = False
        closing: list[Deferred[Any]] = [maybeDeferred(close, port) for port in ports]
        if waiting is not None:
            waiting.errback(CancelledError("the server was stopped before it had started"))
        return DeferredList(closing, consumeErrors=True).addCallback(lambda _: None)

    def _is_intact(self, port: IListeningPort) -> bool:
        """Return whether *port* still listens. A port that is not Twisted's own counts as listening."""
        if not isinstance(port, Port):
            return True
        return bool(port.connected) and self._inodes.get(port) == _inode(port)


def _inode(port: Any) -> int | None:
    """Return the inode number of a UNIX socket's file; ``None`` if there is no file, or it is gone."""
    if not isinstance(port, UNIXPort):
        return None
    path = port.getHost().name
    if not path or path.startswith("\0" if isinstance(path, str) else b"\0"):
        return None
    try:
        return Path(path if isinstance(path, str) else path.decode("utf-8", "surrogateescape")).stat().st_ino
    except OSError:
        return None


def _discard(outcome: Any) -> Any:
    """Close a port that is no longer needed."""
    return None if isinstance(outcome, Failure) else outcome.stopListening()


def _complain(failure: Failure, description: str) -> None:
    error = failure.value
    assert error is not None
    why = reason_of(error)
    _log.critical("cannot listen on {description}: {why}", description=description, why=why)
    tell_once(error, f"cannot listen on {description}: {why}")
