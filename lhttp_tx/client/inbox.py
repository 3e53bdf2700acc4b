"""
What arrives at a client, and to whom it goes: to a subscription, to whoever waits for an answer, or to a callback.

Made by :class:`~lhttp_tx.client.client.Client`; called by :mod:`lhttp_tx.client.uplink`, whose owner it is. It asks for
nothing itself, and does not import the client.
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
from lhttp_tx.errors import LHTTPError
from lhttp_tx.message import Message

__all__ = ["Inbox", "Reporter"]

_log = Logger()


@final
class Reporter:
    """Tells of errors that belong to no call."""

    def __init__(self, url: str, on_error: Callable[[LHTTPError], object] | None) -> None:
        """:param on_error: called with each; by default they are logged."""
        self._url = url
        self._on_error = on_error

    def __call__(self, error: LHTTPError) -> None:
        """Tell of *error*."""
        if self._on_error is not None:
            call_safely(self._on_error, error)
        else:
            _log.warn("{url}: {status} {reason}", url=self._url, status=error.status, reason=error.reason)


@final
class Inbox:
    """An :class:`~lhttp_tx.client.uplink.UplinkOwner` that hands everything to whom it concerns."""

    def __init__(
        self,
        answers: Answers,
        registry: Registry,
        report: Reporter,
        on_message: MessageCallback | None,
        renewal: Renewal | None,
    ) -> None:
        """
        :param on_message: gets messages that belong to no subscription and to no request.
        :param renewal: keeps the login fresh, if the client logs in.
        """
        self._renewal = renewal
        self._answers = answers
        self._registry = registry
        self._report = report
        self._on_message = on_message

    def received(self, message: Message) -> None:
        """Hand a message to whom it concerns."""
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
        if not self._answers.replied(message) and self._on_message is not None:
            call_safely(self._on_message, message)

    def report(self, error: LHTTPError) -> None:
        """Tell of an error that belongs to no call."""
        self._report(error)

    def restore(self) -> list[Deferred[None]]:
        """Ask for the subscriptions again."""
        if self._renewal is not None:
            self._renewal.up()
        return self._registry.restore()

    def unsent(self, pending: Pending, error: LHTTPError) -> None:
        """Fail what could not be sent."""
        self._answers.fail(pending, error)

    def down(self) -> None:
        """The connection has ended; the server has forgotten the subscriptions."""
        if self._renewal is not None:
            self._renewal.down()
        self._registry.down()

    def lost(self, error: LHTTPError) -> None:
        """Fail what was sent on the connection that has ended."""
        self._answers.lose(error)

    def closed(self, error: LHTTPError) -> None:
        """Fail everything that waits, and end the subscriptions."""
        self._answers.close(error)
        self._registry.close(error)
