"""
What the engine tells of its sessions.

A base class; :attr:`lhttp_tx.engine.Engine.watchers` holds objects of it. Without any, nothing is told and nothing is
paid for. Imports only the engine's types for annotations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lhttp_tx.identity import Identity
    from lhttp_tx.session import Session

__all__ = ["SessionWatcher"]


class SessionWatcher:
    """A watcher that looks away: subclass it and override what you need. No method may raise, nor wait."""

    def session_opened(self, session: Session) -> None:
        """Called when a connection has a session, before its first message."""

    def session_identified(self, session: Session, old: Identity | None, new: Identity) -> None:
        """Called when *session* has another identity than before, or a renewed one. It may be over by then."""

    def session_closed(self, session: Session) -> None:
        """Called once, when *session* begins to close or its connection has ended, behind :meth:`unsubscribed`."""

    def subscribed(self, session: Session, channel: str) -> None:
        """Called when *channel* is among the session's channels; on a slow bus, before other nodes reach it there."""

    def granted(self, session: Session, channel: str) -> None:
        """Called when code, and not the client, wants *session* in *channel*; it is by then, perhaps for long."""

    def unsubscribed(self, session: Session, channel: str) -> None:
        """Called when *channel* is among them no more, for whatever reason."""
