"""
What programs without a loop iterate over: the messages of a subscription, and the changes of a presence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Generic, Self, TypeVar

from lhttp_tx.client.aio.stream import Stream as _Stream
from lhttp_tx.client.errors import ClientClosed

__all__ = ["Run", "Stream"]

_Item = TypeVar("_Item")

Run = Callable[[Coroutine[Any, Any, Any]], Any]
"""Runs a coroutine in the client's thread, and returns its result."""


class Stream(Generic[_Item]):
    """The items of a stream of asyncio, one after another, until the stream ends."""

    def __init__(self, stream: _Stream[_Item], run: Run) -> None:
        """
        :param stream: the stream.
        :param run: runs a coroutine in the client's thread.
        """
        self._stream = stream
        self._run = run

    def next(self, timeout: float | None = None) -> _Item:
        """
        Return the next message of a subscription, or the next change of a presence.

        :param timeout: the most seconds to wait; ``None``: no limit.
        :raises TimeoutError: if none has come in time.
        :raises ClientClosed: if it has ended.
        :raises ReplyError: if the server has ended it.
        """
        taken: list[_Item] = []
        is_wanted = True

        async def take() -> _Item:
            async with asyncio.timeout(timeout):
                taken.append(await self._stream.next())
            if not is_wanted:
                await undo()
                raise ClientClosed("nobody waits for it any more")
            return taken[0]

        async def undo() -> None:
            while taken:
                self._stream.put_back(taken.pop())

        try:
            found: _Item = self._run(take())
        except TimeoutError:
            raise TimeoutError(f"nothing has come within {timeout:g} seconds") from None
        except ClientClosed:  # what is in the buffer can still be taken
            last = self._stream.left()
            if last is None:
                raise
            return last
        except BaseException:  # such as Ctrl-C, when the item was on its way to this thread
            is_wanted = False
            with suppress(ClientClosed):
                self._run(undo())
            raise
        return found

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> _Item:
        try:
            return self.next()
        except ClientClosed:
            raise StopIteration from None
