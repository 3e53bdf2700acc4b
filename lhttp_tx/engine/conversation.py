"""
The queue of a session, the order of its messages, and its end.

The edge (:mod:`lhttp_tx.transports.websocket.protocol`, or another transport) passes messages in, and provides an
:class:`~lhttp_tx.interfaces.ITransport`. Must not import Autobahn or anything that does I/O.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice, repeat, takewhile
from operator import methodcaller
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from lhttp_tx.codec.codes import check_close_code
from lhttp_tx.engine.awaiting import as_deferred
from lhttp_tx.engine.delivery import parse_payloads
from lhttp_tx.engine.handling import Handler
from lhttp_tx.engine.handshake import Handshake
from lhttp_tx.engine.sequence import Step
from lhttp_tx.engine.state import State
from lhttp_tx.errors import LHTTPError
from lhttp_tx.identity import Identity
from lhttp_tx.interfaces import IProcessor, ITransport, MaybeAwaitable
from lhttp_tx.observe.rationing import RationedLogger

if TYPE_CHECKING:
    from lhttp_tx.engine.engine import Engine

__all__ = ["QUEUE_SIZES", "Conversation"]

_log = RationedLogger(__name__)

QUEUE_SIZES = 16
"""The limit of a queue's bytes, as a multiple of the largest allowed message."""

_IDLE, _BUSY, _FINISHING, _SETTLING = State.IDLE, State.BUSY, State.FINISHING, State.SETTLING
_CLOSING, _CLOSED, _LOST, _LEAVING = State.CLOSING, State.CLOSED, State.LOST, State.LEAVING

_IN_HAND = frozenset({State.BUSY, State.FINISHING, State.CLOSING})
"""The states in which a message or the opening is being handled, and the connection has not ended."""


