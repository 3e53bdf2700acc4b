"""
One subscription of a client: a callback, or a bounded buffer to iterate over.

Made by :mod:`lhttp_tx.client.registry` for :meth:`lhttp_tx.client.client.Client.subscribe`. Imports nothing that
sends: what it needs of the client is :class:`~lhttp_tx.client.subscription.SubscriptionOwner`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterable
from typing import Any, Protocol, final

from twisted.internet.defer import Deferred, ensureDeferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from lhttp_tx.client.errors import ClientClosed
from lhttp_tx.errors import LHTTPError
from lhttp_tx.message import Message

__all__ = ["MessageCallback", "Subscription", "SubscriptionOwner", "call_safely", "fire_all"]

_log = Logger()

MessageCallback = Callable[[Message], object]
"""Gets a message. What it raises is logged; it may return a Deferred or a coroutine, which nobody waits for."""


class SubscriptionOwner(Protocol):
    """What a subscription asks of whoever has made it."""

    def forget(self, subscription: Subscription) -> Deferred[None]:
        """End *subscription*; see :meth:`Subscription.unsubscribe`."""

    def limited(self, waiting: Deferred[Any], timeout: float | None, what: str) -> Deferred[Any]:
        """Return *waiting* with a time limit, by default the client's, past which it fails as a request does."""


@final
class Subscription:
    """
    The messages of one channel, until :meth:`unsubscribe`, also across connections.

    In a coroutine of Twisted, ``await client.subscribe(...)`` waits until the server has confirmed it, and
    ``async for message in subscription`` gives the messages. A coroutine of asyncio uses :meth:`iterate` and
    ``confirmed().asFuture(loop)``.

    While nobody takes messages out, up to ``buffer`` of them are kept. Then each new one pushes out the oldest, which
    is counted in :attr:`dropped`. With a callback there is no buffer.

    :ivar channel: the channel.
    :ivar dropped: how many messages were pushed out of the full buffer.
    """

    def __init__(self, owner: SubscriptionOwner, channel: str, callback: MessageCallback | None, buffer: int) -> None:
        self.channel = channel
        self.dropped = 0
        self._owner = owner
        self._callback = callback
        self._messages: deque[Message] = deque(maxlen=buffer)
        self._takers: deque[Deferred[Message]] = deque()
        self._confirming: list[Deferred[Subscription]] = []
        self._is_confirmed = False
        self._end: LHTTPError | None = None

    @property
    def active(self) -> bool:
        """Whether messages may still come: not after :meth:`unsubscribe`, a refusal, or the end of the client."""
        return self._end is None

    def confirmed(self, timeout: float | None = None) -> Deferred[Subscription]:
        """
        Wait until the server has confirmed the subscription for the first time.

        :param timeout: seconds, by default the client's.
        :returns: a Deferred that

            - succeeds with this subscription;
            - fails with :exc:`~lhttp_tx.client.errors.ReplyError` if the server has refused it, with
              :exc:`~lhttp_tx.client.errors.RequestTimeout` if it has not said anything in time (the subscription is
              still wanted then), or with :exc:`~lhttp_tx.client.errors.ClientClosed`.
        """
        if self._end is not None:
            return fail(self._end)
        if self._is_confirmed:
            return succeed(self)
        waiting: Deferred[Subscription] = Deferred(self._confirming.remove)
        self._confirming.append(waiting)
        return self._owner.limited(waiting, timeout, f"no confirmation for channel {self.channel}")

    def next(self) -> Deferred[Message]:
        """
        Take the next message.

        :returns: a Deferred that

            - succeeds with the message; it may be cancelled;
            - fails with :exc:`~lhttp_tx.client.errors.ClientClosed` when no more will come, or with the
              :exc:`~lhttp_tx.client.errors.ReplyError` of a server that refused the subscription.
        :raises TypeError: if the subscription has a callback.
        """
        if self._callback is not None:
            raise TypeError(f"the subscription to {self.channel} has a callback")
        if self._messages:
            return succeed(self._messages.popleft())
        if self._end is not None:
            return fail(self._end)
        taker: Deferred[Message] = Deferred(self._takers.remove)
        self._takers.append(taker)
        return taker

    def unsubscribe(self) -> Deferred[None]:
        """
        End this subscription; what is in the buffer can still be taken.

        :returns: a Deferred that

            - succeeds when the server has confirmed it, at once if another subscription of this client needs the
              channel or there is no connection;
            - fails as :meth:`lhttp_tx.client.client.Client.confirm` does.
        """
        if self._end is not None:
            return succeed(None)
        return self._owner.forget(self)

    def iterate(self, loop: Any) -> AsyncIterator[Message]:
        """
        Return an iterator for ``async for`` in a coroutine of asyncio.

        :param loop: the event loop that the asyncio reactor runs.
        """
        return _AsyncioIterator(self, loop)

    def __await__(self) -> Generator[Any, None, Subscription]:
        return self.confirmed().__await__()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Message:
        try:
            return await self.next()
        except ClientClosed:
            raise StopAsyncIteration from None

    def __repr__(self) -> str:
        return f"<Subscription {self.channel}>"

    # For the client

    def deliver(self, message: Message) -> None:
        """Called with each message of the channel; never raises."""
        if self._end is not None:
            return
        if self._callback is not None:
            call_safely(self._callback, message)
        elif self._takers:
            self._takers.popleft().callback(message)
        else:
            if len(self._messages) == self._messages.maxlen:
                if not self.dropped:
                    _log.warn("channel {channel}: buffer is full, oldest messages are dropped", channel=self.channel)
                self.dropped += 1
            self._messages.append(message)

    def confirm(self) -> None:
        """Called when the server has confirmed it."""
        self._is_confirmed = True
        fire_all(self._confirming, self)

    def end(self, error: LHTTPError) -> None:
        """Called when no more messages will come, with what whoever waits is told."""
        self._end = error
        fire_all(self._confirming, Failure(error))
        fire_all(self._takers, Failure(error))


@final
class _AsyncioIterator:
    """Iterates over a subscription in a coroutine of asyncio."""

    def __init__(self, subscription: Subscription, loop: Any) -> None:
        self._subscription = subscription
        self._loop = loop

    def __aiter__(self) -> _AsyncioIterator:
        return self

    async def __anext__(self) -> Message:
        try:
            message: Message = await self._subscription.next().asFuture(self._loop)
        except ClientClosed:
            raise StopAsyncIteration from None
        return message


def call_safely(callback: Callable[..., object], *args: object) -> None:
    """Call a user's *callback*; what it raises, or what its Deferred or coroutine fails with, is logged."""
    try:
        result = callback(*args)
    except Exception:
        _log.failure("callback {callback} failed", callback=callback)
        return
    if hasattr(result, "send"):
        result = ensureDeferred(result)  # type: ignore[arg-type]
    if isinstance(result, Deferred):
        result.addErrback(lambda failure: _log.failure("callback {callback} failed", failure, callback=callback))


def fire_all(waiting: deque[Any] | list[Any], result: object) -> None:
    """Give *result* to each Deferred that waits, in order, and leave none."""
    fired: Iterable[Deferred[Any]] = tuple(waiting)
    waiting.clear()
    for deferred in fired:
        deferred.callback(result)
