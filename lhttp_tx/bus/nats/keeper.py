"""
The upkeep of a node's connection to NATS: connect, restore, settle, check; and again when it is lost.

Where NATS has several servers, a second connection stands by, so that a server that dies costs a moment. Where a server
announces that it is going to stop, the node moves to another one first, and loses nothing. Used by
:mod:`lhttp_tx.bus.nats`, which knows what there is to restore.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeAlias

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from lhttp_tx.bus.handover import Handover, Publication
from lhttp_tx.bus.link import UNCONFIRMED, Link, LinkOwner
from lhttp_tx.bus.servers import NATSServers, shown_server
from lhttp_tx.errors import BusUnavailable, LHTTPError

__all__ = ["LinkKeeper", "LinkOpener", "LinkUser"]

_log = Logger()

_WAITS = (0.1,) * 50 + (0.2,) * 50 + (0.5,) * 50
"""Seconds between attempts to connect, at first, so that all nodes are back within moments of NATS's return."""

_LAST_WAIT = 1.0
"""Seconds between attempts after these."""

_SETTLE_WAITS = 3
"""A node that was away opens for publishing this many waits after it is back: by then the others have subscribed."""

_CHECK_INTERVAL = 2.0
"""Seconds between asking NATS for a sign of life."""

_COMPLAINT_INTERVAL = 60.0
"""Seconds between lines in the log that say that NATS is still away."""

_SPREAD = 0.2
"""Seconds in which the servers of a cluster tell each other of subscriptions."""

_PASSING_ON = 0.02
"""Seconds for the old server to pass on to the others what it was sent last."""

_MAX_WAITING = 50_000
"""Publications that are held back at most while the node moves, and those who wait to hear of them."""

_REPEAT_TIME = 1.0
"""Seconds after a handover in which publications may still arrive for the second time."""

LinkOpener: TypeAlias = Callable[[str, NATSServers, LinkOwner], Deferred[Link]]


class LinkUser(LinkOwner, Protocol):
    """Who a connection is kept for."""

    def restore(self, link: Link) -> Deferred[Any]:
        """Subscribe to everything on *link*; the Deferred succeeds in any case."""

    def lost(self) -> None:
        """Nothing is subscribed any more."""

    def switched(self, link: Link) -> None:
        """From now on *link* is used; what the handover held is to be delivered."""


