"""
The subscriptions of :mod:`lhttp_tx.client.aio`, and what they share with those of :mod:`lhttp_tx.client.sync`.
"""

from __future__ import annotations

import asyncio
from typing import final

from lhttp_tx.client.aio.stream import Stream
from lhttp_tx.client.subscription import Subscription as _Subscription
from lhttp_tx.codec.message import Message

__all__ = ["Subscription", "SubscriptionView"]


class SubscriptionView:
    """What a program can see of a subscription."""

    def __init__(self, seen: _Subscription) -> None:
        """:param seen: the subscription of the client for Twisted."""
        self._seen = seen

    @property
    def channel(self) -> str:
        """The channel, or the wildcard."""
        return self._seen.channel

    @property
    def closed(self) -> bool:
        """Whether the subscription has ended, so that no more messages arrive."""
        return not self._seen.active

    @property
    def dropped(self) -> int:
        """The number of messages that were pushed out of a full buffer."""
        return self._seen.dropped

    @property
    def unsure(self) -> bool:
        """See :attr:`lhttp_tx.client.subscription.Subscription.unsure`."""
        return self._seen.unsure


@final
class Subscription(SubscriptionView, Stream[Message]):
    """
    A subscription. Iterate over its messages with ``async for message in subscription``, until :meth:`unsubscribe`.
    """

    def __init__(self, made: _Subscription, loop: asyncio.AbstractEventLoop) -> None:
        """
        :param made: the subscription of the client for Twisted.
        :param loop: the loop of the client.
        """
        SubscriptionView.__init__(self, made)
        Stream.__init__(self, made, loop)

    async def unsubscribe(self) -> None:
        """End the subscription. Messages in the buffer can still be taken."""
        await self._seen.unsubscribe().asFuture(self._loop)

    def __repr__(self) -> str:
        return f"<aio.Subscription {self.channel}>"
