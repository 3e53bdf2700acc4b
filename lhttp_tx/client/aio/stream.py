"""
What programs of asyncio iterate over: the messages of a subscription, and the changes of a presence.
"""

from __future__ import annotations

import asyncio
from typing import Generic, Self, TypeVar

from lhttp_tx.client.errors import ClientClosed
from lhttp_tx.client.subscription import Source, taken

__all__ = ["Stream"]

_Item = TypeVar("_Item")


class Stream(Generic[_Item]):
    """The items of a source, one after another, until the source ends."""

    def __init__(self, source: Source[_Item], loop: asyncio.AbstractEventLoop) -> None:
        """
        :param source: the source.
        :param loop: the loop of the client.
        """
        self._source = source
        self._loop = loop

    async def next(self) -> _Item:
        """
        Return the next message of a subscription, or the next change of a presence. If the call is cancelled, none is
        lost.

        :raises ClientClosed: if it has ended.
        :raises ReplyError: if the server has ended it.
        """
        return await taken(self._source, self._loop)

    def put_back(self, item: _Item) -> None:
        """Take back an item that :meth:`next` has given, but that has not reached the program."""
        self._source.put_back(item)

    def left(self) -> _Item | None:
        """Take a message or change from the buffer without waiting. Return ``None`` if it is empty."""
        found: list[_Item] = []
        taken = self._source.next()
        taken.addCallbacks(found.append, lambda _: None)
        taken.cancel()
        return found[0] if found else None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _Item:
        try:
            return await self.next()
        except ClientClosed:
            raise StopAsyncIteration from None
