"""
The states of a session, and the table of its transitions.

Imports nothing of the project.
"""

from __future__ import annotations

from enum import IntEnum

__all__ = ["State"]


class State(IntEnum):
    """
    The state of a session. From :attr:`CLOSING` on, the session drops messages that are sent to it.

    ============ ================================================ ===================================================
    from         to                                               when
    ============ ================================================ ===================================================
    IDLE         BUSY                                             a message comes, or filters are told of the opening
    IDLE         SETTLING                                         the server stops
    IDLE         CLOSED                                           the session is closed
    BUSY         IDLE                                             no message is being handled, and none waits
    BUSY         FINISHING                                        the server stops
    BUSY         CLOSING                                          the session is closed
    FINISHING    SETTLING                                         no message is being handled, and none waits
    FINISHING    CLOSING                                          the session is closed
    SETTLING     CLOSED                                           no more receipts wait, or the session is closed
    CLOSING      CLOSED                                           no message is being handled any more
    all of these LOST                                             the connection has ended
    LOST         LEAVING                                          no message is being handled, and none waits
    LEAVING      GONE                                             every ``on_close`` is done
    ============ ================================================ ===================================================
    """

    IDLE = 0
    """No message is being handled."""

    BUSY = 1
    """A message is being handled, or filters are told of the opening. New messages wait."""

    FINISHING = 2
    """Like :attr:`BUSY`, but new messages are dropped. When the queue is empty, the connection is closed."""

    SETTLING = 3
    """
    No message is being handled, and new ones are dropped. The connection is closed when no receipts wait any more.
    """

    CLOSING = 4
    """The connection was told to close. A message is still being handled."""

    CLOSED = 5
    """The connection was told to close, and no message is being handled. The session waits for the connection's end."""

    LOST = 6
    """The connection has ended. The session handles its remaining messages, for a limited time."""

    LEAVING = 7
    """The session tells processors and filters that the connection has ended."""

    GONE = 8
    """The session has nothing left to do."""
