"""
An index of the connections of this node, by the names of their users and by their ids.

A private part of :mod:`lhttp_tx.cluster.control`.
"""

from __future__ import annotations

from collections.abc import Callable

from lhttp_tx.engine.engine import Engine
from lhttp_tx.engine.session import Session
from lhttp_tx.engine.watchers import SessionWatcher
from lhttp_tx.identity import Identity

__all__ = ["SessionDirectory"]


class SessionDirectory(SessionWatcher):
    """Finds connections. The index is built at the first question, and costs nothing before."""

    def __init__(self, engine: Engine, name_of: Callable[[Identity], str | None]) -> None:
        """
        :param engine: the engine with the sessions.
        :param name_of: returns the name of a client's user; ``None`` if the client is anonymous.
        """
        self._engine = engine
        self._name_of = name_of
        self._users: dict[str, dict[Session, None]] | None = None
        self._names: dict[Session, tuple[str | None, str]] = {}
        self._connections: dict[str, Session] = {}

    def find(self, user: str | None, connection: str | None) -> list[Session]:
        """Return the connections of *user*, or the connection with the id *connection*, or all if neither is given."""
        if user is None and connection is None:
            return list(self._engine.sessions)
        if self._users is None:
            self._users = {}
            for session in self._engine.sessions:
                if not session.closed:
                    self.session_opened(session)
            self._engine.watchers.append(self)
        if user is not None:
            return list(self._users.get(user, ()))
        found = self._connections.get(connection or "")
        return [] if found is None else [found]

    def session_opened(self, session: Session) -> None:
        """See :class:`lhttp_tx.engine.watchers.SessionWatcher`."""
        assert self._users is not None
        identity = session.identity
        user = self._name_of(identity)
        self._names[session] = user, identity.connection_id
        self._connections[identity.connection_id] = session
        if user is not None:
            self._users.setdefault(user, {})[session] = None

    def session_identified(self, session: Session, old: Identity | None, new: Identity) -> None:
        """See :class:`lhttp_tx.engine.watchers.SessionWatcher`."""
        if session in self._names:
            self.session_closed(session)
            self.session_opened(session)

    def session_closed(self, session: Session) -> None:
        """See :class:`lhttp_tx.engine.watchers.SessionWatcher`."""
        user, connection = self._names.pop(session, (None, ""))
        self._connections.pop(connection, None)
        if user is not None and self._users is not None:
            found = self._users[user]
            del found[session]
            if not found:
                del self._users[user]
