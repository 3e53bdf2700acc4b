"""
The base class of objects that the engine tells about its sessions.

:attr:`lhttp_tx.engine.engine.Engine.watchers` holds these objects. Without any, watching costs nothing. Imports only
the engine's types for annotations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lhttp_tx.engine.session import Session
    from lhttp_tx.identity import Identity

__all__ = ["SessionWatcher"]


class SessionWatcher:
    """A watcher that does nothing yet: subclass it and override what you need. No method may raise or wait."""

    def session_opened(self, session: Session) -> None:
        """Called when a connection gets its session, before its first message."""

    def session_identified(self, session: Session, old: Identity | None, new: Identity) -> None:
        """Called when *session* gets another identity, or a renewed one. The session may be over by then."""

    def session_closed(self, session: Session) -> None:
        """Called once, when *session* begins to close or its connection has ended, after :meth:`unsubscribed`."""

    def session_failed(self, session: Session, status: int, reason: str) -> None:
        """
        Called when the client of *session* is told of an error.

        :param status: the status that it is told.
        :param reason: the reason that it is told; some contain what it has sent.
        """

    def subscribed(self, session: Session, channel: str) -> None:
        """
        Called when *session* has subscribed to *channel*. On a slow bus, publications of other nodes may not reach it
        yet.
        """

    def granted(self, session: Session, channel: str) -> None:
        """
        Called when code, rather than the client, asks for *session* to be in *channel*. It is subscribed by then, maybe
        since long ago.
        """

    def unsubscribed(self, session: Session, channel: str) -> None:
        """Called when *session* has left *channel*, for whatever reason."""
