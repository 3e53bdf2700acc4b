"""
Taking subscriptions back whose clients may not have them any more.

A part of what :mod:`lhttp_tx.community` puts together where there are channel rules. Subscriptions are judged anew when
other rules are in force, and those of one connection when its identity is another one. A client that loses a
subscription is told so; to everybody else it looks like any other end of a subscription. Rules bind clients, so what
code has subscribed stays. Each node looks after its own connections.
"""

from __future__ import annotations

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from lhttp_tx.answers import error_message, error_of
from lhttp_tx.engine import Engine
from lhttp_tx.errors import LHTTPError
from lhttp_tx.filters.rules import RuleBook, RuledSubscribeFilter
from lhttp_tx.identity import Identity
from lhttp_tx.rules import Rules
from lhttp_tx.session import Session
from lhttp_tx.watchers import SessionWatcher

__all__ = ["HEADER", "Revoker"]

_log = Logger()

HEADER = "unsubscribed"
"""The header of an error that names the subscription that was taken back."""

_TURN_WORK = 20_000
"""What may be done in one turn of the reactor, counted in looks at a rule; one connection is always looked at whole."""

_SUBSCRIPTION_WORK = 100
"""What it takes to judge a subscription, and to take it back, beside the looks at rules that it may need."""


class Revoker(SessionWatcher):
    """Takes subscriptions back: of all connections a few at a time, of one with another identity at once."""

    def __init__(
        self, engine: Engine, clock: IReactorTime, *, book: RuleBook, subscribing: RuledSubscribeFilter
    ) -> None:
        """
        :param engine: whose connections they are.
        :param clock: the reactor.
        :param book: the rules that are in force.
        :param subscribing: judges by them.
        """
        self._engine = engine
        self._clock = clock
        self._book = book
        self._subscribing = subscribing
        self._granted: dict[Session, set[str]] = {}
        self._left: list[Session] = []
        self._looking = False
        self._timer: IDelayedCall | None = None
        self._count = 0
        engine.watchers.append(self)

    def rules_changed(self, before: Rules) -> None:
        """
        Look at every connection, at the first ones before this returns.

        It begins again if it was not done yet. Connections and subscriptions that come meanwhile need no look: they
        are judged by the rules in force anyway.

        :param before: the rules that were in force; if they gave the same rights, there is nothing to do.
        """
        if _rights(before) == _rights(self._book.rules):
            return
        self.stop()
        self._left = list(self._engine.sessions)
        self._count = 0
        if not self._looking:
            self._look()

    def stop(self) -> None:
        """Look at no more of them, and leave no timer behind."""
        self._left = []
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _look(self) -> None:
        """Look at as many as one turn of the reactor allows."""
        self._looking, self._timer = True, None
        each = _SUBSCRIPTION_WORK + len(self._book.rules)
        work = 0
        while self._left and work < _TURN_WORK:
            session = self._left.pop()
            work += each * max(1, len(session.channels))
            try:
                self._count += self._check(session)
            except Exception:  # so that the others lose what they may not have
                _log.failure("{peer}: subscriptions were not looked at", peer=session.peer)
        self._looking = False
        if self._left:
            self._timer = self._clock.callLater(0, self._look)
        elif self._count:
            _log.info("subscriptions taken back by other channel rules: {count}", count=self._count)

    def _check(self, session: Session) -> int:
        """Take back what is refused now, then tell the client; return how many that were."""
        refused: list[tuple[str, int, str]] = []
        for channel in session.channels.difference(self._granted.get(session, ())):
            try:
                self._subscribing.check_subscription(session, channel)
            except LHTTPError as error:
                refused.append((channel, error.status, error.reason))
            except Exception:  # of a rule that somebody else has written; who asked now would be refused, too
                refused.append((channel, *error_of(Failure(), session.peer)))
        for channel, status, reason in sorted(refused):
            session.unsubscribe(channel)
            told = error_message(status, reason, None)
            session.send(told.replace(headers=[*told.headers, (HEADER, channel)]))
        return len(refused)

    # What the engine tells

    def session_identified(self, session: Session, old: Identity | None, new: Identity) -> None:
        """See :class:`lhttp_tx.watchers.SessionWatcher`."""
        count = self._check(session)
        if count:
            _log.info("{peer}: subscriptions taken back by another identity: {count}", peer=session.peer, count=count)

    def granted(self, session: Session, channel: str) -> None:
        """See :class:`lhttp_tx.watchers.SessionWatcher`."""
        self._granted.setdefault(session, set()).add(channel)

    def unsubscribed(self, session: Session, channel: str) -> None:
        """See :class:`lhttp_tx.watchers.SessionWatcher`."""
        channels = self._granted.get(session)
        if channels is not None:
            channels.discard(channel)

    def session_closed(self, session: Session) -> None:
        """See :class:`lhttp_tx.watchers.SessionWatcher`."""
        self._granted.pop(session, None)


def _rights(rules: Rules) -> list[object]:
    """Return what of *rules* says who may have which subscription."""
    return [(rule.match, rule.subscribe, rule.wildcards, rule.presence) for rule in rules]
