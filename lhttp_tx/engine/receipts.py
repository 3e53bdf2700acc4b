"""
Receipts that wait until the bus has the publications.

Meanwhile, the session handles further messages if they only publish. It still sends all answers in order. A session
asks the bus one question at a time. The next question covers all receipts that were added in the meantime, so a
thousand receipts cost a few round trips. Used by :mod:`lhttp_tx.engine.answering`; must not import it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, TypeAlias, cast

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from lhttp_tx.codec.message import Message
from lhttp_tx.engine.answers import error_message, error_of
from lhttp_tx.errors import BusUnavailable, ChannelsRefused, HistoryUnavailable
from lhttp_tx.interfaces import MaybeDeferred
from lhttp_tx.observe.rationing import RationedLogger

if TYPE_CHECKING:
    from lhttp_tx.history.values import Filing

__all__ = ["KEPT", "MAX_SIZE", "Answer", "Kept", "Receipts", "outcome_of", "sent_at_once", "told"]

_log = RationedLogger(__name__)

MAX_SIZE = 1_048_576
"""
The most bytes of one connection's answers that may wait. Beyond that, the next message waits until all answers are
sent.
"""

_ANSWER_SIZE = 192
"""Bytes that are added to the size of each answer, for its memory."""

_FILING_SIZE = 450
_PLACING_SIZE = 160
"""
Bytes of memory of a :class:`~lhttp_tx.history.values.Filing` that an answer holds, and of each of its placings.
Measured, and rounded up.
"""


def told(receipt: Message, token: str, filing: Filing | None) -> Message:
    """
    Return the receipt of a publication with the headers of its outcome in histories, or an error if it was not stored.

    :param receipt: the receipt without these headers.
    :param token: its token.
    :param filing: the outcome; if it is ``None`` or was already known, *receipt* is returned unchanged.
    """
    if filing is None or not filing.is_open:
        return receipt
    if filing.failure is not None:
        return error_message(filing.failure.status, filing.failure.reason, token)
    pairs = filing.headers()
    return receipt.replace(headers=[*receipt.headers, *pairs]) if pairs else receipt


_RECEIPT = b"LHTTP/1.0 receipt\r\n"
"""The beginning of a receipt."""


class Kept:
    """
    The outcome of publications whose positions are known: the store has taken them, but may not have written them yet.

    :ivar is_kept: see :class:`lhttp_tx.history.values.Filing`.
    """

    __slots__ = ()
    is_kept = True


KEPT = Kept()
"""The only instance of its class."""

Answer: TypeAlias = "tuple[bytes, bool, str | None, Filing | Kept | None, tuple[str, ...]]"
"""
An answer that waits: its payload; whether to send it as a binary message; the token, if it is a receipt of a
publication that the bus may not have yet; the outcome of the publication in histories; and its channels, or none if
they are not known.
"""


def _size(payload: bytes, filing: Filing | Kept | None) -> int:
    """Return the approximate memory of an answer that waits, in bytes."""
    size = len(payload) + _ANSWER_SIZE
    if filing is None or filing is KEPT:
        return size
    return size + _FILING_SIZE + _PLACING_SIZE * len(cast("Filing", filing).placings)


def _filled_in(payload: bytes, binary: bool, token: str, filing: Filing) -> tuple[bytes, bool]:
    """Return a receipt with the headers of its outcome, like :func:`told`, and whether it is binary."""
    if filing.failure is not None:
        return error_message(filing.failure.status, filing.failure.reason, token).raw, False
    lines = "".join(f"{name}:{value}\r\n" for name, value in filing.headers()).encode()
    end = payload.index(b"\r\n\r\n") + 2
    return payload[:end] + lines + payload[end:], binary


def sent_at_once(answer: Answer) -> bytes:
    """Return the payload of a receipt that does not wait, with the headers of its outcome, like :func:`told`."""
    payload, binary, token, filing, _ = answer
    if token is None or filing is None or isinstance(filing, Kept) or not filing.is_open:
        return payload
    return _filled_in(payload, binary, token, filing)[0]


def outcome_of(result: object, filing: Filing | None, channels: tuple[str, ...]) -> object:
    """
    Return the outcome of one publication; takes what a Deferred of :meth:`lhttp_tx.engine.hub.Hub.confirm` has given.

    :param filing: the outcome of the publication in histories. If it is decided, a failure of the store was one of
        other publications. If the publication is concerned, the server forgets the message id.
    :param channels: its channels.
    :raises LHTTPError: if the publication was not stored.
    """
    if isinstance(result, Failure) and _is_concerned(result, filing, channels, True):
        _undo(filing, result)
        return result
    if filing is not None:
        filing.check()
    return None


def _is_concerned(failure: Failure, filing: Filing | Kept | None, channels: tuple[str, ...], asked: bool) -> bool:
    """
    Return whether a publication may be lost, because a confirmation has failed.

    :param asked: whether the bus and the store were asked for it.
    """
    error = failure.value
    if not _needs_bus(filing):  # what the store has decided is true, whatever the bus has lost
        return not isinstance(error, ChannelsRefused) and _is_in_doubt(filing, asked or _is_general(error))
    if isinstance(error, ChannelsRefused):
        return not channels or not error.channels.isdisjoint(channels)
    return not isinstance(error, HistoryUnavailable) or _is_in_doubt(filing, asked)


def _has_kept(answers: Iterable[Answer]) -> bool:
    """Return whether an answer waits for a history."""
    return any(filing is not None and filing.is_kept for _, _, _, filing, _ in answers)


def _needs_bus(filing: Filing | Kept | None) -> bool:
    """Return whether a publication goes over the bus, and not only with what a history spreads."""
    if filing is None or isinstance(filing, Kept) or not filing.placings:
        return True
    return not all(placing.is_late for placing in filing.placings)


def _undo(filing: Filing | Kept | None, failure: Failure) -> None:
    """Forget the message id of a publication that may be lost, because of *failure*."""
    if filing is None or isinstance(filing, Kept) or filing.undo is None:
        return
    error = failure.value
    filing.undo(error.channels if isinstance(error, ChannelsRefused) else None)


def _is_general(error: BaseException | None) -> bool:
    """Return whether a failure concerns all receipts, also those that nobody was asked for yet."""
    return not isinstance(error, HistoryUnavailable | ChannelsRefused)


def _is_in_doubt(filing: Filing | Kept | None, asked: bool) -> bool:
    """
    Return whether a publication may be lost, because the store has failed.

    :param asked: whether the store was asked for it.
    """
    if filing is None or not filing.is_kept:
        return False
    if isinstance(filing, Kept) or not filing.is_open:
        return True
    return asked and not filing.is_decided


class Receipts:
    """
    The answers of one connection that wait. The first waits for the bus, and the others wait for the first.

    When all answers are sent, the object cannot be used again.
    """

    __slots__ = (
        *("_answers", "_asked", "_confirm", "_ended", "_guarded", "_guarding", "_is_kept", "_note", "_over", "_peer"),
        *("_send", "_size", "_waiters"),
    )

    def __init__(
        self,
        *,
        confirm: Callable[[bool], MaybeDeferred],
        send: Callable[[list[bytes], bool], None],
        ended: Callable[[], None],
        peer: str,
        note: Callable[[], bytes] = bytes,
    ) -> None:
        """
        :param confirm: asks the bus whether it has all earlier publications. With the argument ``True``, asks the
            histories, too.
        :param send: sends messages to the client; takes their payloads, and whether these are binary.
        :param ended: called once, when all answers are sent.
        :param peer: the client's address, for the log.
        :param note: returns a header line, with its line break, for the receipts that are sent now; or ``b""``.
        """
        self._confirm = confirm
        self._send = send
        self._ended = ended
        self._peer = peer
        self._note = note
        # Tuples of bytes rather than messages: there may be many, and the garbage collector does not have to follow
        # them.
        self._answers: deque[Answer] = deque()
        self._asked = self._size = 0
        self._over = self._is_kept = self._guarding = False
        self._guarded = True
        self._waiters: list[Deferred[None]] = []

    @property
    def has_room(self) -> bool:
        """Whether the answers that wait have less than :data:`MAX_SIZE` bytes."""
        return self._size < MAX_SIZE

    def begin(self, confirmation: Deferred[None]) -> None:
        """
        Wait for *confirmation*. If it succeeds, send the receipts that were added before this call. If it fails, send
        errors. Call this once, after adding the first receipts.
        """
        self._await(confirmation, _has_kept(self._answers))

    def add(self, answer: Answer) -> None:
        """Send an answer after all answers that wait."""
        self.add_all([answer])

    def add_all(self, answers: list[Answer]) -> None:
        """Send answers after all answers that wait."""
        self._answers += answers
        self._size += sum([_size(payload, filing) for payload, _, _, filing, _ in answers])
        if self._is_kept and any(token is not None and _needs_bus(filing) for _, _, token, filing, _ in answers):
            self._guarded = False
            self._guard()

    def settled(self) -> Deferred[None]:
        """Return a Deferred that succeeds when all answers are sent."""
        waiter: Deferred[None] = Deferred()
        self._waiters.append(waiter)
        return waiter

    def give_up(self) -> None:
        """Stop waiting, and send errors in place of the receipts."""
        if not self._over:
            self._not_confirmed(Failure(BusUnavailable("it is not known whether the publication has arrived")))

    def _await(self, confirmation: Deferred[None], is_kept: bool) -> None:
        self._asked = len(self._answers)
        self._is_kept, self._guarded = is_kept, True
        confirmation.addCallbacks(self._confirmed, self._not_confirmed)
        confirmation.addErrback(lambda failure: _log.failure("answering failed", failure))

    def _guard(self) -> None:
        """
        Ask the bus for the receipts that were added while the first ones wait for a history.

        The bus may have answered for the first ones long ago. If it loses or refuses later publications meanwhile, it
        tells only those who wait at this time.
        """
        if self._guarding or self._guarded or self._over:
            return
        self._guarded = True
        confirmation = self._confirm(False)
        if confirmation is not None:
            self._guarding = True
            confirmation.addBoth(self._guard_answered)
            confirmation.addErrback(lambda failure: _log.failure("answering failed", failure))

    def _guard_answered(self, result: Failure | None) -> None:
        self._guarding = False
        if isinstance(result, Failure) and not self._over:
            is_partial = result.check(ChannelsRefused) is not None
            self._replace(result, lambda number, filing: _needs_bus(filing) and (is_partial or number >= self._asked))
        self._guard()

    def _confirmed(self, result: None) -> None:
        if self._over:
            return
        answers, asked, size = self._answers, self._asked, self._size
        settled: list[tuple[bytes, bool]] = []
        note = self._note()
        while answers and (asked or answers[0][2] is None):
            payload, binary, token, filing, _ = answers.popleft()
            if asked:
                asked -= 1
            if filing is None or filing is KEPT:  # the usual case
                size -= len(payload) + _ANSWER_SIZE
            else:
                size -= _size(payload, filing)
                if token is not None and cast("Filing", filing).is_open:
                    payload, binary = _filled_in(payload, binary, token, cast("Filing", filing))
            if note and token is not None and payload.startswith(_RECEIPT):
                payload = _RECEIPT + note + payload[len(_RECEIPT) :]
            settled.append((payload, binary))
        self._asked, self._size = asked, size
        self._send_all(settled)
        if not answers:
            self._end()
            return
        is_kept = _has_kept(answers)
        confirmation = self._confirm(is_kept)
        if confirmation is None:
            self._asked = len(answers)
            self._confirmed(None)
        else:
            self._await(confirmation, is_kept)

    def _not_confirmed(self, failure: Failure) -> None:
        """
        Send an error in place of every receipt that waits, unless the store has decided about its publication, and the
        bus has nothing to do with it.

        If only the store of histories has failed, the bus has what it was asked for. Then receipts of publications
        without history, and those whose outcome the store has decided, are sent. Those that it was not asked for yet
        continue to wait if their outcome is still open. If the bus has refused some channels, only their receipts fail.
        """
        if self._over:
            return
        self._replace(failure, lambda _, __: True)
        if _is_general(failure.value):
            self._asked = len(self._answers)
        self._confirmed(None)

    def _replace(self, failure: Failure, may_fail: Callable[[int, Filing | Kept | None], bool]) -> None:
        """
        Put errors in place of the receipts of publications that *failure* concerns.

        :param may_fail: takes the index of a receipt, and the outcome of its publication in histories. Returns whether
            the failure may concern it.
        """
        status, reason = error_of(failure, self._peer)
        answers, self._answers = self._answers, deque()
        self._size = 0
        for number, answer in enumerate(answers):
            _, _, token, filing, channels = answer
            is_asked = number < self._asked
            if token is None or not may_fail(number, filing) or not _is_concerned(failure, filing, channels, is_asked):
                self._put(answer)
                continue
            _undo(filing, failure)
            self._put((error_message(status, reason, token).raw, False, None, None, ()))

    def _put(self, answer: Answer) -> None:
        self._answers.append(answer)
        self._size += _size(answer[0], answer[3])

    def _send_all(self, answers: Iterable[tuple[bytes, bool]]) -> None:
        """Send answers. Consecutive answers of one kind, text or binary, go out in one write."""
        for binary, alike in groupby(answers, itemgetter(1)):
            self._send([payload for payload, _ in alike], binary)

    def _end(self) -> None:
        self._over = True
        self._ended()
        for waiter in self._waiters:
            if not waiter.called:
                waiter.callback(None)
