"""
Confirmations that a NATS server has earlier publications.

A part of :class:`lhttp_tx.bus.nats.link.Link`. NATS does not confirm single publications. But when it answers a ping,
it has everything that was sent before the ping.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred

from lhttp_tx.errors import BusUnavailable

__all__ = ["UNCONFIRMED", "Confirmations", "tell"]

_MAX_UNCONFIRMED = 50_000
"""The most callers that may wait for a confirmation at the same time."""

UNCONFIRMED = "the bus has not confirmed the publication: it is not known whether it arrived"
"""The error text if NATS does not confirm."""


def tell(waiter: Deferred[None], error: BusUnavailable | None) -> None:
    """Fire *waiter* with the error, or with success if *error* is ``None``. Do nothing if it was cancelled."""
    if waiter.called:
        return
    if error is None:
        waiter.callback(None)
    else:
        waiter.errback(error)


class Confirmations:
    """
    The callers that wait for confirmations, in order. One ping is in flight at a time. The next one serves all callers
    that came in the meantime.

    :ivar asked: the number of calls of :meth:`wait` so far that could wait.
    """

    def __init__(self, check: Callable[[], Coroutine[Any, Any, None]], failed: Callable[[], None]) -> None:
        """
        :param check: pings the server, and calls :meth:`answer` when the answer comes.
        :param failed: called if *check* raises, because no answer came.
        """
        self._check = check
        self._failed = failed
        self._waiters: deque[Deferred[None]] = deque()
        self.asked = self._answered = 0
        self._task: asyncio.Task[None] | None = None
        self._ended = False

    def wait(self) -> Deferred[None]:
        """
        Wait until the server has all earlier publications.

        :returns: a Deferred like that of :meth:`lhttp_tx.bus.nats.link.Link.confirm`.
        """
        waiter: Deferred[None] = Deferred()
        if self._ended or len(self._waiters) >= _MAX_UNCONFIRMED:
            waiter.errback(BusUnavailable(UNCONFIRMED))
            return waiter
        self._waiters.append(waiter)
        self.asked += 1
        if self._task is None:
            self._task = asyncio.ensure_future(self._ask())
        return waiter

    async def _ask(self) -> None:
        try:
            while self._waiters and not self._ended:
                await self._check()
        except Exception:
            self._failed()
        finally:
            self._task = None

    def answer(self, asked: int, confirmed: bool) -> None:
        """Fire the waiting Deferreds, up to that of call number *asked* of :meth:`wait`, counted from 1."""
        while self._answered < asked:
            self._answered += 1
            tell(self._waiters.popleft(), None if confirmed else BusUnavailable(UNCONFIRMED))

    def refuse(self) -> None:
        """Fail all waiting Deferreds: it is not known whether the publications have arrived."""
        self.answer(self.asked, False)

    def end(self) -> None:
        """Send no more pings. Afterwards, call :meth:`refuse` to fail the Deferreds that still wait."""
        self._ended = True
        if self._task is not None:
            self._task.cancel()
