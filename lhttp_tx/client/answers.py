"""
The answers that a client waits for: receipts, and replies to requests.

Each has a token, sent as the ``receipt`` header, a time limit, and a place in the order in which they were asked for.
Used by :class:`~lhttp_tx.client.client.Client`, which asks, and by :mod:`lhttp_tx.client.inbox`, which brings the
answers. How a message is sent is told by the caller: imports nothing that sends.
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
from lhttp_tx.errors import LHTTPError
from lhttp_tx.message import Message

__all__ = ["Answers", "Pending", "instead_of", "reply_error"]

_MAX_PENDING = 10_000
"""Receipts and replies that one client may wait for at one time."""


@dataclass(slots=True, eq=False)
class Pending:
    """
    An answer that is awaited.

    :ivar reply_command: the command of the reply that is awaited besides the receipt, if one is.
    :ivar reply: that reply, once it has come.
    :ivar sent: whether what asks for it has been handed to a connection.
    """

    token: str
    deferred: Deferred[Any]
    timer: IDelayedCall | None = None
    reply_command: str | None = None
    reply: Message | None = None
    sent: bool = False


@final
class Answers:
    """The answers that one client waits for, in the order in which they were asked for."""

    def __init__(self, reactor: Any, withdraw: Callable[[Pending], object]) -> None:
        """:param withdraw: called when nobody waits any longer for an answer to what was not sent yet."""
        self._reactor = reactor
        self._withdraw = withdraw
        self._tokens = count(1)
        self._pending: OrderedDict[str, Pending] = OrderedDict()

    def ask(
        self, message: Message, seconds: float, reply_command: str | None, send: Callable[[Message, Pending], None]
    ) -> Deferred[Message]:
        """
        Send *message* with a token and wait for its answer.

        :param seconds: how long.
        :param reply_command: the command of the reply to wait for; None for the receipt alone.
        :param send: sends it; what it raises is the result.
        :returns: a Deferred that

            - succeeds with the receipt or the reply;
            - fails with :exc:`~lhttp_tx.client.errors.QueueFull`, with
              :exc:`~lhttp_tx.client.errors.RequestTimeout`, with what *send* raises or what :meth:`fail`,
              :meth:`lose` or :meth:`close` was given.
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
        reason = f"no answer within {seconds:g} seconds"
        pending.timer = self._reactor.callLater(seconds, self._expired, pending, reason)
        return pending.deferred

    def limited(self, waiting: Deferred[Any], seconds: float, what: str) -> Deferred[Any]:
        """Return *waiting* with a time limit, past which it fails as a request does."""
        error = RequestTimeout(f"{what} within {seconds:g} seconds")
        return waiting.addTimeout(seconds, self._reactor).addErrback(instead_of(DeferredTimeout, error))

    def answered(self, message: Message) -> bool:
        """Take *message*, a receipt or an error, as the end of what it answers; return whether it answers anything."""
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
        """Take *message* as the reply to the first request that waits for one; return whether it is that."""
        first = next((one for one in self._pending.values() if one.sent and one.reply_command is not None), None)
        if first is None or first.reply is not None or first.reply_command != message.command:
            return False
        first.reply = message
        return True

    def fail(self, pending: Pending, error: LHTTPError) -> None:
        """Fail one of them."""
        self._pending.pop(pending.token, None)
        self._finish(pending, Failure(error))

    def lose(self, error: LHTTPError) -> None:
        """Fail those whose question was sent on a connection that has ended."""
        self._fail_all([pending for pending in self._pending.values() if pending.sent], error)

    def close(self, error: LHTTPError) -> None:
        """Fail all of them."""
        self._fail_all(list(self._pending.values()), error)

    def _fail_all(self, lost: list[Pending], error: LHTTPError) -> None:
        for pending in lost:
            del self._pending[pending.token]
        for pending in lost:
            self._finish(pending, Failure(error))

    def _finish(self, pending: Pending, result: Message | Failure) -> None:
        if pending.timer is not None and pending.timer.active():
            pending.timer.cancel()
        if not pending.deferred.called:
            pending.deferred.callback(result)

    def _give_up(self, pending: Pending) -> None:
        """Nobody waits any longer. What was sent keeps its place, so that a late reply is not taken for another."""
        if pending.timer is not None and pending.timer.active():
            pending.timer.cancel()
        if not pending.sent:
            self._pending.pop(pending.token, None)
            self._withdraw(pending)

    def _expired(self, pending: Pending, reason: str) -> None:
        self._give_up(pending)
        pending.deferred.errback(Failure(RequestTimeout(reason)))


def reply_error(message: Message) -> ReplyError:
    """Return what an ``error`` message says."""
    status = message.headers.get("status", "")
    number = int(status) if status.isascii() and status.isdigit() and len(status) == 3 else 500
    return ReplyError(message.headers.get("reason", "the server gives no reason"), status=number)


def instead_of(kind: type[Exception], error: LHTTPError) -> Callable[[Failure], Failure]:
    """Return an errback that turns failures of *kind* into *error*."""

    def errback(failure: Failure) -> Failure:
        failure.trap(kind)
        return Failure(error)

    return errback
