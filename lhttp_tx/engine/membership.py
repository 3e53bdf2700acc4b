"""
A session's subscriptions and publications.

Stands between :mod:`lhttp_tx.engine.session`, which users see, and :mod:`lhttp_tx.engine.answering`. The server's
filters use the methods here, which make a Deferred only if something has to wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from itertools import repeat
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, fail, gatherResults, inlineCallbacks, succeed
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from lhttp_tx.codec.channels import own_channels
from lhttp_tx.codec.message import Message
from lhttp_tx.codec.wildcards import Wildcards, is_wildcard
from lhttp_tx.engine.awaiting import awaitable
from lhttp_tx.engine.session import Session
from lhttp_tx.engine.state import State
from lhttp_tx.errors import BusUnavailable, SessionClosed, TooMany
from lhttp_tx.guard.rates import TokenBucket
from lhttp_tx.identity import Identity
from lhttp_tx.interfaces import ITransport, MaybeDeferred

if TYPE_CHECKING:
    from lhttp_tx.engine.delivery import Deliver
    from lhttp_tx.engine.engine import Engine
    from lhttp_tx.history.values import Filing

__all__ = ["Member"]

_CLOSING = State.CLOSING

_SPREAD_SIZE = 65_536
"""
The most bytes that a client's messages may publish in one turn of the reactor by listing several channels. This is
about as much as one read brings in for one channel. With more, clients that are subscribed to many of these channels
could not read in time.
"""

_WILDCARDS_SIZE = 4_096
"""The most bytes in which one connection remembers which of its wildcard subscriptions match a channel."""


class Member(Session):
    """The layer of a session that subscribes to channels and publishes to them."""

    __slots__ = ("_fresh", "_silent", "_spread", "_wildcards")

    def __init__(self, *, engine: Engine, transport: ITransport, identity: Identity | None = None) -> None:
        """See :class:`lhttp_tx.engine.session.Session`."""
        super().__init__(engine=engine, transport=transport, identity=identity)
        self._wildcards: Wildcards | None = None
        self._silent: tuple[str, ...] = ()
        self._spread = 0
        self._fresh: TokenBucket | None = None  # for subscriptions that need the bus

    def subscribe(self, channels: str | Iterable[str]) -> Deferred[None]:
        """See :meth:`lhttp_tx.engine.session.Session.subscribe`."""
        names = own_channels(channels)
        try:
            waiting = self.subscribe_all(names)
            result = succeed(None) if waiting is None else awaitable(waiting)
        except (BusUnavailable, SessionClosed, TooMany):
            result = fail()
        self.tell_granted(names)
        return result

    def unsubscribe(self, channels: str | Iterable[str]) -> None:
        """See :meth:`lhttp_tx.engine.session.Session.unsubscribe`."""
        names = (channels,) if isinstance(channels, str) else tuple(channels)
        own_channels(name for name in names if name not in self._channels)
        self.unsubscribe_all(names)

    def unsubscribe_all(self, channels: Iterable[str]) -> None:
        """Unsubscribe from names that were checked before; otherwise like :meth:`unsubscribe`."""
        for channel in channels:
            self._leave(channel)

    def _leave(self, channel: str) -> None:
        if channel in self._channels:
            self._channels.discard(channel)
            if self._wildcards is not None:
                self._wildcards.discard(channel)
            self._engine.hub.unsubscribe(self, channel)
            for watcher in self._engine.watchers:
                watcher.unsubscribed(self, channel)

    def subscribe_all(self, channels: Iterable[str]) -> MaybeDeferred:
        """
        Subscribe to valid channel names, like :meth:`subscribe`, but raise errors, and return ``None`` if it is done at
        once.
        """
        if self.stage >= _CLOSING:
            raise SessionClosed("the connection has ended")
        wanted = tuple(channels)
        limit = self._engine.limits.subscription_count
        if len(self._channels.union(wanted)) > limit:
            raise TooMany(f"a connection may have {limit} subscriptions")
        if self._fresh is not None:
            self._check_fresh(self._fresh, wanted)
        waiting: list[Deferred[None]] = []
        watchers, wrap, hub = self._engine.watchers, self._engine.delivery, self._engine.hub
        own: Deliver = self._transport.deliver
        for channel in wanted:
            known = channel in self._channels
            result = hub.subscribe(self, channel, own if wrap is None else wrap(self, channel, own))
            self._channels.add(channel)
            if is_wildcard(channel):
                self._wildcards = self._wildcards or Wildcards(_WILDCARDS_SIZE)
                self._wildcards.add(channel)
            if watchers and not known:
                self._tell_subscribed(channel)
            if result is not None:
                waiting.append(result.addErrback(self._not_subscribed, channel))
            if self.stage >= _CLOSING:
                break
        if not waiting:
            return None
        self._count_fresh(len(waiting))
        gathered = gatherResults(waiting, consumeErrors=True)
        return gathered.addCallbacks(lambda _: None, lambda failure: failure.value.subFailure)

    def unsure_of(self, channels: Iterable[str]) -> list[str]:
        """See :meth:`lhttp_tx.engine.hub.Hub.unsure_of`."""
        return self._engine.hub.unsure_of(channels)

    def redirect(self, channel: str, deliver: Deliver, instead_of: Deliver | None = None) -> Deliver | None:
        """Let *deliver* take the deliveries of *channel*; see :meth:`lhttp_tx.engine.hub.Hub.redirect`."""
        return self._engine.hub.redirect(self, channel, deliver, instead_of)

    def taker(self, channel: str) -> Deliver | None:
        """Return the function that takes the deliveries of *channel*; ``None`` without a subscription."""
        return self._engine.hub.taker(self, channel)

    def ask_gaps(self, channels: Iterable[str]) -> None:
        """Tell this client about gaps in those of *channels* that it is subscribed to."""
        for channel in self._channels.intersection(channels):
            self._engine.hub.ask_gaps(self, channel)

    def _check_fresh(self, bucket: TokenBucket, wanted: tuple[str, ...]) -> None:
        """
        Raise :exc:`TooMany` if *wanted* needs the bus, and recent subscriptions of this connection needed it too often.
        """
        wait = bucket.wait(self._engine.clock.seconds())
        if wait > 0 and not all(map(self._engine.hub.has_subscribers, wanted)):
            raise TooMany(f"too many subscriptions to channels that are new to the node, try again in {wait:.1f} s")

    def _count_fresh(self, count: int) -> None:
        """Count subscriptions that needed the bus."""
        limits = self._engine.limits
        if limits.subscription_rate:
            now = self._engine.clock.seconds()
            if self._fresh is None:
                self._fresh = TokenBucket(limits.subscription_rate, max(limits.subscription_count, 1), now)
            self._fresh.spend(count, now)

    def _tell_subscribed(self, channel: str) -> None:
        for watcher in self._engine.watchers:
            watcher.subscribed(self, channel)

    def tell_granted(self, channels: Iterable[str]) -> None:
        """
        Tell watchers that the server's or a user's code has made these subscriptions: the client needs no permission.
        """
        for watcher in self._engine.watchers:
            for channel in self._channels.intersection(channels):
                watcher.granted(self, channel)

    def publish_all(self, channels: tuple[str, ...], message: Message, filing: Filing | None = None) -> MaybeDeferred:
        """
        Publish *message* to valid channel names. Return ``None`` if the bus has taken it at once.

        :param filing: see :meth:`lhttp_tx.engine.hub.Hub.publish`.
        """
        if len(channels) > 1:
            return self._publish_to_list(channels, message.raw, message.binary, filing)
        return self._engine.hub.publish(channels, message.raw, message.binary, filing)

    def publish_run(self, channels: tuple[str, ...], messages: Iterator[bytes], binary: bool) -> MaybeDeferred:
        """
        Publish messages unchanged. They contain no headers that are only for the server. See
        :meth:`lhttp_tx.engine.hub.Hub.publish_run`.
        """
        if len(channels) == 1:
            return self._engine.hub.publish_run(channels, messages, binary)
        for payload in messages:
            result = self._publish_to_list(channels, payload, binary)
            if result is not None:
                return result
        return None

    def _publish_to_list(
        self, channels: tuple[str, ...], payload: bytes, binary: bool, filing: Filing | None = None
    ) -> MaybeDeferred:
        """Publish to several channels. Beyond :data:`_SPREAD_SIZE`, continue in the next turn of the reactor."""
        self._spread += len(payload) * len(channels)
        if self._spread <= _SPREAD_SIZE:
            return self._engine.hub.publish(channels, payload, binary, filing)
        self._spread = 0
        return self._publish_in_turns(channels, payload, binary, self._silent, filing)

    @inlineCallbacks
    def _publish_in_turns(
        self, channels: tuple[str, ...], payload: bytes, binary: bool, silent: tuple[str, ...], filing: Filing | None
    ) -> Generator[Deferred[None], Any, None]:
        hub = self._engine.hub
        count = max(1, _SPREAD_SIZE // len(payload))
        for first in range(0, len(channels), count):
            some = channels[first : first + count]
            if silent:
                with hub.silenced(self, silent):
                    result = hub.publish(some, payload, binary, filing)
            else:
                result = hub.publish(some, payload, binary, filing)
            if result is not None:
                yield result
            yield deferLater(self._engine.clock, 0)

    @contextmanager
    def silenced(self, channels: tuple[str, ...]) -> Iterator[None]:
        """
        Within the context, send this connection nothing that it publishes to *channels*.

        This includes its wildcard subscriptions that match one of them. See :meth:`lhttp_tx.engine.hub.Hub.silenced`.
        """
        if self._wildcards is not None:
            channels = (*channels, *{name for channel in channels for name in self._wildcards.matching(channel)})
        self._silent = channels
        try:
            with self._engine.hub.silenced(self, channels):
                yield
        finally:
            self._silent = ()

    def _depart(self) -> None:
        """Leave all channels. Called once, when the connection begins to close or has ended."""
        channels, self._channels = self._channels, set()
        self._wildcards = None
        _call_for(self._engine.hub.unsubscribe, self, channels)
        for watcher in self._engine.watchers:
            _call_for(watcher.unsubscribed, self, channels)
            watcher.session_closed(self)

    def _not_subscribed(self, failure: Failure, channel: str) -> Failure:
        self._leave(channel)
        return failure


def _call_for(call: Callable[[Any, str], object], session: Session, channels: Iterable[str]) -> None:
    """
    Call a function with *session* and each of *channels*. There may be many calls, so no Python code runs between them.
    """
    deque(map(call, repeat(session), channels), maxlen=0)
