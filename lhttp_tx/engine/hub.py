"""
The hub: the channels of this node, their subscribers, and the way from the bus to the subscribers.

Sessions subscribe here, and publish here. The hub knows the bus. Of each subscriber, it knows one callable that takes
deliveries. It must not import sessions or protocols.

The hub keeps two rules of speed. A publication is encoded once for all subscribers that use the same encoding. All
publications that one read brings in for a channel go to each subscriber as one delivery.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, gatherResults
from twisted.python.failure import Failure

from lhttp_tx.codec.channels import PRESENCE
from lhttp_tx.codec.wildcards import Wildcards, is_wildcard
from lhttp_tx.engine.answers import missed_message
from lhttp_tx.engine.delivery import Deliver, Delivery
from lhttp_tx.interfaces import IBus, MaybeDeferred
from lhttp_tx.observe.rationing import RationedLogger

if TYPE_CHECKING:
    from lhttp_tx.history.archive import Archive
    from lhttp_tx.history.values import Filing

__all__ = ["Hub"]

_log = RationedLogger(__name__)

_RUN_SIZE = 65_536
"""Bytes of joined publications after which the hub delivers a run, even if more may come."""

_HEAD_SIZE = 4
"""Bytes that each publication counts in addition to its own, so that empty publications count too."""


def _deliver_nowhere(_: Delivery) -> None:
    """Drop a delivery: takes the place of a subscriber that must not get its own publications."""


class _Channel:
    """
    The subscribers of one channel on this node.

    :ivar members: the callables that take deliveries to the subscribers, in the order of subscribing.
    :ivar waiters: Deferreds that fire once the bus has subscribed; ``None`` afterwards.
    :ivar asking: the subscribers who want to be told of gaps; ``None``: nobody.
    """

    __slots__ = ("asking", "members", "name", "waiters")

    def __init__(self, name: str) -> None:
        self.name = name
        self.members: dict[Hashable, Deliver] = {}
        self.waiters: list[Deferred[None]] | None = None
        self.asking: set[Hashable] | None = None


def _is_plain(channel: _Channel, archive: Archive | None) -> bool:
    """Return whether a channel has no history."""
    return archive is None or archive.retention(channel.name) is None


def _tell_missed(channel: _Channel, position: str | None, who: Iterable[Hashable]) -> None:
    delivery = Delivery(channel.name, [missed_message(channel.name, position).raw], False)
    for deliver in [channel.members[subscriber] for subscriber in tuple(who) if subscriber in channel.members]:
        deliver(delivery)


class Hub:
    """
    Local fan-out over one bus subscription for each channel.

    :ivar on_channel: called with a channel and whether it has subscribers now, when it gets its first subscriber on
        this node, and when its last one leaves. These functions must not raise.
    :ivar archive: publishes what has a message id, or goes to a channel with history; ``None``: the bus does.
    :ivar bracket: see :meth:`lhttp_tx.interfaces.IBus.bracket`; the hub itself is corked in between, too.
    :ivar has_history: whether there may be channels with history.
    :ivar run: publications of one channel that are held back. Read it, do not change it.
    """

    def __init__(self, *, bus: IBus) -> None:
        """:param bus: carries publications. Its owner starts and stops it, not the hub."""
        self._bus = bus
        self.archive: Archive | None = None
        self.has_history = False
        self._channels: dict[str, _Channel] = {}
        self.on_channel: list[Callable[[str, bool], None]] = []
        self._corks = 0
        self.run: list[bytes] = []
        self._run_binary = False
        self._run_channel = ""
        self._run_size = 0
        self.bracket = bus.bracket
        bus.bracket(self.cork, self.uncork)

    @property
    def channels(self) -> dict[str, int]:
        """The channels that have subscribers on this node, and the number of subscribers of each."""
        return {name: len(channel.members) for name, channel in self._channels.items()}

    def has_subscribers(self, channel: str) -> bool:
        """Return whether *channel* has a subscriber on this node."""
        return channel in self._channels

    def unsure_of(self, channels: Iterable[str]) -> list[str]:
        """Return those of *channels* to which not all nodes may pass on what they publish: the bus does not know."""
        unsure = getattr(self._bus, "unsure", None)
        return [channel for channel in channels if channel in unsure] if unsure else []

    def subscribers(self, channel: str) -> tuple[Hashable, ...]:
        """Return the subscribers of *channel* on this node, in the order of subscribing."""
        found = self._channels.get(channel)
        return () if found is None else tuple(found.members)

    def subscribe(self, subscriber: Hashable, channel: str, deliver: Deliver) -> MaybeDeferred:
        """
        Send every publication to *channel* to *subscriber* from now on.

        :param subscriber: identifies the subscriber. Subscribing it again changes nothing.
        :param channel: a valid channel name.
        :param deliver: called with each delivery of the channel; must not raise.
        :returns: ``None`` if the bus has the subscription, else a Deferred that

            - succeeds when the bus has the subscription;
            - fails with :exc:`lhttp_tx.errors.BusUnavailable`; then the subscriber is not in the channel.
        :raises BusUnavailable: if the bus refuses at once.
        """
        self.flush()
        found = self._channels.get(channel)
        if found is None:
            return self._subscribe_first(subscriber, channel, deliver)
        found.members.setdefault(subscriber, deliver)
        if found.waiters is None:
            return None
        waiter: Deferred[None] = Deferred()
        found.waiters.append(waiter)
        return waiter

    def _subscribe_first(self, subscriber: Hashable, name: str, deliver: Deliver) -> MaybeDeferred:
        result = None if name.startswith(PRESENCE) else self._bus.subscribe(name, self.receive)
        channel = self._channels[name] = _Channel(name)
        channel.members[subscriber] = deliver
        waiter: Deferred[None] | None = None
        if result is not None:
            waiter = Deferred()
            channel.waiters = [waiter]
        for call in self.on_channel:
            call(name, True)
        if result is not None:
            result.addCallbacks(self._subscribed, self._not_subscribed, callbackArgs=(channel,), errbackArgs=(channel,))
            result.addErrback(lambda failure: _log.failure("telling subscribers failed", failure))
        return waiter

    def _subscribed(self, _: None, channel: _Channel) -> None:
        waiters, channel.waiters = channel.waiters or [], None
        for waiter in waiters:
            if not waiter.called:
                waiter.callback(None)

    def _not_subscribed(self, failure: Failure, channel: _Channel) -> None:
        waiters, channel.waiters = channel.waiters or [], None
        if self._channels.get(channel.name) is channel:
            del self._channels[channel.name]
            for call in self.on_channel:
                call(channel.name, False)
        for waiter in waiters:
            if not waiter.called:
                waiter.errback(failure)

    def unsubscribe(self, subscriber: Hashable, channel: str) -> None:
        """Stop delivering *channel* to *subscriber*. Does nothing if it was not subscribed."""
        self.flush()
        found = self._channels.get(channel)
        if found is None or found.members.pop(subscriber, None) is None:
            return
        if found.asking is not None:
            found.asking.discard(subscriber)
        if not found.members:
            del self._channels[channel]
            if not channel.startswith(PRESENCE):
                self._bus.unsubscribe(channel, self.receive)
            for call in self.on_channel:
                call(channel, False)

    def publish(
        self, channels: Iterable[str], payload: bytes, binary: bool, filing: Filing | None = None
    ) -> MaybeDeferred:
        """
        Publish *payload* to each of *channels*, in order.

        :param channels: valid channel names.
        :param payload: an LHTTP message as subscribers get it.
        :param binary: whether to send it as a binary WebSocket message.
        :param filing: how it is to be kept, where somebody wants to know what becomes of it.
        :returns: ``None`` if the bus has taken all publications. They may still be on their way (see :meth:`confirm`).
            Otherwise a Deferred that

            - succeeds when the bus has taken all;
            - fails with :exc:`lhttp_tx.errors.BusUnavailable` if it refused one of them.
        :raises BusUnavailable: if the bus, or a store of histories, refuses at once.
        """
        waiting: list[Deferred[None]] | None = None
        archive = self.archive if self.has_history or filing is not None else None
        if archive is not None:
            channels = tuple(channels)
            if len(channels) > 1:
                payload = archive.unforged(channels, payload)
        for channel in channels:
            if archive is None:
                result = self._bus.publish(channel, payload, binary)
            else:
                result = archive.publish(channel, payload, binary, filing)
            if result is not None:
                waiting = [result] if waiting is None else [*waiting, result]
        if waiting is None:
            return None
        if len(waiting) == 1:
            return waiting[0]
        gathered = gatherResults(waiting, consumeErrors=True)
        return gathered.addCallbacks(lambda _: None, lambda failure: failure.value.subFailure)

    def publish_run(self, channels: tuple[str, ...], payloads: Iterator[bytes], binary: bool) -> MaybeDeferred:
        """
        Publish each of *payloads* to all of *channels*, like :meth:`publish`, until the bus does not take one at once.

        The payloads after that one stay in the iterator, both when this raises and when it returns a Deferred.
        """
        if len(channels) > 1:
            for payload in payloads:
                result = self.publish(channels, payload, binary)
                if result is not None:
                    return result
            return None
        archive = self.archive
        if archive is not None:
            if archive.identify is not None:
                return archive.publish_identified(channels[0], payloads, binary)
            retention = archive.retention(channels[0]) if self.has_history else None
            if retention is not None:
                return archive.publish_run(channels[0], retention, payloads, binary)
        return self._bus.publish_run(channels[0], payloads, binary)

    def confirm(self, kept: bool) -> MaybeDeferred:
        """
        Find out when all that was published before is safe; see :meth:`lhttp_tx.interfaces.IBus.confirm`.

        :param kept: whether somebody waits for a history to have it, too. Others do not suffer from a store that fails.
        """
        return self.archive.confirm() if kept and self.archive is not None else self._bus.confirm()

    def redirect(
        self, subscriber: Hashable, channel: str, deliver: Deliver, instead_of: Deliver | None = None
    ) -> Deliver | None:
        """
        Let *deliver* take the deliveries of *channel* to *subscriber* from now on.

        :param instead_of: does nothing if another one than this takes them now; ``None``: whichever does.
        :returns: what took them before; ``None`` if it is not subscribed, and then nothing has changed.
        """
        if self.run:
            self.flush()
        found = self._channels.get(channel)
        before = None if found is None else found.members.get(subscriber)
        if found is not None and before is not None and instead_of in (None, before):
            found.members[subscriber] = deliver
        return before

    def taker(self, subscriber: Hashable, channel: str) -> Deliver | None:
        """Return what takes the deliveries of *channel* to *subscriber*; ``None`` if it is not subscribed."""
        found = self._channels.get(channel)
        return None if found is None else found.members.get(subscriber)

    def ask_gaps(self, subscriber: Hashable, channel: str) -> None:
        """Tell *subscriber* where publications to *channel* may have been missed; it has to be subscribed."""
        found = self._channels.get(channel)
        if found is not None and subscriber in found.members:
            found.asking = found.asking or set()
            found.asking.add(subscriber)

    def tell_gaps(self) -> None:
        """Tell those who asked that publications may have been missed, in every channel without history."""
        self.flush()
        for channel in tuple(self._channels.values()):
            if channel.asking and _is_plain(channel, self.archive):
                _tell_missed(channel, None, channel.asking)

    def unaware(self) -> set[Hashable]:
        """Return the subscribers of channels without history who did not ask to be told of gaps there."""
        found: set[Hashable] = set()
        for channel in self._channels.values():
            if _is_plain(channel, self.archive) and not channel.name.startswith(PRESENCE):
                found.update(channel.members.keys() - (channel.asking or set()))
        return found

    def tell_missed(self, name: str, position: str) -> None:
        """
        Tell subscribers that they have missed publications up to *position*.

        :param name: a channel with history; then those of wildcards that take it in are told, too. Or a wildcard.
        """
        self.flush()
        wildcards = Wildcards()
        for known in self._channels if not is_wildcard(name) else ():
            if is_wildcard(known):
                wildcards.add(known)
        for found in (name, *(wildcards.matching(name) if wildcards else ())):
            channel = self._channels.get(found)
            if channel is not None:
                _tell_missed(channel, position, channel.members)

    @contextmanager
    def silenced(self, subscriber: Hashable, channels: Iterable[str]) -> Iterator[None]:
        """
        Within the context, send *subscriber* nothing that this node publishes to *channels*, though it stays
        subscribed.

        This needs a bus that passes a publication to its own node before ``publish`` returns
        (:attr:`lhttp_tx.interfaces.IBus.is_immediate`). The buses of this project do so.
        """
        self.flush()
        silent = [(members, members[subscriber]) for members in self._members(channels) if subscriber in members]
        for members, _ in silent:
            members[subscriber] = _deliver_nowhere
        try:
            yield
        finally:
            self.flush()
            for members, deliver in silent:
                if members.get(subscriber) is _deliver_nowhere:
                    members[subscriber] = deliver

    def _members(self, channels: Iterable[str]) -> Iterator[dict[Hashable, Deliver]]:
        for name in channels:
            channel = self._channels.get(name)
            if channel is not None:
                yield channel.members

    def receive(self, channel: str, payloads: list[bytes], binary: bool) -> None:
        """Take publications from the bus. They go to the subscribers at once; if the hub is corked, with their run."""
        if channel != self._run_channel or binary is not self._run_binary:
            if self.run:
                self.flush()
            if channel not in self._channels:
                return
            self._run_channel = channel
            self._run_binary = binary
        self.run += payloads
        if len(payloads) == 1:
            self._run_size += len(payloads[0]) + _HEAD_SIZE
        else:
            self._run_size += sum(map(len, payloads)) + _HEAD_SIZE * len(payloads)
        if not self._corks or self._run_size >= _RUN_SIZE:
            self.flush()

    def cork(self) -> None:
        """Hold back publications and join them, until :meth:`uncork` was called as often as this method."""
        self._corks += 1

    def uncork(self) -> None:
        """Undo one call of :meth:`cork`. The last call delivers what was held back."""
        self._corks -= 1
        if not self._corks and self.run:
            self.flush()

    def flush(self) -> None:
        """
        Deliver now what is held back.

        To keep the order, call this before anything goes to a connection without the hub.
        """
        if not self.run:
            self._run_channel = ""
            return
        run, channel = self.run, self._channels.get(self._run_channel)
        self.run, self._run_channel, self._run_size = [], "", 0
        if channel is not None:
            delivery = Delivery(channel.name, run, self._run_binary)
            for deliver in tuple(channel.members.values()):
                deliver(delivery)
