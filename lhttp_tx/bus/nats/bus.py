"""
The bus of a cluster: all nodes that use the same NATS share all channels.

Each channel has one NATS subscription, however many receivers it has on this node. A publication goes to NATS, and
directly to the receivers of its own node. While NATS is unavailable, the bus refuses publications, so none is lost
silently. :mod:`lhttp_tx.bus.nats.keeper` keeps the node connected, and :mod:`lhttp_tx.bus.nats.interest` has the
subscriptions. This module sends and receives publications.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from lhttp_tx.bus.nats.gaps import Gaps
from lhttp_tx.bus.nats.handover import Publication
from lhttp_tx.bus.nats.headers import Head, binary_of
from lhttp_tx.bus.nats.interest import Interest
from lhttp_tx.bus.nats.keeper import LinkKeeper, LinkOpener, LinkUser
from lhttp_tx.bus.nats.link import Link
from lhttp_tx.bus.nats.opening import open_link
from lhttp_tx.bus.nats.origins import Origins
from lhttp_tx.bus.nats.permission import Forbidden
from lhttp_tx.bus.nats.servers import NATSServers, shown_server
from lhttp_tx.bus.nats.subjects import channel_of, subject_of
from lhttp_tx.bus.nats.ways import Ways
from lhttp_tx.codec.text import is_text
from lhttp_tx.errors import BusUnavailable
from lhttp_tx.interfaces import BusReceiver, IBus, MaybeDeferred

__all__ = ["BusHistory", "BusParts", "NATSBus", "use_servers"]


class BusHistory(Protocol):
    """A history that uses the links of a bus. The bus calls these methods. They must not raise."""

    def linked(self, link: Link) -> None:
        """
        Called when *link* has all subscriptions. If the node moves to another server, the bus uses *link* only from a
        second call on. Otherwise it uses *link* from now on.
        """

    def unlinked(self) -> None:
        """Called when the link is lost, and there is no other."""

    def doubt(self) -> None:
        """Called when publications may be missing although the link works."""

    def take(self, channel: str, heads: list[Head], payloads: list[bytes]) -> list[int]:
        """
        Take consecutive publications that came from a stream, to deliver them in the order of their offsets.

        :param channel: the channel of all of them.
        :param heads: the headers of each.
        :param payloads: the payload of each.
        :returns: the indexes of publications that are not in the history, which the bus delivers itself.
        """

    def watch(self, name: str, subscribed: MaybeDeferred) -> MaybeDeferred:
        """
        Called when somebody subscribes to a channel or a wildcard.

        :param subscribed: the result of the subscription at NATS.
        :returns: ``None`` or a Deferred that the subscriber waits for instead.
        """

    def left(self, name: str) -> None:
        """Called when a channel or a wildcard has no receiver any more."""


class _NoHistory:
    """The history of a bus without history: it does nothing."""

    def linked(self, link: Link) -> None:
        """See :class:`BusHistory`."""

    def unlinked(self) -> None:
        """See :class:`BusHistory`."""

    def doubt(self) -> None:
        """See :class:`BusHistory`."""

    def take(self, channel: str, heads: list[Head], payloads: list[bytes]) -> list[int]:
        """See :class:`BusHistory`. Publications that another node has stored are ordinary publications here."""
        return list(range(len(heads)))

    def watch(self, name: str, subscribed: MaybeDeferred) -> MaybeDeferred:
        """See :class:`BusHistory`."""
        return subscribed

    def left(self, name: str) -> None:
        """See :class:`BusHistory`."""


class BusParts(NamedTuple):
    """
    The parts of a bus that a history uses.

    :ivar servers: the settings of the bus.
    :ivar keeper: has the links.
    :ivar deliver: passes publications of a channel to its receivers on this node; takes the channel, the payloads, and
        whether they are binary.
    :ivar begin: call it before several calls of *deliver*.
    :ivar end: call it after these.
    """

    servers: NATSServers
    keeper: LinkKeeper
    deliver: Callable[[str, list[bytes], bool], None]
    begin: Callable[[], None]
    end: Callable[[], None]


@implementer(IBus)
class NATSBus(LinkUser):
    """
    Publications over NATS, delivered at most once. Needs Twisted's asyncio reactor.

    :ivar on_gap: functions without arguments that are called when this node may have missed publications. They must not
        raise.
    :ivar on_open: functions without arguments that are called when the bus begins to use another link, before it sends
        the first publication. They must not raise.
    :ivar ways: asks the other nodes whether they know this node's subscriptions.
    :ivar unsure: subscribed channels for which it is not known whether publications of all nodes reach this node.
    :ivar servers: the addresses of NATS, the credentials, and the limits.
    :ivar origins: see :class:`~lhttp_tx.bus.nats.owner.LinkOwner`.
    """

    is_immediate = True

    def __init__(self, servers: NATSServers, *, clock: Any, opener: LinkOpener = open_link) -> None:
        """
        :param servers: the addresses of NATS, the credentials, and the limits.
        :param clock: the reactor, for time limits.
        :param opener: connects to one server.
        """
        self.servers = servers
        self.origins = Origins(servers.max_delay, clock.seconds)
        self.on_open: list[Callable[[], None]] = []
        self._keeper = LinkKeeper(servers, self, clock=clock, opener=opener)
        self._subject_of = lru_cache(maxsize=4096)(lambda channel: subject_of(channel, servers.prefix))
        self.ways = Ways(self._keeper, self._subject_of)
        self._interest = Interest(servers, self._keeper, clock=clock)
        self._interest.reach = self.ways.reached_far
        self.unsure = self._interest.unsure
        self._deliver = self._interest.deliver
        self._history: BusHistory = _NoHistory()
        self._channel_of = lru_cache(maxsize=4096)(lambda subject: channel_of(subject, servers.prefix))
        self._gaps = Gaps(clock)
        self.on_gap = self._gaps.on_gap
        self.origins.on_old = self._gaps.late
        self._users = 0
        self._begin: tuple[Callable[[], None], ...] = ()
        self._end: tuple[Callable[[], None], ...] = ()

    @property
    def description(self) -> str:
        """See :class:`lhttp_tx.interfaces.IBus`."""
        return f"NATS at {', '.join(map(shown_server, self.servers.urls))}, subjects {self.servers.prefix}*"

    @property
    def available(self) -> bool:
        """See :class:`lhttp_tx.interfaces.IBus`."""
        link = self._keeper.link
        return self._keeper.open and link is not None and link.usable and not link.denied

    @property
    def channels(self) -> frozenset[str]:
        """The channels subscribed to at NATS: those with a receiver, and those that had one in the last two seconds."""
        return self._interest.channels

    def bracket(self, begin: Callable[[], None], end: Callable[[], None]) -> None:
        """See :meth:`lhttp_tx.interfaces.IBus.bracket`."""
        self._begin += (begin,)
        self._end += (end,)

    def attach(self, history: BusHistory) -> BusParts:
        """Let *history* use the links of this bus, and take publications that come from streams."""
        self._history = history
        self._interest.on_left = history.left
        self._gaps.on_flood = history.doubt
        return BusParts(self.servers, self._keeper, self._interest.deliver_to, self.begin_batch, self.end_batch)

    # Start and stop

    def start(self) -> Deferred[None]:
        """See :meth:`lhttp_tx.interfaces.IBus.start`. The Deferred does not wait for a connection."""
        self._users += 1
        if self._users == 1:
            self._keeper.start()
        return succeed(None)

    def stop(self) -> Deferred[None]:
        """See :meth:`lhttp_tx.interfaces.IBus.stop`. When the Deferred fires, NATS has all earlier publications."""
        if self._users != 1:
            self._users = max(self._users - 1, 0)
            return succeed(None)
        self._users = 0
        self._gaps.stop()
        self._interest.clear()
        return self._keeper.stop()

    # The connection

    def restore(self, link: Link) -> Deferred[Any]:
        """See :class:`lhttp_tx.bus.nats.keeper.LinkUser`."""
        return self._interest.ask_all(link).addCallback(lambda _: self._history.linked(link))

    def lost(self) -> None:
        """See :class:`lhttp_tx.bus.nats.keeper.LinkUser`."""
        self._interest.lost()
        self._gaps.begin()
        self._history.unlinked()

    def opened(self, link: Link) -> None:
        """See :class:`lhttp_tx.bus.nats.keeper.LinkUser`."""
        self._tell_open()
        self._gaps.end()

    def _tell_open(self) -> None:
        for call in self.on_open:
            call()

    def switched(self, link: Link) -> None:
        """See :class:`lhttp_tx.bus.nats.keeper.LinkUser`."""
        handover = self._keeper.handover
        self.begin_batch()
        for subject, payload, binary in handover.release() if handover is not None else ():
            self._deliver(subject, [payload], binary)
        self.end_batch()
        if handover is not None and handover.full:
            self._gaps.flooded()
        self._history.linked(link)
        self._tell_open()

    def link_lost(self, link: Link, reason: str) -> None:
        """See :class:`lhttp_tx.bus.nats.owner.LinkOwner`."""
        self._keeper.lost(link, reason)

    def link_leaving(self, link: Link) -> None:
        """See :class:`lhttp_tx.bus.nats.owner.LinkOwner`."""
        self._keeper.leave(link)

    # Subscribing

    def subscribe(self, channel: str, receiver: BusReceiver) -> MaybeDeferred:
        """
        See :meth:`lhttp_tx.interfaces.IBus.subscribe`. While NATS is unavailable, the Deferred waits for a limited
        time.
        """
        if not self._users:
            raise BusUnavailable("the bus has stopped")
        return self._history.watch(channel, self._interest.add(channel, receiver))

    def unsubscribe(self, channel: str, receiver: BusReceiver) -> None:
        """See :meth:`lhttp_tx.interfaces.IBus.unsubscribe`."""
        self._interest.remove(channel, receiver)

    # Publications

    def publish(self, channel: str, payload: bytes, binary: bool) -> MaybeDeferred:
        """
        See :meth:`lhttp_tx.interfaces.IBus.publish`.

        It returns a Deferred only if NATS has lately refused a publication, and this channel is new since then.

        :raises BusUnavailable: while NATS is unavailable, if it does not allow the channel, or if too many bytes wait
            to be sent to it.
        :raises MessageTooLarge: if NATS does not accept messages of this size.
        """
        if not self._users:
            raise BusUnavailable("the bus has stopped")
        subject = self._subject_of(channel)
        waiting: Deferred[None] | None = None
        if self.servers.local_delivery:
            waiting = _publish_if_open(self._keeper, (subject, payload, binary))
        else:
            waiting = self._keeper.publish((subject, payload, binary))
        wildcards = self._interest.wildcards_of(channel)
        self._deliver(subject, [payload], binary)
        for wildcard in wildcards:
            self._deliver(wildcard, [payload], binary)
        return waiting

    def publish_run(self, channel: str, payloads: Iterator[bytes], binary: bool) -> MaybeDeferred:
        """See :meth:`lhttp_tx.interfaces.IBus.publish_run`. Raise what :meth:`publish` raises."""
        for payload in payloads:  # the first one raises if NATS cannot be used
            waiting = self.publish(channel, payload, binary)
            if waiting is not None:
                return waiting
            link = self._keeper.settled_link
            if link is not None:
                self._publish_more(link, channel, payloads, binary)
        return None

    def _publish_more(self, link: Link, channel: str, payloads: Iterator[bytes], binary: bool) -> None:
        """Publish the rest of a run whose first publication *link* has taken."""
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
                for wildcard in self._interest.wildcards_of(channel):
                    self._deliver(wildcard, run, binary)

    def confirm(self) -> MaybeDeferred:
        """
        See :meth:`lhttp_tx.interfaces.IBus.confirm`. With ``local_delivery``, publications are delivered on their own
        node even while NATS is unavailable. The Deferred then succeeds even if NATS does not confirm.
        """
        confirmation = self._keeper.confirm()
        return confirmation.addErrback(_delivered_here) if self.servers.local_delivery else confirmation

    def begin_batch(self) -> None:
        """See :class:`lhttp_tx.bus.nats.owner.LinkOwner`."""
        for begin in self._begin:
            begin()

    def receive(
        self, link: Link, subject: str, payloads: list[bytes], binary: bool, wildcard: str | None = None
    ) -> None:
        """See :class:`lhttp_tx.bus.nats.owner.LinkOwner`."""
        if wildcard is not None:
            channel = self._channel_of(subject)
            if channel is None or channel.startswith(("$", "_")):
                return  # a reserved name of the server, or a subject of NATS
            subject = wildcard
        if self._keeper.handover is not None:
            payloads = [each for each in payloads if self._keeper.is_first(link, (subject, each, binary))]
        if payloads:
            self._deliver(subject, payloads, binary)

    def receive_stored(
        self, link: Link, subject: str, heads: list[Head], payloads: list[bytes], wildcard: str | None
    ) -> None:
        """
        See :class:`lhttp_tx.bus.nats.owner.LinkOwner`. The history recognizes publications that come over two links.
        """
        channel = self._channel_of(subject)
        if channel is None or (wildcard is not None and channel.startswith(("$", "_"))):
            return
        for number in self._history.take(channel, heads, payloads):
            payload = payloads[number]
            self.receive(link, subject, [payload], binary_of(heads[number]) or not is_text(payload), wildcard)

    def end_batch(self) -> None:
        """See :class:`lhttp_tx.bus.nats.owner.LinkOwner`."""
        for end in self._end:
            end()


def _publish_if_open(keeper: LinkKeeper, publication: Publication) -> Deferred[None] | None:
    """Publish, if NATS is available and allows it. The receivers of this node get the publication anyway."""
    if not keeper.open:
        return None
    try:
        waiting = keeper.publish(publication)
    except Forbidden:
        return None
    return None if waiting is None else waiting.addErrback(_delivered_here)


def _delivered_here(failure: Failure) -> None:
    failure.trap(BusUnavailable)


def use_servers(bus: NATSBus, servers: NATSServers) -> None:
    """Let *bus* connect with *servers* from now on. They may differ from its settings only in the credentials."""
    bus.servers = servers
    bus._keeper.servers = servers
