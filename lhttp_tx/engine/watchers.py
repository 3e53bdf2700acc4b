"""
The base class of objects that the engine tells about its sessions.

:attr:`lhttp_tx.engine.engine.Engine.watchers` lists these objects. Imports only the engine's types for annotations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lhttp_tx.engine.session import Session
    from lhttp_tx.identity import Identity

__all__ = ["SessionWatcher"]


class SessionWatcher:
    """
    A watcher that does nothing yet. Subclass it, and override the methods that you need. They must not raise, and must
    not block.
    """

    def session_opened(self, session: Session) -> None:
        """Called when a connection gets its session, before its first message."""

    def session_identified(self, session: Session, old: Identity | None, new: Identity) -> None:
        """Called when *session* gets another identity, or a renewed one. The session may have ended already."""

    def session_closed(self, session: Session) -> None:
        """
        Called once, when *session* begins to close or its connection has ended. :meth:`unsubscribed` was called for
        each of its channels before.
        """

    def session_failed(self, session: Session, status: int, reason: str) -> None:
        """
        Called when the client of *session* gets an error.

        :param status: the status of the error, 400 to 599.
        :param reason: the reason of the error. It may contain text that the client has sent.
        """

    def subscribed(self, session: Session, channel: str) -> None:
        """Called when *session* has subscribed to *channel*. The bus may not have the subscription yet."""

    def granted(self, session: Session, channel: str) -> None:
        """
        Called when code, rather than the client, has subscribed *session* to *channel*. The session may have been
        subscribed before.
        """

    def unsubscribed(self, session: Session, channel: str) -> None:
        """Called when *session* has left *channel*, for whatever reason."""
