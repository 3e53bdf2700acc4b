"""
One subscription of a client, with a callback, or with a buffer of limited size to iterate over.

Made by :mod:`lhttp_tx.client.registry` for :meth:`lhttp_tx.client.client.Client.subscribe`. It imports nothing that
sends. It uses the client through :class:`~lhttp_tx.client.subscription.SubscriptionOwner`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterable
from typing import Any, Generic, Protocol, TypeVar, final

from twisted.internet.defer import Deferred, ensureDeferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from lhttp_tx.client.errors import ClientClosed
from lhttp_tx.codec.message import Message
from lhttp_tx.errors import LHTTPError

__all__ = [
    "AsyncioIterator",
    "ChannelCallback",
    "MessageCallback",
    "Source",
    "Subscription",
    "SubscriptionOwner",
    "call_safely",
    "fire_all",
    "taken",
]

_Item = TypeVar("_Item")

_log = Logger()

_BUFFER_SIZE = 16_777_216
"""The most bytes of messages in a buffer. A single message may be larger."""

MessageCallback = Callable[[Message], object]
"""
Called with a message. Exceptions are logged. It may return a Deferred or a coroutine, but the client does not wait for
these.
"""


ChannelCallback = Callable[[Message, str], object]
"""Like :data:`MessageCallback`, but also called with the message's channel."""


class SubscriptionOwner(Protocol):
    """The owner of a subscription. The subscription calls these methods."""

    def forget(self, subscription: Subscription) -> Deferred[None]:
        """End *subscription*; see :meth:`Subscription.unsubscribe`."""

    def limited(self, waiting: Deferred[Any], timeout: float | None, what: str) -> Deferred[Any]:
        """
        Add a time limit to *waiting*, and return it; see :meth:`lhttp_tx.client.answers.Answers.limited`.

        :param timeout: seconds; ``None``: the client's own limit.
        """

    def asked(self) -> None:
        """Called when the program asks for the next message, so that it has handled the one before."""


@final
class Subscription:
    """
    A subscription to a channel or a wildcard. It lasts over several connections, until :meth:`unsubscribe`.

    In a coroutine of Twisted, ``await client.subscribe(...)`` waits until the server has confirmed the subscription,
    and ``async for message in subscription`` iterates over the messages. A coroutine of asyncio uses :meth:`iterate`
    and ``confirmed().asFuture(loop)``.

    The buffer keeps up to ``buffer`` messages that nobody has taken, and up to 16 MiB. Beyond that, a new message
    pushes out the oldest ones, and :attr:`dropped` counts these. With a callback, there is no buffer.

    :ivar channel: the channel, or the wildcard.
    :ivar dropped: the number of messages that were pushed out of the full buffer.
    :ivar unsure: whether the last confirmation of the server said that publications of some nodes of its cluster may
        not arrive (header ``unsure``). To ask again, subscribe again.
    """

    def __init__(
        self,
        owner: SubscriptionOwner,
        channel: str,
        callback: MessageCallback | ChannelCallback | None,
        buffer: int,
        named: bool = False,
    ) -> None:
        self.channel = channel
        self.dropped = 0
        self.unsure = False
        self._owner = owner
        self._callback: Callable[..., object] | None = callback
        self._named = named
        self._messages: deque[tuple[Message, tuple[str, int] | None]] = deque()
        self._buffer = buffer
        self._size = 0
        self._takers: deque[Deferred[Message]] = deque()
        self._in_hand: tuple[Message, tuple[str, int] | None] | None = None
        self._confirming: list[Deferred[Subscription]] = []
        self._is_confirmed = False
        self._end: LHTTPError | None = None
        self._when_confirmed: Callable[[], object] | None = None
        self._when_ended: Callable[[LHTTPError], object] | None = None

    @property
    def active(self) -> bool:
        """
        Whether messages may still come. It is false after :meth:`unsubscribe`, a refusal, or the end of the client.
        """
        return self._end is None

    def confirmed(self, timeout: float | None = None) -> Deferred[Subscription]:
        """
        Wait until the server has confirmed the subscription for the first time.

        :param timeout: seconds, by default the client's.
        :returns: a Deferred that

            - succeeds with this subscription;
            - fails with :exc:`~lhttp_tx.client.errors.ReplyError` if the server has refused it; with
              :exc:`~lhttp_tx.client.errors.RequestTimeout` if the server has not answered in time (the subscription
              stays); or with :exc:`~lhttp_tx.client.errors.ClientClosed`.
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

            - succeeds with the message. If it is cancelled, no message is lost;
            - fails with :exc:`~lhttp_tx.client.errors.ClientClosed` if the subscription has ended; or with the
              :exc:`~lhttp_tx.client.errors.ReplyError` of a server that has refused it.
        :raises TypeError: if the subscription has a callback.
        """
        if self._callback is not None:
            raise TypeError(f"the subscription to {self.channel} has a callback")
        if self._in_hand is not None:
            self._in_hand = None
            self._owner.asked()
        if self._messages:
            self._in_hand = self._messages.popleft()
            message, _ = self._in_hand
            self._size -= len(message.raw)
            return succeed(message)
        if self._end is not None:
            return fail(self._end)
        taker: Deferred[Message] = Deferred(self._takers.remove)
        self._takers.append(taker)
        return taker

    def unsubscribe(self) -> Deferred[None]:
        """
        End this subscription. Messages in the buffer can still be taken.

        :returns: a Deferred that

            - succeeds when the server has confirmed this; or at once if another subscription of this client needs the
              channel, or if there is no connection;
            - fails like that of :meth:`lhttp_tx.client.client.Client.confirm`.
        """
        if self._end is not None:
            return succeed(None)
        return self._owner.forget(self)

    def iterate(self, loop: Any) -> AsyncIterator[Message]:
        """
        Return an iterator for ``async for`` in a coroutine of asyncio.

        :param loop: the event loop that the asyncio reactor runs.
        """
        return AsyncioIterator(self, loop)

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

    # Called by the client

    @property
    def was_confirmed(self) -> bool:
        """Whether the server has confirmed the subscription at least once."""
        return self._is_confirmed

    def watch(self, confirmed: Callable[[], object], ended: Callable[[LHTTPError], object]) -> None:
        """
        Have functions of the client called. They must not raise.

        :param confirmed: called whenever the server confirms the subscription, or has told that messages are missing.
        :param ended: called with the error with which the subscription ends.
        """
        self._when_confirmed, self._when_ended = confirmed, ended

    def behind(self, in_hand: bool) -> tuple[str, int] | None:
        """
        Return the position just before the oldest message with a position in the buffer; ``None`` if there is none.

        :param in_hand: whether the message that the program has taken last counts as one in the buffer. The program has
            handled it when it asks for the next one.
        """
        if in_hand and self._in_hand is not None and self._in_hand[1] is not None:
            return self._in_hand[1]
        return next((before for _, before in self._messages if before is not None), None)

    def place(self, epoch: str) -> None:
        """Called with the epoch of the messages that came before it was known, those of ``last``."""
        if any(before is not None and not before[0] for _, before in self._messages):
            self._messages = deque((message, _placed(before, epoch)) for message, before in self._messages)
        if self._in_hand is not None:
            message, before = self._in_hand
            self._in_hand = message, _placed(before, epoch)

    def put_back(self, message: Message) -> None:
        """Take back a message that :meth:`next` has given, but that has not reached the program."""
        if self._takers:
            self._takers.popleft().callback(message)
            return
        held, self._in_hand = self._in_hand, None
        self._messages.appendleft((message, held[1] if held is not None and held[0] is message else None))
        self._size += len(message.raw)

    def deliver(self, message: Message, channel: str, before: tuple[str, int] | None = None) -> None:
        """
        Take a message and its channel. This never raises.

        :param before: the position just before the message, if the channel has history; else ``None``. Its epoch is
            empty as long as it is not known; see :meth:`place`.
        """
        if self._end is not None:
            return
        if self._named and self._callback is not None:
            call_safely(self._callback, message, channel)
        elif self._callback is not None:
            call_safely(self._callback, message)
        elif self._takers:
            self._in_hand = message, before
            self._takers.popleft().callback(message)
        else:
            self._messages.append((message, before))
            self._size += len(message.raw)
            while len(self._messages) > self._buffer or (self._size > _BUFFER_SIZE and len(self._messages) > 1):
                if not self.dropped:
                    _log.warn("channel {channel}: buffer is full, oldest messages are dropped", channel=self.channel)
                self.dropped += 1
                self._size -= len(self._messages.popleft()[0].raw)

    def confirm(self, *, unsure: bool = False) -> None:
        """Called when the server has confirmed the subscription."""
        self.unsure = unsure
        self._is_confirmed = True
        fire_all(self._confirming, self)
        self.missed()

    def missed(self) -> None:
        """Called when messages may be missing."""
        if self._when_confirmed is not None and self._end is None:
            self._when_confirmed()

    def end(self, error: LHTTPError) -> None:
        """Called when no more messages will come. All Deferreds that wait fail with *error*."""
        self._end = error
        fire_all(self._confirming, Failure(error))
        fire_all(self._takers, Failure(error))
        if self._when_ended is not None:
            self._when_ended(error)


