"""
Publications that a node holds back while it moves from one server of a NATS cluster to another.

A part of :class:`lhttp_tx.bus.nats.keeper.LinkKeeper`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail, gatherResults
from twisted.logger import Logger
from twisted.python.failure import Failure

from lhttp_tx.bus.nats.confirmations import UNCONFIRMED, tell
from lhttp_tx.bus.nats.handover import Publication
from lhttp_tx.errors import BusUnavailable, LHTTPError

__all__ = ["Holding"]

_log = Logger()

_MAX_WAITING = 50_000
"""
The most publications that are held back, and the most callers that may wait for confirmations. The limit for the bytes
of the publications is that for bytes that wait to be sent to NATS.
"""


class Holding:
    """Publications that were accepted but not sent, and the callers that wait until NATS has them."""

    def __init__(self, size: int) -> None:
        """:param size: bytes of held publications beyond which no more are accepted."""
        self._limit = size
        self._size = 0
        self._publications: list[Publication] = []
        self._waiters: list[Deferred[None]] = []

    def add(self, publication: Publication) -> None:
        """
        Hold *publication* back.

        :raises BusUnavailable: if too many publications, or too many bytes, are held already.
        """
        if len(self._publications) >= _MAX_WAITING or self._size > self._limit:
            raise BusUnavailable("the bus is congested, try again later")
        self._publications.append(publication)
        self._size += len(publication[1])

    def confirm(self) -> Deferred[None]:
        """Wait until NATS has all earlier publications; see :meth:`lhttp_tx.bus.nats.keeper.LinkKeeper.confirm`."""
        if len(self._waiters) >= _MAX_WAITING:
            return fail(BusUnavailable(UNCONFIRMED))
        waiter: Deferred[None] = Deferred()
        self._waiters.append(waiter)
        return waiter

    def release(
        self, publish: Callable[[Publication], Deferred[None] | None], confirm: Callable[[], Deferred[None]]
    ) -> None:
        """
        Send the publications, then ask for a confirmation for the waiting callers.

        :param publish: sends one publication. It may raise an :exc:`~lhttp_tx.errors.LHTTPError`; the publication is
            then lost, and the waiting callers get an error.
        :param confirm: asks NATS; see :meth:`lhttp_tx.bus.nats.link.Link.confirm`.
        """
        lost = 0
        trying: list[Deferred[Any]] = []
        for publication in self._publications:
            try:
                waiting = publish(publication)
                if waiting is not None:
                    trying.append(waiting)
            except LHTTPError as error:
                lost += 1
                _log.error("a publication was lost while moving to another server: {why}", why=error.reason)
        tried = gatherResults(trying, consumeErrors=True)
        if not self._waiters:
            tried.addErrback(lambda _: None)  # NATS has refused it, and the link has logged that
            return

        def told(result: Failure | None) -> None:
            for waiter in self._waiters:
                tell(waiter, None if result is None else BusUnavailable(UNCONFIRMED))

        confirmed: Deferred[None] = fail(BusUnavailable(UNCONFIRMED)) if lost else confirm()
        both: list[Deferred[Any]] = [tried, confirmed]
        gatherResults(both, consumeErrors=True).addCallbacks(lambda _: told(None), told)
