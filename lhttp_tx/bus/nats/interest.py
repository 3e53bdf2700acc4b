"""
The channels that a node subscribes to at NATS, and their receivers on the node.

A part of :class:`lhttp_tx.bus.nats.bus.NATSBus`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from lhttp_tx.bus.nats.confirmations import tell
from lhttp_tx.bus.nats.link import Link
from lhttp_tx.bus.nats.servers import NATSServers
from lhttp_tx.bus.nats.subjects import subject_of, wildcard_subject_of
from lhttp_tx.codec.wildcards import Wildcards, is_wildcard
from lhttp_tx.errors import BusUnavailable
from lhttp_tx.interfaces import BusReceiver, MaybeDeferred

__all__ = ["Interest", "Links"]

_log = Logger()

_GRACE = 2.0
"""Seconds for which the node stays subscribed to a channel without receivers, because clients may come back."""

_GRACE_COUNT = 10_000
"""The most channels without receivers that the node stays subscribed to."""


_AGAIN = 2.0
"""Seconds until the node again asks nodes that have not answered."""


class Links(Protocol):
    """The links of a node; see :class:`lhttp_tx.bus.nats.keeper.LinkKeeper`."""

    link: Link | None
    second: Link | None


class _Channel:
    """
    One channel of this node.

    :ivar receivers: functions that take its publications.
    :ivar confirmed: whether NATS has confirmed the subscription, and the other nodes have been asked.
    :ivar waiters: Deferreds that fire when *confirmed* becomes true, or NATS refuses.
    :ivar left: the time of the clock at which the last receiver was removed.
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
        """Fire the waiting Deferreds: *outcome* is the error, or ``None`` if NATS has the subscription."""
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            tell(waiter, outcome)


