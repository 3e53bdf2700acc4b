"""
The hub: channels, who is subscribed to them on this node, and the way from the bus to the subscribers.

Sessions subscribe here and publications enter here; it knows the bus and, of a subscriber, one callable that takes
frames. It must not import sessions or protocols.

Two rules of speed live here: a publication is framed once for all its subscribers, and the publications that one
read brings in for one channel are joined and written once to each of them.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger
from twisted.python.failure import Failure

from lhttp_tx.channels import PRESENCE
from lhttp_tx.frames import build_frame, build_frames
from lhttp_tx.interfaces import IBus, MaybeDeferred

__all__ = ["Hub"]

_log = Logger()

_RUN_SIZE = 65_536
"""Bytes of joined publications after which a run is written, though more may come."""

_HEAD_SIZE = 4
"""Bytes that are counted for the head of a frame, so that empty publications count too."""

SendFrame: TypeAlias = Callable[[bytes], None]


def _send_nowhere(_: bytes) -> None:
    """Stand in for a subscriber that is not to hear what it publishes."""


class _Channel:
    """
    The subscribers of one channel on this node.

    :ivar members: each subscriber's way to send, in the order of subscribing.
    :ivar waiters: those who wait for the bus, each to be told once it has subscribed; ``None`` once it has.
    """

    __slots__ = ("members", "name", "waiters")

    def __init__(self, name: str) -> None:
        self.name = name
        self.members: dict[Hashable, SendFrame] = {}
        self.waiters: list[Deferred[None]] | None = None


class Hub:
    """
    Local fan-out over one bus subscription a channel.

    :ivar on_channel: called with a channel and whether it has subscribers now: when it gets its first one on this node,
        and when its last one leaves. May not raise.
    """

    def __init__(self, *, bus: IBus) -> None:
        """:param bus: what publications travel on; started and stopped by its owner, not here."""
        self._bus = bus
        self._channels: dict[str, _Channel] = {}
        self.on_channel: list[Callable[[str, bool], None]] = []
        self._corks = 0
        self._run: list[bytes] = []
        self._run_binary = False
        self._run_channel = ""
        self._run_size = 0
        bus.bracket(self.cork, self.uncork)

    @property
    def channels(self) -> dict[str, int]:
        """The channels that have subscribers on this node, with how many."""
        return {name: len(channel.members) for name, channel in self._channels.items()}

    def has_subscribers(self, channel: str) -> bool:
        """Return whether somebody is subscribed to *channel* on this node."""
        return channel in self._channels

    def subscribers(self, channel: str) -> tuple[Hashable, ...]:
        """Return who is subscribed to *channel* on this node, in the order of subscribing."""
        found = self._channels.get(channel)
        return () if found is None else tuple(found.members)

    def subscribe(self, subscriber: Hashable, channel: str, send_frame: SendFrame) -> MaybeDeferred:
        """
        Send every publication to *channel* to *subscriber* from now on.

        :param subscriber: who it is; subscribing again changes nothing.
        :param channel: a valid channel name.
        :param send_frame: called with whole WebSocket frames; must not raise.
        :returns: ``None`` if the bus has it, else a Deferred that

            - succeeds when the bus has it;
            - fails with :exc:`lhttp_tx.errors.BusUnavailable`; then the subscriber is gone from the channel.
        :raises BusUnavailable: if the bus refuses at once.
        """
        self.flush()
        found = self._channels.get(channel)
        if found is None:
            return self._subscribe_first(subscriber, channel, send_frame)
        found.members.setdefault(subscriber, send_frame)
        if found.waiters is None:
            return None
        waiter: Deferred[None] = Deferred()
        found.waiters.append(waiter)
        return waiter

    def _subscribe_first(self, subscriber: Hashable, name: str, send_frame: SendFrame) -> MaybeDeferred:
        result = None if name.startswith(PRESENCE) else self._bus.subscribe(name, self.receive)
        channel = self._channels[name] = _Channel(name)
        channel.members[subscriber] = send_frame
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
        """Send nothing of *channel* to *subscriber* any more. Does nothing if it was not subscribed."""
        self.flush()
        found = self._channels.get(channel)
        if found is None or found.members.pop(subscriber, None) is None:
            return
        if not found.members:
            del self._channels[channel]
            if not channel.startswith(PRESENCE):
                self._bus.unsubscribe(channel, self.receive)
            for call in self.on_channel:
                call(channel, False)

    def publish(self, channels: Iterable[str], payload: bytes, binary: bool) -> MaybeDeferred:
        """
        Publish *payload* to each of *channels*, in order.

        :param channels: valid channel names.
        :param payload: an LHTTP message as subscribers get it.
        :param binary: whether it travels as a binary WebSocket message.
        :returns: ``None`` if the bus has taken all, though it may be on its way still (see :meth:`confirm`), else a
            Deferred that

            - succeeds when the bus has taken all;
            - fails with :exc:`lhttp_tx.errors.BusUnavailable` if it refused one of them.
        :raises BusUnavailable: if the bus refuses at once.
        """
        waiting: list[Deferred[None]] | None = None
        for channel in channels:
            result = self._bus.publish(channel, payload, binary)
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
        Publish each of *payloads* to all of *channels*, as :meth:`publish`, until one is not done at once.

        The ones behind it are left in the iterator, both when this raises and when it returns a Deferred.
        """
        if len(channels) > 1:
            for payload in payloads:
                result = self.publish(channels, payload, binary)
                if result is not None:
                    return result
            return None
        return self._bus.publish_run(channels[0], payloads, binary)

    def confirm(self) -> MaybeDeferred:
        """Find out when the bus has all that was published before; see :meth:`lhttp_tx.interfaces.IBus.confirm`."""
        return self._bus.confirm()

    @contextmanager
    def silenced(self, subscriber: Hashable, channels: Iterable[str]) -> Iterator[None]:
        """
        Send *subscriber* nothing of *channels* that this node publishes meanwhile, though it stays subscribed.

        It takes a bus that hands a publication to its own node before ``publish`` returns, as those of the project do.
        """
        self.flush()
        silent = [(members, members[subscriber]) for members in self._members(channels) if subscriber in members]
        for members, _ in silent:
            members[subscriber] = _send_nowhere
        try:
            yield
        finally:
            self.flush()
            for members, send_frame in silent:
                if members.get(subscriber) is _send_nowhere:
                    members[subscriber] = send_frame

    def _members(self, channels: Iterable[str]) -> Iterator[dict[Hashable, SendFrame]]:
        for name in channels:
            channel = self._channels.get(name)
            if channel is not None:
                yield channel.members

    def receive(self, channel: str, payloads: list[bytes], binary: bool) -> None:
        """Take publications from the bus; they go to the subscribers at once, or with their run if corked."""
        if channel != self._run_channel or binary is not self._run_binary:
            self.flush()
            if channel not in self._channels:
                return
            self._run_channel = channel
            self._run_binary = binary
        self._run += payloads
        self._run_size += sum(map(len, payloads)) + _HEAD_SIZE * len(payloads)
        if not self._corks or self._run_size >= _RUN_SIZE:
            self.flush()

    def cork(self) -> None:
        """Hold back publications to join them, until as many :meth:`uncork` as calls of this were made."""
        self._corks += 1

    def uncork(self) -> None:
        """Take back one :meth:`cork`; the last one writes what was held back."""
        self._corks -= 1
        if not self._corks and self._run:
            self.flush()

    def flush(self) -> None:
        """
        Write what is held back, now.

        To be called before anything is written to a connection past the hub, so that order is kept.
        """
        if not self._run:
            self._run_channel = ""
            return
        run, channel = self._run, self._channels.get(self._run_channel)
        self._run, self._run_channel, self._run_size = [], "", 0
        if channel is not None:
            binary = self._run_binary
            data = build_frame(run[0], binary) if len(run) == 1 else build_frames(run, binary)
            for send_frame in tuple(channel.members.values()):
                send_frame(data)
