"""
Enters the connections of this node into the roster, and limits the connections of each user.

A watcher of sessions. The roster contains only the connections that are needed: those in channels with presence, and,
if there is a limit for users, all connections of users.
"""

from __future__ import annotations

from collections.abc import Callable

from lhttp_tx.cluster.roster import Entry, Roster
from lhttp_tx.codec.codes import LOGGED_IN_ELSEWHERE
from lhttp_tx.codec.wildcards import is_wildcard
from lhttp_tx.engine.engine import Engine
from lhttp_tx.engine.session import Session
from lhttp_tx.engine.watchers import SessionWatcher
from lhttp_tx.identity import Identity
from lhttp_tx.observe.rationing import RationedLogger

__all__ = ["Attendance"]

_log = RationedLogger(__name__)

_MOMENT = 1e-6
"""A new connection of a user counts as at least this many seconds younger than the user's newest known one."""


class Attendance(SessionWatcher):
    """Keeps the entries of this node's sessions in the roster."""

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
        :param engine: the engine with the sessions.
        :param roster: holds the entries.
        :param now: returns the shared time of the nodes, in seconds.
        :param name_of: returns the name of a client's user; ``None`` if the client is anonymous.
        :param is_kept: returns whether a channel has presence.
        :param max_per_user: the most connections of one user. Beyond that, the server closes the oldest ones. 0: no
            limit.
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
        """Check every session again, because other channels have presence now."""
        for session in tuple(self._engine.sessions):
            for channel in session.channels:
                if self._is_kept(channel):
                    self.subscribed(session, channel)
                else:
                    self.unsubscribed(session, channel)

    # Called by the engine

    def session_opened(self, session: Session) -> None:
        """See :class:`lhttp_tx.engine.watchers.SessionWatcher`."""
        if self._max_per_user and self._name_of(session.identity) is not None:
            self._enter(session)

    def session_identified(self, session: Session, old: Identity | None, new: Identity) -> None:
        """See :class:`lhttp_tx.engine.watchers.SessionWatcher`."""
        if not session.closed and (session in self._ids or self._max_per_user):
            self._enter(session)

    def session_closed(self, session: Session) -> None:
        """See :class:`lhttp_tx.engine.watchers.SessionWatcher`."""
        connection = self._ids.pop(session, None)
        if connection is not None:
            del self._sessions[connection]
            self._roster.exit(connection)

    def subscribed(self, session: Session, channel: str) -> None:
        """See :class:`lhttp_tx.engine.watchers.SessionWatcher`."""
        if self._is_kept(channel) and not is_wildcard(channel):
            if session not in self._ids:
                self._enter(session)
            connection = self._ids.get(session)
            if connection is not None:
                self._roster.join(connection, channel)

    def unsubscribed(self, session: Session, channel: str) -> None:
        """See :class:`lhttp_tx.engine.watchers.SessionWatcher`."""
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
            newest = self._roster.newest(user)
            since = since if newest is None else max(since, newest.since + _MOMENT)
        self._roster.enter(connection, user, since)

    def _entered(self, entry: Entry) -> None:
        """Close those connections of the user that are beyond the limit. Each node closes its own."""
        if entry.user is None:
            return
        for oldest in self._roster.beyond(entry.user, self._max_per_user):
            session = self._sessions.get(oldest.connection)
            if session is not None:
                _log.info("{peer}: closed, its user has logged in elsewhere", peer=session.peer)
                if self._max_per_user == 1:
                    reason = "logged in elsewhere"
                else:
                    reason = f"logged in elsewhere: a user may have {self._max_per_user} connections"
                session.close(LOGGED_IN_ELSEWHERE, reason)
