"""
What the roster is told of the connections of this node, and how many of them one user may have.

A watcher of sessions. Only connections that somebody wants to know about stand in the roster: those in channels whose
presence is kept, and, where a user's connections are counted, those of users.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from lhttp_tx.codes import LOGGED_IN_ELSEWHERE
from lhttp_tx.engine import Engine
from lhttp_tx.identity import Identity
from lhttp_tx.roster import Entry, Roster
from lhttp_tx.session import Session
from lhttp_tx.watchers import SessionWatcher
from lhttp_tx.wildcards import is_wildcard

__all__ = ["Attendance"]

_log = Logger()

_MOMENT = 1e-6
"""Seconds by which a user's newest connection is later than the one before, whatever the clocks of the nodes say."""


class Attendance(SessionWatcher):
    """Keeps the entries of this node's sessions."""

    def __init__(
        self,
        engine: Engine,
        roster: Roster,
        *,
        now: Callable[[], float],
        name_of: Callable[[Identity], str | None],
        is_kept: Callable[[str], bool],
        max_per_user: int = 0,
    ) -> None:
        """
        :param engine: whose sessions they are.
        :param roster: where the entries are.
        :param now: the time of the day, in seconds since 1970.
        :param name_of: returns what a client is called.
        :param is_kept: returns whether it is known who is in a channel.
        :param max_per_user: connections of one user; the oldest beyond that are closed. 0: no limit.
        """
        self._engine = engine
        self._roster = roster
        self._now = now
        self._name_of = name_of
        self._is_kept = is_kept
        self._max_per_user = max_per_user
        self._ids: dict[Session, str] = {}
        self._sessions: dict[str, Session] = {}
        if max_per_user:
            roster.on_enter.append(self._entered)
        engine.watchers.append(self)

    def refresh(self) -> None:
        """Look at every session again: in other channels than before it is known who is there."""
        for session in tuple(self._engine.sessions):
            for channel in session.channels:
                if self._is_kept(channel):
                    self.subscribed(session, channel)
                else:
                    self.unsubscribed(session, channel)

    # What the engine tells

    def session_opened(self, session: Session) -> None:
        """See :class:`lhttp_tx.watchers.SessionWatcher`."""
        if self._max_per_user and self._name_of(session.identity) is not None:
            self._enter(session)

    def session_identified(self, session: Session, old: Identity | None, new: Identity) -> None:
        """See :class:`lhttp_tx.watchers.SessionWatcher`."""
        if not session.closed and (session in self._ids or self._max_per_user):
            self._enter(session)

    def session_closed(self, session: Session) -> None:
        """See :class:`lhttp_tx.watchers.SessionWatcher`."""
        connection = self._ids.pop(session, None)
        if connection is not None:
            del self._sessions[connection]
            self._roster.exit(connection)

    def subscribed(self, session: Session, channel: str) -> None:
        """See :class:`lhttp_tx.watchers.SessionWatcher`."""
        if self._is_kept(channel) and not is_wildcard(channel):
            if session not in self._ids:
                self._enter(session)
            connection = self._ids.get(session)
            if connection is not None:
                self._roster.join(connection, channel)

    def unsubscribed(self, session: Session, channel: str) -> None:
        """See :class:`lhttp_tx.watchers.SessionWatcher`."""
        connection = self._ids.get(session)
        if connection is not None:
            self._roster.leave(connection, channel)

    # Entries

    def _enter(self, session: Session) -> None:
        user = self._name_of(session.identity)
        connection = self._ids.setdefault(session, session.identity.connection_id)
        self._sessions[connection] = session
        since = self._now()
        if user is not None:
            since = max([since, *(entry.since + _MOMENT for entry in self._roster.of_user(user))])
        self._roster.enter(connection, user, since)

    def _entered(self, entry: Entry) -> None:
        """Close what one connection more is too much for; each node closes its own."""
        if entry.user is None:
            return
        for oldest in self._roster.of_user(entry.user)[: -self._max_per_user]:
            session = self._sessions.get(oldest.connection)
            if session is not None:
                _log.info("{peer}: closed, its user has logged in elsewhere", peer=session.peer)
                if self._max_per_user == 1:
                    reason = "logged in elsewhere"
                else:
                    reason = f"logged in elsewhere: a user may have {self._max_per_user} connections"
                session.close(LOGGED_IN_ELSEWHERE, reason)
