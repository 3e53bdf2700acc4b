"""
The subscriptions of :mod:`lhttp_tx.client.sync`.
"""

from __future__ import annotations

from typing import final

from lhttp_tx.client import aio
from lhttp_tx.client.aio.subscription import SubscriptionView
from lhttp_tx.client.sync.stream import Run, Stream
from lhttp_tx.codec.message import Message

__all__ = ["Subscription"]


@final
class Subscription(SubscriptionView, Stream[Message]):
    """A subscription. Iterate over its messages with ``for message in subscription``, until :meth:`unsubscribe`."""

    def __init__(self, made: aio.Subscription, run: Run) -> None:
        """
        :param made: the subscription of the client for asyncio.
        :param run: runs a coroutine in the client's thread.
        """
        SubscriptionView.__init__(self, made._seen)
        Stream.__init__(self, made, run)
        self._made = made

    def unsubscribe(self) -> None:
        """End the subscription. Messages in the buffer can still be taken."""
        self._run(self._made.unsubscribe())

    def __repr__(self) -> str:
        return f"<sync.Subscription {self.channel}>"
