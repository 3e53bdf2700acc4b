"""
Passes arriving messages to subscriptions, pending answers, or a callback.

:class:`~lhttp_tx.client.client.Client` makes an :class:`Inbox`, and :mod:`lhttp_tx.client.uplink` calls it, as its
owner. It sends no requests itself, and does not import the client.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from lhttp_tx.client.answers import Answers, Pending, reply_error
from lhttp_tx.client.registry import Registry
from lhttp_tx.client.renewal import Renewal
from lhttp_tx.client.subscription import MessageCallback, call_safely
from lhttp_tx.client.uplink import SendAgain
from lhttp_tx.codec.message import Message
from lhttp_tx.errors import LHTTPError

__all__ = ["Inbox", "Reporter"]

_log = Logger()


@final
class Reporter:
    """Reports errors that belong to no call."""

    def __init__(self, url: str, on_error: Callable[[LHTTPError], object] | None) -> None:
        """
        :param url: the server's URL, for the log.
        :param on_error: called with each error; ``None``: errors are logged.
        """
        self._url = url
        self._on_error = on_error

    def __call__(self, error: LHTTPError) -> None:
        """Report *error*."""
        if self._on_error is not None:
            call_safely(self._on_error, error)
        else:
            _log.warn("{url}: {status} {reason}", url=self._url, status=error.status, reason=error.reason)


@final
class Inbox:
    """An :class:`~lhttp_tx.client.uplink.UplinkOwner` that passes everything to the right part of the client."""

    def __init__(
        self,
        answers: Answers,
        registry: Registry,
        report: Reporter,
        on_message: MessageCallback | None,
        renewal: Renewal | None,
    ) -> None:
        """
        :param answers: the pending answers.
        :param registry: the subscriptions.
        :param report: reports errors.
        :param on_message: called with messages that belong to no subscription and no request.
        :param renewal: renews the login; ``None`` if the client does not log in.
        """
        self._renewal = renewal
        self._answers = answers
        self._registry = registry
        self._report = report
        self._on_message = on_message

    def received(self, message: Message) -> None:
        """Pass a message to the right part of the client."""
        if "publish" in message.headers:
            if self._registry.deliver(message):
                return
        elif message.command in ("receipt", "error"):
            if self._answers.answered(message):
                return
            if message.command == "error":
                error = reply_error(message)
                channel = message.headers.get("unsubscribed")
                if channel is not None:
                    self._registry.taken_back(channel, error)
                self._report(error)
                return
        elif message.command == "missed" and self._registry.missed(message):
            return
        if not self._answers.replied(message) and self._on_message is not None:
            call_safely(self._on_message, message)

    def report(self, error: LHTTPError) -> None:
        """Report an error that belongs to no call."""
        self._report(error)

    def restore(self) -> list[Deferred[None]]:
        """Subscribe to all channels again."""
        if self._renewal is not None:
            self._renewal.up()
        return self._registry.restore()

    def unsent(self, pending: Pending, error: LHTTPError) -> None:
        """Fail a request that could not be sent."""
        self._answers.fail(pending, error)

    def down(self) -> None:
        """Note that the connection has ended, and that the server has forgotten the subscriptions."""
        if self._renewal is not None:
            self._renewal.down()
        self._registry.down()

    def lost(self, error: LHTTPError, send_again: SendAgain | None) -> None:
        """
        Send unanswered requests of the ended connection again, or fail them; see
        :meth:`~lhttp_tx.client.answers.Answers.lose`.
        """
        self._answers.lose(error, send_again)

    def closed(self, error: LHTTPError) -> None:
        """Fail all requests with *error*, and end the subscriptions."""
        self._answers.close(error)
        self._registry.close(error)
