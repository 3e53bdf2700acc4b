"""
Confirmations that a NATS server has earlier publications.

A part of :class:`lhttp_tx.bus.nats.link.Link`. NATS does not confirm single publications. But when it answers a ping,
it has everything that was sent before the ping.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial

from twisted.internet.defer import Deferred

from lhttp_tx.bus.nats.guarded import Pong
from lhttp_tx.errors import BusUnavailable, ChannelsRefused

__all__ = ["ANSWER_TIMEOUT", "UNCONFIRMED", "Confirmations", "tell"]

ANSWER_TIMEOUT = 4.0
"""The most seconds to wait for the answer to a ping, whatever was sent before it."""

_MAX_UNCONFIRMED = 50_000
"""The most callers that may wait for a confirmation at the same time."""

_MAX_REFUSED = 10_000
"""The most refusals that are remembered until the server answers. Beyond that, all who wait get an error."""

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

    If the server refuses a publication, those who wait at this moment learn the channel: the refusal comes before the
    answer to the next ping.

    :ivar asked: the number of calls of :meth:`wait` so far that could wait.
    """

    def __init__(self, ping: Callable[[Callable[[Pong], None]], None], failed: Callable[[], None]) -> None:
        """
        :param ping: pings the server; see :meth:`lhttp_tx.bus.nats.guarded.GuardedClient.ping`.
        :param failed: called if no answer comes within :data:`ANSWER_TIMEOUT`.
        """
        self._ping = ping
        self._failed = failed
        self._waiters: deque[Deferred[None]] = deque()
        self.asked = self._answered = 0
        self._refused: deque[tuple[int, str]] = deque()
        self._timeout: asyncio.TimerHandle | None = None
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
        if self._timeout is None:
            self._ask()
        return waiter

    def _ask(self) -> None:
        self._timeout = asyncio.get_running_loop().call_later(ANSWER_TIMEOUT, self._failed)
        self._ping(self._sent)

    def _sent(self, pong: Pong) -> None:
        """The ping follows the publications of all callers up to now."""
        pong.add_done_callback(partial(self._came, self.asked))

    def _came(self, asked: int, pong: Pong) -> None:
        if self._ended or pong.cancelled():
            return
        if self._timeout is not None:
            self._timeout.cancel()
            self._timeout = None
        self.answer(asked, True)
        if self._waiters and self._timeout is None:
            self._ask()

    def answer(self, asked: int, confirmed: bool) -> None:
        """Fire the waiting Deferreds, up to that of call number *asked* of :meth:`wait`, counted from 1."""
        refused, channels = self._refused, frozenset[str]()
        while self._answered < asked:
            self._answered += 1
            while refused and refused[0][0] < self._answered:
                refused.popleft()
                channels = frozenset()
            if refused and not channels:
                channels = frozenset(channel for _, channel in refused)
            error = None if not channels else ChannelsRefused(channels)
            tell(self._waiters.popleft(), error if confirmed else BusUnavailable(UNCONFIRMED))

    def refuse(self) -> None:
        """Fail all waiting Deferreds: it is not known whether the publications have arrived."""
        self.answer(self.asked, False)

    def refuse_channel(self, channel: str) -> None:
        """Let the Deferreds that wait now fail with :exc:`~lhttp_tx.errors.ChannelsRefused` when the server answers."""
        if self._answered < self.asked and (not self._refused or self._refused[-1] != (self.asked, channel)):
            self._refused.append((self.asked, channel))
        if len(self._refused) > _MAX_REFUSED:
            self.refuse()

    def end(self) -> None:
        """Send no more pings. Afterwards, call :meth:`refuse` to fail the Deferreds that still wait."""
        self._ended = True
        if self._timeout is not None:
            self._timeout.cancel()