class Conversation(Handler):
    """
    A session with all its layers. Every session is an object of this class.

    :ivar stage: the state of the session; :class:`~lhttp_tx.engine.state.State` lists the transitions.
    """

    __slots__ = ("_deadline", "_last_words", "_opened", "_paused", "_queue", "_queue_size", "_settled_errors")

    def __init__(self, *, engine: Engine, transport: ITransport, identity: Identity | None = None) -> None:
        """See :class:`lhttp_tx.engine.session.Session`."""
        super().__init__(engine=engine, transport=transport, identity=identity)
        self._paused = False
        self._settled_errors = self._queue_size = 0
        self._opened: list[IProcessor] = []
        self._queue: deque[tuple[bytes, bool, float]] | None = None
        self._deadline: IDelayedCall | None = None
        self._last_words = 1000, ""

    @property
    def waiting(self) -> tuple[int, int]:
        """The number of messages in the queue, and their bytes."""
        return len(self._queue or ()), self._queue_size

    # For the edge

    def receive_run(self, messages: list[bytes], first: int, binary: bool) -> int:
        """
        Take some of *messages* from the connection: one, or several that the session can handle together.

        :param messages: payloads of consecutive WebSocket data messages.
        :param first: the index of the first message to take.
        :param binary: whether they came as binary messages.
        :returns: the index of the first message that was not taken.
        """
        data = messages[first]
        following = first + 1
        if self.stage is not _IDLE:
            self.receive(data, binary)
            return following
        self.stage = _BUSY
        try:
            plan = self._engine.plan(data)
        except Exception:
            self._refuse(data)
            self._handled()
            return following
        if plan.shortcut is None:
            self._follow(plan, data, binary)
        elif plan.tokens is not None:
            following = first + self._take_asking(plan, messages, binary, first)
        elif following < len(messages) and messages[following].startswith(plan.beginning):
            run = self._not_too_large(plan, _alike(messages, first, plan.beginning))
            following = first + len(run) - self._take_shortcut(plan, run, binary)
        else:
            self._take_shortcut(plan, [data], binary)
        if self._sequence.waiting is None and not self._queue and not self._errors and self.stage is _BUSY:
            self.stage = _IDLE
        else:
            self._handled()
        return following

    def receive(self, data: bytes, binary: bool) -> None:
        """
        Take a message from the connection. The session handles it when the earlier messages are done.

        :param data: the payload of one WebSocket data message.
        :param binary: whether it came as a binary message.
        """
        if self.stage is _BUSY:
            self._enqueue(data, binary)
        elif self.stage is _IDLE:
            self.stage = _BUSY
            self._handle(data, binary)
            self._handled()

    def connection_lost(self) -> None:
        """
        End the session, because its connection has ended.

        The session leaves its channels now. It still handles the messages that have arrived, until the time limit of
        one message has passed. Then it tells processors and filters.
        """
        stage = self.stage
        if stage >= _LOST:
            return
        self.stage = _LOST
        if stage < _CLOSING:
            self._depart()
        if stage in _IN_HAND:
            self._deadline = self._engine.clock.callLater(self._engine.limits.processor_timeout, self.cut)
        for waiters in (self._ended, self._drained):
            if waiters is not None:
                waiters.fire()
        if stage not in _IN_HAND:
            self._close_down()

    def undelivered(self, payloads: Iterable[tuple[bytes, bool]]) -> None:
        """
        Report messages that were sent, but have not reached the client and never will.

        :param payloads: the messages, and whether each was to be sent as a binary message.
        """
        messages = [message for payload, binary in payloads for message in parse_payloads([payload], binary)]
        for call in self._engine.on_undelivered if messages else ():
            call(self, messages)

    # For the engine

    def open(self, handshake: Handshake | None = None) -> None:
        """
        Tell the filters that the connection is open. Messages wait until the filters are done.

        :param handshake: how the client opened the connection; kept if a filter asks for it.
        """
        if self._engine.open_steps:
            self._handshake = handshake
            self.stage = _BUSY
            self._sequence.run(self._engine.open_steps, self, self._open_done)
            if self._sequence.waiting is None:
                self._resume()

    def _open_done(self, _: object, failure: Failure | None) -> None:
        if not self._keeps_handshake:
            self._handshake = None
        if failure is not None:
            self._answer(None, failure)
            self.close(1008 if isinstance(failure.value, LHTTPError) else 1011, "connection not accepted")

    def open_processor(self, processor: IProcessor) -> MaybeAwaitable:
        """Call ``on_open`` of *processor*, unless an earlier call on this connection has succeeded."""
        if processor in self._opened:
            return None
        result = processor.on_open(self)
        if result is None:
            self._opened.append(processor)
            return None

        def opened(_: object) -> None:
            if processor not in self._opened:
                self._opened.append(processor)

        return as_deferred(result, processor).addCallback(opened)

    def finish(self, code: int, reason: str) -> None:
        """Take no more messages, handle those that have arrived, then close the connection."""
        if self.stage is _BUSY:
            self.stage = _FINISHING
        elif self.stage is _IDLE:
            self.stage = _SETTLING
        else:
            return
        self._last_words = code, reason
        self._settled()

    def _settled(self) -> None:
        if self.stage is _SETTLING and self._receipts is None:
            self.close(*self._last_words)

    def cut(self) -> None:
        """Cancel the current message, drop the queue, and send errors instead of receipts that wait."""
        if self._queue:
            _log.warn("{peer}: {count} unhandled messages dropped", peer=self.peer, count=len(self._queue))
            self._queue, self._queue_size = None, 0
        self._sequence.cancel()
        if self._receipts is not None:
            self._receipts.give_up()

    def close(self, code: int = 1000, reason: str = "") -> None:
        """See :meth:`lhttp_tx.engine.session.Session.close`."""
        check_close_code(code, reason)
        if self.stage >= _CLOSING:
            return
        self._engine.hub.flush()
        self.stage = _CLOSING if self.stage in _IN_HAND else _CLOSED
        self._queue, self._queue_size = None, 0
        if self._run is not None:
            self._run.clear()
        self._depart()
        self._transport.close(code, reason)

    # The order of messages

    def _enqueue(self, data: bytes, binary: bool) -> None:
        if self._queue is None:
            self._queue = deque()
        engine = self._engine
        self._queue.append((data, binary, engine.clock.seconds() if engine.wait_timeout else 0.0))
        self._queue_size += len(data)
        limits = engine.limits
        is_full = len(self._queue) >= limits.queue_length or self._queue_size >= QUEUE_SIZES * limits.message_size
        if is_full and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        while self._sequence.waiting is None:
            if self._errors:
                self._count_errors()
            if not self._queue:
                self._rest()
                return
            data, binary, arrived = self._queue.popleft()
            self._queue_size -= len(data)
            if self._paused and self._has_room() and self.stage < _LOST:
                self._paused = False
                self._transport.resume_reading()
            if self._engine.wait_timeout and self._engine.clock.seconds() - arrived > self._engine.wait_timeout:
                self._drop(data, binary)
            else:
                self._handle(data, binary)

    def _has_room(self) -> bool:
        """Return whether at most half of the queue is in use."""
        limits = self._engine.limits
        few = len(self._queue or ()) <= limits.queue_length // 2
        return few and self._queue_size <= QUEUE_SIZES * limits.message_size // 2

    def _count_errors(self) -> None:
        """Count consecutive errors, after a message was handled: a message without an error resets the count."""
        if self._errors == self._settled_errors:
            self._errors = 0
        self._settled_errors = self._errors

    def _handled(self) -> None:
        """Called when a message from the connection was handled or began to wait."""
        if self._sequence.waiting is not None:
            return
        if self._queue or self._errors or self.stage is not _BUSY:
            self._resume()
        else:
            self.stage = _IDLE

    def _rest(self) -> None:
        """Called when no message is being handled and the queue is empty."""
        if self.stage is _BUSY:
            self.stage = _IDLE
        elif self.stage is _FINISHING:
            self.stage = _SETTLING
            self._settled()
        elif self.stage is _CLOSING:
            self.stage = _CLOSED
        elif self.stage is _LOST:
            self._close_down()

    # The end

    def _close_down(self) -> None:
        """Tell all processors and filters that the connection has ended, even if one of them fails."""
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self.stage = _LEAVING
        steps: Iterator[Step] = iter([*((found.on_close, found) for found in self._opened), *self._engine.close_steps])

        def done(_: object, failure: Failure | None) -> None:
            if failure is None:
                self.stage = State.GONE
                self._engine.forget(self)
            else:
                _log.failure("{peer}: a callback at the end of the connection failed", failure, peer=self.peer)
                self._sequence.run(steps, self, done)

        self._sequence.run(steps, self, done)


def _alike(messages: list[bytes], first: int, beginning: bytes) -> list[bytes]:
    """Return the message at *first* and the messages directly after it that begin with *beginning*."""
    if all(map(bytes.startswith, islice(messages, first + 1, None), repeat(beginning))):  # the usual case
        return messages[first:]
    return list(takewhile(methodcaller("startswith", beginning), islice(messages, first, None)))
