"""
The bus of a cluster: all nodes that use one NATS share all channels.

Each channel has one NATS subscription, however many receivers it has on this node. A publication goes to NATS, and
directly to the receivers of its own node. While NATS is unavailable, the bus refuses publications, so that it loses
none silently. :mod:`lhttp_tx.bus.nats.keeper` keeps the connection up, and :mod:`lhttp_tx.bus.nats.interest` knows the
subscribers. This module sends and receives publications.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from lhttp_tx.bus.nats.gaps import Gaps
from lhttp_tx.bus.nats.headers import Head, binary_of
from lhttp_tx.bus.nats.interest import Interest
from lhttp_tx.bus.nats.keeper import LinkKeeper, LinkOpener, LinkUser
from lhttp_tx.bus.nats.link import Link
from lhttp_tx.bus.nats.opening import open_link
from lhttp_tx.bus.nats.origins import Origins
from lhttp_tx.bus.nats.servers import NATSServers, shown_server
from lhttp_tx.bus.nats.subjects import channel_of, subject_of
from lhttp_tx.bus.nats.ways import Ways
from lhttp_tx.codec.text import is_text
from lhttp_tx.errors import BusUnavailable
from lhttp_tx.interfaces import BusReceiver, IBus, MaybeDeferred

__all__ = ["BusHistory", "BusParts", "NATSBus", "use_servers"]


class BusHistory(Protocol):
    """A history that uses the links of a bus. The bus calls these methods. None of them may raise."""

    def linked(self, link: Link) -> None:
        """*link* is subscribed to everything; it is used from now on, or is going to be when this is called again."""

    def unlinked(self) -> None:
        """There is no link."""

    def doubt(self) -> None:
        """Publications may not have come though the link is there."""

    def take(self, channel: str, heads: list[Head], payloads: list[bytes]) -> list[int]:
        """
        Take publications that came out of streams one after another, to deliver them in their turn.

        :param heads: the headers of each.
        :returns: the numbers of those that it did not take, counted from 0.
        """

    def watch(self, name: str, subscribed: MaybeDeferred) -> MaybeDeferred:
        """Somebody subscribes to a channel, or a wildcard; return what that one is to wait for."""

    def left(self, name: str) -> None:
        """Nobody is subscribed to it any more."""


class _NoHistory:
    """Used if there is no history: nothing changes for the bus."""

    def linked(self, link: Link) -> None:
        """See :class:`BusHistory`."""

    def unlinked(self) -> None:
        """See :class:`BusHistory`."""

    def doubt(self) -> None:
        """See :class:`BusHistory`."""

    def take(self, channel: str, heads: list[Head], payloads: list[bytes]) -> list[int]:
        """See :class:`BusHistory`: what another node has stored is an ordinary publication here."""
        return list(range(len(heads)))

    def watch(self, name: str, subscribed: MaybeDeferred) -> MaybeDeferred:
        """See :class:`BusHistory`."""
        return subscribed

    def left(self, name: str) -> None:
        """See :class:`BusHistory`."""


class BusParts(NamedTuple):
    """
    The parts of a bus that a history uses.

    :ivar deliver: hands publications of a channel to its receivers on this node.
    :ivar begin: to be called before several of them.
    :ivar end: to be called after that.
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

    :ivar on_gap: called without arguments where this node may have missed publications. May not raise.
    :ivar on_open: called without arguments when publications go to another link from now on, before the first one does.
        May not raise.
    :ivar ways: asks the other nodes.
    :ivar unsure: channels that this node has subscribed to, though it is not known whether all nodes that were there
        pass on what they publish.
    :ivar servers: the addresses of NATS, the credentials, and the bounds.
    :ivar origins: see :class:`~lhttp_tx.bus.nats.owner.LinkOwner`.
    """

    is_immediate = True

    def __init__(self, servers: NATSServers, *, clock: Any, opener: LinkOpener = open_link) -> None:
        """
        :param servers: the addresses of NATS, the credentials, and the bounds.
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
        """The channels subscribed at NATS: those with a receiver, and those that had one a moment ago."""
        return self._interest.channels

    def bracket(self, begin: Callable[[], None], end: Callable[[], None]) -> None:
        """See :meth:`lhttp_tx.interfaces.IBus.bracket`."""
        self._begin += (begin,)
        self._end += (end,)

    def attach(self, history: BusHistory) -> BusParts:
        """Let *history* use the links of this bus, and take what comes out of streams."""
        self._history = history
        self._interest.on_left = history.left
        self._gaps.on_flood = history.doubt
        return BusParts(self.servers, self._keeper, self._interest.deliver_to, self.begin_batch, self.end_batch)

    # Start and stop

    def start(self) -> Deferred[None]:
        """See :meth:`lhttp_tx.interfaces.IBus.start`. The Deferred does not wait for NATS."""
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
        """See :meth:`lhttp_tx.interfaces.IBus.subscribe`. While NATS is away, the Deferred waits for a limited time."""
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

        :raises BusUnavailable: while NATS is away, or if it does not keep up.
        :raises MessageTooLarge: if NATS does not take messages of this size.
        """
        if not self._users:
            raise BusUnavailable("the bus has stopped")
        subject = self._subject_of(channel)
        if self._keeper.open or not self.servers.local_delivery:
            self._keeper.publish((subject, payload, binary))
        wildcards = self._interest.wildcards_of(channel)
        self._deliver(subject, [payload], binary)
        for wildcard in wildcards:
            self._deliver(wildcard, [payload], binary)
        return None

    def publish_run(self, channel: str, payloads: Iterator[bytes], binary: bool) -> MaybeDeferred:
        """See :meth:`lhttp_tx.interfaces.IBus.publish_run`; raises what :meth:`publish` raises."""
        for payload in payloads:  # the first one meets all possible errors
            self.publish(channel, payload, binary)
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
        node even while NATS is away. Then it is enough that they were delivered there, and that NATS was asked.
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
                return  # a subject of the server itself, or of NATS
            subject = wildcard
        if self._keeper.handover is not None:
            payloads = [each for each in payloads if self._keeper.is_first(link, (subject, each, binary))]
        if payloads:
            self._deliver(subject, payloads, binary)

    def receive_stored(
        self, link: Link, subject: str, heads: list[Head], payloads: list[bytes], wildcard: str | None
    ) -> None:
        """See :class:`lhttp_tx.bus.nats.owner.LinkOwner`. One that comes over two links is the history's to know."""
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


def _delivered_here(failure: Failure) -> None:
    failure.trap(BusUnavailable)


def use_servers(bus: NATSBus, servers: NATSServers) -> None:
    """Let *bus* connect with these settings from now on. They differ from those of before in credentials alone."""
    bus.servers = servers
    bus._keeper.servers = servers
