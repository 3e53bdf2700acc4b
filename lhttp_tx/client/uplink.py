"""
Keeps a client connected: the states, the calls that wait for a connection, and the queue of messages.

Below an uplink, Twisted's ``ClientService`` connects again after a loss. Above it, an :class:`UplinkOwner` is told
about events. :class:`~lhttp_tx.client.client.Client` makes the uplink. It does not handle answers or subscriptions: it
only passes :class:`~lhttp_tx.client.answers.Pending` on.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Protocol, final

from twisted.application.internet import ClientService
from twisted.internet.defer import Deferred, TimeoutError as DeferredTimeout, fail, succeed
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from lhttp_tx.client.answers import Pending, instead_of
from lhttp_tx.client.credentials import Account
from lhttp_tx.client.errors import ClientClosed, ConnectFailed, ConnectionLost, LoginFailed, QueueFull
from lhttp_tx.client.states import State
from lhttp_tx.client.subscription import call_safely, fire_all
from lhttp_tx.client.websocket.endpoints import WatchedEndpoint, connect_error
from lhttp_tx.client.websocket.link import ClientLink
from lhttp_tx.codec.codes import LOGGED_IN_ELSEWHERE
from lhttp_tx.codec.limits import Limits
from lhttp_tx.codec.message import Message
from lhttp_tx.errors import LHTTPError

__all__ = ["LinkWatcher", "Uplink", "UplinkOwner"]

_log = Logger()

_MAX_REFUSALS = 10
"""The number of consecutive refused logins after which the client is closed."""


_MOST_ASKED = 60.0
"""The most seconds that the client waits because a server has asked for it."""


SendAgain = Callable[[list[tuple[Message, Pending]]], None]
"""Called with messages to send again, each with its pending answer."""


class UplinkOwner(Protocol):
    """The owner of an uplink. The uplink calls these methods to report events and messages."""

    def restore(self) -> list[Deferred[None]]:
        """
        Subscribe to all channels again, on a new connection. The Deferreds succeed when the server has confirmed or
        refused.
        """

    def received(self, message: Message) -> None:
        """Called with each message."""

    def report(self, error: LHTTPError) -> None:
        """Called with an error that belongs to no call."""

    def unsent(self, pending: Pending, error: LHTTPError) -> None:
        """Called when a request that waited for a connection could not be sent on it."""

    def down(self) -> None:
        """Called first when the connection has ended, before any callback of the program."""

    def lost(self, error: LHTTPError, send_again: SendAgain | None) -> None:
        """
        Called last when the connection has ended. Requests that were sent on it get no answers.

        :param error: why the connection has ended.
        :param send_again: takes requests to send on the next connection; ``None`` if there will be none.
        """

    def closed(self, error: LHTTPError) -> None:
        """Called when there will be no other connection."""


class LinkWatcher(Protocol):
    """Watches connections and how they end; see :class:`lhttp_tx.client.http.ways.Ways`."""

    def up(self, line: ClientLink, /) -> None:
        """Called when a connection is in use."""

    def down(self, code: int | None, *, wanted: bool) -> None:
        """Called when the connection has ended. *wanted*: whether this side has closed it for good."""


@final
class Uplink:
    """
    Keeps a client connected.

    :ivar url: the URL, for texts.
    :ivar state: the state of the client.
    :ivar link: the connection; ``None`` if there is none.
    :ivar account: the user of the connection, according to the server; ``None`` if the client is not logged in.
    """

    def __init__(
        self,
        url: str,
        endpoint: IStreamClientEndpoint,
        *,
        reactor: Any,
        retry_policy: Callable[[int], float],
        on_state: Callable[[State, str], object] | None,
        limits: Limits,
        queue_length: int,
        unsent_size: int,
        watcher: LinkWatcher | None = None,
    ) -> None:
        """
        :param endpoint: makes connections that can send messages.
        :param queue_length: the most messages that wait for a connection.
        :param watcher: is told about each connection.

        The other parameters are those of :class:`~lhttp_tx.client.client.Client`.
        """
        self.url = url
        self.state = State.IDLE
        self.link: ClientLink | None = None
        self.account: Account | None = None
        self._endpoint = WatchedEndpoint(endpoint, self._attempt_begins, self._attempt_failed)
        self._reactor = reactor
        self._retry_policy = retry_policy
        self._on_state = on_state
        self._limits = limits
        self._queue_length = queue_length
        self._unsent_size = unsent_size
        self._watcher = watcher
        self._refusals = 0
        self._retry_after: float | None = None
        self._owner: UplinkOwner
        self._service: ClientService | None = None
        self._opening: ClientLink | None = None
        self._closing: list[Deferred[None]] = []
        self._waiting: list[tuple[Deferred[None], int | None]] = []
        self._queue: deque[tuple[Message, Pending | None]] = deque()

    def attach(self, owner: UplinkOwner) -> None:
        """Report events to *owner*. Call this before :meth:`start`."""
        self._owner = owner

    @property
    def ended(self) -> bool:
        """Whether the uplink is closed or closing."""
        return self.state in (State.CLOSING, State.CLOSED)

    # Start and stop

    def start(self) -> None:
        """Begin to connect. Do nothing if it has begun already."""
        if self._service is not None:
            return
        self._refusals = 0
        self._service = ClientService(
            self._endpoint,
            Factory.forProtocol(lambda: ClientLink(self, self._limits, self._unsent_size)),
            retryPolicy=self._pause,
            clock=self._reactor,
        )
        self._service.startService()

    def _pause(self, failures: int) -> float:
        """
        Return the seconds to wait before the next attempt. If the server has asked for a pause, it is a random part of
        that.
        """
        asked, self._retry_after = self._retry_after, None
        return self._retry_policy(failures) if asked is None else random.uniform(0, min(asked, _MOST_ASKED))  # noqa: S311 - no secret

    def stop(self) -> Deferred[None]:
        """Close the connection and stop connecting. The Deferred succeeds when the connection has ended."""
        if self.state is State.CLOSING:
            closed: Deferred[None] = Deferred(self._closing.remove)
            self._closing.append(closed)
            return closed
        if self._service is None:
            self._finish("the client is closed")
            return succeed(None)
        service, self._service = self._service, None
        self._set_state(State.CLOSING, "closed by this side")
        # In the next turn, because a callback may have called this while the service is working.
        stopped: Deferred[Any] = deferLater(self._reactor, 0, service.stopService)
        return stopped.addCallback(lambda _: self._finish("the client is closed"))

    def _finish(self, reason: str) -> None:
        if self.state is State.CLOSED:
            return
        self.account = None
        self._set_state(State.CLOSED, reason)
        error = ClientClosed(reason)
        waiting, self._waiting = self._waiting, []
        for deferred, _ in waiting:
            deferred.errback(Failure(error))
        self._queue.clear()
        self._owner.closed(error)
        fire_all(self._closing, None)

    def _set_state(self, state: State, reason: str) -> None:
        if state is self.state:
            return
        self.state = state
        _log.info("{url}: {state}: {reason}", url=self.url, state=state.value, reason=reason)
        if self._on_state is not None:
            call_safely(self._on_state, state, reason)

    # Waiting for a connection

    def when_connected(self, attempts: int | None, timeout: float | None) -> Deferred[None]:
        """See :meth:`lhttp_tx.client.client.Client.when_connected`."""
        if self.state is State.CONNECTED:
            return succeed(None)
        if self.ended:
            return fail(ClientClosed("the client is closed"))
        return self.wait(attempts, timeout)

    def wait(self, attempts: int | None, timeout: float | None) -> Deferred[None]:
        """Wait until the client is connected the next time, whatever its state is now."""

        def cancelled(deferred: Deferred[None]) -> None:
            self._waiting = [entry for entry in self._waiting if entry[0] is not deferred]

        waiting: Deferred[None] = Deferred(cancelled)
        self._waiting.append((waiting, attempts))
        if timeout is None:
            return waiting
        return waiting.addTimeout(timeout, self._reactor).addErrback(
            instead_of(DeferredTimeout, ConnectFailed(f"not connected within {timeout:g} seconds"))
        )

    # Sending

    def send(self, message: Message, pending: Pending | None = None) -> None:
        """
        Send a message, or keep it until the client is connected.

        :param pending: the answer that the message asks for; ``None`` if it asks for none.
        :raises QueueFull: if too many messages or bytes wait to be sent.
        :raises ClientClosed: if the uplink is closed or closing.
        """
        if self.ended:
            raise ClientClosed("the client is closed")
        if self.link is not None:
            self.link.send(message)
            if pending is not None:
                pending.sent = True
        elif sum(waiting is None or not waiting.times for _, waiting in self._queue) < self._queue_length:
            self._queue.append((message, pending))
        else:
            raise QueueFull(f"no connection, and {len(self._queue)} messages are waiting already")

    def withdraw(self, pending: Pending) -> None:
        """Remove the message with the answer *pending* from the queue, if it still waits."""
        self._queue = deque(entry for entry in self._queue if entry[1] is not pending)

    def _send_first(self, messages: list[tuple[Message, Pending]]) -> None:
        """Send messages on the next connection, before those that already wait."""
        self._queue.extendleft(reversed(messages))

    # Called by the endpoint and the link

    def _attempt_begins(self) -> None:
        if self._service is not None:
            self._set_state(State.CONNECTING, f"connecting to {self.url}")

    def _attempt_failed(self, failure: Failure) -> None:
        if self.state is not State.CONNECTING:
            return
        if _ends_for_good(failure):
            self.give_up(getattr(failure.value, "reason", "the client is closed"))
            return
        error = connect_error(failure, self.url)
        self._refusals += _is_refused_login(error)
        if self._refusals >= _MAX_REFUSALS:
            self.give_up(f"{error.reason}; that was the last of {_MAX_REFUSALS} attempts")
            waiting, self._waiting = self._waiting, []
            fire_all([deferred for deferred, _ in waiting], Failure(error))
            return
        self._set_state(State.WAITING, error.reason)
        left = [(deferred, None if attempts is None else attempts - 1) for deferred, attempts in self._waiting]
        self._waiting = [entry for entry in left if entry[1] != 0]
        fire_all([deferred for deferred, attempts in left if attempts == 0], Failure(error))

    def link_made(self, link: ClientLink) -> None:
        """
        Called when a connection is made. Twisted's service does not know it yet, so others are told only in the next
        turn.
        """
        self._opening = link
        self._reactor.callLater(0, self._open, link)

    def _open(self, link: ClientLink) -> None:
        """Restore the subscriptions, and send the queue. When all subscriptions are confirmed, report the new state."""
        if self._opening is not link or self.state is not State.CONNECTING:
            return
        self.link, self._opening = link, None
        if self._watcher is not None:
            self._watcher.up(link)
        restored = self._owner.restore()
        queue, self._queue = self._queue, deque()
        for message, pending in queue:
            try:
                self.send(message, pending)
            except LHTTPError as error:
                if pending is None:
                    self._owner.report(error)
                else:
                    self._owner.unsent(pending, error)
        self._when_restored(link, iter(restored))

    def _when_restored(self, link: ClientLink, restored: Iterator[Deferred[None]]) -> None:
        first = next(restored, None)
        if first is not None:
            first.addCallback(lambda _: self._when_restored(link, restored))
        elif self.link is link and self.state is State.CONNECTING:
            self._refusals = 0
            name = self.account and self.account.user
            self._set_state(State.CONNECTED, f"connected to {self.url}" + (f" as {name}" if name else ""))
            waiting, self._waiting = self._waiting, []
            fire_all([deferred for deferred, _ in waiting], None)

    def link_lost(self, link: ClientLink, failure: Failure) -> None:
        """Called when the connection has ended."""
        if link is not self.link and link is not self._opening:
            return
        self.link = self._opening = self.account = None
        self._retry_after = getattr(failure.value, "retry_after", None)
        if self._watcher is not None:
            self._watcher.down(getattr(failure.value, "code", None), wanted=self.state is State.CLOSING)
        self._owner.down()
        reason = link.abort_reason or getattr(failure.value, "reason", None) or "the connection was lost"
        closing = self.state is State.CLOSING
        if self._service is not None and _ends_for_good(failure):
            self.give_up(reason)
        elif self.state is not State.CLOSING:
            self._set_state(State.WAITING, reason)
        error = ClientClosed("the client is closed") if closing else ConnectionLost(reason)
        error.code = getattr(failure.value, "code", None)
        self._owner.lost(error, None if self.ended else self._send_first)

    def entered(self, account: Account) -> None:
        """Called when the client has logged in, on the current connection or on a new one."""
        self.account = account

    def give_up(self, reason: str) -> None:
        """Close the client, because it cannot or must not connect again."""
        service, self._service = self._service, None
        if service is None:
            return
        self._set_state(State.CLOSING, reason)
        stopped: Deferred[Any] = deferLater(self._reactor, 0, service.stopService)
        stopped.addCallback(lambda _: self._finish(reason))
        stopped.addErrback(lambda failure: _log.failure("closing the client failed", failure))

    def received(self, message: Message) -> None:
        """Called with each message."""
        self._owner.received(message)

    def malformed(self, error: LHTTPError) -> None:
        """Called when a message is malformed."""
        self._owner.report(error)


def _ends_for_good(failure: Failure) -> bool:
    """
    Return whether the client must not connect again.

    This is so if the user has connected elsewhere, because a new connection would close that one. It is also so if the
    program's ``login`` or ``headers`` has raised :exc:`~lhttp_tx.client.errors.ClientClosed`. Any other failure may be
    temporary.
    """
    return failure.check(ClientClosed) is not None or getattr(failure.value, "code", None) == LOGGED_IN_ELSEWHERE


def _is_refused_login(error: LHTTPError) -> bool:
    """Return whether the server has refused the credentials. It has not if it was too busy to check them (429)."""
    return isinstance(error, LoginFailed) and 400 <= error.status < 500 and error.status != 429
