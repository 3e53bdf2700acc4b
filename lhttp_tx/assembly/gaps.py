"""
Handles gaps, in which a node may have missed publications: tells its clients, and can close those that did not ask.

The bus reports interruptions of this node. The nodes report missing heartbeats of others. Used by
:mod:`lhttp_tx.assembly.parts`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from lhttp_tx.cluster.nodes import Nodes
from lhttp_tx.codec.codes import MAY_HAVE_MISSED
from lhttp_tx.engine.conversation import Conversation
from lhttp_tx.engine.engine import Engine

__all__ = ["REASON", "UnawareClients", "follow_gaps"]

_log = Logger()

REASON: Final = "messages may have been missed; retry-after=0"
"""The reason of these closes. It asks the clients to connect again at once."""

_TURN = 0.05
"""Seconds between two turns. In each, the same share of the clients is closed."""


class UnawareClients:
    """The clients that have subscribed to channels without history, and without ``gaps:tell``."""

    def __init__(self, engine: Engine, clock: IReactorTime, *, time: float) -> None:
        """
        :param engine: has the connections.
        :param clock: the reactor.
        :param time: seconds within which they are closed after a gap, one after another.
        """
        self._engine = engine
        self._clock = clock
        self._time = time
        self._waiting: list[Conversation] = []
        self._begin = self._pace = 0.0
        self._closed = 0
        self._timer: IDelayedCall | None = None

    def close(self) -> None:
        """
        Close the current clients of this kind, in a random order. Each session first finishes its received messages.
        """
        self.stop()
        unaware = self._engine.hub.unaware()
        self._waiting = [session for session in self._engine.sessions if session in unaware]
        if not self._waiting:
            return
        random.shuffle(self._waiting)
        count = len(self._waiting)
        text = "closing {count} connections within {seconds:g} s: they may have missed publications"
        _log.warn(text, count=count, seconds=self._time)
        self._begin, self._pace, self._closed = self._clock.seconds(), count / self._time, 0
        self._turn()

    def _turn(self) -> None:
        self._timer = None
        due = (self._clock.seconds() - self._begin) * self._pace
        while self._waiting and self._closed <= due:
            self._closed += 1
            self._waiting.pop().finish(MAY_HAVE_MISSED, REASON)
        if self._waiting:
            self._timer = self._clock.callLater(_TURN, self._turn)

    def stop(self) -> None:
        """Close no more clients."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._waiting = []


def follow_gaps(engine: Engine, nodes: Nodes, bus: Any, clock: IReactorTime, time: float) -> UnawareClients:
    """
    Let clients know when their node may have missed publications in channels without history.

    :param bus: the bus. If it has a list ``on_gap``, it calls these functions after a gap.
    :param time: seconds within which clients without ``gaps:tell`` are closed; 0: they stay.
    """
    unaware = UnawareClients(engine, clock, time=time)
    on_gap: list[Callable[[], None]] = getattr(bus, "on_gap", [])
    on_gap.append(nodes.reset_numbers)
    nodes.on_hole.append(engine.hub.tell_gaps)
    nodes.on_loss.append(engine.hub.tell_gaps)  # no closes: one node could disconnect the clients of all
    if time:
        for calls in (nodes.on_hole, on_gap):
            calls.append(unaware.close)
    return unaware
