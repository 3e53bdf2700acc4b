"""
Detects a blocked reactor, and logs the code that blocks it.

A thread checks whether the reactor still runs. If it is blocked, the thread logs the stack of the reactor's thread.
Imports nothing of the project.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from typing import Any

from twisted.application.service import Service
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

__all__ = ["StallWatch"]

_log = Logger()

_MAX_FRAMES = 30
"""The most frames of a stack in the log: the innermost."""


class StallWatch(Service):
    """Logs that the reactor is blocked, and later that it runs again."""

    def __init__(self, reactor: Any, threshold: float) -> None:
        """
        :param reactor: the running reactor. The service is started in its thread.
        :param threshold: seconds without a turn, at least 0.1.
        """
        self._threshold = threshold
        self._beat = 0.0
        self._thread = 0
        self._stop = threading.Event()
        self._beating = LoopingCall(self._live)
        self._beating.clock = reactor

    def startService(self) -> None:
        """Begin to check the reactor."""
        super().startService()
        self._stop = threading.Event()
        self._thread = threading.get_ident()
        self._live()
        self._beating.start(self._threshold / 4, now=False).addErrback(
            lambda failure: _log.failure("the heartbeat of the reactor failed", failure)
        )
        threading.Thread(target=self._watch, args=(self._stop,), name="stall watch", daemon=True).start()

    def stopService(self) -> None:
        """Stop checking."""
        super().stopService()
        self._stop.set()
        if self._beating.running:
            self._beating.stop()

    def _live(self) -> None:
        self._beat = time.monotonic()

    def _watch(self, stop: threading.Event) -> None:
        told = 0.0
        while not stop.wait(self._threshold / 4):
            beat = self._beat
            still = time.monotonic() - beat
            if told and beat != told:
                _log.warn("the reactor runs again after {seconds:.1f} s", seconds=beat - told)
                told = 0.0
            if still >= self._threshold and beat != told:
                told = beat
                _log.error(
                    "the reactor has been blocked for {seconds:.1f} s, in\n{stack}",
                    seconds=still,
                    stack=self._stack(),
                    event="reactor.stalled",
                )

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._thread)
        if frame is None:
            return "an unknown place"
        return "".join(traceback.format_stack(frame)[-_MAX_FRAMES:]).rstrip()
