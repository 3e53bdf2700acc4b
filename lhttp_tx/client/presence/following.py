"""
Keeps the people of a channel up to date: subscribes to the joins and leaves, and asks for the list when needed.

:mod:`lhttp_tx.client.subscribing` makes a :class:`Presence`, and passes the functions that subscribe and send.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any, final

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from lhttp_tx.client.errors import ClientClosed, ConnectionLost, ReplyError
from lhttp_tx.client.presence.people import (
    MAX_PEOPLE,
    Members,
    PresenceChange,
    PresenceView,
    key_of,
    read_answer,
    read_change,
)
from lhttp_tx.client.registry import Limited
from lhttp_tx.client.subscription import AsyncioIterator, MessageCallback, Subscription, call_safely, fire_all
from lhttp_tx.codec.channels import PRESENCE
from lhttp_tx.codec.message import Message
from lhttp_tx.errors import LHTTPError, RemoteProtocolError

__all__ = ["EndCallback", "PersonCallback", "Presence"]

_log = Logger()

_AGAIN = 3.0
"""Seconds until the client asks again, after an answer that is not complete or could not be given."""

_TOO_MANY = 429

PersonCallback = Callable[[str | None, str], object]
"""Called with the name of a user (``None``: anonymous), and the id of a connection of this person."""

EndCallback = Callable[[LHTTPError | None], object]
"""Called with the error with which a presence ends; ``None`` if it or the client was closed."""


@final
class Presence(PresenceView):
    """
    The people in a channel, kept up to date on this connection and on later ones, until :meth:`close`.

    In a coroutine of Twisted, ``await client.presence(...)`` waits until the people are known, and ``async for change
    in presence`` iterates over the changes. The first one is a ``sync``. A coroutine of asyncio uses :meth:`iterate`
    and ``synced().asFuture(loop)``.

    The client asks for the list again after each reconnection. It then calls the callbacks for those who left and those
    who came in the meantime, before ``on_sync``. It also asks again while a list is not complete, or if the server
    could not answer.

    Changes that nobody has taken wait for the iteration. If there are more than ``buffer``, the client replaces all of
    them by one ``sync``.
    """

    def __init__(
        self,
        channel: str,
        *,
        subscribe: Callable[[str, MessageCallback], Subscription],
        request: Callable[[Message], Deferred[Message]],
        limited: Limited,
        is_linked: Callable[[], bool],
        reactor: Any,
        on_join: PersonCallback | None,
        on_leave: PersonCallback | None,
        on_sync: Callable[[Presence], object] | None,
        on_change: Callable[[Presence], object] | None,
        on_end: EndCallback | None,
        buffer: int,
    ) -> None:
        """
        :param subscribe: subscribes to a channel with a callback.
        :param request: sends a message, and waits for the reply.
        :param limited: adds a time limit to a Deferred.
        :param is_linked: returns whether there is a connection.
        :param reactor: the reactor, for asking again.

        The other parameters are those of :meth:`lhttp_tx.client.client.Client.presence`.
        """
        super().__init__(Members(channel))
        self._request = request
        self._limited = limited
        self._is_linked = is_linked
        self._reactor = reactor
        self._on_person = {"join": on_join, "leave": on_leave}
        self._on_sync = on_sync
        self._on_change = on_change
        self._on_end = on_end
        self._buffer = buffer
        self._changes: deque[PresenceChange] = deque()
        self._takers: deque[Deferred[PresenceChange]] = deque()
        self._syncing: list[Deferred[Presence]] = []
        self._is_synced = False
        self._error: LHTTPError | None = None
        self._asking: Deferred[Message] | None = None
        self._since: dict[str, PresenceChange] = {}
        self._timer: IDelayedCall | None = None
        self._subscription = subscribe(PRESENCE + channel, self._told)
        self._subscription.watch(self._ask, self._ended)
        if self._subscription.was_confirmed:
            self._ask()

    def synced(self, timeout: float | None = None) -> Deferred[Presence]:
        """
        Wait until the people are known for the first time.

        :param timeout: seconds, by default the client's.
        :returns: a Deferred that

            - succeeds with this presence;
            - fails with :exc:`~lhttp_tx.client.errors.ReplyError` if the server refuses to tell: status 404 if the
              channel has no presence, 403 if the client may not subscribe to it, or no channel of the server has
              presence; with :exc:`~lhttp_tx.errors.RemoteProtocolError` if its answer is malformed; with
              :exc:`~lhttp_tx.client.errors.RequestTimeout` if the server has not answered in time (the presence stays);
              or with :exc:`~lhttp_tx.client.errors.ClientClosed`.
        """
        if self._error is not None:
            return fail(self._error)
        if self._is_synced:
            return succeed(self)
        waiting: Deferred[Presence] = Deferred(self._syncing.remove)
        self._syncing.append(waiting)
        return self._limited(waiting, timeout, f"no list of the people in channel {self.channel}")

    def next(self) -> Deferred[PresenceChange]:
        """
        Take the next change.

        :returns: a Deferred that

            - succeeds with the change. If it is cancelled, no change is lost;
            - fails with :exc:`~lhttp_tx.client.errors.ClientClosed` if the presence has ended; or with the error with
              which it ended, like that of :meth:`synced`.
        """
        if self._changes:
            return succeed(self._changes.popleft())
        if self._error is not None:
            return fail(self._error)
        taker: Deferred[PresenceChange] = Deferred(self._takers.remove)
        self._takers.append(taker)
        return taker

    def put_back(self, change: PresenceChange) -> None:
        """Take back a change that :meth:`next` has given, but that has not reached the program."""
        if self._takers:
            self._takers.popleft().callback(change)
        else:
            self._changes.appendleft(change)

    def close(self) -> Deferred[None]:
        """
        End this presence. Changes in the buffer can still be taken.

        :returns: a Deferred like that of :meth:`lhttp_tx.client.subscription.Subscription.unsubscribe`.
        """
        return self._subscription.unsubscribe()

    def iterate(self, loop: Any) -> AsyncIterator[PresenceChange]:
        """
        Return an iterator for ``async for`` in a coroutine of asyncio.

        :param loop: the event loop that the asyncio reactor runs.
        """
        return AsyncioIterator(self, loop)

    def __await__(self) -> Generator[Any, None, Presence]:
        return self.synced().__await__()

    def __aiter__(self) -> Presence:
        return self

    async def __anext__(self) -> PresenceChange:
        try:
            return await self.next()
        except ClientClosed:
            raise StopAsyncIteration from None

    def __repr__(self) -> str:
        return f"<Presence {self.channel}>"

    # Asking

    def _ask(self) -> None:
        """Ask for the list. An answer to an earlier question no longer counts."""
        self._forget_question()
        asking = self._asking = self._request(Message("presence", {"channel": self.channel}))
        asking.addCallbacks(self._answered, self._failed, errbackArgs=(asking,))
        asking.addErrback(lambda failure: _log.failure("presence of {channel}", failure, channel=self.channel))

    def _answered(self, reply: Message) -> None:
        try:
            answer = read_answer(reply, self.channel)
        except RemoteProtocolError as error:
            self._fail(error)
            return
        if answer is None:
            self._asking = None
            self._ask_later()
            return
        since, self._since, self._asking = self._since, {}, None
        changes = self.members.replace(answer, since.values())
        if not answer.complete or len(since) > MAX_PEOPLE:
            self._ask_later()
        self._is_synced = True
        for change in changes:
            self._call_person(change)
        self._call(self._on_sync)
        self._call(self._on_change)
        for change in (*changes, PresenceChange("sync")):
            self._push(change)
        fire_all(self._syncing, self)

    def _failed(self, failure: Failure, asking: Deferred[Message]) -> None:
        if self._asking is not asking:
            failure.trap(LHTTPError, CancelledError)
            return
        failure.trap(LHTTPError)
        error: Any = failure.value
        self._since, self._asking = {}, None
        if isinstance(error, ReplyError) and error.status < 500 and error.status != _TOO_MANY:
            self._fail(error)
        elif not isinstance(error, ConnectionLost):  # after that, the next confirmation asks
            self._ask_later()

    def _ask_later(self) -> None:
        self._timer = self._reactor.callLater(_AGAIN, self._ask_again)

    def _ask_again(self) -> None:
        self._timer = None
        if self._is_linked():
            self._ask()

    def _forget_question(self) -> None:
        asking, self._asking = self._asking, None
        self._since = {}
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if asking is not None:
            asking.cancel()

    # Changes

    def _told(self, message: Message) -> None:
        """Take a message about a join or leave."""
        try:
            change, count, connections = read_change(message)
        except RemoteProtocolError as error:
            _log.warn("presence of {channel}: {reason}", channel=self.channel, reason=error.reason)
            return
        if self._asking is not None and len(self._since) <= MAX_PEOPLE:
            key = key_of(change)
            self._since.pop(key, None)
            self._since[key] = change
        if not self._is_synced:
            return
        is_new = self.members.apply(change, count, connections)
        if is_new:
            self._call_person(change)
        self._call(self._on_change)
        if is_new:
            self._push(change)

    def _call_person(self, change: PresenceChange) -> None:
        callback = self._on_person[change.event]
        if callback is not None and not self.closed:
            call_safely(callback, change.user, change.connection)

    def _call(self, callback: Callable[[Presence], object] | None) -> None:
        if callback is not None and not self.closed:
            call_safely(callback, self)

    def _push(self, change: PresenceChange) -> None:
        """Give a change to the iteration. The callbacks come first, because whoever iterates may close the presence."""
        if self.closed:
            return
        if self._takers:
            self._takers.popleft().callback(change)
            return
        self._changes.append(change)
        if len(self._changes) > self._buffer:
            self._changes.clear()
            self._changes.append(PresenceChange("sync"))

    # The end

    def _fail(self, error: LHTTPError) -> None:
        self._error = error
        self.close().addErrback(lambda failure: failure.trap(LHTTPError) and None)

    def _ended(self, error: LHTTPError) -> None:
        """Called when the subscription has ended."""
        self._forget_question()
        self.members.closed = True
        error = self._error = self._error or error
        fire_all(self._syncing, Failure(error))
        fire_all(self._takers, Failure(error))
        if self._on_end is not None:
            call_safely(self._on_end, None if isinstance(error, ClientClosed) else error)
