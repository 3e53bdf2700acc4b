"""
Receipts that wait until the bus has what was published.

A connection's messages go on meanwhile where they do nothing but publish; what they are answered is sent in their order
all the same. One question to the bus is under way for a connection, and the next one is asked for all that came behind
it, so that a thousand receipts cost a few round trips. Used by :mod:`lhttp_tx.session`; must not import it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from lhttp_tx.answers import error_message, error_of
from lhttp_tx.errors import BusUnavailable
from lhttp_tx.frames import build_frame
from lhttp_tx.interfaces import MaybeDeferred

__all__ = ["MAX_SIZE", "Receipts"]

_log = Logger()

MAX_SIZE = 1_048_576
"""Bytes of one connection's answers that may wait; the message behind them waits until all are sent."""

_ANSWER_SIZE = 192
"""Bytes that are counted for each answer beside its own."""


class Receipts:
    """
    The answers of one connection, from the first that waits for the bus to the last that came while it waited.

    Of no use any more once all are sent.
    """

    __slots__ = ("_answers", "_asked", "_confirm", "_ended", "_over", "_peer", "_send", "_size", "_waiters")

    def __init__(
        self,
        *,
        confirm: Callable[[], MaybeDeferred],
        send: Callable[[bytes], None],
        ended: Callable[[], None],
        peer: str,
    ) -> None:
        """
        :param confirm: asks whether the bus has everything that was published before.
        :param send: sends whole WebSocket frames to the client.
        :param ended: called when all are sent.
        :param peer: whose they are, for the log.
        """
        self._confirm = confirm
        self._send = send
        self._ended = ended
        self._peer = peer
        # Frames rather than messages, with the token of a receipt that waits: the collector of cycles has no work with
        # these, and there may be many.
        self._answers: deque[tuple[bytes, str | None]] = deque()
        self._asked = self._size = 0
        self._over = False
        self._waiters: list[Deferred[None]] = []

    @property
    def has_room(self) -> bool:
        """Whether the next message may go on."""
        return self._size < MAX_SIZE

    def begin(self, frame: bytes, token: str, confirmation: Deferred[None]) -> None:
        """
        Send a receipt when *confirmation* succeeds, or an error if it fails; to be called once, and first.

        :param frame: the receipt.
        :param token: its token.
        """
        self.add(frame, token)
        self._await(confirmation)

    def add(self, frame: bytes, token: str | None) -> None:
        """
        Send an answer behind the others.

        :param frame: the answer.
        :param token: the token, if it is a receipt for something that the bus may not have yet.
        """
        self._answers.append((frame, token))
        self._size += len(frame) + _ANSWER_SIZE

    def settled(self) -> Deferred[None]:
        """Return a Deferred that succeeds when all are sent."""
        waiter: Deferred[None] = Deferred()
        self._waiters.append(waiter)
        return waiter

    def give_up(self) -> None:
        """Wait no longer: send errors."""
        if not self._over:
            self._not_confirmed(Failure(BusUnavailable("it is not known whether the publication has arrived")))

    def _await(self, confirmation: Deferred[None]) -> None:
        self._asked = len(self._answers)
        confirmation.addCallbacks(self._confirmed, self._not_confirmed)
        confirmation.addErrback(lambda failure: _log.failure("answering failed", failure))

    def _confirmed(self, _: None) -> None:
        if self._over:
            return
        answers, settled = self._answers, []
        while answers and (self._asked or answers[0][1] is None):
            self._asked = max(self._asked - 1, 0)
            settled.append(answers.popleft()[0])
        frames = b"".join(settled)
        self._size -= len(frames) + _ANSWER_SIZE * len(settled)
        self._send(frames)
        if not answers:
            self._end()
            return
        confirmation = self._confirm()
        if confirmation is None:
            self._asked = len(answers)
            self._confirmed(None)
        else:
            self._await(confirmation)

    def _not_confirmed(self, failure: Failure) -> None:
        """Refuse all: those that came meanwhile were published before it was known that this one failed."""
        if self._over:
            return
        status, reason = error_of(failure, self._peer)
        answers, self._answers = self._answers, deque()
        frames = []
        for frame, token in answers:
            frames.append(frame if token is None else build_frame(error_message(status, reason, token).raw, False))
        self._send(b"".join(frames))
        self._end()

    def _end(self) -> None:
        self._over = True
        self._ended()
        for waiter in self._waiters:
            if not waiter.called:
                waiter.callback(None)
