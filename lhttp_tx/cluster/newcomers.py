"""
The connections that came to this node, or got another user, a few seconds ago.

A part of :mod:`lhttp_tx.cluster.orders`. An order from another node may arrive late. Then it does not apply to these
connections.
"""

from __future__ import annotations

from itertools import islice

from twisted.internet.interfaces import IReactorTime

from lhttp_tx.engine.session import Session
from lhttp_tx.engine.watchers import SessionWatcher
from lhttp_tx.identity import Identity

__all__ = ["Newcomers"]


class Newcomers(SessionWatcher):
    """Remembers for a limited time when connections came or got another user."""

    def __init__(self, clock: IReactorTime, limit: float) -> None:
        """
        :param clock: the reactor.
        :param limit: seconds for which a connection counts as new.
        """
        self._clock = clock
        self._limit = limit
        self._came: dict[Session, float] = {}

    def __len__(self) -> int:
        return len(self._came)

    def came_after(self, session: Session, time: float) -> bool:
        """
        Return whether a connection came, or got its user, after *time*.

        :param time: a time of this node's clock, not longer ago than the limit.
        """
        return self._came.get(session, time) > time

    def session_opened(self, session: Session) -> None:
        """See :class:`lhttp_tx.engine.watchers.SessionWatcher`."""
        self._note(session)

    def session_identified(self, session: Session, old: Identity | None, new: Identity) -> None:
        """See :class:`lhttp_tx.engine.watchers.SessionWatcher`."""
        if not session.closed and (old is None or old.user != new.user):
            self._note(session)

    def session_closed(self, session: Session) -> None:
        """See :class:`lhttp_tx.engine.watchers.SessionWatcher`."""
        self._came.pop(session, None)

    def _note(self, session: Session) -> None:
        came, now = self._came, self._clock.seconds()
        came.pop(session, None)  # keep the oldest first
        came[session] = now
        for oldest in list(islice(came, 2)):  # two may go for each that comes, so the old ones run out
            if now - came[oldest] > self._limit:
                del came[oldest]
