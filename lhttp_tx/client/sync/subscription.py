"""
The subscriptions of :mod:`lhttp_tx.client.sync`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, final

from lhttp_tx.client import aio
from lhttp_tx.client.aio.subscription import SubscriptionView
from lhttp_tx.client.errors import ClientClosed
from lhttp_tx.codec.message import Message

__all__ = ["Subscription"]


@final
class Subscription(SubscriptionView):
    """A subscription. Iterate over its messages with ``for message in subscription``, until :meth:`unsubscribe`."""

    def __init__(self, made: aio.Subscription, run: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        super().__init__(made._seen)
        self._made = made
        self._run = run

    def next(self, timeout: float | None = None) -> Message:
        """
        Return the next message.

        :param timeout: the most seconds to wait; ``None``: no limit.
        :raises TimeoutError: if no message has come in time.
        :raises ClientClosed: if the subscription has ended.
        """

        async def take() -> Message:
            async with asyncio.timeout(timeout):
                return await self._made.next()

        try:
            found: Message = self._run(take())
        except ClientClosed:  # messages in the buffer can still be taken
            last = self._made.left()
            if last is None:
                raise
            return last
        return found

    def unsubscribe(self) -> None:
        """End the subscription. Messages in the buffer can still be taken."""
        self._run(self._made.unsubscribe())

    def __iter__(self) -> Subscription:
        return self

    def __next__(self) -> Message:
        try:
            return self.next()
        except ClientClosed:
            raise StopIteration from None

    def __repr__(self) -> str:
        return f"<sync.Subscription {self.channel}>"
