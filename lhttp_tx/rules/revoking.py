"""
Revokes subscriptions that clients may no longer have.

:mod:`lhttp_tx.assembly` uses it in a server with channel rules. New rules cause a check of all subscriptions, and a new
identity causes a check of that connection's subscriptions. A client that loses a subscription gets a message about it.
For all other code, this is an ordinary end of a subscription. Rules apply to clients, so subscriptions made by code
stay. Each node checks its own connections.
"""

from __future__ import annotations

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from lhttp_tx.engine.answers import error_message, error_of
from lhttp_tx.engine.engine import Engine
from lhttp_tx.engine.session import Session
from lhttp_tx.engine.watchers import SessionWatcher
from lhttp_tx.errors import LHTTPError
from lhttp_tx.identity import Identity
from lhttp_tx.observe.rationing import RationedLogger
from lhttp_tx.rules.filters import RuleBook, RuledSubscribeFilter
from lhttp_tx.rules.model import Rules

__all__ = ["HEADER", "Revoker"]

_log = RationedLogger(__name__)

HEADER = "unsubscribed"
"""The header of an error message that names the revoked subscription."""

_TURN_WORK = 20_000
"""The work in one turn of the reactor, counted in evaluations of a rule. Each connection is checked in one turn."""

_SUBSCRIPTION_WORK = 100
"""The work to check and revoke a subscription, in the same unit, in addition to the evaluated rules."""


class Revoker(SessionWatcher):
    """
    Revokes subscriptions: for new rules, a few connections at a time; for a connection with a new identity, at once.
    """

    def __init__(
        self, engine: Engine, clock: IReactorTime, *, book: RuleBook, subscribing: RuledSubscribeFilter
    ) -> None:
        """
        :param engine: the engine with the connections.
        :param clock: the reactor.
        :param book: the rules in force.
        :param subscribing: checks subscriptions against them.
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
        Check every connection. The first ones are checked before this returns.

        If an earlier check is not done, it begins again. Connections and subscriptions that are made meanwhile need no
        check, because the new rules already apply to them.

        :param before: the earlier rules. If they gave the same rights, there is nothing to do.
        """
        if _rights(before) == _rights(self._book.rules):
            return
        self.stop()
        self._left = list(self._engine.sessions)
        self._count = 0
        if not self._looking:
            self._look()

    def stop(self) -> None:
        """Stop checking, and stop the timer."""
        self._left = []
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _look(self) -> None:
        """Check as many connections as one turn of the reactor allows."""
        self._looking, self._timer = True, None
        each = _SUBSCRIPTION_WORK + len(self._book.rules)
        work = 0
        while self._left and work < _TURN_WORK:
            session = self._left.pop()
            work += each * max(1, len(session.channels))
            try:
                self._count += self._check(session)
            except Exception:  # so that the check goes on with the others
                _log.failure("{peer}: checking its subscriptions failed", peer=session.peer)
        self._looking = False
        if self._left:
            self._timer = self._clock.callLater(0, self._look)
        elif self._count:
            _log.info("subscriptions revoked by new channel rules: {count}", count=self._count)

    def _check(self, session: Session) -> int:
        """Revoke the subscriptions that the rules refuse now, and tell the client. Return their number."""
        refused: list[tuple[str, int, str]] = []
        for channel in session.channels.difference(self._granted.get(session, ())):
            try:
                self._subscribing.check_subscription(session, channel)
            except LHTTPError as error:
                refused.append((channel, error.status, error.reason))
            except Exception:  # an error in a user's Access class; it would refuse a new subscription, too
                refused.append((channel, *error_of(Failure(), session.peer)))
        for channel, status, reason in sorted(refused):
            session.unsubscribe(channel)
            told = error_message(status, reason, None)
            session.send(told.replace(headers=[*told.headers, (HEADER, channel)]))
        return len(refused)

    # Called by the engine

    def session_identified(self, session: Session, old: Identity | None, new: Identity) -> None:
        """See :class:`lhttp_tx.engine.watchers.SessionWatcher`."""
        count = self._check(session)
        if count:
            _log.info("{peer}: subscriptions revoked by a new login: {count}", peer=session.peer, count=count)

    def granted(self, session: Session, channel: str) -> None:
        """See :class:`lhttp_tx.engine.watchers.SessionWatcher`."""
        self._granted.setdefault(session, set()).add(channel)

    def unsubscribed(self, session: Session, channel: str) -> None:
        """See :class:`lhttp_tx.engine.watchers.SessionWatcher`."""
        channels = self._granted.get(session)
        if channels is not None:
            channels.discard(channel)

    def session_closed(self, session: Session) -> None:
        """See :class:`lhttp_tx.engine.watchers.SessionWatcher`."""
        self._granted.pop(session, None)


def _rights(rules: Rules) -> list[object]:
    """Return the parts of *rules* that decide who may have which subscription."""
    return [(rule.match, rule.subscribe, rule.wildcards, rule.presence) for rule in rules]
