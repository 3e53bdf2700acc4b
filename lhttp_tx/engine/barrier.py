"""
The barrier between the hub and a session: it asks hooks about each publication.

Used by :mod:`lhttp_tx.hooks` for ``before_delivery``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.internet.defer import Deferred

from lhttp_tx.codec.codes import TOO_SLOW
from lhttp_tx.codec.message import Message
from lhttp_tx.engine.delivery import Deliver, Delivery, parse_payloads
from lhttp_tx.engine.session import Session
from lhttp_tx.observe.rationing import RationedLogger

__all__ = ["Barrier"]

_log = RationedLogger(__name__)


class _Single:
    """An encoding that splits a run into pairs: a message, and a delivery of only this message."""

    def encode(self, payloads: list[bytes], binary: bool) -> list[tuple[Message, Delivery]]:
        found = parse_payloads(payloads, binary)
        return [(message, Delivery("", [message.raw], binary)) for message in found]


_SINGLE = _Single()


class Barrier:
    """
    Passes publications to one session, if ``before_delivery`` allows it.

    While it waits for the answer about one message, later messages wait too.
    """

    __slots__ = ("_ask_whether", "_deliver", "_limit", "_session", "_size", "_waiting")

    def __init__(
        self,
        ask: Callable[[Session, Message], bool | Deferred[bool]],
        session: Session,
        deliver: Deliver,
        limit: int,
    ) -> None:
        """
        :param ask: returns whether a session may get a message, or a Deferred with the answer. The Deferred must not
            fail.
        :param session: the session that gets the publications.
        :param deliver: takes the messages that may pass.
        :param limit: the most bytes of messages that may wait. Beyond that, the connection is closed with code 1013.
        """
        self._ask_whether = ask
        self._limit = limit
        self._session = session
        self._deliver = deliver
        self._waiting: deque[tuple[Message, Delivery]] | None = None
        self._size = 0

    def deliver(self, delivery: Delivery) -> None:
        """Take a delivery from the hub. The delivery is split into messages once, for all sessions that get it."""
        for message, alone in delivery.encoded(_SINGLE):
            alone.channel = delivery.channel
            if self._waiting is None:
                self._ask(message, alone)
            elif not self._session.closed:
                self._waiting.append((message, alone))
                self._size += len(message.raw)
                if self._size > self._limit:
                    _log.error("{peer}: closed, before_delivery does not keep up", peer=self._session.peer)
                    self._waiting.clear()
                    self._session.close(TOO_SLOW, "too slow: messages that wait for before_delivery pass the limit")

    def _ask(self, message: Message, alone: Delivery) -> None:
        asking = self._ask_whether(self._session, message)
        if isinstance(asking, bool):
            if asking:
                self._deliver(alone)
            return
        self._waiting = deque()
        asking.addCallback(self._answered, alone)
        asking.addErrback(lambda failure: _log.failure("a delivery failed", failure))

    def _answered(self, allowed: bool, alone: Delivery) -> None:
        if allowed:
            self._deliver(alone)
        waiting, self._waiting, self._size = self._waiting or deque(), None, 0
        while waiting and not self._session.closed:
            self._ask(*waiting.popleft())
            if self._waiting is not None:
                self._waiting.extend(waiting)
                self._size = sum(len(each.raw) for each, _ in waiting)
                return
