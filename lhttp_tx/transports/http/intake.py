"""
Passes the messages of a client's requests to its session.

A part of :mod:`lhttp_tx.transports.http.session`. It works like :mod:`lhttp_tx.transports.websocket.protocol`: it
passes messages on as long as the session takes them, and keeps the rest until the session takes more. A client has at
most one request whose messages are not all taken.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from lhttp_tx.codec.limits import Limits
from lhttp_tx.errors import Refused
from lhttp_tx.guard.reads import TURN
from lhttp_tx.transports.http.bodies import Run
from lhttp_tx.transports.websocket.flow import HELD_BACK, YIELDING
from lhttp_tx.transports.websocket.outbox import Outbox
from lhttp_tx.transports.websocket.throttle import Throttle, is_limited

__all__ = ["Intake"]


class Intake:
    """
    The incoming messages of one client.

    :ivar session: takes them: a session, or the lobby; ``None`` before there is one, and when it has ended.
    """

    def __init__(self, limits: Limits, clock: IReactorTime, outbox: Outbox, broken: Callable[[], None]) -> None:
        """
        :param limits: the messages and bytes that the client may send in a second.
        :param clock: the reactor.
        :param outbox: is corked while messages are handled.
        :param broken: called inside the ``except`` clause if the handling of messages raises an exception.
        """
        self.session: Any = None
        self._throttle = Throttle(self, limits, clock) if is_limited(limits) else None
        self._clock = clock
        self._outbox = outbox
        self._broken = broken
        self._flow = 0
        self._is_busy = False
        self._number = 0
        self._untaken: list[Run] = []
        self._waiting: list[Deferred[None]] = []

    def take(self, runs: list[Run], number: int | None, size: int) -> Deferred[None]:
        """
        Pass on messages that a request has brought.

        :param number: the number of the request. Numbers begin with 1 and rise by one. A request that was taken before
            is not taken again. ``None``: the client does not number its requests.
        :param size: bytes of the request's body.
        :returns: a Deferred that

            - succeeds when all of them are taken: they are handled, or wait in the queue of the session;
            - fails with what :meth:`stop` is given, or with status 409 if the same request comes again: that one waits.
        :raises Refused: with status 409 if an earlier number is missing, 429 if the session has not yet taken all
            messages of an earlier request.
        """
        done: Deferred[None] = Deferred(self._forget)
        if number is not None and number <= self._number:
            if number == self._number and self._waiting:
                older, self._waiting = self._waiting, [done]
                for waiting in older:
                    waiting.errback(Failure(Refused(409, "the same request has come again")))
            else:
                done.callback(None)
            return done
        if number is not None and number != self._number + 1:
            raise Refused(409, f"the request with the number {self._number + 1} has not come")
        if self._untaken:
            raise Refused(429, "the messages of an earlier request are not all taken yet")
        self._number = self._number if number is None else number
        self._untaken = runs
        self._waiting.append(done)
        self._hand_over()
        if self._throttle is not None:
            self._throttle.count_bytes(size)
        return done

    def _forget(self, done: Deferred[None]) -> None:
        with suppress(ValueError):
            self._waiting.remove(done)

    def hold_reading(self, why: int) -> None:
        """Pass no more messages to the session."""
        self._flow |= why

    def go_on_reading(self, why: int) -> None:
        """Continue to pass on messages, unless there is another reason to wait."""
        self._flow &= ~why
        if not self._is_busy:
            self._hand_over()

    def _hand_over(self) -> None:
        """Pass messages to the session until it takes no more, or the others are to have their turn."""
        self._is_busy = True
        end = self._clock.seconds() + TURN
        self._outbox.cork()
        try:
            while self._untaken and not self._flow & HELD_BACK and self.session is not None:
                messages, binary = self._untaken[0]
                taken = (self._throttle or self.session).receive_run(messages, 0, binary)
                if self._untaken and taken < len(messages):
                    self._untaken[0] = messages[taken:], binary
                else:
                    del self._untaken[:1]
                if self._untaken and self._clock.seconds() > end and not self._flow & YIELDING:
                    self._flow |= YIELDING
                    self._clock.callLater(0, self.go_on_reading, YIELDING)
        except Exception:
            self._broken()
        finally:
            self._outbox.uncork()
            self._is_busy = False
        if not self._untaken:
            waiting, self._waiting = self._waiting, []
            for done in waiting:
                done.callback(None)

    def stop(self, why: Refused) -> None:
        """Take no more messages. Fail the requests that still wait, with *why*."""
        self.session = None
        self._untaken = []
        if self._throttle is not None:
            self._throttle.stop()
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done.errback(Failure(why))
