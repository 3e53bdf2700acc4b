"""
Subscribes and unsubscribes at NATS, one order after another.

A part of :class:`lhttp_tx.bus.nats.link.Link`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

from twisted.internet.defer import Deferred

from lhttp_tx.bus.nats.guarded import GuardedClient
from lhttp_tx.bus.nats.tap import Receiver
from lhttp_tx.errors import BusUnavailable

__all__ = ["Orders"]

_Order: TypeAlias = tuple[str, bool, Deferred[None] | None]
"""The subject, whether to subscribe rather than unsubscribe, and the Deferred to fire."""


class Orders:
    """
    The queue of a link's orders.

    :ivar denied: subjects to which the server does not allow this node to subscribe.
    """

    def __init__(
        self,
        client: GuardedClient,
        receiver_of: Callable[[str], Receiver],
        check: Callable[[], Coroutine[Any, Any, None]],
        failed: Callable[[str], None],
    ) -> None:
        """
        :param client: the client to send the orders with.
        :param receiver_of: returns the function that takes the messages of a subject.
        :param check: pings the server, and raises an exception if no answer comes.
        :param failed: called with the reason if *check* fails: the link is lost.
        """
        self._client = client
        self._receiver_of = receiver_of
        self._check = check
        self._failed = failed
        self._numbers: dict[str, bytes] = {}
        self._orders: list[_Order] = []
        self.denied: set[str] = set()
        self._worker: asyncio.Task[None] | None = None
        self._ended = False

    def add(self, subject: str, wanted: bool, done: Deferred[None] | None) -> None:
        """
        Subscribe to *subject*, or unsubscribe.

        :param wanted: whether to subscribe.
        :param done: fires when the server has the subscription; fails with :exc:`lhttp_tx.errors.BusUnavailable` if the
            server refuses it, or the link is lost.
        """
        self._orders.append((subject, wanted, done))
        if self._worker is None and not self._ended:
            self._worker = asyncio.ensure_future(self._work())
        elif self._ended:
            self.refuse()

    async def _work(self) -> None:
        """Carry the orders out, one after another. One ping confirms all orders that were waiting."""
        try:
            while self._orders:
                orders, self._orders = self._orders, []
                try:
                    self._carry_out(orders)
                    await self._check()
                except Exception as error:
                    self._orders = orders + self._orders
                    self._failed(f"subscribing failed: {error!r}")
                    self.refuse()  # *failed* does not refuse them if the link was lost before
                    return
                for subject, _, done in orders:
                    if done is not None and subject in self.denied:
                        done.errback(BusUnavailable("the bus does not allow this channel"))
                    elif done is not None:
                        done.callback(None)
        finally:
            self._worker = None

    def _carry_out(self, orders: list[_Order]) -> None:
        commands: list[bytes] = []
        for subject, wanted, _ in orders:
            if not wanted or subject not in self._numbers:
                self.denied.discard(subject)
            if wanted and subject not in self._numbers:
                number = self._numbers[subject] = self._client.listen(self._receiver_of(subject))
                commands.append(b"SUB %b %b\r\n" % (subject.encode(), number))
            elif not wanted and subject in self._numbers:
                number = self._numbers.pop(subject)
                self._client.ignore(number)
                commands.append(b"UNSUB %b\r\n" % number)
        if commands:
            self._client.send(b"".join(commands))

    def refuse(self) -> None:
        """Fail the orders that were not carried out."""
        orders, self._orders = self._orders, []
        for _, _, done in orders:
            if done is not None:
                done.errback(BusUnavailable("the bus is unavailable, try again later"))

    def end(self) -> None:
        """Stop carrying out orders. Afterwards, call :meth:`refuse` to fail the remaining ones."""
        self._ended = True
        self._numbers.clear()
        self._client.ignore_all()
