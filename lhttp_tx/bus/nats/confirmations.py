"""
Confirmations that a NATS server has the publications.

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
"""How many callers may wait for a confirmation at one time."""

UNCONFIRMED = "the bus has not confirmed the publication: it is not known whether it arrived"
"""The error text if a confirmation does not come."""


def tell(waiter: Deferred[None], error: BusUnavailable | None) -> None:
    """Fire *waiter* with the outcome, unless it was cancelled."""
    if waiter.called:
        return
    if error is None:
        waiter.callback(None)
    else:
        waiter.errback(error)


class Confirmations:
    """
    Waiting callers, in the order of asking. One request is in flight at a time. The next one serves all callers that
    came in the meantime.

    :ivar asked: how many callers have asked since the beginning.
    """

    def __init__(self, check: Callable[[], Coroutine[Any, Any, None]], failed: Callable[[], None]) -> None:
        """
        :param check: asks the server for a sign of life, and calls :meth:`answer` if one comes.
        :param failed: called if none comes.
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
        """Fire the waiting Deferreds, up to the Deferred of call number *asked* of :meth:`wait`."""
        while self._answered < asked:
            self._answered += 1
            tell(self._waiters.popleft(), None if confirmed else BusUnavailable(UNCONFIRMED))

    def refuse(self) -> None:
        """Fail all waiting Deferreds: it is not known whether the publications have arrived."""
        self.answer(self.asked, False)

    def end(self) -> None:
        """Stop asking. The caller calls :meth:`refuse` for Deferreds that still wait."""
        self._ended = True
        if self._task is not None:
            self._task.cancel()
