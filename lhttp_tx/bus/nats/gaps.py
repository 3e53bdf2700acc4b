"""Detects that a node may have missed publications. A part of :class:`lhttp_tx.bus.nats.bus.NATSBus`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

__all__ = ["Gaps"]

_log = Logger()

_CALM = 0.5
"""Seconds between the first dropped message and the report, which covers all messages dropped in between."""


class Gaps:
    """
    Collects events that may have lost publications, and reports them together. The callbacks must not raise.

    :ivar on_gap: functions without arguments that are called when a gap is over.
    :ivar on_flood: called before these, if messages were dropped although the link worked.
    """

    def __init__(self, clock: Any) -> None:
        """:param clock: the reactor."""
        self.on_gap: list[Callable[[], None]] = []
        self.on_flood: Callable[[], None] = _nothing
        self._clock = clock
        self._lost = False
        self._telling: IDelayedCall | None = None
        self._telling_late: IDelayedCall | None = None

    def begin(self) -> None:
        """Begin a gap: the node gets no publications of other nodes any more."""
        self._lost = True

    def end(self) -> None:
        """End the gap: the node gets all publications from now on."""
        if self._lost:
            self._lost = False
            self._tell()

    def flooded(self) -> None:
        """Report a gap soon, because messages were dropped: more came than the node can handle."""
        if self._telling is None:
            _log.error("messages from NATS were dropped: more arrived than this node can handle")
            self._telling = self._clock.callLater(_CALM, self._calm)

    def late(self) -> None:
        """Report a gap soon, because a message was dropped that came too late."""
        if self._telling_late is None:
            _log.error("publications of other nodes were dropped: they came too late")
            self._telling_late = self._clock.callLater(_CALM, self._tell_late)

    def _tell_late(self) -> None:
        self._telling_late = None
        self._tell()

    def _calm(self) -> None:
        self._telling = None
        self.on_flood()
        self._tell()

    def _tell(self) -> None:
        for call in self.on_gap:
            call()

    def stop(self) -> None:
        """Report nothing more."""
        self._lost = False
        for telling in (self._telling, self._telling_late):
            if telling is not None:
                telling.cancel()
        self._telling = self._telling_late = None


def _nothing() -> None:
    """Do nothing: no history is attached."""
