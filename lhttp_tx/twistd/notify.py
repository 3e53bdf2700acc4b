"""
Notifies systemd of the state of the server: ready, reloading, stopping, and alive.

A service manager sets ``$NOTIFY_SOCKET`` to get notifications (:manpage:`sd_notify(3)`). Otherwise this does nothing.
Needs no library.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

__all__ = ["Notifier"]

_log = Logger()

_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Notifier(Service):
    """Sends the state of a server to the service manager, and regular heartbeats of the reactor."""

    def __init__(
        self, reactor: Any, when_started: Callable[[], Deferred[Any]], environment: Mapping[str, str] = os.environ
    ) -> None:
        """
        :param reactor: the running reactor.
        :param when_started: returns a Deferred that succeeds when the server accepts connections.
        :param environment: the environment variables.
        """
        self._reactor = reactor
        self._when_started = when_started
        self._address = environment.get("NOTIFY_SOCKET", "")
        self._is_ready = False
        usec, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
        mine = not pid or pid == str(os.getpid())
        self._interval = int(usec) / 2_000_000 if mine and usec.isdigit() else 0.0
        self._beating = LoopingCall(self.send, "WATCHDOG=1")
        self._beating.clock = reactor

    @staticmethod
    def without(environment: Mapping[str, str]) -> dict[str, str]:
        """Return *environment* without the variables of the service manager, which are not for child processes."""
        return {name: value for name, value in environment.items() if name not in _VARIABLES}

    def startService(self) -> None:
        """Notify the service manager when the server is ready."""
        super().startService()
        if not self._address:
            return
        self.send("STATUS=starting")
        self._when_started().addCallbacks(self._ready, lambda failure: None)  # it is logged elsewhere
        if self._interval and not self._beating.running:
            self._beating.start(self._interval).addErrback(
                lambda failure: _log.failure("notifying the service manager failed", failure)
            )

    def _ready(self, _: object) -> None:
        self._is_ready = True
        self.send("READY=1", "STATUS=serving", f"MAINPID={os.getpid()}")

    def stopService(self) -> None:
        """Notify the service manager that the server is stopping. The heartbeats continue until the process ends."""
        super().stopService()
        self._is_ready = False
        self.send("STOPPING=1", "STATUS=closing connections")

    def reloading(self, reload: Callable[[], object]) -> None:
        """
        Notify the service manager that the server reloads, call *reload*, and notify that the server is ready again.
        """
        if self._is_ready:
            self.send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
        try:
            reload()
        finally:
            if self._is_ready:
                self.send("READY=1", "STATUS=serving")

    def send(self, *lines: str) -> None:
        """Send a datagram. Ignore a service manager that is gone or does not read."""
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.sendto("\n".join(lines).encode(), address)
