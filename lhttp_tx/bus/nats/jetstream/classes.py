"""
The streams of all history classes of a node, and the publications on their way into the streams.

A part of :class:`lhttp_tx.bus.nats.jetstream.store.JetStreamHistory`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, final

from twisted.internet.defer import DeferredList
from twisted.python.failure import Failure

from lhttp_tx.bus.nats.bus import BusParts
from lhttp_tx.bus.nats.jetstream.appends import Appends, Tips
from lhttp_tx.bus.nats.jetstream.settings import NO_PREFIX, StreamSettings
from lhttp_tx.bus.nats.jetstream.streams import Stream, StreamState
from lhttp_tx.bus.nats.link import Link
from lhttp_tx.errors import HistoryUnavailable
from lhttp_tx.history.values import Retention
from lhttp_tx.interfaces import MaybeDeferred

__all__ = ["Classes"]

_MAX_CLASSES = 64
"""History classes that one node has at most."""


@final
class Classes:
    """
    One stream for each class.

    :ivar tips: what this node has stored last in each channel.
    :ivar wanted: called when there is one more.
    :ivar changed: called as ``changed`` of :class:`lhttp_tx.bus.nats.jetstream.streams.Stream`.
    """

    def __init__(
        self,
        parts: BusParts,
        settings: StreamSettings,
        link: Callable[[], Link | None],
        *,
        clock: Any,
    ) -> None:
        """
        :param parts: what is used of the bus.
        :param settings: what the streams are like.
        :param link: returns the link to use.
        :param clock: the reactor.
        """
        self.tips = Tips()
        self._parts = parts
        self._settings = settings
        self._link = link
        self.changed: Callable[[Stream, StreamState | None, StreamState], None] = _nothing_changed
        self.wanted: Callable[[], None] = _nothing_wanted
        self._clock = clock
        self._streams: dict[str, Stream] = {}
        self._by_class: dict[str, Stream] = {}
        self._appends: dict[str, Appends] = {}

    def all(self) -> Collection[Stream]:
        """Return all streams."""
        return self._streams.values()

    def named(self, name: str) -> Stream | None:
        """Return the stream of this name, if it is one of these."""
        return self._streams.get(name)

    def stream(self, retention: Retention) -> Stream:
        """
        Return the stream of a history class, which begins to look for it where it is new.

        :raises HistoryUnavailable: if there are too many classes, or subjects have no prefix.
        """
        stream = self._by_class.get(retention.name)
        if stream is not None:
            if retention is not stream.retention:
                stream.keep(retention)
            return stream
        if len(self._streams) >= _MAX_CLASSES:
            raise HistoryUnavailable(f"there are more than {_MAX_CLASSES} history classes")
        servers = self._parts.servers
        if not servers.prefix:
            raise HistoryUnavailable(NO_PREFIX)
        stream = Stream(retention, servers.prefix, self._settings, self._link, self._stream_changed)
        self._streams[stream.name] = self._by_class[retention.name] = stream
        self._appends[stream.name] = Appends(
            stream, self._sending_link, self.tips, clock=self._clock, timeout=servers.timeout
        )
        if self._link() is not None:
            stream.open()
        self.wanted()
        return stream

    def appends(self, stream: Stream) -> Appends:
        """Return what is on its way into a stream."""
        return self._appends[stream.name]

    def _stream_changed(self, stream: Stream, before: StreamState | None, now: StreamState) -> None:
        if before is not None and before.epoch != now.epoch:
            self.tips.forget(stream)
        self.changed(stream, before, now)
        if stream.name in self._appends:
            self._appends[stream.name].send()

    def _sending_link(self) -> Link | None:
        """Return the link to send over; none in the moment in which the node moves to another one."""
        return self._link() if self._parts.keeper.waiting is None else None

    def open(self) -> None:
        """There is a link, or another one."""
        for stream in self._streams.values():
            stream.open()
            self._appends[stream.name].send()

    def unlinked(self, why: str) -> None:
        """There is no link."""
        for stream in self._streams.values():
            stream.trouble = why

    def close(self) -> None:
        """Forget all of them, and give up what is under way."""
        for stream in self._streams.values():
            self._appends[stream.name].close()
            stream.close("the history store has stopped")
        self._streams.clear()
        self._by_class.clear()
        self._appends.clear()

    def confirm(self) -> MaybeDeferred:
        """See :meth:`lhttp_tx.interfaces.IHistoryStore.confirm`."""
        waiting = [result for appends in self._appends.values() if (result := appends.confirm()) is not None]
        if len(waiting) < 2:
            return waiting[0] if waiting else None
        return DeferredList(waiting, fireOnOneErrback=True, consumeErrors=True).addCallbacks(_nothing, _first_failure)


def _nothing_changed(stream: Stream, before: StreamState | None, now: StreamState) -> None:
    """Nobody wants to know."""


def _nothing_wanted() -> None:
    """Nobody wants to know."""


def _nothing(_: object) -> None:
    """All is well."""


def _first_failure(failure: Failure) -> Failure:
    found: Failure = failure.value.subFailure  # type: ignore[union-attr]
    return found
