"""
The answers that a client waits for: receipts, and replies to requests.

Each answer has a token, sent as the ``receipt`` header, a time limit, and a place in the order of the requests.
:class:`~lhttp_tx.client.client.Client` asks, and :mod:`lhttp_tx.client.inbox` passes the answers in. The caller passes
the function that sends. This module imports nothing that sends.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any, final

from twisted.internet.defer import Deferred, TimeoutError as DeferredTimeout, fail
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from lhttp_tx.client.errors import NoReply, QueueFull, ReplyError, RequestTimeout
from lhttp_tx.codec.codes import TOO_BIG
from lhttp_tx.codec.message import Message
from lhttp_tx.errors import LHTTPError

__all__ = ["Answers", "Pending", "instead_of", "reply_error"]

_MAX_PENDING = 10_000
"""The most receipts and replies that one client may wait for at the same time."""

_MAX_KEPT = 1_000
"""The most messages that one client keeps for sending them again."""

_MAX_TIMES = 5
"""The most times that a message is sent again, each on another connection."""

_KEPT_SECONDS = 100.0
"""
Seconds after the call within which a message may be sent again. By default, servers remember its id for 120 seconds.
"""


@dataclass(slots=True, eq=False)
class Pending:
    """
    An answer that the client waits for.

    :ivar token: the token of the receipt.
    :ivar deferred: fires with the answer.
    :ivar timer: ends the wait.
    :ivar reply_command: the command of the reply, if the client waits for a reply and a receipt; ``None`` for a receipt
        only.
    :ivar reply: the reply; ``None`` until it has come.
    :ivar sent: whether the request has been passed to a connection.
    :ivar message: the request, if it may be sent again after a loss of the connection; else ``None``.
    :ivar since: the time of the call, by the reactor's clock, if *message* is set.
    :ivar times: the number of times that the request was sent again.
    """

    token: str
    deferred: Deferred[Any]
    timer: IDelayedCall | None = None
    reply_command: str | None = None
    reply: Message | None = None
    sent: bool = False
    message: Message | None = None
    since: float = 0.0
    times: int = 0


@final
class Answers:
    """The answers that one client waits for, in the order of the requests."""

    def __init__(self, reactor: Any, withdraw: Callable[[Pending], object], kept_size: int) -> None:
        """
        :param reactor: the reactor, for time limits.
        :param withdraw: called with a request that has not been sent yet, when its answer is no longer awaited.
        :param kept_size: the most bytes of messages that are kept for sending them again.
        """
        self._reactor = reactor
        self._kept_room = kept_size
        self._kept_count = 0
        self._withdraw = withdraw
        self._tokens = count(1)
        self._pending: OrderedDict[str, Pending] = OrderedDict()

    @property
    def waiting(self) -> bool:
        """Whether a caller waits for an answer."""
        return any(not pending.deferred.called for pending in self._pending.values())

    def ask(
        self,
        message: Message,
        seconds: float,
        reply_command: str | None,
        send: Callable[[Message, Pending], None],
        *,
        keep: bool = False,
    ) -> Deferred[Message]:
        """
        Send *message* with a token, and wait for its answer.

        :param seconds: the most seconds to wait.
        :param reply_command: the command of the reply to wait for; ``None`` to wait only for the receipt.
        :param send: sends the message. If it raises an :exc:`~lhttp_tx.errors.LHTTPError`, the Deferred fails with it.
        :param keep: whether to keep the message, if there is room, and send it again if the connection is lost.
        :returns: a Deferred that

            - succeeds with the receipt or the reply;
            - fails with :exc:`~lhttp_tx.client.errors.QueueFull`, with :exc:`~lhttp_tx.client.errors.RequestTimeout`,
              with an exception of *send*, or with the error passed to :meth:`fail`, :meth:`lose` or :meth:`close`.
        """
        if len(self._pending) >= _MAX_PENDING:
            return fail(QueueFull(f"{len(self._pending)} answers are awaited already"))
        token = str(next(self._tokens))
        whole = message.replace(headers=[*message.headers.without({"receipt"}), ("receipt", token)])
        pending = Pending(token, Deferred(lambda _: self._give_up(pending)), reply_command=reply_command)
        self._pending[token] = pending
        try:
            send(whole, pending)
        except LHTTPError as error:
            del self._pending[token]
            return fail(error)
        if keep:
            self._keep(pending, whole)
        pending.timer = self._reactor.callLater(seconds, self._expired, pending, message.command, seconds)
        return pending.deferred

    def limited(self, waiting: Deferred[Any], seconds: float, what: str) -> Deferred[Any]:
        """
        Add a time limit to *waiting*, and return it. After *seconds*, it fails with a
        :exc:`~lhttp_tx.client.errors.RequestTimeout`.

        :param what: the beginning of the error text.
        """
        error = RequestTimeout(f"{what} within {seconds:g} seconds")
        return waiting.addTimeout(seconds, self._reactor).addErrback(instead_of(DeferredTimeout, error))

    def answered(self, message: Message) -> bool:
        """
        Take a receipt or an error, and finish the request that it answers. Return whether there is such a request.
        """
        token = message.headers.get("receipt-id")
        pending = None if token is None else self._pending.pop(token, None)
        if pending is None:
            return False
        if message.command == "error":
            self._finish(pending, Failure(reply_error(message)))
        elif pending.reply_command is None:
            self._finish(pending, message)
        elif pending.reply is not None:
            self._finish(pending, pending.reply)
        else:
            self._finish(pending, Failure(NoReply(f"no reply with the command {pending.reply_command}")))
        return True

    def replied(self, message: Message) -> bool:
        """
        Take *message* as the reply to the first request that waits for one, if it has the right command. Return whether
        it has.
        """
        first = next((one for one in self._pending.values() if one.sent and one.reply_command is not None), None)
        if first is None or first.reply is not None or first.reply_command != message.command:
            return False
        first.reply = message
        return True

    def fail(self, pending: Pending, error: LHTTPError) -> None:
        """Fail one request with *error*."""
        self._pending.pop(pending.token, None)
        self._finish(pending, Failure(error))

    def lose(
        self, error: LHTTPError, send_again: Callable[[list[tuple[Message, Pending]]], object] | None = None
    ) -> None:
        """
        Handle the end of a connection: send the unanswered requests again if possible, and fail the others.

        :param error: why the connection has ended. If a message was too large for the server, the largest one is not
            sent again, because it would end every connection.
        :param send_again: called with the requests that may be sent again, in order. ``None``: these fail, too.
        """
        sent = [pending for pending in self._pending.values() if pending.sent]
        again = [] if send_again is None else [pending for pending in sent if self._may_go_again(pending)]
        if getattr(error, "code", None) == TOO_BIG and again:
            again.remove(max(again, key=lambda pending: len(pending.message.raw) if pending.message else 0))
        for pending in again:
            pending.sent = False
            pending.times += 1
        if send_again is not None:
            send_again([(pending.message, pending) for pending in again if pending.message is not None])
        self._fail_all([pending for pending in sent if pending.sent], error)

    def _may_go_again(self, pending: Pending) -> bool:
        left = pending.since + _KEPT_SECONDS - self._reactor.seconds()
        if pending.message is None or pending.times >= _MAX_TIMES or left <= 0:
            return False
        if pending.timer is not None and pending.timer.getTime() > pending.since + _KEPT_SECONDS:
            pending.timer.reset(left)
        return True

    def _keep(self, pending: Pending, message: Message) -> None:
        size = len(message.raw)
        if self._kept_count < _MAX_KEPT and size <= self._kept_room:
            self._kept_count += 1
            self._kept_room -= size
            pending.message = message
            pending.since = self._reactor.seconds()

    def _let_go(self, pending: Pending) -> None:
        if pending.message is not None:
            self._kept_count -= 1
            self._kept_room += len(pending.message.raw)
            pending.message = None

    def close(self, error: LHTTPError) -> None:
        """Fail all requests with *error*."""
        self._fail_all(list(self._pending.values()), error)

    def _fail_all(self, lost: list[Pending], error: LHTTPError) -> None:
        for pending in lost:
            del self._pending[pending.token]
        for pending in lost:
            self._finish(pending, Failure(error))

    def _finish(self, pending: Pending, result: Message | Failure) -> None:
        self._let_go(pending)
        if pending.timer is not None and pending.timer.active():
            pending.timer.cancel()
        if not pending.deferred.called:
            pending.deferred.callback(result)

    def _give_up(self, pending: Pending) -> None:
        """
        Stop waiting for an answer. A request that was sent keeps its place. Otherwise, a late reply could be taken for
        that of another request.
        """
        self._let_go(pending)
        if pending.timer is not None and pending.timer.active():
            pending.timer.cancel()
        if not pending.sent:
            self._pending.pop(pending.token, None)
            self._withdraw(pending)

    def _expired(self, pending: Pending, command: str, seconds: float) -> None:
        was_sent = pending.sent or pending.times > 0
        reason = f"no answer to {command}" if was_sent else f"there was no connection to send {command}"
        reason += f" within {seconds:g} seconds"
        self._give_up(pending)
        pending.deferred.errback(Failure(RequestTimeout(reason)))


def reply_error(message: Message) -> ReplyError:
    """Return the error in an ``error`` message. If its status is malformed, the status is 500."""
    status = message.headers.get("status", "")
    known = status.isascii() and status.isdigit() and len(status) == 3 and status[0] in "12345"
    number = int(status) if known else 500
    return ReplyError(message.headers.get("reason", "the server gives no reason"), status=number)


def instead_of(kind: type[Exception], error: LHTTPError) -> Callable[[Failure], Failure]:
    """Return an errback that replaces failures of *kind* by *error*."""

    def errback(failure: Failure) -> Failure:
        failure.trap(kind)
        return Failure(error)

    return errback
