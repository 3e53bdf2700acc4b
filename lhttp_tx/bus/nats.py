"""
The bus of a cluster: all nodes that use one NATS share all channels.

One NATS subscription a channel, however many receivers it has on this node. A publication goes to NATS and, past it,
to the receivers of its own node. While NATS is away, publications are refused rather than lost in silence. What
happens on the connection is :mod:`lhttp_tx.bus.link`'s; here is who is subscribed, and when publishing is open.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from lhttp_tx.bus.link import Link, LinkOwner, open_link
from lhttp_tx.bus.servers import NATSServers, shown_server
from lhttp_tx.bus.subjects import subject_of
from lhttp_tx.errors import BusUnavailable
from lhttp_tx.interfaces import BusReceiver, IBus, MaybeDeferred

__all__ = ["NATSBus"]

_log = Logger()

_WAITS = (0.1,) * 50 + (0.2,) * 50 + (0.5,) * 50
"""Seconds between attempts to connect, at first, so that all nodes are back within moments of NATS's return."""

_LAST_WAIT = 1.0
"""Seconds between attempts after these."""

_SETTLE_WAITS = 3
"""A node that was away opens for publishing this many waits after it is back: by then the others have subscribed."""

_CHECK_INTERVAL = 2.0
"""Seconds between asking NATS for a sign of life."""

_GRACE = 2.0
"""Seconds for which a channel without receivers stays subscribed, for clients that come back."""

_GRACE_COUNT = 10_000
"""Channels that may be in their grace at one time."""

_COMPLAINT_INTERVAL = 60.0
"""Seconds between lines in the log that say that NATS is still away."""

_AWAY = "the bus is away, try again later"


class _Channel:
    """
    What this node knows of one channel.

    :ivar receivers: those who get its publications.
    :ivar confirmed: whether NATS has the subscription, as far as is known.
    :ivar waiters: those to be told when NATS has it.
    :ivar left: when the last receiver left.
    """

    __slots__ = ("confirmed", "left", "name", "receivers", "subject", "waiters")

    def __init__(self, name: str, subject: str) -> None:
        self.name = name
        self.subject = subject
        self.receivers: tuple[BusReceiver, ...] = ()
        self.confirmed = False
        self.waiters: list[Deferred[None]] = []
        self.left = 0.0

    def tell(self, outcome: BusUnavailable | None) -> None:
        """Tell those who wait whether NATS has the subscription."""
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            if waiter.called:
                continue
            if outcome is None:
                waiter.callback(None)
            else:
                waiter.errback(outcome)


