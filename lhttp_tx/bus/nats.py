"""
The bus of a cluster: all nodes that use one NATS share all channels.

One NATS subscription a channel, however many receivers it has on this node. A publication goes to NATS and, past it,
to the receivers of its own node. While NATS is away, publications are refused rather than lost in silence. What
keeps the connection up is :mod:`lhttp_tx.bus.keeper`; here is who is subscribed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from lhttp_tx.bus.handover import Handover, Publication
from lhttp_tx.bus.keeper import LinkKeeper, LinkOpener, LinkUser
from lhttp_tx.bus.link import Link, open_link
from lhttp_tx.bus.servers import NATSServers, shown_server
from lhttp_tx.bus.subjects import channel_of, subject_of, wildcard_subject_of
from lhttp_tx.errors import BusUnavailable
from lhttp_tx.interfaces import BusReceiver, IBus, MaybeDeferred
from lhttp_tx.wildcards import Wildcards, is_wildcard

__all__ = ["NATSBus"]

_log = Logger()

_GRACE = 2.0
"""Seconds for which a channel without receivers stays subscribed, for clients that come back."""

_GRACE_COUNT = 10_000
"""Channels that may be in their grace at one time."""


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
class NATSBus(LinkUser):
    """Publications over NATS, delivered at most once. Needs Twisted's asyncio reactor."""

    def __init__(self, servers: NATSServers, *, clock: Any, opener: LinkOpener = open_link) -> None:
        """
        :param servers: where NATS is, how to log in, and the bounds.
        :param clock: the reactor, for time limits.
        :param opener: connects to one server.
        """
        self._servers = servers
        self._clock = clock
        self._keeper = LinkKeeper(servers, self, clock=clock, opener=opener)
        self._subject_of = lru_cache(maxsize=4096)(lambda channel: subject_of(channel, servers.prefix))
        self._channels: dict[str, _Channel] = {}
        self._subjects: dict[str, _Channel] = {}
        self._wildcards = Wildcards()
        self._leaving: deque[tuple[float, _Channel]] = deque()
        self._sweeping: IDelayedCall | None = None
        self._users = 0
        self._begin: tuple[Callable[[], None], ...] = ()
        self._end: tuple[Callable[[], None], ...] = ()

    @property
    def description(self) -> str:
        """See :class:`lhttp_tx.interfaces.IBus`."""
        return f"NATS at {', '.join(map(shown_server, self._servers.urls))}, subjects {self._servers.prefix}*"

    @property
    def available(self) -> bool:
        """See :class:`lhttp_tx.interfaces.IBus`."""
        return self._keeper.open and self._keeper.link is not None and self._keeper.link.usable

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
            self._keeper.start()
        return succeed(None)

    def stop(self) -> Deferred[None]:
        """See :meth:`lhttp_tx.interfaces.IBus.stop`. What was published before is with NATS when it has fired."""
        if self._users != 1:
            self._users = max(self._users - 1, 0)
            return succeed(None)
        self._users = 0
        if self._sweeping is not None and self._sweeping.active():
            self._sweeping.cancel()
        self._sweeping = None
        channels = list(self._channels.values())
        self._channels.clear()
        self._subjects.clear()
        self._wildcards = Wildcards()
        self._leaving.clear()
        for channel in channels:
            channel.receivers = ()
            channel.tell(BusUnavailable("the bus has stopped"))
        return self._keeper.stop()

    # The connection

    def restore(self, link: Link) -> Deferred[Any]:
        """See :class:`lhttp_tx.bus.keeper.LinkUser`."""
        return DeferredList([self._ask(channel, link) for channel in self._channels.values()])

    def lost(self) -> None:
        """See :class:`lhttp_tx.bus.keeper.LinkUser`."""
        for channel in self._channels.values():
            channel.confirmed = False

    def switched(self, link: Link) -> None:
        """See :class:`lhttp_tx.bus.keeper.LinkUser`."""
        handover = self._keeper.handover
        self.begin_batch()
        for subject, payload, binary in handover.release() if handover is not None else ():
            self._deliver(subject, [payload], binary)
        self.end_batch()

    def link_lost(self, link: Link, reason: str) -> None:
        """See :class:`lhttp_tx.bus.link.LinkOwner`."""
        self._keeper.lost(link, reason)

    def link_leaving(self, link: Link) -> None:
        """See :class:`lhttp_tx.bus.link.LinkOwner`."""
        self._keeper.leave(link)

    # Subscribing

    def _subject(self, name: str) -> str:
        return wildcard_subject_of(name, self._servers.prefix) if is_wildcard(name) else self._subject_of(name)

    def subscribe(self, channel: str, receiver: BusReceiver) -> MaybeDeferred:
        """See :meth:`lhttp_tx.interfaces.IBus.subscribe`. While NATS is away, it waits for a moment."""
        if not self._users:
            raise BusUnavailable("the bus has stopped")
        found = self._channels.get(channel)
        if found is None:
            found = self._channels[channel] = _Channel(channel, self._subject(channel))
            self._subjects[found.subject] = found
            if is_wildcard(channel):
                self._wildcards.add(channel)
            for link in (self._keeper.link, self._keeper.second):
                if link is not None:
                    self._ask(found, link)
        if receiver not in found.receivers:
            found.receivers += (receiver,)
        if found.confirmed or (self._keeper.link is None and self._servers.local_delivery):
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
        if link is self._keeper.link:
            channel.confirmed = True
            channel.tell(None)

    def _not_confirmed(self, failure: Failure, channel: _Channel, link: Link) -> None:
        if link is self._keeper.link and link.usable and isinstance(failure.value, BusUnavailable):
            channel.tell(failure.value)  # NATS said no; otherwise the next link asks again
            self._drop_if_left(channel, 0.0)

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
            self._wildcards.discard(channel.name)
            for link in (self._keeper.link, self._keeper.second):
                if link is not None:
                    link.unsubscribe(channel.subject)

    # Publications

    def publish(self, channel: str, payload: bytes, binary: bool) -> MaybeDeferred:
        """
        See :meth:`lhttp_tx.interfaces.IBus.publish`.

        :raises BusUnavailable: while NATS is away, or does not keep up.
        :raises MessageTooLarge: if NATS does not take messages of this size.
        """
        if not self._users:
            raise BusUnavailable("the bus has stopped")
        subject = self._subject_of(channel)
        if self._keeper.open or not self._servers.local_delivery:
            self._keeper.publish((subject, payload, binary))
        self._deliver_own(subject, payload, binary)
        if self._wildcards:
            for wildcard in self._wildcards.matching(channel):
                self._deliver_own(self._channels[wildcard].subject, payload, binary)
        return None

    def publish_run(self, channel: str, payloads: Iterator[bytes], binary: bool) -> MaybeDeferred:
        """See :meth:`lhttp_tx.interfaces.IBus.publish_run`; raises what :meth:`publish` raises."""
        for payload in payloads:  # the first one finds out what is wrong
            self.publish(channel, payload, binary)
            link = self._keeper.settled_link
            if link is not None:
                self._publish_more(link, channel, payloads, binary)
        return None

    def _publish_more(self, link: Link, channel: str, payloads: Iterator[bytes], binary: bool) -> None:
        """Publish what is left of a run whose first publication *link* has taken."""
        run: list[bytes] = []
        try:
            for payload in payloads:
                link.check_size(payload, binary)
                run.append(payload)
        finally:
            if run:
                subject = self._subject_of(channel)
                link.publish_more(subject, run, binary)
                self._deliver(subject, run, binary)
                for wildcard in self._wildcards.matching(channel) if self._wildcards else ():
                    self._deliver(self._channels[wildcard].subject, run, binary)

    def confirm(self) -> MaybeDeferred:
        """
        See :meth:`lhttp_tx.interfaces.IBus.confirm`. Where publications are delivered on their own node alone while
        NATS is away, it is enough that they were, and that NATS was asked.
        """
        confirmation = self._keeper.confirm()
        return confirmation.addErrback(_delivered_here) if self._servers.local_delivery else confirmation

    def _deliver_own(self, subject: str, payload: bytes, binary: bool) -> None:
        if self._keeper.handover is not None:
            self._keeper.handover.delivered((subject, payload, binary))
        self._deliver(subject, [payload], binary)

    def begin_batch(self) -> None:
        """See :class:`lhttp_tx.bus.link.LinkOwner`."""
        for begin in self._begin:
            begin()

    def receive(self, link: Link, subject: str, payload: bytes, binary: bool, wildcard: str | None = None) -> None:
        """See :class:`lhttp_tx.bus.link.LinkOwner`."""
        if wildcard is not None:
            channel = channel_of(subject, self._servers.prefix)
            if channel is None or channel.startswith(("$", "_")):
                return  # nobody's but the server's own, or NATS's
            subject = wildcard
        handover = self._keeper.handover
        if handover is None or self._is_first(handover, link, (subject, payload, binary)):
            self._deliver(subject, [payload], binary)

    def _is_first(self, handover: Handover, link: Link, publication: Publication) -> bool:
        """Return whether *publication*, which arrives while the node moves, is to be delivered now."""
        if link is self._keeper.second:
            handover.hold(publication)
            return False
        if link is not self._keeper.link:
            return False
        if self._keeper.second is None:
            return not handover.is_repeated(publication)
        handover.delivered(publication)
        return True

    def end_batch(self) -> None:
        """See :class:`lhttp_tx.bus.link.LinkOwner`."""
        for end in self._end:
            end()

    def _deliver(self, subject: str, payloads: list[bytes], binary: bool) -> None:
        channel = self._subjects.get(subject)
        if channel is None:
            return
        for receiver in channel.receivers:
            try:
                receiver(channel.name, payloads, binary)
            except Exception:
                _log.failure("a receiver of the bus failed")


def _delivered_here(failure: Failure) -> None:
    failure.trap(BusUnavailable)


def _too_late(result: object, timeout: float) -> None:
    raise BusUnavailable(f"the bus did not answer within {timeout:g} s, try again later")
