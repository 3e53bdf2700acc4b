"""
The hub: channels, who is subscribed to them on this node, and the way from the bus to the subscribers.

Sessions subscribe here and publications enter here; it knows the bus and, of a subscriber, one callable that takes
frames. It must not import sessions or protocols.

Two rules of speed live here: a publication is framed once for all its subscribers, and the publications that one
read brings in for one channel are joined and written once to each of them.
"""

from collections.abc import Callable, Hashable, Iterable
from typing import TypeAlias

from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger
from twisted.python.failure import Failure

from lhttp_tx.frames import build_frame
from lhttp_tx.interfaces import IBus, MaybeDeferred

__all__ = ["Hub"]

_log = Logger()

_RUN_SIZE = 65_536
"""Bytes of joined publications after which a run is written, though the read may bring more."""

SendFrame: TypeAlias = Callable[[bytes], None]


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
    """Local fan-out over one bus subscription a channel."""

    def __init__(self, *, bus: IBus) -> None:
        """:param bus: what publications travel on; started and stopped by its owner, not here."""
        self._bus = bus
        self._channels: dict[str, _Channel] = {}
        self._corks = 0
        self._run: list[bytes] = []
        self._run_channel = ""
        self._run_size = 0
        bus.bracket(self.cork, self.uncork)

    @property
    def channels(self) -> dict[str, int]:
        """The channels that have subscribers on this node, with how many."""
        return {name: len(channel.members) for name, channel in self._channels.items()}

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
        result = self._bus.subscribe(name, self.receive)
        channel = self._channels[name] = _Channel(name)
        channel.members[subscriber] = send_frame
        if result is None:
            return None
        waiter: Deferred[None] = Deferred()
        channel.waiters = [waiter]
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
            self._bus.unsubscribe(channel, self.receive)

    def publish(self, channels: Iterable[str], payload: bytes, binary: bool) -> MaybeDeferred:
        """
        Publish *payload* to each of *channels*, in order.

        :param channels: valid channel names.
        :param payload: an LHTTP message as subscribers get it.
        :param binary: whether it travels as a binary WebSocket message.
        :returns: ``None`` if the bus has taken all, else a Deferred that

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

    def receive(self, channel: str, payload: bytes, binary: bool) -> None:
        """Take a publication from the bus; it goes to the subscribers at once, or with its run if corked."""
        if channel != self._run_channel:
            self.flush()
            if channel not in self._channels:
                return
            self._run_channel = channel
        frame = build_frame(payload, binary)
        self._run.append(frame)
        self._run_size += len(frame)
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
            data = run[0] if len(run) == 1 else b"".join(run)
            for send_frame in tuple(channel.members.values()):
                send_frame(data)
