"""
What a client is doing, in one word.

Used by :mod:`lhttp_tx.client.uplink`, which changes it, and by whoever shows it. Imports nothing of the project.
"""

from __future__ import annotations

from enum import Enum

__all__ = ["State"]


class State(Enum):
    """What a client is doing."""

    IDLE = "idle"
    """It was not started yet."""
    CONNECTING = "connecting"
    """An attempt to connect is on its way."""
    CONNECTED = "connected"
    """The connection is up and the server has confirmed the subscriptions."""
    WAITING = "waiting"
    """There is no connection; the next attempt will be made after a pause."""
    CLOSING = "closing"
    """The connection is being closed."""
    CLOSED = "closed"
    """It was closed."""