@implementer(IBus)
class NATSBus(LinkOwner):
    """Publications over NATS, delivered at most once. Needs Twisted's asyncio reactor."""

    def __init__(
        self,
        servers: NATSServers,
        *,
        clock: Any,
        opener: Callable[[str, NATSServers, LinkOwner], Deferred[Link]] = open_link,
    ) -> None:
        """
        :param servers: where NATS is, how to log in, and the bounds.
        :param clock: the reactor, for time limits.
        :param opener: connects to one server.
        """
        self._servers = servers
        self._clock = clock
        self._open_link = opener
        self._subject_of = lru_cache(maxsize=4096)(lambda channel: subject_of(channel, servers.prefix))
        self._urls = random.sample(servers.urls, len(servers.urls))
        self._channels: dict[str, _Channel] = {}
        self._subjects: dict[str, _Channel] = {}
        self._leaving: deque[tuple[float, _Channel]] = deque()
        self._sweeping: IDelayedCall | None = None
        self._users = 0
        self._link: Link | None = None
        self._opening: Deferred[Any] | None = None
        self._next: IDelayedCall | None = None
        self._waits: Iterator[float] = iter(_WAITS)
        self._settle = 0.0
        self._complained = 0.0
        self._open = False
        self._begin: tuple[Callable[[], None], ...] = ()
        self._end: tuple[Callable[[], None], ...] = ()

    @property
    def description(self) -> str:
        """See :class:`lhttp_tx.interfaces.IBus`."""
        return f"NATS at {', '.join(map(shown_server, self._servers.urls))}, subjects {self._servers.prefix}*"

    @property
    def available(self) -> bool:
        """See :class:`lhttp_tx.interfaces.IBus`."""
        return self._open and self._link is not None and self._link.usable

    @property
    def channels(self) -> frozenset[str]:
        """The channels that NATS is asked for: those with a receiver, and those that had one a moment ago."""
        return frozenset(self._channels)

    def bracket(self, begin: Callable[[], None], end: Callable[[], None]) -> None:
        """See :meth:`lhttp_tx.interfaces.IBus.bracket`."""
        self._begin += (begin,)
        self._end += (end,)

    # Start and stop

    def start(self) -> Deferred[None]:
        """See :meth:`lhttp_tx.interfaces.IBus.start`. It does not wait for NATS."""
        self._users += 1
        if self._users == 1:
            self._complained = self._clock.seconds() - _COMPLAINT_INTERVAL
            self._next = self._clock.callLater(0.0, self._connect)  # once the reactor runs
        return succeed(None)

    def stop(self) -> Deferred[None]:
        """See :meth:`lhttp_tx.interfaces.IBus.stop`. What was published before is with NATS when it has fired."""
        if self._users != 1:
            self._users = max(self._users - 1, 0)
            return succeed(None)
        self._users = 0
        link, self._link, self._open = self._link, None, False
        for timer in (self._next, self._sweeping):
            if timer is not None and timer.active():
                timer.cancel()
        self._sweeping = None
        channels = list(self._channels.values())
        self._channels.clear()
        self._subjects.clear()
        self._leaving.clear()
        for channel in channels:
            channel.receivers = ()
            channel.tell(BusUnavailable("the bus has stopped"))
        if self._opening is not None:
            self._opening.cancel()
        return succeed(None) if link is None else link.close(flush=True)

    # The connection: connect, restore the subscriptions, settle, be open; and again

    def _connect(self) -> None:
        self._opening = self._open_link(self._urls[0], self._servers, self)
        self._opening.addCallbacks(self._connected, self._not_connected)
        self._opening.addErrback(lambda failure: _log.failure("connecting to NATS failed", failure))

    def _not_connected(self, failure: Failure) -> None:
        self._opening = None
        if not self._users:
            return
        now = self._clock.seconds()
        if now - self._complained >= _COMPLAINT_INTERVAL:
            self._complained = now
            why = failure.value.reason if isinstance(failure.value, BusUnavailable) else repr(failure.value)
            _log.error("cannot reach NATS, will try until it is there: {why}", why=why)
        self._urls.append(self._urls.pop(0))
        wait = next(self._waits, _LAST_WAIT)
        self._settle = _SETTLE_WAITS * wait
        self._next = self._clock.callLater(wait, self._connect)

    def _connected(self, link: Link) -> None:
        self._opening = None
        self._link = link
        self._urls += [url for url in link.other_urls if url not in self._urls]
        restored = DeferredList([self._ask(channel, link) for channel in self._channels.values()])
        restored.addCallback(lambda _: self._restored(link))

    def _restored(self, link: Link) -> None:
        if link is self._link:
            self._next = self._clock.callLater(self._settle, self._open_up, link)

    def _open_up(self, link: Link) -> None:
        self._open = True
        self._waits, self._settle = iter(_WAITS), _SETTLE_WAITS * _WAITS[0]
        self._complained = self._clock.seconds() - _COMPLAINT_INTERVAL
        _log.info("connected to NATS at {url}", url=shown_server(link.url))
        self._next = self._clock.callLater(_CHECK_INTERVAL, self._check, link)

    def _check(self, link: Link) -> None:
        def alive(_: object) -> None:
            if link is self._link:
                self._next = self._clock.callLater(_CHECK_INTERVAL, self._check, link)

        link.checked().addCallback(alive)

    def link_lost(self, link: Link, reason: str) -> None:
        """See :class:`lhttp_tx.bus.link.LinkOwner`."""
        if link is not self._link:
            return
        if self._open:
            told = "delivered on this node alone" if self._servers.local_delivery else "refused"
            _log.error("lost NATS, publications are {told} until it is back: {reason}", told=told, reason=reason)
        self._link, self._open = None, False
        for channel in self._channels.values():
            channel.confirmed = False
        if self._next is not None and self._next.active():
            self._next.cancel()
        self._urls.append(self._urls.pop(0))
        self._connect()

    def link_leaving(self, link: Link) -> None:
        """See :class:`lhttp_tx.bus.link.LinkOwner`."""

    # Subscribing

    def subscribe(self, channel: str, receiver: BusReceiver) -> MaybeDeferred:
        """See :meth:`lhttp_tx.interfaces.IBus.subscribe`. While NATS is away, it waits for a moment."""
        if not self._users:
            raise BusUnavailable("the bus has stopped")
        found = self._channels.get(channel)
        if found is None:
            found = self._channels[channel] = _Channel(channel, self._subject_of(channel))
            self._subjects[found.subject] = found
            if self._link is not None:
                self._ask(found, self._link)
        if receiver not in found.receivers:
            found.receivers += (receiver,)
        if found.confirmed or (self._link is None and self._servers.local_delivery):
            return None
        waiter: Deferred[None] = Deferred()
        found.waiters.append(waiter)
        waiter.addTimeout(self._servers.timeout, self._clock, onTimeoutCancel=_too_late)
        return waiter.addErrback(self._give_up, channel, receiver)

    def _ask(self, channel: _Channel, link: Link) -> Deferred[None]:
        """Subscribe to *channel* at NATS; the Deferred succeeds in any case."""
        return link.subscribe(channel.subject).addCallbacks(
            self._confirmed, self._not_confirmed, callbackArgs=(channel, link), errbackArgs=(channel, link)
        )

    def _confirmed(self, _: None, channel: _Channel, link: Link) -> None:
        if link is self._link:
            channel.confirmed = True
            channel.tell(None)

    def _not_confirmed(self, failure: Failure, channel: _Channel, link: Link) -> None:
        if link is self._link and link.usable and isinstance(failure.value, BusUnavailable):
            channel.tell(failure.value)  # NATS said no; otherwise the next link asks again

    def _give_up(self, failure: Failure, channel: str, receiver: BusReceiver) -> Failure:
        self.unsubscribe(channel, receiver)
        return failure

    def unsubscribe(self, channel: str, receiver: BusReceiver) -> None:
        """See :meth:`lhttp_tx.interfaces.IBus.unsubscribe`."""
        found = self._channels.get(channel)
        if found is None or receiver not in found.receivers:
            return
        found.receivers = tuple(known for known in found.receivers if known != receiver)
        if found.receivers:
            return
        found.left = self._clock.seconds()
        self._leaving.append((found.left + _GRACE, found))
        if len(self._leaving) > _GRACE_COUNT:
            self._drop_if_left(self._leaving.popleft()[1], 0.0)
        if self._sweeping is None:
            self._sweeping = self._clock.callLater(_GRACE, self._sweep)

    def _sweep(self) -> None:
        """Let go of channels whose grace is over."""
        self._sweeping = None
        now = self._clock.seconds()
        while self._leaving and self._leaving[0][0] <= now:
            self._drop_if_left(self._leaving.popleft()[1], _GRACE)
        if self._leaving:
            self._sweeping = self._clock.callLater(self._leaving[0][0] - now, self._sweep)

    def _drop_if_left(self, channel: _Channel, grace: float) -> None:
        if channel.receivers or self._clock.seconds() - channel.left < grace:
            return
        if self._channels.get(channel.name) is channel:
            del self._channels[channel.name], self._subjects[channel.subject]
            if self._link is not None:
                self._link.unsubscribe(channel.subject)

    # Publications

    def publish(self, channel: str, payload: bytes, binary: bool) -> MaybeDeferred:
        """
        See :meth:`lhttp_tx.interfaces.IBus.publish`.

        :raises BusUnavailable: while NATS is away, or does not keep up.
        :raises MessageTooLarge: if NATS does not take messages of this size.
        """
        if self._open and self._link is not None:
            self._link.publish(self._subject_of(channel), payload, binary)
        elif not self._users:
            raise BusUnavailable("the bus has stopped")
        elif not self._servers.local_delivery:
            raise BusUnavailable(_AWAY)
        found = self._channels.get(channel)
        if found is not None:
            self._deliver(found, payload, binary)
        return None

    def begin_batch(self) -> None:
        """See :class:`lhttp_tx.bus.link.LinkOwner`."""
        for begin in self._begin:
            begin()

    def receive(self, link: Link, subject: str, payload: bytes, binary: bool) -> None:
        """See :class:`lhttp_tx.bus.link.LinkOwner`."""
        found = self._subjects.get(subject)
        if found is not None and link is self._link:
            self._deliver(found, payload, binary)

    def end_batch(self) -> None:
        """See :class:`lhttp_tx.bus.link.LinkOwner`."""
        for end in self._end:
            end()

    def _deliver(self, channel: _Channel, payload: bytes, binary: bool) -> None:
        for receiver in channel.receivers:
            try:
                receiver(channel.name, payload, binary)
            except Exception:
                _log.failure("a receiver of the bus failed")


def _too_late(result: object, timeout: float) -> None:
    raise BusUnavailable(f"the bus did not answer within {timeout:g} s, try again later")
