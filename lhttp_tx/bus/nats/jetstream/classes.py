"""
The streams of all history classes of a node, and the publications on their way into these streams.

A part of :class:`lhttp_tx.bus.nats.jetstream.store.JetStreamHistory`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, final

from twisted.internet.defer import DeferredList

from lhttp_tx.bus.nats.bus import BusParts
from lhttp_tx.bus.nats.jetstream.appends import Appends
from lhttp_tx.bus.nats.jetstream.settings import NO_PREFIX, StreamSettings
from lhttp_tx.bus.nats.jetstream.streams import Stream, StreamState
from lhttp_tx.bus.nats.jetstream.tips import Tips
from lhttp_tx.bus.nats.link import Link
from lhttp_tx.bus.nats.subjects import channel_of
from lhttp_tx.errors import HistoryUnavailable
from lhttp_tx.history.values import Retention
from lhttp_tx.interfaces import MaybeDeferred

__all__ = ["Classes"]

_REFUSAL_TIME = 60.0
"""Seconds for which a refusal counts. The cause may be gone, but nobody publishes."""

_MAX_CLASSES = 64
"""The most history classes of one node."""


@final
class Classes:
    """
    One stream for each history class.

    :ivar tips: the largest offset that this node knows of each channel.
    :ivar wanted: called without arguments when a class was added.
    :ivar changed: called like ``changed`` of :class:`lhttp_tx.bus.nats.jetstream.streams.Stream`.
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
        :param parts: the parts of the bus.
        :param settings: the settings of the streams.
        :param link: returns the link to use; ``None`` if there is none.
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

    def refuse(self) -> bool:
        """
        Return whether a stream has refused a publication within the last minute, for example because JetStream has no
        space, and has taken none since.
        """
        since = self._clock.seconds() - _REFUSAL_TIME
        return any(stream.refused is not None and stream.refused > since for stream in self._streams.values())

    def named(self, name: str) -> Stream | None:
        """Return the stream with this name; ``None`` if none of these has it."""
        return self._streams.get(name)

    def stream(self, retention: Retention) -> Stream:
        """
        Return the stream of a history class. If the class is new, begin to open its stream.

        :raises HistoryUnavailable: if there are too many classes, or the subjects of the bus have no prefix.
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
        """Return the publications on their way into *stream*."""
        return self._appends[stream.name]

    def _stream_changed(self, stream: Stream, before: StreamState | None, now: StreamState) -> None:
        if before is not None and before.epoch != now.epoch:
            self.tips.forget(stream)
        self.changed(stream, before, now)
        if stream.name in self._appends:
            self._appends[stream.name].send()

    def _sending_link(self) -> Link | None:
        """Return the link to send over; ``None`` if there is none, or while the node moves to another one."""
        return self._link() if self._parts.keeper.waiting is None else None

    def open(self) -> None:
        """Open the streams on a new link, and send what waits."""
        for stream in self._streams.values():
            stream.open()
            self._appends[stream.name].send()

    def unlinked(self, why: str) -> None:
        """Note that there is no link. *why* is the reason that publishers get."""
        for stream in self._streams.values():
            stream.trouble = why

    def denied(self, link: Link, subject: str) -> None:
        """Note that NATS has refused a publication to *subject*, which may belong to one of the streams."""
        for stream in self._streams.values():
            channel = channel_of(subject, stream.source)
            if channel is not None:
                self._appends[stream.name].denied(link, channel)

    def close(self) -> None:
        """Close all streams, and fail the publications that wait for acknowledgements."""
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
        return DeferredList(waiting, consumeErrors=True).addCallback(_first_failure)


def _nothing_changed(stream: Stream, before: StreamState | None, now: StreamState) -> None:
    """Do nothing."""


def _nothing_wanted() -> None:
    """Do nothing."""


def _first_failure(results: list[tuple[bool, None]]) -> Any:
    """Return the first failure, or ``None`` if there is none."""
    return next((result for succeeded, result in results if not succeeded), None)
