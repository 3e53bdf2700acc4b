"""
The hub: the channels of this node, their subscribers, and the path from the bus to the subscribers.

Sessions subscribe and publish here. Of each subscriber, the hub knows only a function that takes deliveries.

The hub encodes a publication once for all subscribers that use the same encoding. It joins the consecutive publications
that one read brings in for a channel: each subscriber gets them as one delivery.
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
from lhttp_tx.engine.awaiting import in_any_case
from lhttp_tx.engine.delivery import Channel, Deliver, Delivery
from lhttp_tx.interfaces import IBus, MaybeDeferred
from lhttp_tx.observe.rationing import RationedLogger

if TYPE_CHECKING:
    from lhttp_tx.history.archive import Archive
    from lhttp_tx.history.values import Filing

__all__ = ["HEAD_SIZE", "Hub"]

_log = RationedLogger(__name__)

_MAX_NESTED = 10_000
"""The most runs that a delivery may cause in its own channel. A hook that publishes at each one would never end."""

_RUN_SIZE = 65_536
"""The hub delivers a run that has reached this many bytes, even while it is corked."""

HEAD_SIZE = 4
"""Bytes that are added to the size of each publication of a run, so that empty publications count too."""


def _deliver_nowhere(_: Delivery) -> None:
    """Drop a delivery. This function replaces that of a subscriber that must not get its own publications."""


def _is_plain(channel: Channel, archive: Archive | None) -> bool:
    """Return whether a channel has no history."""
    return archive is None or archive.retention(channel.name) is None


def _tell_missed(channel: Channel, position: str | None, who: Iterable[Hashable]) -> None:
    delivery = Delivery(channel.name, [missed_message(channel.name, position).raw], False)
    for deliver in [channel.members[subscriber] for subscriber in tuple(who) if subscriber in channel.members]:
        deliver(delivery)


class Hub:
    """
    Passes publications from the bus to the subscribers on this node, with one bus subscription for each channel.

    :ivar on_channel: functions that are called with a channel and ``True`` when the channel gets its first subscriber
        on this node, and with ``False`` when its last one leaves. They must not raise.
    :ivar archive: takes publications that have a message id, or go to a channel with history. ``None``: all go to the
        bus.
    :ivar bracket: see :meth:`lhttp_tx.interfaces.IBus.bracket`. The hub itself is corked during each read of the bus,
        too.
    :ivar has_history: whether there may be channels with history.
    :ivar reached: how many subscribers the last delivery had, until somebody sets it to 0.
    :ivar run: the publications of one channel that the hub holds back. Do not change it.
    """

    def __init__(self, *, bus: IBus) -> None:
        """:param bus: carries publications. The hub does not start or stop it."""
        self._bus = bus
        self.archive: Archive | None = None
        self.has_history = False
        self._channels: dict[str, Channel] = {}
        self.on_channel: list[Callable[[str, bool], None]] = []
        self.reached = 0
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
        """Return the channels of which the bus does not know whether publications of all nodes reach this node."""
        unsure = getattr(self._bus, "unsure", None)
        return [channel for channel in channels if channel in unsure] if unsure else []

    def subscribers(self, channel: str) -> tuple[Hashable, ...]:
        """Return the subscribers of *channel* on this node, in the order of subscribing."""
        found = self._channels.get(channel)
        return () if found is None else tuple(found.members)

    def subscribe(self, subscriber: Hashable, channel: str, deliver: Deliver) -> MaybeDeferred:
        """
        Send every publication to *channel* to *subscriber* from now on.

        :param subscriber: identifies the subscriber. If it is subscribed already, nothing changes.
        :param channel: a valid channel name.
        :param deliver: called with each delivery of the channel; must not raise.
        :returns: ``None`` if the bus has the subscription. Otherwise a Deferred that

            - succeeds when the bus has the subscription;
            - fails with :exc:`lhttp_tx.errors.BusUnavailable`; then the subscriber is not subscribed.
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
        channel = self._channels[name] = Channel(name)
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

    def _subscribed(self, _: None, channel: Channel) -> None:
        waiters, channel.waiters = channel.waiters or [], None
        for waiter in waiters:
            if not waiter.called:
                waiter.callback(None)

    def _not_subscribed(self, failure: Failure, channel: Channel) -> None:
        waiters, channel.waiters = channel.waiters or [], None
        if self._channels.get(channel.name) is channel:
            del self._channels[channel.name]
            for call in self.on_channel:
                call(channel.name, False)
        for waiter in waiters:
            if not waiter.called:
                waiter.errback(failure)

    def unsubscribe(self, subscriber: Hashable, channel: str) -> None:
        """Stop delivering *channel* to *subscriber*. Do nothing if it is not subscribed."""
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
        :param filing: says how to store the message, and receives the outcomes; ``None`` if nobody asks for them.
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
        try:
            for channel in channels:
                if archive is None:
                    result = self._bus.publish(channel, payload, binary)
                else:
                    result = archive.publish(channel, payload, binary, filing)
                if result is not None:
                    waiting = [result] if waiting is None else [*waiting, result]
        except BaseException:
            for earlier in waiting or ():
                earlier.addErrback(lambda _: None)  # the caller gets the exception instead
            raise
        if waiting is None or len(waiting) == 1:
            return waiting[0] if waiting else None
        gathered = gatherResults(waiting, consumeErrors=True)
        return gathered.addCallbacks(lambda _: None, lambda failure: failure.value.subFailure)

    def publish_run(self, channels: tuple[str, ...], payloads: Iterator[bytes], binary: bool) -> MaybeDeferred:
        """
        Publish each of *payloads* to all of *channels*, like :meth:`publish`, up to the first one that the bus does not
        take at once.

        The later payloads stay in the iterator, both if this raises and if it returns a Deferred.
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
        Find out when earlier publications can no longer be lost; see :meth:`lhttp_tx.interfaces.IBus.confirm`.

        :param kept: whether to wait for the histories, too. If not, a failure of the store has no effect.
        """
        return in_any_case((self.archive if kept and self.archive is not None else self._bus).confirm)

    def redirect(
        self, subscriber: Hashable, channel: str, deliver: Deliver, instead_of: Deliver | None = None
    ) -> Deliver | None:
        """
        From now on, pass the deliveries of *channel* for *subscriber* to *deliver*.

        :param instead_of: the function that must be taking them now, or else nothing changes. ``None``: any function.
        :returns: the function that took them before; ``None`` if *subscriber* is not subscribed, and nothing has
            changed.
        """
        if self.run:
            self.flush()
        found = self._channels.get(channel)
        before = None if found is None else found.members.get(subscriber)
        if found is not None and before is not None and instead_of in (None, before):
            found.members[subscriber] = deliver
        return before

    def taker(self, subscriber: Hashable, channel: str) -> Deliver | None:
        """Return the function that takes deliveries of *channel*, or ``None``. It has got every publication so far."""
        if self.run:
            self.flush()
        found = self._channels.get(channel)
        return None if found is None else found.members.get(subscriber)

    def ask_gaps(self, subscriber: Hashable, channel: str) -> None:
        """Tell *subscriber* about gaps in *channel* from now on. Do nothing if it is not subscribed."""
        found = self._channels.get(channel)
        if found is not None and subscriber in found.members:
            found.asking = found.asking or set()
            found.asking.add(subscriber)

    def tell_gaps(self) -> None:
        """Tell the subscribers that asked that publications may have been missed, in every channel without history."""
        self.flush()
        for channel in tuple(self._channels.values()):
            if channel.asking and _is_plain(channel, self.archive):
                _tell_missed(channel, None, channel.asking)

    def unaware(self) -> set[Hashable]:
        """Return the subscribers of channels without history that did not ask to be told about gaps in one of these."""
        found: set[Hashable] = set()
        for channel in self._channels.values():
            if _is_plain(channel, self.archive) and not channel.name.startswith(PRESENCE):
                found.update(channel.members.keys() - (channel.asking or set()))
        return found

    def tell_missed(self, name: str, position: str) -> None:
        """
        Tell subscribers that they have missed publications up to *position*.

        :param name: a channel with history, or a wildcard subscription. For a channel, the subscribers of wildcards
            that match it are told, too.
        :param position: the position after which the publications continue.
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
        Within the context, do not send *subscriber* what this node publishes to *channels*. It stays subscribed.

        This needs a bus that passes a publication to its own node before ``publish`` returns
        (:attr:`lhttp_tx.interfaces.IBus.is_immediate`), as the buses of this project do.
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
        """
        Take publications from the bus. They go to the subscribers at once, or with their run if the hub is corked.
        """
        if channel != self._run_channel or binary is not self._run_binary:
            if self.run:
                self.flush()
            if channel not in self._channels:
                return
            self._run_channel = channel
            self._run_binary = binary
        self.run += payloads
        if len(payloads) == 1:
            self._run_size += len(payloads[0]) + HEAD_SIZE
        else:
            self._run_size += sum(map(len, payloads)) + HEAD_SIZE * len(payloads)
        if not self._corks or self._run_size >= _RUN_SIZE:
            self.flush()

    def cork(self) -> None:
        """Hold back and join publications until :meth:`uncork` has been called as often as this method."""
        self._corks += 1

    def uncork(self) -> None:
        """Undo one call of :meth:`cork`. The last one delivers the publications that were held back."""
        self._corks -= 1
        if not self._corks and self.run:
            self.flush()

    def flush(self) -> None:
        """
        Deliver the publications that are held back.

        To keep the order, call this before you write to a connection without the hub. If a function that takes a
        delivery publishes to the same channel, the other subscribers first get the current delivery.
        """
        if not self.run:
            self._run_channel = ""
            return
        run, binary, channel = self.run, self._run_binary, self._channels.get(self._run_channel)
        self.run, self._run_channel, self._run_size = [], "", 0
        if channel is None:
            return
        if channel.later is not None:
            channel.later.append((run, binary))
            return
        later = channel.later = []
        try:
            for _ in range(_MAX_NESTED):
                delivery = Delivery(channel.name, run, binary)
                members = tuple(channel.members.values())
                self.reached = len(members)
                for deliver in members:
                    deliver(delivery)
                if not later:
                    return
                run, binary = later.pop(0)
            _log.error("dropped publications to {channel}: its deliveries cause ever more", channel=channel.name)
        finally:
            channel.later = None
