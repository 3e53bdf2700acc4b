"""
Detects a worker that hangs, because it is stopped, blocked or in an endless loop.

As a heartbeat, the reactor of a worker writes a byte into a pipe every second (:func:`start_pulse`). The supervisor
counts the time without a heartbeat (:class:`Watchdog`), but only time in which it runs itself. So if the whole machine
is suspended, no worker counts as hanging. Used by :mod:`lhttp_tx.twistd.supervisor` and :mod:`lhttp_tx.twistd.worker`.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from twisted.internet.interfaces import IDelayedCall

__all__ = ["PULSE_DESCRIPTOR", "TRACEBACK_SIGNAL", "Watchdog", "process_state", "start_pulse"]

PULSE_DESCRIPTOR = 3
"""The file descriptor to which a worker writes its heartbeats."""

TRACEBACK_SIGNAL: int | None = getattr(signal, "SIGRTMIN", None)
"""The signal on which a worker writes its traceback, even in an endless loop; ``None`` if the system has none."""

_PULSE = 1.0
"""Seconds between a worker's heartbeats."""

_STEP = 0.5
"""Seconds between checks of the heartbeats. Each check counts at most this time as silence."""

_START = 10
"""How many times longer a worker may take for its first heartbeat, because it loads plugins, which may block."""

_STATES = {
    "R": "running",
    "S": "waiting",
    "D": "waiting for a disk or the network",
    "T": "stopped by a signal",
    "t": "stopped by a debugger",
}


def start_pulse(reactor: Any, descriptor: int = PULSE_DESCRIPTOR) -> None:
    """
    Write a byte to *descriptor* every second from now on, and a traceback to the standard error on
    :data:`TRACEBACK_SIGNAL`.

    :param reactor: the running reactor. While it is blocked, nothing is written.
    :param descriptor: the write end of a pipe.
    """
    os.set_inheritable(descriptor, False)
    os.set_blocking(descriptor, False)
    if TRACEBACK_SIGNAL is not None:
        faulthandler.register(TRACEBACK_SIGNAL, file=sys.stderr, all_threads=True, chain=False)

    def beat() -> None:
        with suppress(OSError):  # the supervisor is gone, or does not read at the moment
            os.write(descriptor, b".")
        reactor.callLater(_PULSE, beat)

    reactor.callWhenRunning(beat)


class Watchdog:
    """
    Watches one worker from its start to its end.

    :ivar silent: the seconds without a heartbeat.
    """

    def __init__(
        self, clock: Any, limit: float, call: Callable[[float | None], None], *, cpu: Callable[[], float | None]
    ) -> None:
        """
        :param clock: the reactor.
        :param limit: the seconds without a heartbeat after which the worker counts as hanging.
        :param call: called once if the worker hangs, with the seconds of CPU time that it has used since its last
            heartbeat; ``None`` if the system does not show them.
        :param cpu: returns the seconds of CPU time that the worker has used since its start; ``None`` if the system
            does not show them.
        """
        self.silent = 0.0
        self._clock = clock
        self._limit = limit
        self._call = call
        self._cpu = cpu
        self._cpu_before: float | None = None
        self._factor = _START
        self._looked = clock.seconds()
        self._next: IDelayedCall | None = clock.callLater(_STEP, self._look)

    def alive(self) -> None:
        """Take a heartbeat."""
        self.silent, self._factor, self._cpu_before = 0.0, 1, None

    def stop(self) -> None:
        """Stop watching."""
        if self._next is not None and self._next.active():
            self._next.cancel()
        self._next = None

    def _look(self) -> None:
        now = self._clock.seconds()
        # Heartbeats that came while this process was blocked are read later in this turn, or in the next one.
        self.silent += min(now - self._looked, _STEP)
        self._looked = now
        if self._cpu_before is None:
            self._cpu_before = self._cpu()
        if self.silent < self._limit * self._factor:
            self._next = self._clock.callLater(_STEP, self._look)
            return
        self._next = None
        before, after = self._cpu_before, self._cpu()
        self._call(None if before is None or after is None else after - before)


def process_state(pid: int) -> tuple[str, float | None]:
    """
    Return the state of a process in words, and the seconds of CPU time that it has used.

    If the system has no ``/proc``, the state is ``unknown`` and the time ``None``. Source: proc_pid_stat(5).
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        state = fields[0].decode("ascii")
        ticks = int(fields[11]) + int(fields[12])
    except (OSError, LookupError, ValueError):
        return "unknown", None
    return _STATES.get(state, state), ticks / os.sysconf("SC_CLK_TCK")
