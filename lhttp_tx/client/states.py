"""
The states of a client.

:mod:`lhttp_tx.client.uplink` sets the state, and programs may show it. Imports nothing of the project.
"""

from __future__ import annotations

from enum import Enum

__all__ = ["State"]


class State(Enum):
    """The state of a client."""

    IDLE = "idle"
    """The client has not been started."""
    CONNECTING = "connecting"
    """The client is trying to connect."""
    CONNECTED = "connected"
    """The client is connected, and the server has confirmed the subscriptions."""
    WAITING = "waiting"
    """There is no connection. The client tries again after a pause."""
    CLOSING = "closing"
    """The client is closing the connection."""
    CLOSED = "closed"
    """The client is closed."""