class Interest:
    """
    The channels and receivers of this node.

    Each channel has one subscription at NATS, however many receivers it has here.

    :ivar reach: called with a link. Returns a Deferred that succeeds with whether the NATS servers of all nodes know
        the subscriptions of this node; ``None`` if there is only one server.
    :ivar unsure: channels and wildcards for which *reach* has answered ``False``.
    :ivar on_left: called with the name of a channel or wildcard when its subscription at NATS ends. It must not raise.
    """

    def __init__(self, servers: NATSServers, links: Links, *, clock: Any) -> None:
        """
        :param servers: the settings.
        :param links: the links to subscribe on.
        :param clock: the reactor, for time limits.
        """
        self._servers = servers
        self._links = links
        self._clock = clock
        self._channels: dict[str, _Channel] = {}
        self._subjects: dict[str, _Channel] = {}
        self._wildcards = Wildcards()
        self._leaving: deque[tuple[float, _Channel]] = deque()
        self._sweeping: IDelayedCall | None = None
        self._asking_again: IDelayedCall | None = None
        self.unsure: set[str] = set()
        self.reach: Callable[[Link], Deferred[bool] | None] = _nobody_is_far
        self.on_left: Callable[[str], None] = _nobody_cares

    @property
    def channels(self) -> frozenset[str]:
        """The channels subscribed at NATS: those with a receiver, and those that had one a moment ago."""
        return frozenset(self._channels)

    def wildcards_of(self, channel: str) -> Sequence[str]:
        """Return the subjects of the subscribed wildcards that match *channel*."""
        if not self._wildcards:
            return ()
        return [self._channels[wildcard].subject for wildcard in self._wildcards.matching(channel)]

    def ask_all(self, link: Link) -> Deferred[Any]:
        """Subscribe to all channels on *link*. The Deferred succeeds when each was confirmed or refused."""
        return DeferredList([self._ask(channel, link) for channel in self._channels.values()])

    def lost(self) -> None:
        """Note that NATS has none of the subscriptions any more."""
        self.unsure.clear()
        for channel in self._channels.values():
            channel.confirmed = False

    def clear(self) -> None:
        """Forget all channels, and fail the waiting Deferreds, because the bus has stopped."""
        if self._sweeping is not None and self._sweeping.active():
            self._sweeping.cancel()
        self._sweeping = None
        if self._asking_again is not None and self._asking_again.active():
            self._asking_again.cancel()
        self._asking_again = None
        self.unsure.clear()
        channels = list(self._channels.values())
        self._channels.clear()
        self._subjects.clear()
        self._wildcards = Wildcards()
        self._leaving.clear()
        for channel in channels:
            channel.receivers = ()
            channel.tell(BusUnavailable("the bus has stopped"))
            self.on_left(channel.name)

    def _subject_of(self, name: str) -> str:
        subject = wildcard_subject_of if is_wildcard(name) else subject_of
        return subject(name, self._servers.prefix)

    def add(self, channel: str, receiver: BusReceiver) -> MaybeDeferred:
        """
        Pass publications of *channel* to *receiver* from now on.

        :returns: ``None`` if NATS has confirmed the subscription. Otherwise a Deferred like that of
            :meth:`lhttp_tx.interfaces.IBus.subscribe`.
        """
        found = self._channels.get(channel)
        if found is None:
            found = self._channels[channel] = _Channel(channel, self._subject_of(channel))
            self._subjects[found.subject] = found
            if is_wildcard(channel):
                self._wildcards.add(channel)
            for link in (self._links.link, self._links.second):
                if link is not None:
                    self._ask(found, link)
        if receiver not in found.receivers:
            found.receivers += (receiver,)
        if found.confirmed or (self._links.link is None and self._servers.local_delivery):
            return None
        waiter: Deferred[None] = Deferred()
        found.waiters.append(waiter)
        waiter.addTimeout(self._servers.timeout, self._clock, onTimeoutCancel=_too_late)
        return waiter.addErrback(self._give_up, channel, receiver)

    def _ask(self, channel: _Channel, link: Link) -> Deferred[None]:
        """Subscribe to *channel* at NATS. The Deferred succeeds when NATS has confirmed or refused."""
        return link.subscribe(channel.subject).addCallbacks(
            self._confirmed, self._not_confirmed, callbackArgs=(channel, link), errbackArgs=(channel, link)
        )

    def _confirmed(self, _: None, channel: _Channel, link: Link) -> None:
        if link is not self._links.link:
            return
        reached = self.reach(link)
        if reached is None:
            self._reached(True, channel, link)
        else:
            reached.addCallback(self._reached, channel, link)

    def _reached(self, sure: bool, channel: _Channel, link: Link) -> None:
        """
        Fire the Deferreds that wait for a subscription.

        :param sure: whether publications of all nodes are known to reach this node.
        """
        if self._channels.get(channel.name) is not channel or self._links.link is None:
            return
        if link is not self._links.link:  # the node has moved in the meantime; the new link has the subscription, too
            self._confirmed(None, channel, self._links.link)
            return
        if sure:
            self.unsure.discard(channel.name)
        else:
            self.unsure.add(channel.name)
            if self._asking_again is None:
                self._asking_again = self._clock.callLater(_AGAIN, self._ask_again)
        channel.confirmed = True
        channel.tell(None)

    def _ask_again(self) -> None:
        self._asking_again = None
        link = self._links.link
        if link is not None:
            for name in tuple(self.unsure):
                self._confirmed(None, self._channels[name], link)

    def _not_confirmed(self, failure: Failure, channel: _Channel, link: Link) -> None:
        if link is self._links.link and link.usable and isinstance(failure.value, BusUnavailable):
            channel.tell(failure.value)  # NATS has refused it; after a lost link, the next link would ask again
            self._drop_if_left(channel, 0.0)

    def _give_up(self, failure: Failure, channel: str, receiver: BusReceiver) -> Failure:
        self.remove(channel, receiver)
        return failure

    def remove(self, channel: str, receiver: BusReceiver) -> None:
        """Remove a receiver. If the channel then has none for two seconds, unsubscribe at NATS."""
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
        """Unsubscribe from channels that have had no receiver for :data:`_GRACE` seconds."""
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
            self.unsure.discard(channel.name)
            for link in (self._links.link, self._links.second):
                if link is not None:
                    link.unsubscribe(channel.subject)
            self.on_left(channel.name)

    def deliver_to(self, channel: str, payloads: list[bytes], binary: bool) -> None:
        """Pass publications to the receivers of *channel*, and to those of wildcards that match it."""
        found = self._channels.get(channel)
        if found is not None:
            self.deliver(found.subject, payloads, binary)
        for subject in self.wildcards_of(channel):
            self.deliver(subject, payloads, binary)

    def deliver(self, subject: str, payloads: list[bytes], binary: bool) -> None:
        """Pass publications to all receivers of *subject*, even if one of them fails."""
        channel = self._subjects.get(subject)
        if channel is None:
            return
        for receiver in channel.receivers:
            try:
                receiver(channel.name, payloads, binary)
            except Exception:
                _log.failure("a receiver of the bus failed")


def _nobody_is_far(link: Link) -> None:
    """Return ``None``: there are no other servers."""


def _nobody_cares(channel: str) -> None:
    """Do nothing: no history is attached."""


def _too_late(result: object, timeout: float) -> None:
    raise BusUnavailable(f"the bus did not answer within {timeout:g} s, try again later")
