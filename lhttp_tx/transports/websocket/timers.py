"""
The timer for the time limits of WebSocket connections, in the server and in the client.

Used by :mod:`lhttp_tx.transports.websocket.factory` and :mod:`lhttp_tx.client.websocket.protocol`, which replace
Autobahn's timer by it. Autobahn's timer rounds limits down to whole seconds, so a limit of 1 may become 0. It also uses
the process's reactor instead of the one passed in. Imports nothing of the project.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

from twisted.internet.interfaces import IDelayedCall

__all__ = ["ExactTimer"]


@final
class ExactTimer:
    """Makes delayed calls in a reactor, with the interface of Autobahn's timer."""

    def __init__(self, reactor: Any) -> None:
        """:param reactor: the running reactor, or a clock."""
        self._reactor = reactor

    def call_later(self, delay: float, call: Callable[..., object], *args: object) -> IDelayedCall:
        """
        Call *call* with *args* after *delay* seconds.

        :returns: the call, which can be cancelled.
        """
        delayed: IDelayedCall = self._reactor.callLater(delay, call, *args)
        return delayed
