"""
Tells how a connection has ended, for the log, the metrics and the admin side.

A WebSocket has this in its close frames. Every other transport has an attribute ``ending``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from lhttp_tx.codec.codes import COUNTED
from lhttp_tx.observe.counters import Counters

__all__ = ["Ending", "ending_of", "note_ending"]


class Ending(NamedTuple):
    """
    How a connection has ended.

    :ivar code: a close code, such as 1000; ``None`` if the transport has none.
    :ivar reason: why, in words.
    :ivar by: who ended it: ``server`` or ``client``.
    """

    code: int | None
    reason: str = ""
    by: str = "client"


def ending_of(transport: Any) -> Ending:
    """Return how the connection of *transport* has ended. The code may be known only one turn of the reactor later."""
    found = getattr(transport, "ending", None)
    if isinstance(found, Ending):
        return found
    code = getattr(transport, "localCloseCode", None) or getattr(transport, "remoteCloseCode", None)
    if code is None and hasattr(transport, "remoteCloseCode"):
        code = 1006
    reason = getattr(transport, "localCloseReason", None) or getattr(transport, "remoteCloseReason", None) or ""
    return Ending(code, str(reason))


def note_ending(transport: Any, session: Any, ending: Ending, counters: Counters | None) -> None:
    """
    Note how a connection ends, unless this is already known. Count it if there are counters.

    :param transport: the transport of the connection. Its attribute ``ending`` is set.
    :param session: the session; ``None``: the connection was never open, and is not counted.
    """
    if transport.ending is not None:
        return
    transport.ending = ending
    if counters is not None and session is not None:
        counters.closed[str(ending.code) if ending.code in COUNTED else "other", ending.by] += 1
