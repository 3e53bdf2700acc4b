"""
The bus of a server that runs alone: it passes publications on within one process.

The assembly uses it if no other bus is chosen. Tests use it, too. Several hubs may share one bus.
"""

from collections.abc import Callable, Iterator

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from zope.interface import implementer

from lhttp_tx.codec.wildcards import Wildcards, is_wildcard
from lhttp_tx.errors import BusUnavailable
from lhttp_tx.interfaces import BusReceiver, IBus, MaybeDeferred

__all__ = ["MemoryBus"]


@implementer(IBus)
class MemoryBus:
    """
    Passes each publication to its receivers before :meth:`publish` returns.

    It stores nothing: a channel costs memory only while it has a receiver. Several servers may share it. Each of them
    starts and stops it. It stops when the last server stops it.
    """

    _log = Logger()
    description = "in memory (this process only)"
    is_immediate = True

    def __init__(self) -> None:
        self._receivers: dict[str, tuple[BusReceiver, ...]] = {}
        self._wildcards = Wildcards()
        self._has_wildcards = False
        self._running = True
        self._users = 0

    @property
    def channels(self) -> frozenset[str]:
        """The channels that have a receiver."""
        return frozenset(self._receivers)

    @property
    def available(self) -> bool:
        """See :class:`lhttp_tx.interfaces.IBus`."""
        return self._running

    def bracket(self, begin: Callable[[], None], end: Callable[[], None]) -> None:
        """See :meth:`lhttp_tx.interfaces.IBus.bracket`. This bus has no other nodes, so it calls neither function."""

    def start(self) -> Deferred[None]:
        """See :meth:`lhttp_tx.interfaces.IBus.start`."""
        self._users += 1
        self._running = True
        return succeed(None)

    def stop(self) -> Deferred[None]:
        """See :meth:`lhttp_tx.interfaces.IBus.stop`."""
        self._users -= 1
        if self._users <= 0:
            self._users = 0
            self._running = False
            self._receivers.clear()
            self._wildcards = Wildcards()
            self._has_wildcards = False
        return succeed(None)

    def subscribe(self, channel: str, receiver: BusReceiver) -> MaybeDeferred:
        """See :meth:`lhttp_tx.interfaces.IBus.subscribe`."""
        if not self._running:
            raise BusUnavailable("the bus has stopped")
        receivers = self._receivers.get(channel, ())
        if receiver not in receivers:
            self._receivers[channel] = (*receivers, receiver)
            if is_wildcard(channel):
                self._wildcards.add(channel)
                self._has_wildcards = True
        return None

    def unsubscribe(self, channel: str, receiver: BusReceiver) -> None:
        """See :meth:`lhttp_tx.interfaces.IBus.unsubscribe`."""
        left = tuple(known for known in self._receivers.get(channel, ()) if known != receiver)
        if left:
            self._receivers[channel] = left
        else:
            self._receivers.pop(channel, None)
            if self._has_wildcards:
                self._wildcards.discard(channel)
                self._has_wildcards = len(self._wildcards) > 0

    def publish(self, channel: str, payload: bytes, binary: bool) -> MaybeDeferred:
        """See :meth:`lhttp_tx.interfaces.IBus.publish`."""
        if not self._running:
            raise BusUnavailable("the bus has stopped")
        if self._has_wildcards or channel in self._receivers:
            self._spread(channel, [payload], binary)
        return None

    def publish_run(self, channel: str, payloads: Iterator[bytes], binary: bool) -> MaybeDeferred:
        """See :meth:`lhttp_tx.interfaces.IBus.publish_run`."""
        if not self._running:
            next(payloads, None)
            raise BusUnavailable("the bus has stopped")
        run: list[bytes] = []
        try:
            run.extend(payloads)
        finally:
            if run:
                self._spread(channel, run, binary)
        return None

    def confirm(self) -> MaybeDeferred:
        """See :meth:`lhttp_tx.interfaces.IBus.confirm`. Every publication has already arrived."""
        return None

    def _spread(self, channel: str, run: list[bytes], binary: bool) -> None:
        self._deliver(channel, run, binary)
        if self._has_wildcards:
            for wildcard in self._wildcards.matching(channel):
                self._deliver(wildcard, run, binary)

    def _deliver(self, name: str, run: list[bytes], binary: bool) -> None:
        for receiver in self._receivers.get(name, ()):
            try:
                receiver(name, run, binary)
            except Exception:
                self._log.failure("a receiver of the bus failed")
