"""
The presence of :mod:`lhttp_tx.client.aio`.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import final

from lhttp_tx.client.aio.stream import Stream
from lhttp_tx.client.arguments import check_callbacks
from lhttp_tx.client.client import Client as _Client
from lhttp_tx.client.presence import Presence as _Presence, PresenceChange, PresenceView
from lhttp_tx.client.presence.following import EndCallback, PersonCallback

__all__ = ["Presence"]


@final
class Presence(PresenceView, Stream[PresenceChange]):
    """
    The people in a channel, kept up to date. Iterate over the changes with ``async for change in presence``, until
    :meth:`close`. The first change is a ``sync``.
    """

    def __init__(
        self,
        client: _Client,
        loop: asyncio.AbstractEventLoop,
        channel: str,
        *,
        on_join: PersonCallback | None,
        on_leave: PersonCallback | None,
        on_sync: Callable[[Presence], object] | None,
        on_change: Callable[[Presence], object] | None,
        on_end: EndCallback | None,
        buffer: int,
    ) -> None:
        """
        :param client: the client for Twisted.
        :param loop: its loop.

        The other parameters are those of :meth:`lhttp_tx.client.client.Client.presence`.

        :raises TypeError: if a callback is a coroutine function, or cannot take its arguments.
        """
        for callback in (on_join, on_leave, on_sync, on_change, on_end):
            if inspect.iscoroutinefunction(callback):
                raise TypeError("a callback of a presence cannot wait: leave it out, and use async for")
        check_callbacks("presence", on_sync=on_sync, on_change=on_change)
        self._made = client.presence(
            channel,
            on_join=on_join,
            on_leave=on_leave,
            on_sync=self._passed(on_sync),
            on_change=self._passed(on_change),
            on_end=on_end,
            buffer=buffer,
        )
        PresenceView.__init__(self, self._made.members)
        Stream.__init__(self, self._made, loop)

    def _passed(self, callback: Callable[[Presence], object] | None) -> Callable[[_Presence], object] | None:
        """Return a function like *callback* that passes this presence on."""
        return None if callback is None else lambda _: callback(self)

    async def synced(self, timeout: float | None) -> None:
        """Wait until the people are known. If that fails, end the presence."""
        try:
            await self._made.synced(timeout).asFuture(self._loop)
        except BaseException:
            self._made.close().addErrback(lambda _: None)
            raise

    async def close(self) -> None:
        """End the presence. Changes in the buffer can still be taken."""
        await self._made.close().asFuture(self._loop)

    def __repr__(self) -> str:
        return f"<aio.Presence {self.channel}>"