class LinkKeeper:
    """
    Keeps one link.

    :ivar link: the link that is subscribed, or ``None``.
    :ivar open: whether publications may go to it.
    :ivar second: while the node moves, the link that it moves to.
    :ivar waiting: in the moment of moving, the publications that are held back; else ``None``.
    :ivar handover: while the node moves, and for a moment after, what it has to know for that.
    """

    def __init__(self, servers: NATSServers, user: LinkUser, *, clock: Any, opener: LinkOpener) -> None:
        """
        :param servers: where to connect.
        :param user: what to restore, and who is told.
        :param clock: the reactor, for time limits.
        :param opener: connects to one server.
        """
        self.link: Link | None = None
        self.open = False
        self.second: Link | None = None
        self.waiting: list[Publication] | None = None
        self.handover: Handover | None = None
        self._unconfirmed: list[Deferred[None]] = []
        self._servers = servers
        self._user = user
        self._clock = clock
        self._open_link = opener
        self._urls = random.sample(servers.urls, len(servers.urls))
        self._running = False
        self._standby: Link | None = None
        self._seeking = False
        self._opening: set[Deferred[Any]] = set()
        self._timers: dict[str, IDelayedCall] = {}
        self._waits: Iterator[float] = iter(_WAITS)
        self._settle = 0.0
        self._complained = 0.0

    def start(self) -> None:
        """Connect, once the reactor runs, and stay connected."""
        self._running = True
        self._complained = self._clock.seconds() - _COMPLAINT_INTERVAL
        self._later("next", 0.0, self._connect)

    def stop(self) -> Deferred[None]:
        """Disconnect. What was published before is with NATS when the Deferred has fired."""
        self._running = False
        for timer in self._timers.values():
            if timer.active():
                timer.cancel()
        for opening in tuple(self._opening):
            opening.cancel()
        self._leave_second()
        self._leave_standby()
        link, self.link, self.open = self.link, None, False
        return succeed(None) if link is None else link.close(flush=True)

    def _later(self, name: str, seconds: float, call: Callable[..., object], *arguments: Any) -> None:
        """Call later; there is one timer of each name."""
        timer = self._timers.get(name)
        if timer is not None and timer.active():
            timer.cancel()
        self._timers[name] = self._clock.callLater(seconds, call, *arguments)

    def _reach(self, url: str, done: Callable[[Link], None], failed: Callable[[Failure], None]) -> None:
        opening = self._open_link(url, self._servers, self._user)
        self._opening.add(opening)

        def ended(result: Any) -> Any:
            self._opening.discard(opening)
            return result

        opening.addBoth(ended).addCallbacks(done, failed)
        opening.addErrback(lambda failure: _log.failure("connecting to NATS failed", failure))

    # Connect, restore the subscriptions, settle, be open

    def _connect(self) -> None:
        self._reach(self._urls[0], self._connected, self._not_connected)

    def _not_connected(self, failure: Failure) -> None:
        if not self._running:
            return
        now = self._clock.seconds()
        if now - self._complained >= _COMPLAINT_INTERVAL:
            self._complained = now
            why = failure.value.reason if isinstance(failure.value, BusUnavailable) else repr(failure.value)
            _log.error("cannot reach NATS, will try until it is there: {why}", why=why)
        self._urls.append(self._urls.pop(0))
        wait = next(self._waits, _LAST_WAIT)
        self._settle = _SETTLE_WAITS * wait
        self._later("next", wait, self._connect)

    def _connected(self, link: Link) -> None:
        if not self._running or self.link is not None:  # it was cancelled too late
            link.close(flush=False)
            return
        self.link = link
        self._learn(link)
        self._user.restore(link).addCallback(lambda _: self._restored(link))

    def _learn(self, link: Link) -> None:
        known = set(map(shown_server, self._urls))
        self._urls += [url for url in link.other_urls if shown_server(url) not in known]

    def _restored(self, link: Link) -> None:
        if link is self.link:
            self._later("next", self._settle, self._open_up, link)

    def _open_up(self, link: Link) -> None:
        self.open = True
        self._waits, self._settle = iter(_WAITS), _SETTLE_WAITS * _WAITS[0]
        self._complained = self._clock.seconds() - _COMPLAINT_INTERVAL
        _log.info("connected to NATS at {url}", url=shown_server(link.url))
        self._check(link)

    def _check(self, link: Link) -> None:
        def alive(_: object) -> None:
            if link is self.link:
                self._later("next", _CHECK_INTERVAL, self._check, link)

        link.checked().addCallback(alive)
        if self._standby is not None:
            self._standby.checked()
        else:
            self._seek_standby(link)

    def _others(self, link: Link) -> list[str]:
        """Return the URLs of other servers than that of *link*."""
        return [url for url in self._urls if shown_server(url) != shown_server(link.url)]

    def _seek_standby(self, link: Link) -> None:
        """Connect to another server, if there is one, to have that connection when *link* is lost."""
        others = self._others(link)
        if not others or self._seeking:
            return

        def found(standby: Link) -> None:
            self._seeking = False
            if self._running and self.link is not None and self._standby is None:
                self._standby = standby
                self._learn(standby)
            else:
                standby.close(flush=False)

        def not_found(_: Failure) -> None:
            self._seeking = False
            if others[0] in self._urls:
                self._urls.remove(others[0])
                self._urls.append(others[0])

        self._seeking = True
        self._reach(others[0], found, not_found)

    def _leave_standby(self) -> None:
        standby, self._standby = self._standby, None
        if standby is not None:
            standby.close(flush=False)

    def lost(self, link: Link, reason: str) -> None:
        """Connect again, to another server first, if *link* is the one in use."""
        if link is self._standby:
            self._standby = None
        if link is self.second:
            self._leave_second()
        if link is not self.link:
            return
        if self.open:
            told = "delivered on this node alone" if self._servers.local_delivery else "refused"
            _log.error("lost NATS, publications are {told} until it is back: {reason}", told=told, reason=reason)
        self._leave_second()
        self.link, self.open = None, False
        self._user.lost()
        standby, self._standby = self._standby, None
        if standby is not None and standby.usable:
            self._urls = [*self._others(link), link.url]
            self._connected(standby)
        else:
            self._urls.append(self._urls.pop(0))
            self._later("next", 0.0, self._connect)

    # Move to another server

    def leave(self, link: Link) -> None:
        """Move to another server, if there is one, because that of *link* is going to stop."""
        if link is self._standby:
            self._leave_standby()
        others = self._others(link)
        if link is not self.link or not self.open or self.handover is not None or not others:
            return
        _log.info("NATS at {url} is going to stop, moving to another server", url=shown_server(link.url))
        self.handover = Handover()
        standby, self._standby = self._standby, None
        if standby is not None and standby.usable:
            self._second_connected(standby)
        else:
            self._reach(others[0], self._second_connected, self._second_not_connected)

    def _second_not_connected(self, failure: Failure) -> None:
        self.handover = None

    def _second_connected(self, link: Link) -> None:
        if self.handover is None:
            link.close(flush=False)
            return
        self.second = link
        self._learn(link)
        self._user.restore(link).addCallback(lambda _: self._second_restored(link))

    def _second_restored(self, link: Link) -> None:
        if link is self.second:
            self._later("move", _SPREAD, self._move, link)

    def _move(self, link: Link) -> None:
        """Hold publications back until those sent to the old server are with everybody, so that order is kept."""
        if link is self.second and self.link is not None:
            self.waiting = []
            self.link.checked().addCallback(lambda _: self._later("move", _PASSING_ON, self._switch, link))

    def _switch(self, link: Link) -> None:
        old, waiting = self.link, self.waiting
        if link is not self.second or old is None or waiting is None:
            return
        self.link, self.second, self.waiting = link, None, None
        self._user.switched(link)
        self._send_held(waiting)
        self._urls = [link.url, *self._others(link)]
        _log.info("connected to NATS at {url}", url=shown_server(link.url))
        self._later("next", _CHECK_INTERVAL, self._check, link)
        self._later("move", _REPEAT_TIME, self._moved)
        old.close(flush=False)

    def publish(self, publication: Publication) -> None:
        """
        Send *publication*, or keep it for the moment in which the node moves.

        :raises BusUnavailable: if NATS is away, or does not keep up.
        :raises MessageTooLarge: if NATS does not take messages of this size.
        """
        if self.link is None or not self.open:
            raise BusUnavailable("the bus is away, try again later")
        if self.waiting is None:
            self.link.publish(*publication)
        elif len(self.waiting) < _MAX_WAITING:
            self.waiting.append(publication)
        else:
            raise BusUnavailable("the bus is congested, try again later")

    @property
    def settled_link(self) -> Link | None:
        """The link that takes publications at once; ``None`` while NATS is away, and while the node moves."""
        return self.link if self.open and self.waiting is None and self.handover is None else None

    def confirm(self) -> Deferred[None]:
        """
        Find out when NATS has everything that was published before, by whichever link it goes.

        :returns: a Deferred that

            - succeeds when NATS has it;
            - fails with :exc:`lhttp_tx.errors.BusUnavailable` if that is not known, and will not be.
        """
        if self.waiting is not None and len(self._unconfirmed) < _MAX_WAITING:
            self._unconfirmed.append(Deferred())
            return self._unconfirmed[-1]
        if self.link is None or not self.open or self.waiting is not None:
            return fail(BusUnavailable(UNCONFIRMED))
        return self.link.confirm()

    def _send_held(self, publications: list[Publication]) -> None:
        """Send what was held back, and find out for those who wait for it whether it has arrived."""
        lost = 0
        for publication in publications:
            try:
                self.publish(publication)
            except LHTTPError as error:
                lost += 1
                _log.error("a publication was lost while moving to another server: {why}", why=error.reason)
        waiters, self._unconfirmed = self._unconfirmed, []
        if not waiters:
            return

        def tell(result: Failure | None) -> None:
            for waiter in waiters:
                if waiter.called:
                    continue
                if result is None:
                    waiter.callback(None)
                else:
                    waiter.errback(BusUnavailable(UNCONFIRMED))

        confirmed: Deferred[None] = fail(BusUnavailable(UNCONFIRMED)) if lost else self.confirm()
        confirmed.addBoth(tell)

    def _moved(self) -> None:
        self.handover = None

    def _leave_second(self) -> None:
        second, self.second, self.handover = self.second, None, None
        waiting, self.waiting = self.waiting, None
        if second is not None:
            second.close(flush=False)
        if waiting is not None:
            self._send_held(waiting)
