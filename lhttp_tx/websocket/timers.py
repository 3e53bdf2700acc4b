"""
The timer by which both sides' WebSocket connections keep their time limits.

Used by :mod:`lhttp_tx.factory` and :mod:`lhttp_tx.client.protocol`, which put it in the place of Autobahn's. That one
rounds limits down to whole seconds, so that one of 1 may be none, and follows the process's reactor instead of the one
that is passed in. Imports nothing of the project.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

from twisted.internet.interfaces import IDelayedCall

__all__ = ["ExactTimer"]


@final
class ExactTimer:
    """Calls later by a reactor, as Autobahn asks its timer to."""

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
