"""
Raises the limit on file descriptors, and refuses connections before the descriptors run out.

:mod:`lhttp_tx.service` uses it for each port. If there are no descriptors, Twisted closes each new connection. But then
no descriptor is left for connected clients, for example for a connection to a backend. Twisted also logs at least one
line for each connection that it closes. So this module refuses connections a little earlier.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IAddress, IDelayedCall, IProtocol, IProtocolFactory, IReactorTime
from twisted.internet.tcp import Port
from twisted.logger import ILogObserver, LogEvent, Logger
from zope.interface import implementer

from lhttp_tx.guard.proxied import expects_proxy

try:
    import resource
except ImportError:  # pragma: no cover - Windows has no such limit
    resource = None  # type: ignore[assignment]

__all__ = ["RESERVE", "AcceptGuard", "raise_limit"]

_log = Logger()

RESERVE = 64
"""Descriptors for everything except clients: logs, name resolution, the bus, files of the program."""

_REPORT_INTERVAL = 10.0
"""Seconds between two log lines about refused connections."""

_SPARED = 3
"""Connections that are admitted without a look at the descriptors, after a look that has found so many more."""

_PAUSE = 1.0
"""Seconds for which the server accepts nothing after the system has failed to accept a connection."""

Limits = tuple[int, int]


def _system_limits() -> Limits | None:
    return None if resource is None else resource.getrlimit(resource.RLIMIT_NOFILE)


def _set_system_limits(limits: Limits) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def raise_limit(
    connections: int,
    reserve: int = RESERVE,
    *,
    limits: Limits | None = None,
    set_limits: Callable[[Limits], None] = _set_system_limits,
) -> None:
    """
    Raise the limit on open files as far as needed, and as the hard limit allows. Log the change, or advice.

    :param connections: the most connections; 0: as many as possible.
    :param reserve: descriptors that are needed in addition.
    :param limits: the soft and the hard limit; by default those of the process.
    :param set_limits: sets the limits.
    """
    limits = _system_limits() if limits is None else limits
    if limits is None:
        return
    soft, hard = (float("inf") if limit < 0 else limit for limit in limits)
    wanted = connections + reserve if connections else hard
    room = min(wanted, hard)
    if soft < room < float("inf"):
        try:
            set_limits((int(room), limits[1]))
        except (OSError, ValueError) as error:
            _log.warn("open files: cannot raise the limit of {soft}: {error}", soft=limits[0], error=error)
            room = soft
        else:
            _log.info("open files: limit raised from {soft} to {room}", soft=limits[0], room=int(room))
    else:
        room = max(soft, room)
    if room < wanted:
        _log.warn(
            "open files: the limit of {room} is enough for {count} connections, not for {connections}; raise the hard "
            "limit (ulimit -Hn, LimitNOFILE of systemd) or lower --max-connections",
            room=int(room),
            count=int(room) - _reserved(int(room), reserve),
            connections=connections or "any number",
        )


def _reserved(limit: int, reserve: int) -> int:
    """Return how many of *limit* descriptors are not for clients: *reserve*, but at most a quarter."""
    return min(reserve, limit // 4)


class AcceptGuard:
    """
    Keeps the last file descriptors from clients, and pauses the accept loop when it would spin.

    If only the reserve is left, the guard closes each connection as soon as it is accepted. If the system itself cannot
    accept a connection, the guard pauses for a second. The log gets a line when this begins, a line every ten seconds
    with the number of refused connections, and a line when it is over.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        reserve: int = RESERVE,
        *,
        limits: Callable[[], Limits | None] = _system_limits,
        judge: Callable[[IAddress | None], bool] | None = None,
        make_room: Callable[[], bool] = lambda: False,
    ) -> None:
        """
        :param reactor: the reactor, for the time.
        :param reserve: descriptors that clients may not have.
        :param limits: returns the soft and the hard limit.
        :param judge: returns whether a connection from an address may stay. The address is ``None`` if a proxy will
            report it later. ``None``: all may stay.
        :param make_room: closes a connection to make room for others. It returns whether there was one.
        """
        self._reactor = reactor
        self._reserve = reserve
        self._limits = limits
        self.judge = judge
        self._make_room = make_room
        self._refused = 0
        self._reporting: IDelayedCall | None = None
        self._pauses: dict[Port, IDelayedCall] = {}
        self._spared = 0

    def watch(self, port: Any) -> None:
        """Guard *port*, which already listens. A port that is not Twisted's own stays as it is."""
        if isinstance(port, Port):
            port.factory = _GuardedFactory(self, port)  # type: ignore[assignment]
            port._logger = Logger(namespace=port._logger.namespace, observer=_Listener(self, port))

    @property
    def refuses(self) -> bool:
        """Whether a connection was refused within the last ten seconds because descriptors ran out."""
        return self._reporting is not None

    def stop(self) -> None:
        """Stop all timers, because the ports have stopped listening."""
        for call in (*self._pauses.values(), self._reporting):
            if call is not None and call.active():
                call.cancel()
        self._pauses.clear()
        self._reporting = None

    def admits(self, port: Port) -> bool:
        """Return whether the connection that *port* has just accepted may stay. Count it as refused if not."""
        if self._spared:
            self._spared -= 1
            return True
        limits = self._limits()
        if limits is None or limits[0] < 0:
            return True
        try:
            # The system returns the lowest free number: all numbers below it are in use.
            lowest = os.dup(port.fileno())
        except OSError:
            lowest = limits[0]
        else:
            os.close(lowest)
        reserved = _reserved(limits[0], self._reserve)
        if lowest < limits[0] - reserved:
            if lowest + _SPARED < limits[0] - reserved:
                self._spared = _SPARED
            return True
        # A connection that is closed to make room keeps its descriptor until the next turn. Half of the reserve is for
        # these.
        if self._make_room() and lowest < limits[0] - (reserved + 1) // 2:
            return True
        self._refuse("few file descriptors are left")
        return False

    def heard(self, port: Port, event: LogEvent) -> None:
        """Handle a log event of Twisted about accepting at *port*. Twisted logs one for each connection."""
        if event.get("acceptError", "ECONNABORTED") != "ECONNABORTED":
            if port not in self._pauses:
                port.stopReading()
                self._pauses[port] = self._reactor.callLater(_PAUSE, self._resume, port)
            self._refuse(f"the system cannot accept them ({event['acceptError']})")
        elif "address" in event:
            self._refuse("no file descriptor is left")

    def _resume(self, port: Port) -> None:
        del self._pauses[port]
        if port.connected and not port.disconnecting:
            port.startReading()

    def _refuse(self, why: str) -> None:
        if self._reporting is None:
            _log.error("refusing connections: {why}; raise the limit on open files (ulimit -n, LimitNOFILE)", why=why)
            self._reporting = self._reactor.callLater(_REPORT_INTERVAL, self._report)
        else:
            self._refused += 1

    def _report(self) -> None:
        if self._refused:
            _log.error(
                "refused {count} more connections within {seconds:g} s", count=self._refused, seconds=_REPORT_INTERVAL
            )
            self._refused = 0
            self._reporting = self._reactor.callLater(_REPORT_INTERVAL, self._report)
        else:
            _log.info("accepting connections again; none was refused for {seconds:g} s", seconds=_REPORT_INTERVAL)
            self._reporting = None


@implementer(ILogObserver)
class _Listener:
    """Passes log events of Twisted to the guard, instead of the log."""

    def __init__(self, guard: AcceptGuard, port: Port) -> None:
        self._guard = guard
        self._port = port

    def __call__(self, event: LogEvent) -> None:
        self._guard.heard(self._port, event)


@implementer(IProtocolFactory)
class _GuardedFactory:
    """The factory of a port. It is used only if the connection may stay."""

    noisy = False

    def __init__(self, guard: AcceptGuard, port: Port) -> None:
        factory: Any = port.factory
        self._guard = guard
        self._port = port
        self._factory = factory
        self._hidden = expects_proxy(factory)
        self.doStart = factory.doStart
        self.doStop = factory.doStop

    def buildProtocol(self, addr: IAddress) -> IProtocol | None:
        judge = self._guard.judge
        if (judge is not None and not judge(None if self._hidden else addr)) or not self._guard.admits(self._port):
            return None
        protocol: IProtocol | None = self._factory.buildProtocol(addr)
        return protocol
