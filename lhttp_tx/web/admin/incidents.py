"""
Keeps the newest errors, closed connections and warnings of this node, for operators.

They are in rings of a fixed size, and in memory only. The log has all of them. For a message, this code runs only if
its client gets an error.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import ILogObserver, LogEvent, LogLevel, eventAsText, globalLogPublisher
from zope.interface import implementer

from lhttp_tx.engine.engine import Engine
from lhttp_tx.engine.session import Session
from lhttp_tx.engine.watchers import SessionWatcher
from lhttp_tx.identity import Identity
from lhttp_tx.observe.events import name_of as event_name
from lhttp_tx.transports.endings import ending_of

__all__ = ["KINDS", "MAX_INCIDENTS", "MAX_TEXT", "Incidents"]

KINDS: Final = ("error", "close", "log")
"""An error message to a client; a connection that ended; a warning, an error or a refused login in the log."""

MAX_INCIDENTS: Final = 200
"""The most incidents of each kind that are kept."""

MAX_TEXT: Final = 300
"""The most characters of the text of an incident."""

_MAX_CLOSES: Final = 100
"""The most closed connections that are recorded in one turn of the reactor. Others are only counted."""

_REFUSALS: Final = frozenset({"login.refused", "handshake.refused"})
"""Events that are kept whatever their level."""


@implementer(ILogObserver)
class Incidents(SessionWatcher):
    """
    Keeps the newest incidents.

    :ivar opened: connections that opened, since the node started.
    :ivar closed: connections that ended.
    :ivar failed: error messages to clients.
    """

    def __init__(
        self, clock: IReactorTime, now: Callable[[], float], name_of: Callable[[Identity], str | None]
    ) -> None:
        """
        :param clock: the reactor.
        :param now: returns the time in seconds since 1970.
        :param name_of: returns the name of a client's user.
        """
        self.opened = self.closed = self.failed = 0
        self._clock = clock
        self._now = now
        self._name_of = name_of
        self._number = 0
        self._kept: dict[str, deque[dict[str, Any]]] = {kind: deque(maxlen=MAX_INCIDENTS) for kind in KINDS}
        self._closing: list[Session] = []

    def start(self, engine: Engine) -> None:
        """Begin to watch."""
        if self not in engine.watchers:
            engine.watchers.append(self)
            globalLogPublisher.addObserver(self)

    def stop(self, engine: Engine) -> None:
        """Stop watching. Keep the incidents so far."""
        if self in engine.watchers:
            engine.watchers.remove(self)
            globalLogPublisher.removeObserver(self)

    def newest(self, order: dict[str, Any]) -> list[dict[str, Any]]:
        """
        Return the newest incidents, the newest first.

        :param order: ``kinds``, the kinds to return; ``limit``, the most incidents.
        """
        found = [row for kind in order["kinds"] for row in self._kept.get(kind, ())]
        found.sort(key=lambda row: (row["time"], row["number"]), reverse=True)
        return found[: order["limit"]]

    def _keep(self, kind: str, **details: Any) -> None:
        self._number += 1
        self._kept[kind].append({"number": self._number, "time": self._now(), "kind": kind, **details})

    # See SessionWatcher

    def session_opened(self, session: Session) -> None:
        """Count a connection that has opened."""
        self.opened += 1

    def session_closed(self, session: Session) -> None:
        """
        Count a connection that has ended, and record it in the next turn of the reactor, when its close code is known.
        """
        self.closed += 1
        if len(self._closing) < _MAX_CLOSES:
            self._closing.append(session)
            if len(self._closing) == 1:
                self._clock.callLater(0, self._look_at_closed)

    def _look_at_closed(self) -> None:
        closing, self._closing = self._closing, []
        for session in closing:
            ending = ending_of(session._transport)
            self._keep("close", **self._who(session), code=ending.code, text=ending.reason[:MAX_TEXT])

    def session_failed(self, session: Session, status: int, reason: str) -> None:
        """Keep an error message to a client."""
        self.failed += 1
        self._keep("error", **self._who(session), code=status, text=reason[:MAX_TEXT])

    def _who(self, session: Session) -> dict[str, Any]:
        identity = session.identity
        return {
            "connection": identity.connection_id,
            "user": self._name_of(identity),
            "address": session.peer,
        }

    def __call__(self, event: LogEvent) -> None:
        """Record a warning, an error, or a refused login or handshake of the log."""
        level = event.get("log_level")
        name = event_name(event)
        if level is None or (level < LogLevel.warn and name not in _REFUSALS):
            return
        try:
            text = eventAsText(event, includeTraceback=False, includeTimestamp=False, includeSystem=False)
        except Exception as error:  # other code has logged a broken event
            text = f"unformattable event: {type(error).__name__}"
        failure = event.get("log_failure")
        if failure is not None:
            text = f"{text} ({failure.type.__name__})"
        self._keep("log", level=level.name, event=name, text=text[:MAX_TEXT])
