"""
File descriptors: room for as many as the server needs, and what happens when they run out.

:mod:`lhttp_tx.service` uses it for each port that it listens on. Twisted gets over a full table by itself: it closes
whoever comes. But then nothing is left for what the clients who are connected need, such as a connection to a backend,
and it writes a line or more for each connection that it closes. So connections are refused here a little earlier.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IAddress, IDelayedCall, IProtocol, IProtocolFactory, IReactorTime
from twisted.internet.tcp import Port
from twisted.logger import ILogObserver, LogEvent, Logger
from zope.interface import implementer

try:
    import resource
except ImportError:  # pragma: no cover - Windows has no such limit
    resource = None  # type: ignore[assignment]

__all__ = ["RESERVE", "AcceptGuard", "raise_limit"]

_log = Logger()

RESERVE = 64
"""Descriptors that are kept for other things than clients: logs, names, the bus, files of the program."""

_REPORT_INTERVAL = 10.0
"""Seconds between two lines in the log about connections that are refused."""

_PAUSE = 1.0
"""Seconds for which nothing is accepted after the system could not."""

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
    Raise the limit on open files to what is needed, as far as the hard limit allows; log what was done, or what to do.

    :param connections: connections that there may be; 0: as many as possible.
    :param reserve: descriptors that are needed beside these.
    :param limits: the soft and the hard limit; by default those of the process.
    :param set_limits: sets them.
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
            "open files: {room} at most, with room for {count} connections rather than {connections}; raise the hard "
            "limit (ulimit -Hn, LimitNOFILE of systemd) or lower --max-connections",
            room=int(room),
            count=int(room) - _reserved(int(room), reserve),
            connections=connections or "any number",
        )


def _reserved(limit: int, reserve: int) -> int:
    """Return how many of *limit* descriptors are kept from clients; where there are few, a quarter at most."""
    return min(reserve, limit // 4)


class AcceptGuard:
    """
    Keeps the last file descriptors from clients, and lets the accept loop rest where it would spin.

    A connection is closed as soon as it is accepted if no more than the reserve is left. Where the system itself cannot
    accept, no attempt is made for a second. The log gets a line when it begins, one every ten seconds with the number
    of connections while it lasts, and one when it is over.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        reserve: int = RESERVE,
        *,
        limits: Callable[[], Limits | None] = _system_limits,
        judge: Callable[[IAddress], bool] | None = None,
    ) -> None:
        """
        :param reactor: keeps time.
        :param reserve: descriptors that clients may not have.
        :param limits: returns the soft and the hard limit.
        :param judge: returns whether a connection from an address may stay; ``None``: all may.
        """
        self._reactor = reactor
        self._reserve = reserve
        self._limits = limits
        self.judge = judge
        self._refused = 0
        self._reporting: IDelayedCall | None = None
        self._pauses: dict[Port, IDelayedCall] = {}

    def watch(self, port: Any) -> None:
        """Guard *port*, which listens already; what is no port of Twisted's own is left alone."""
        if isinstance(port, Port):
            port.factory = _GuardedFactory(self, port)  # type: ignore[assignment]
            port._logger = Logger(namespace=port._logger.namespace, observer=_Listener(self, port))

    def stop(self) -> None:
        """Stop waiting and reporting; the ports have stopped listening."""
        for call in (*self._pauses.values(), self._reporting):
            if call is not None and call.active():
                call.cancel()
        self._pauses.clear()
        self._reporting = None

    def admits(self, port: Port) -> bool:
        """Return whether the connection that *port* has just accepted may stay; one that may not is counted."""
        limits = self._limits()
        if limits is None or limits[0] < 0:
            return True
        try:
            # The system gives the lowest number that is free: all below it are taken.
            lowest = os.dup(port.fileno())
        except OSError:
            lowest = limits[0]
        else:
            os.close(lowest)
        if lowest < limits[0] - _reserved(limits[0], self._reserve):
            return True
        self._refuse("few file descriptors are left")
        return False

    def heard(self, port: Port, event: LogEvent) -> None:
        """Take what Twisted has to say about accepting at *port*: it says it for each connection."""
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
            _log.info("connections are taken again; none was refused for {seconds:g} s", seconds=_REPORT_INTERVAL)
            self._reporting = None


@implementer(ILogObserver)
class _Listener:
    """Tells the guard what Twisted would have written to the log."""

    def __init__(self, guard: AcceptGuard, port: Port) -> None:
        self._guard = guard
        self._port = port

    def __call__(self, event: LogEvent) -> None:
        self._guard.heard(self._port, event)


@implementer(IProtocolFactory)
class _GuardedFactory:
    """The factory of a port, asked only if the connection may stay."""

    noisy = False

    def __init__(self, guard: AcceptGuard, port: Port) -> None:
        factory: Any = port.factory
        self._guard = guard
        self._port = port
        self._factory = factory
        self.doStart = factory.doStart
        self.doStop = factory.doStop

    def buildProtocol(self, addr: IAddress) -> IProtocol | None:
        judge = self._guard.judge
        if (judge is not None and not judge(addr)) or not self._guard.admits(self._port):
            return None
        protocol: IProtocol | None = self._factory.buildProtocol(addr)
        return protocol
