"""
Logs connections and slow processors, if the operator asks for it.

Otherwise, the engine calls nothing of this module.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger, LogLevel

from lhttp_tx.engine.engine import Engine
from lhttp_tx.engine.sequence import Step
from lhttp_tx.engine.session import Session
from lhttp_tx.engine.watchers import SessionWatcher
from lhttp_tx.interfaces import IProcessor
from lhttp_tx.observe.rationing import RationedLogger
from lhttp_tx.transports.endings import ending_of

__all__ = ["MAX_LINES", "ConnectionLog", "SlowSteps", "witness"]

_log = Logger()
_rationed = RationedLogger(__name__)

MAX_LINES: Final = 1_000
"""The most lines about connections in ten seconds."""

_INTERVAL: Final = 10.0
"""Seconds for which lines are counted."""


class ConnectionLog(SessionWatcher):
    """Logs each connection that opens, logs in, or ends."""

    def __init__(self, clock: IReactorTime, level: str) -> None:
        """
        :param clock: the reactor.
        :param level: the level of the lines, ``info`` or ``debug``.
        """
        self._clock = clock
        self._level = LogLevel.levelWithName(level)
        self._opened: dict[Session, float] = {}
        self._since = 0.0
        self._lines = 0
        self._left_out = 0

    def session_opened(self, session: Session) -> None:
        """Log the new connection."""
        self._opened[session] = self._clock.seconds()
        self._say("{peer}: opened, user {user}", "connection.opened", peer=session.peer, user=_user(session))

    def session_identified(self, session: Session, old: Any, new: Any) -> None:
        """Log the login."""
        if session in self._opened:
            self._say("{peer}: logged in as {user}", "login.accepted", peer=session.peer, user=_user(session))

    def session_closed(self, session: Session) -> None:
        """Log the end of the connection in the next turn of the reactor, when its close code is known."""
        begun = self._opened.pop(session, None)
        if begun is not None:
            self._clock.callLater(0, self._tell_closed, session, self._clock.seconds() - begun)

    def _tell_closed(self, session: Session, seconds: float) -> None:
        code = ending_of(session._transport).code
        self._say(
            "{peer}: closed after {seconds:.1f} s with code {code}, user {user}",
            "connection.closed",
            peer=session.peer,
            seconds=seconds,
            code=1006 if code is None else code,
            user=_user(session),
        )

    def _say(self, text: str, event: str, **values: Any) -> None:
        now = self._clock.seconds()
        if now - self._since >= _INTERVAL:
            if self._left_out:
                _log.warn(
                    "{count} more lines about connections were left out",
                    count=self._left_out,
                    event="log.left_out",
                )
            self._since, self._lines, self._left_out = now, 0, 0
        if self._lines >= MAX_LINES:
            self._left_out += 1
            return
        self._lines += 1
        _log.emit(self._level, text, event=event, **values)


def _user(session: Session) -> str | None:
    identity = session._identity  # the property would create an identity for an anonymous client
    return None if identity is None else identity.user


class SlowSteps:
    """Logs calls of processors that take long."""

    def __init__(self, clock: IReactorTime, threshold: float) -> None:
        """
        :param clock: the reactor.
        :param threshold: the seconds from which on a call counts as slow.
        """
        self._clock = clock
        self._threshold = threshold

    def watch(self, step: Step, own: Step) -> Step:
        """Return a step that also measures its time, if *step* belongs to a processor; otherwise *step*."""
        call, owner = step
        if not IProcessor.providedBy(owner):
            return step

        def timed(argument: Any) -> Any:
            begun = self._clock.seconds()
            result = call(argument)
            if isinstance(result, Deferred):
                return result.addBoth(passed, begun, argument)
            if isinstance(result, Coroutine):
                return awaited(result, begun, argument)
            self._look(owner, argument, begun)
            return result

        def passed(result: Any, begun: float, argument: Any) -> Any:
            self._look(owner, argument, begun)
            return result

        async def awaited(coroutine: Coroutine[Any, Any, Any], begun: float, argument: Any) -> Any:
            try:
                return await coroutine
            finally:
                self._look(owner, argument, begun)

        return timed, owner

    def _look(self, owner: Any, request: Any, begun: float) -> None:
        seconds = self._clock.seconds() - begun
        if seconds >= self._threshold:
            _rationed.warn(
                "{peer}: the processor of {command!r} took {seconds:.2f} s",
                peer=request.session.peer,
                command=owner.command,
                code=owner.command,  # lines about each processor are counted separately
                seconds=seconds,
                event="processor.slow",
            )


def witness(engine: Engine, clock: IReactorTime, *, connections: str | None, slow: float) -> None:
    """
    Watch *engine* as the operator has configured. Call this once, before the server starts.

    :param clock: the reactor.
    :param connections: the level of lines about connections; ``None``: no lines.
    :param slow: seconds from which on a call of a processor is logged; 0: never.
    """
    if connections is not None:
        engine.watchers.append(ConnectionLog(clock, connections))
    if slow:
        engine.step_watchers.append(SlowSteps(clock, slow).watch)