def _placed(before: tuple[str, int] | None, epoch: str) -> tuple[str, int] | None:
    return before if before is None or before[0] else (epoch, before[1])


class Source(Protocol[_Item]):
    """What a program iterates over: a subscription, or a presence."""

    def next(self) -> Deferred[_Item]:
        """Take the next item. If the Deferred is cancelled, no item is lost."""

    def put_back(self, item: _Item, /) -> None:
        """Take back an item that has not reached the program."""


async def taken(source: Source[_Item], loop: Any) -> _Item:
    """
    Take the next item in a coroutine of asyncio. If the coroutine is cancelled, no item is lost.

    The loop may cancel it when the item is there, and before it goes on, for example if a time limit ends in the same
    moment. The item then goes back. So does one that comes after the cancellation: the loop tells the Deferred of it
    only in its next turn.
    """
    came: list[_Item] = []

    def note(item: _Item) -> _Item:
        came.append(item)
        return item

    taking = source.next().addCallback(note)
    future = taking.asFuture(loop)
    try:
        return await future
    except BaseException:
        future.cancel()
        taking.cancel()
        for item in came:
            source.put_back(item)
        raise


@final
class AsyncioIterator(Generic[_Item]):
    """Iterates over a source in a coroutine of asyncio."""

    def __init__(self, source: Source[_Item], loop: Any) -> None:
        """:param loop: the event loop that the asyncio reactor runs."""
        self._source = source
        self._loop = loop

    def __aiter__(self) -> AsyncioIterator[_Item]:
        return self

    async def __anext__(self) -> _Item:
        try:
            return await taken(self._source, self._loop)
        except ClientClosed:
            raise StopAsyncIteration from None


def call_safely(callback: Callable[..., object], *args: object) -> None:
    """Call a program's *callback*. Log its exceptions, and those of its Deferred or coroutine."""
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
    """Fire each waiting Deferred with *result*, in order, and empty *waiting*."""
    fired: Iterable[Deferred[Any]] = tuple(waiting)
    waiting.clear()
    for deferred in fired:
        deferred.callback(result)
