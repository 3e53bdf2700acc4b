"""
The slow stop of a server: it continues to serve for some time, and then closes its clients a few at a time.

So no client is without a server for long. :class:`Departure` has two steps of a stop. Between them,
:mod:`lhttp_tx.service` stops listening. Without ``drain_delay`` and ``drain_time``, both steps do nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from lhttp_tx.codec.codes import GOING_AWAY
from lhttp_tx.engine.engine import Engine

__all__ = ["GOING_AWAY_REASON", "RETURN_WITHIN", "Departure"]

_log = Logger()

GOING_AWAY_REASON: Final = "server is going away"
"""The reason of closes when the server stops."""

RETURN_WITHIN: Final = 0.2
"""Seconds within which a closed client is asked to connect again, unless the stop was hurried."""

_TURN = 0.05
"""Seconds between two turns. In each, the same share of the clients is closed."""


class Departure:
    """
    The slow part of a stop.

    :ivar begun: whether the server is stopping or has stopped, and should get no new clients.
    """

    def __init__(self, engine: Engine, clock: IReactorTime, *, delay: float, time: float) -> None:
        """
        :param engine: has the connections.
        :param clock: the reactor.
        :param delay: seconds for which the server continues to serve; 0: none.
        :param time: seconds over which the closes are spread; 0: the rest of the stop closes all connections at once.
        """
        self.begun = False
        self._engine = engine
        self._clock = clock
        self._delay = delay
        self._time = time
        self._done: Deferred[None] | None = None
        self._timer: IDelayedCall | None = None
        self._end = 0.0
        self._hurries = False

    def begin(self) -> None:
        """Note that the server is stopping."""
        self.begun, self._hurries = True, False

    def reset(self) -> None:
        """Note that the server has started again."""
        self.begun = False

    def skip_delay(self) -> None:
        """Skip the delay, because another process already takes new clients."""
        self._delay = 0.0

    def wait(self) -> Deferred[None]:
        """
        Wait for the delay, while the server continues to serve.

        :returns: a Deferred that succeeds when the delay is over, which may be now.
        """
        if not self._delay or self._hurries:
            return succeed(None)
        _log.info("stopping: serving for {seconds:g} s more", seconds=self._delay)
        return self._later(self._delay, self._finish)

    def spread(self) -> Deferred[None]:
        """
        Close every connection with code 1001, in a random order, evenly spread over the time.

        Each session first finishes the messages that it has received. The reason of the close asks the client to
        connect again within :data:`RETURN_WITHIN` seconds, or within the rest of the time after :meth:`hurry`.

        :returns: a Deferred that succeeds when all sessions were told to close, which may be now.
        """
        if not self._time or not self._engine.sessions:
            return succeed(None)
        waiting = list(self._engine.sessions)
        random.shuffle(waiting)
        _log.info("closing {count} connections within {seconds:g} s", count=len(waiting), seconds=self._time)
        self._end = self._clock.seconds() + self._time
        if self._hurries:
            return self._close_all()
        pace = len(waiting) / self._time

        def turn() -> None:
            left = self._end - self._clock.seconds()
            while waiting and (self._hurries or len(waiting) > left * pace):
                session = waiting.pop()
                session.finish(GOING_AWAY, self._reason(max(RETURN_WITHIN, left) if self._hurries else RETURN_WITHIN))
            if waiting:
                self._timer = self._clock.callLater(_TURN, turn)
            else:
                self._finish()

        return self._later(0, turn)

    def hurry(self) -> bool:
        """
        End the delay, and close all connections now.

        :returns: whether this has an effect.
        """
        done, timer = self._done, self._timer
        if not self.begun or done is None or timer is None or not timer.active():
            return False
        self._hurries = True
        timer.reset(0)
        return True

    def _close_all(self) -> Deferred[None]:
        for session in tuple(self._engine.sessions):
            session.finish(GOING_AWAY, self._reason(max(RETURN_WITHIN, self._time)))
        return succeed(None)

    def _reason(self, seconds: float) -> str:
        return f"{GOING_AWAY_REASON}; retry-after={seconds:.3g}"

    def _later(self, seconds: float, call: Callable[[], None]) -> Deferred[None]:
        done = self._done = Deferred()
        self._timer = self._clock.callLater(seconds, call)
        return done

    def _finish(self) -> None:
        done, self._done, self._timer = self._done, None, None
        if done is not None:
            done.callback(None)
