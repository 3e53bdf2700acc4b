"""
Keeps a connection logged in: sends login messages well before the login expires.

:class:`~lhttp_tx.client.client.Client` makes a :class:`Renewal`, and :mod:`lhttp_tx.client.inbox` tells it about
connections. The connection stays in use during a renewal. :mod:`lhttp_tx.client.credentials` provides the contents of a
login message.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from lhttp_tx.client.answers import Answers, Pending
from lhttp_tx.client.credentials import COMMAND, Credentials, login_message, read_account
from lhttp_tx.client.errors import ClientClosed, LoginFailed
from lhttp_tx.client.uplink import Uplink
from lhttp_tx.codec.message import Message
from lhttp_tx.errors import LHTTPError

__all__ = ["Renewal"]

_log = Logger()

_MIN_PAUSE = 1.0
"""The least seconds between two renewals."""

_MAX_PAUSE = 86_400.0
"""The most seconds between two renewals."""

_BLIND_PAUSE = 30.0
"""
Seconds until the next renewal if the login has already expired by this machine's clock, because the clocks differ.
"""

_REFUSED = frozenset({401, 403})
"""The statuses of wrong credentials. Trying again soon does not help, and the server counts these failures."""

_MAX_REFUSALS = 2
"""
The number of refused renewals after which the client stops renewing on a connection. By default, a server closes the
connection after three.
"""


@final
class Renewal:
    """Logs in again on a connection, whenever half of the time until the expiry has passed."""

    def __init__(
        self,
        uplink: Uplink,
        answers: Answers,
        login: Credentials,
        *,
        reactor: Any,
        now: Callable[[], float],
        retry_policy: Callable[[int], float],
        timeout: float,
        report: Callable[[LHTTPError], object],
    ) -> None:
        """
        :param uplink: the connection.
        :param answers: the pending answers.
        :param login: returns the headers of the login message.
        :param reactor: the reactor.
        :param now: returns the time in seconds since 1970.
        :param retry_policy: takes the number of consecutive failed renewals, and returns the seconds to wait. The wait
            is never longer than half of the remaining time.
        :param timeout: the most seconds to wait for the server's answer.
        :param report: called with the error when a renewal fails.
        """
        self._uplink = uplink
        self._answers = answers
        self._login = login
        self._reactor = reactor
        self._now = now
        self._retry_policy = retry_policy
        self._timeout = timeout
        self._report = report
        self._failures = 0
        self._refusals = 0
        self._timer: IDelayedCall | None = None
        self._running: Deferred[Any] | None = None

    def up(self) -> None:
        """Called when a connection is made and logged in."""
        self._failures = self._refusals = 0
        self._wait(None)

    def down(self) -> None:
        """Called when the connection has ended. A renewal under way ends, too."""
        timer, self._timer = self._timer, None
        running, self._running = self._running, None
        if timer is not None:
            timer.cancel()
        if running is not None:
            running.cancel()

    def _wait(self, retry: float | None) -> None:
        """:param retry: the most seconds until the next renewal, if the last one has failed; else ``None``."""
        account = self._uplink.account
        if account is None or account.expires is None:
            return
        left = account.expires - self._now()
        pause = left / 2 if left > 0 else _BLIND_PAUSE
        if retry is not None:
            pause = min(pause, retry)
        self._timer = self._reactor.callLater(min(max(pause, _MIN_PAUSE), _MAX_PAUSE), self._begin)

    def _begin(self) -> None:
        self._timer = None
        running: Deferred[Any] = Deferred.fromCoroutine(self._renew())
        self._running = running
        running.addCallbacks(self._renewed, self._failed)
        running.addErrback(lambda failure: _log.failure("renewing a login failed", failure))

    async def _renew(self) -> Message:
        message = login_message(await self._login.fetch())
        return await self._answers.ask(message, self._timeout, COMMAND, self._send)

    def _send(self, message: Message, pending: Pending) -> None:
        """Send only on the current connection, because a later one has its own login."""
        link = self._uplink.link
        if link is None:
            raise LoginFailed("the connection was lost")
        link.send(message)
        pending.sent = True

    def _renewed(self, answer: Message) -> None:
        self._running = None
        self._failures = 0
        self._uplink.entered(read_account(answer))
        _log.debug("{url}: the login is renewed", url=self._uplink.url)
        self._wait(None)

    def _failed(self, failure: Failure) -> None:
        if failure.check(CancelledError) or self._running is None or self._uplink.ended:
            return
        self._running = None
        error: Any = failure.trap(LHTTPError) and failure.value
        if isinstance(error, ClientClosed):
            self._uplink.give_up(error.reason)
            return
        self._failures += 1
        is_refused = error.status in _REFUSED
        self._refusals += is_refused
        if self._refusals < _MAX_REFUSALS:
            self._wait(None if is_refused else self._retry_policy(self._failures))
        self._report(LoginFailed(f"the login was not renewed: {error.reason}", status=error.status))
