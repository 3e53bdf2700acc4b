"""
Keeps a node connected to NATS: connects, restores the subscriptions, checks the connection, and connects again after a
loss.

If NATS has several servers, the node has a second connection on standby. So the death of a server interrupts the node
only for a moment. If a server announces that it will stop, the node moves to another server first, and loses nothing.
Used by :mod:`lhttp_tx.bus.nats.bus`, which knows the subscriptions to restore.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeAlias

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from lhttp_tx.bus.nats.addresses import Addresses
from lhttp_tx.bus.nats.confirmations import UNCONFIRMED
from lhttp_tx.bus.nats.handover import Handover, Publication
from lhttp_tx.bus.nats.holding import Holding
from lhttp_tx.bus.nats.link import Link
from lhttp_tx.bus.nats.owner import LinkOwner
from lhttp_tx.bus.nats.servers import NATSServers, shown_server
from lhttp_tx.bus.nats.standby import Standby
from lhttp_tx.bus.nats.ways import Ways
from lhttp_tx.errors import BusUnavailable

__all__ = ["LinkKeeper", "LinkOpener", "LinkUser"]

_log = Logger()

_WAITS = (0.1,) * 50 + (0.2,) * 50
"""Seconds between the first attempts to connect. They are short, so that all nodes are back soon after NATS returns."""

_LAST_WAIT = 0.5
"""Seconds between all further attempts."""

_SETTLE_WAITS = 3
"""
After a reconnect, a node waits for this many intervals before it publishes. By then, the other nodes have subscribed,
and publications over the old connection have arrived.
"""

_PATIENCE, _LONG_PATIENCE = 0.6, _SETTLE_WAITS * _LAST_WAIT
"""
Seconds for which a node that has just started waits for answers of other nodes; and the same if NATS was unavailable,
because the others may then be between two attempts.
"""

_CHECK_INTERVAL = 2.0
"""Seconds between pings to NATS."""

_COMPLAINT_INTERVAL = 60.0
"""Seconds between log lines that say that NATS is still unavailable."""

_SPREAD = 0.2
"""Seconds that the servers of a NATS cluster need to tell each other about subscriptions."""

_PASSING_ON = 0.02
"""Seconds that the old server needs to pass on the last publications to the other servers."""

_REPEAT_TIME = 1.0
"""Seconds after a handover in which publications may still arrive for the second time."""

LinkOpener: TypeAlias = Callable[[str, NATSServers, LinkOwner], Deferred[Link]]


class LinkUser(LinkOwner, Protocol):
    """
    The user of a node's connection.

    :ivar ways: asks the other nodes over a link.
    """

    ways: Ways

    def restore(self, link: Link) -> Deferred[Any]:
        """Subscribe to all channels on *link*. The Deferred succeeds even if NATS refuses some of them."""

    def lost(self) -> None:
        """Called when the link is lost, and all subscriptions with it."""

    def opened(self, link: Link) -> None:
        """Called when *link* has all subscriptions, the other servers know them, and publications may go."""

    def switched(self, link: Link) -> None:
        """Called when the node has moved to *link*. Deliver the publications that the handover has held back."""


class LinkKeeper:
    """
    Keeps one link open.

    :ivar servers: the settings. A new value counts from the next connection on.
    :ivar link: the link that has the subscriptions, or ``None``.
    :ivar open: whether publications may go over *link*.
    :ivar losses: the number of links that were lost while publications went over them.
    :ivar second: the link that the node is moving to, or ``None``.
    :ivar waiting: the publications that are held back in the middle of a move; else ``None``.
    :ivar handover: the handover, from the beginning of a move to a second after it; else ``None``.
    """

    def __init__(self, servers: NATSServers, user: LinkUser, *, clock: Any, opener: LinkOpener) -> None:
        """
        :param servers: the servers to connect to.
        :param user: restores the subscriptions, and is told about the link.
        :param clock: the reactor, for time limits.
        :param opener: connects to one server.
        """
        self.link: Link | None = None
        self.open = False
        self.losses = 0
        self.second: Link | None = None
        self.waiting: Holding | None = None
        self.handover: Handover | None = None
        self.servers = servers
        self._user = user
        self._clock = clock
        self._open_link = opener
        self._addresses = Addresses(servers.urls)
        self._running = False
        self._standby = Standby(self._addresses, self._reach, lambda: self._running and self.link is not None)
        self._opening: set[Deferred[Any]] = set()
        self._timers: dict[str, IDelayedCall] = {}
        self._waits: Iterator[float] = iter(_WAITS)
        self._settle = 0.0
        self._patience = _PATIENCE
        self._opened = 0.0
        self._complained = 0.0

    @property
    def steady_for(self) -> float:
        """Seconds since publications may go over the link; 0 if they may not."""
        return self._clock.seconds() - self._opened if self.open else 0.0

    def start(self) -> None:
        """Connect once the reactor runs, and stay connected."""
        self._running = True
        self._complained = self._clock.seconds() - _COMPLAINT_INTERVAL
        self._later("next", 0.0, self._connect)

    def stop(self) -> Deferred[None]:
        """Disconnect. The Deferred fires when NATS has all earlier publications, or a second later at the latest."""
        self._running = False
        for timer in self._timers.values():
            if timer.active():
                timer.cancel()
        for opening in tuple(self._opening):
            opening.cancel()
        self._leave_second()
        self._standby.leave()
        link, self.link, self.open = self.link, None, False
        return succeed(None) if link is None else link.close(flush=True)

    def _later(self, name: str, seconds: float, call: Callable[..., object], *arguments: Any) -> None:
        """Call *call* after *seconds*. A new timer replaces an earlier one with the same name."""
        timer = self._timers.get(name)
        if timer is not None and timer.active():
            timer.cancel()
        self._timers[name] = self._clock.callLater(seconds, call, *arguments)

    def _reach(self, url: str, done: Callable[[Link], None], failed: Callable[[Failure], None]) -> None:
        opening = self._open_link(url, self.servers, self._user)
        self._opening.add(opening)

        def ended(result: Any) -> Any:
            self._opening.discard(opening)
            if isinstance(result, Failure) or result.usable:
                return result
            result.close(flush=False)  # it broke when :meth:`lost` did not know it yet, and never says so again
            raise BusUnavailable(f"{shown_server(url)}: the connection broke at once")

        opening.addBoth(ended).addCallbacks(done, failed)
        opening.addErrback(lambda failure: _log.failure("connecting to NATS failed", failure))

    # Connect, restore the subscriptions, settle, be open

    def _connect(self) -> None:
        self._reach(self._addresses.first, self._connected, self._not_connected)

    def _not_connected(self, failure: Failure) -> None:
        if not self._running:
            return
        now = self._clock.seconds()
        if now - self._complained >= _COMPLAINT_INTERVAL:
            self._complained = now
            why = failure.value.reason if isinstance(failure.value, BusUnavailable) else repr(failure.value)
            _log.error("cannot reach NATS, retrying: {why}", why=why)
        self._addresses.pass_over(self._addresses.first)
        wait = next(self._waits, _LAST_WAIT)
        self._settle = _SETTLE_WAITS * wait
        self._patience = _LONG_PATIENCE if self._patience else 0.0
        self._later("next", wait, self._connect)

    def _connected(self, link: Link) -> None:
        if not self._running or self.link is not None:  # the cancellation came too late
            link.close(flush=False)
            return
        self.link = link
        link.begin(self._user.origins.begin())
        self._addresses.learn(link)
        self._user.restore(link).addCallback(lambda _: self._restored(link))

    def _restored(self, link: Link) -> None:
        if link is self.link:
            self._later("next", self._settle, self._settled, link)

    def _settled(self, link: Link) -> None:
        gathered = self._user.ways.gathered(link, self._patience)
        if gathered is None:
            self._open_up(link)
        else:
            gathered.addCallback(lambda _: self._open_up(link))

    def _open_up(self, link: Link) -> None:
        if link is not self.link or self.open:
            return
        self.open = True
        self._opened = self._clock.seconds()
        self._patience = 0.0  # the node knows the others from now on
        self._waits, self._settle = iter(_WAITS), _SETTLE_WAITS * _WAITS[0]
        self._complained = self._clock.seconds() - _COMPLAINT_INTERVAL
        _log.info("connected to NATS at {url}", url=shown_server(link.url))
        self._user.opened(link)
        self._check(link)

    def _check(self, link: Link) -> None:
        if not self.open and self._standby.is_there:  # its server is going to stop, and there is another now
            self.lost(link, "another server is there again")
            link.close(flush=False)
            return

        def alive(_: object) -> None:
            if link is self.link:
                self._later("next", _CHECK_INTERVAL, self._check, link)

        link.probed().addCallback(alive)
        self._addresses.learn(link)  # with TLS, the list of servers in the greeting was ignored
        self._standby.check(link)

    def lost(self, link: Link, reason: str) -> None:
        """Note that *link* is lost. If it is in use, connect again, and try other servers first."""
        self._standby.lost(link)
        if link is self.second and self.link is not None:
            self._leave_second()
            self._later("move", 0.0, self.leave, self.link)  # the server of the link in use will still stop
        if link is not self.link:
            return
        if self.open:
            told = "delivered on this node alone" if self.servers.local_delivery else "refused"
            _log.error("lost NATS, publications are {told} until it is back: {reason}", told=told, reason=reason)
        self._leave_second()
        self.losses += self.open
        self.link, self.open = None, False
        self._user.lost()
        standby = self._standby.take()
        if standby is not None:
            self._addresses.leave(link)
            self._connected(standby)
        else:
            self._addresses.pass_over(self._addresses.first)
            self._later("next", 0.0, self._connect)

    # Move to another server

    def leave(self, link: Link) -> None:
        """Move to another server, if there is one, because the server of *link* will stop soon."""
        self._standby.leave(link)
        others = self._addresses.besides(link)
        if link is not self.link or not self.open or self.handover is not None:
            return
        self.handover = Handover()
        if others:  # then publications that the new server passes on later have come over the old one, too
            self._when_reached(link, _SPREAD, self._find_second, link, others)
        else:
            self._find_second(link, [])

    def _find_second(self, link: Link, urls: list[str]) -> None:
        """Connect to one of *urls*. If none is left, stop publishing, because the other nodes would soon not get it."""
        if link is not self.link or self.handover is None:
            return
        standby = self._standby.take()
        if standby is not None:
            self._second_connected(standby)
            return
        if urls:
            self._reach(urls[0], self._second_connected, lambda _: self._find_second(link, urls[1:]))
            return
        self.handover, self.open = None, False
        _log.error(
            "NATS at {url} is stopping, and there is no other server: no publications until it is back",
            url=shown_server(link.url),
        )

    def _second_connected(self, link: Link) -> None:
        if self.handover is None or self.link is None:
            link.close(flush=False)
            return
        _log.info("NATS at {url} is stopping, moving to another server", url=shown_server(self.link.url))
        self.second = link
        self._addresses.learn(link)
        self._user.restore(link).addCallback(lambda _: self._when_reached(link, _SPREAD, self._move, link))

    def _when_reached(self, asked: Link, more: float, call: Callable[..., None], *arguments: Any) -> None:
        """Call *call* *more* seconds after all nodes have the earlier publications over *asked*."""
        if asked is not self.link and asked is not self.second:
            return
        reached = self._user.ways.reached(asked)
        if reached is None:
            self._later("move", more, call, *arguments)
        else:
            reached.addCallback(lambda _: self._later("move", more, call, *arguments) if self._running else None)

    def _move(self, link: Link) -> None:
        """Hold publications back until all nodes have those that went to the old server. So the order is kept."""
        if link is self.second and self.link is not None and self.handover is not None:
            self.handover.begin()
            self.waiting = Holding(self.servers.pending_size)
            old = self.link
            old.checked().addCallback(lambda _: self._when_reached(old, _PASSING_ON, self._switch, link))

    def _switch(self, link: Link) -> None:
        old, waiting = self.link, self.waiting
        if link is not self.second or old is None or waiting is None:
            return
        self.link, self.second, self.waiting = link, None, None
        link.begin(self._user.origins.begin())
        if self.handover is not None:
            self.handover.moved = True
        self._user.switched(link)
        waiting.release(self.publish, self.confirm)
        self._addresses.prefer(link)
        _log.info("connected to NATS at {url}", url=shown_server(link.url))
        self._later("next", _CHECK_INTERVAL, self._check, link)
        self._later("move", _REPEAT_TIME, setattr, self, "handover", None)
        old.inbox.retire(lambda: old.close(flush=False))

    def publish(self, publication: Publication) -> Deferred[None] | None:
        """
        Send *publication*, or hold it back in the middle of a move.

        :returns: the result of :meth:`lhttp_tx.bus.nats.link.Link.publish`; ``None`` if it is held back.
        :raises BusUnavailable: if NATS is unavailable, or too many bytes wait to be sent to it.
        :raises MessageTooLarge: if NATS does not accept messages of this size.
        """
        if self.link is None or not self.open:
            raise BusUnavailable("the bus is unavailable, try again later")
        if self.waiting is None:
            return self.link.publish(*publication)
        self.waiting.add(publication)
        return None

    @property
    def settled_link(self) -> Link | None:
        """The link, if publications go to it directly; ``None`` while NATS is unavailable, and during a move."""
        return self.link if self.open and self.waiting is None and self.handover is None else None

    def confirm(self) -> Deferred[None]:
        """
        Find out when NATS has all earlier publications, whichever link they went over.

        :returns: a Deferred that

            - succeeds when NATS has them;
            - fails with :exc:`lhttp_tx.errors.BusUnavailable` if nobody can find out whether NATS has them.
        """
        if self.waiting is not None:
            return self.waiting.confirm()
        if self.link is None or not self.open:
            return fail(BusUnavailable(UNCONFIRMED))
        return self.link.confirm()

    def is_first(self, link: Link, publication: Publication) -> bool:
        """
        Return whether to deliver *publication*, which came over *link*, now: it was not delivered before, and need not
        wait.
        """
        handover = self.handover
        if handover is None:
            return True
        if link is self.second:
            handover.hold(publication)
            return False
        if link is not self.link:
            return False
        if handover.moved:
            return not handover.is_repeated(publication)
        handover.delivered(publication)
        return True

    def _leave_second(self) -> None:
        second, self.second, self.handover = self.second, None, None
        waiting, self.waiting = self.waiting, None
        if second is not None:
            second.close(flush=False)
        if waiting is not None:
            waiting.release(self.publish, self.confirm)
