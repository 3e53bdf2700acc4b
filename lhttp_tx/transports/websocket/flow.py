"""
The state of a connection's reading and writing: one set of flags.

Imports nothing of the project.
"""

from __future__ import annotations

from enum import IntFlag
from typing import Final

__all__ = ["CONGESTED", "CONSUMING", "FULL", "HELD_BACK", "INFLATED", "NOT_READING", "THROTTLED", "YIELDING", "Flow"]


class Flow(IntFlag):
    """The flow of bytes and messages on one connection. On an idle connection, no flag but :attr:`INFLATED` is set."""

    CONGESTED = 1
    """
    The peer does not read what was sent. The server stops reading from it, and counts the bytes that it sends during
    this time.
    """

    FULL = 2
    """The session takes no more messages. The server reads nothing, and does not pass on what it has read."""

    THROTTLED = 4
    """The client has sent too much recently. The effect is the same as that of :attr:`FULL`."""

    CONSUMING = 8
    """The read buffer is being consumed. This flag prevents recursion."""

    UNTAKEN = 16
    """There are messages that were read, but the session has not taken them."""

    BEGUN = 32
    """There are bytes of an incomplete message, or bytes after messages that the session has not taken."""

    INFLATED = 64
    """The client's binary messages may be gzip data. They are inflated one at a time. Set from the opening on."""

    YIELDING = 128
    """
    The messages of one read need too much time. The rest waits for the next turn of the reactor. The effect is the same
    as of :attr:`FULL`.
    """


# Plain integers, for checks on the path of each message.
CONGESTED: Final = int(Flow.CONGESTED)
FULL: Final = int(Flow.FULL)
THROTTLED: Final = int(Flow.THROTTLED)
CONSUMING: Final = int(Flow.CONSUMING)
INFLATED: Final = int(Flow.INFLATED)
YIELDING: Final = int(Flow.YIELDING)

HELD_BACK: Final = FULL | THROTTLED | YIELDING
"""While any of these is set, no message is passed on."""

NOT_READING: Final = HELD_BACK | CONGESTED
"""While any of these is set, nothing is read."""
