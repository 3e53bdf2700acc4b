"""
Connects a bus, which delivers publications, and a store, which keeps them.

The hub uses an :class:`Archive` for publications that have a message id, or go to a channel with history. It passes all
others to the bus directly. Source: the protocol document, sections "History" and "Message ids".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from operator import length_hint
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from lhttp_tx.codec.message import Head
from lhttp_tx.codec.positions import format_position, offset_of, unmarked
from lhttp_tx.codec.wildcards import is_wildcard
from lhttp_tx.errors import BusUnavailable, ChannelsRefused, HistoryUnavailable
from lhttp_tx.history.ids import MessageIds
from lhttp_tx.history.turns import Turns
from lhttp_tx.history.values import Filing, Placing, Retention, filing_of
from lhttp_tx.interfaces import IBus, IHistoryStore, MaybeDeferred

__all__ = ["Archive", "FindRetention"]

FindRetention = Callable[[str], Retention | None]
"""Returns the history class of a channel; ``None`` if the channel has no history."""

_CHANNELS = 4096
"""The most channels in the cache of history classes. When it is full, it is cleared."""

_CHUNK = 1024
"""The most publications that go to the store in one call."""


class Archive:
    """
    The history of one server.

    :ivar store: the history store.
    :ivar turns: limits how much is read for clients in one turn of the reactor.
    :ivar placed: a list to which the positions of the next run are appended, encoded; ``None`` if nobody asks.
    :ivar identify: called with each payload of the next run, to get its message id or ``None``; ``None`` if nobody asks
        for the outcome of each.
    :ivar filed: a list to which these outcomes are appended.
    """

    def __init__(
        self, store: IHistoryStore, bus: IBus, *, find: FindRetention, clock: IReactorTime, window: float = 120.0
    ) -> None:
        """
        :param store: the history store. Its owner starts and stops it.
        :param bus: the bus.
        :param find: returns the history class of a channel.
        :param clock: the reactor.
        :param window: seconds for which this node remembers message ids in channels without history.
        """
        self.store = store
        self.turns = Turns(clock)
        self.placed: list[bytes] | None = None
        self.identify: Callable[[bytes], str | None] | None = None
        self.filed: list[Filing] = []
        self._bus = bus
        self._find = find
        self._clock = clock
        self._ids = MessageIds(window)
        self._known: dict[str, Retention | None] = {}

    def retention(self, channel: str) -> Retention | None:
        """
        Return the history class of *channel*; ``None`` if it has no history.

        :param channel: the name of a channel, or a wildcard subscription. Wildcards and the server's own channels have
            no history.
        """
        try:
            return self._known[channel]
        except KeyError:
            if len(self._known) >= _CHANNELS:
                self._known.clear()
            has_none = channel.startswith("$") or is_wildcard(channel)
            found = self._known[channel] = None if has_none else self._find(channel)
            return found

    def forget(self) -> None:
        """Clear the cache of history classes, because the rules have changed."""
        self._known.clear()

    def filing(self, head: Head, *, wanted: bool) -> Filing | None:
        """
        Return how to store a publication, and where to put the outcomes. Return ``None`` if it needs neither.

        :param head: the head of the publication.
        :param wanted: whether somebody asks for the outcomes.
        :raises RemoteProtocolError: if its message id is malformed.
        """
        return filing_of(head, wanted=wanted)

    def unforged(self, channels: tuple[str, ...], payload: bytes) -> bytes:
        """
        Return a publication to several channels. If one of them has history, headers ``offset`` and ``after`` that the
        publisher has written are removed.

        A client that is subscribed to two of the channels could not tell the copies apart.
        """
        if any(self.retention(channel) is not None for channel in channels):
            return unmarked(payload)
        return payload

    def publish(self, channel: str, payload: bytes, binary: bool, filing: Filing | None) -> MaybeDeferred:
        """
        Publish to one channel, like :meth:`lhttp_tx.interfaces.IBus.publish`.

        :param filing: how to store the publication; gets the outcome in this channel. ``None``: store it, and nobody
            asks.
        :raises HistoryUnavailable: if the channel has history, and the store does not accept the publication.
        """
        retention = self.retention(channel)
        if retention is None or (filing is not None and not filing.stored):
            return self._publish_unkept(channel, payload if retention is None else unmarked(payload), binary, filing)
        placing = None if filing is None else filing.place(channel)
        marked = _check(self.store.append(channel, retention, [payload], binary, placing))
        if filing is not None and placing is not None and placing.position is None:
            filing.is_open = placing.is_late = True
        return self._bus.publish(channel, marked[0], binary) if marked else None

    def _publish_unkept(self, channel: str, payload: bytes, binary: bool, filing: Filing | None) -> MaybeDeferred:
        placing = None if filing is None else filing.place(channel)
        if filing is None or placing is None or placing.message_id is None:
            return self._bus.publish(channel, payload, binary)
        now = self._clock.seconds()
        if self._ids.find(channel, placing.message_id, now) is not None:
            placing.duplicate = True
            return None
        result = self._bus.publish(channel, payload, binary)
        filing.undo = partial(self._forget_ids, filing)
        if result is None:
            self._ids.note(channel, placing.message_id, 0, now)
            return None
        return result.addCallback(self._published, placing)

    def _forget_ids(self, filing: Filing, channels: frozenset[str] | None) -> None:
        """
        Forget the message ids of a publication that the bus has not confirmed, so that the publisher can send it again.

        A channel that has had the publication before remembers its id.

        :param channels: the channels in which it may be lost; ``None``: all.
        """
        for placing in filing.placings:
            if placing.message_id is None or placing.position is not None or placing.duplicate:
                continue
            if channels is None or placing.channel in channels:
                self._ids.forget(placing.channel, placing.message_id)

    def _published(self, _: None, placing: Placing) -> None:
        assert placing.message_id is not None
        self._ids.note(placing.channel, placing.message_id, 0, self._clock.seconds())

    def publish_run(self, channel: str, retention: Retention, payloads: Iterator[bytes], binary: bool) -> MaybeDeferred:
        """
        Publish to a channel with history, like :meth:`lhttp_tx.interfaces.IBus.publish_run`.

        :param retention: the history class of the channel.
        :raises HistoryUnavailable: if the store does not accept the publications. The text says how many these are.
        """
        if not self.store.available:
            next(payloads, None)
            raise HistoryUnavailable(self.store.trouble or "the history store is unavailable, try again later")
        waiting: list[Deferred[None]] = []
        while True:
            run: list[bytes] = []
            try:
                run.extend(islice(payloads, _CHUNK))
            finally:
                if run:
                    self._publish_chunk(channel, retention, run, binary, waiting)
            if len(run) < _CHUNK:
                break
        if not waiting:
            return None
        gathered = gatherResults(waiting, consumeErrors=True)
        return gathered.addCallbacks(lambda _: None, lambda failure: failure.value.subFailure)

    def publish_identified(self, channel: str, payloads: Iterator[bytes], binary: bool) -> MaybeDeferred:
        """
        Publish messages to one channel, and record the outcome of each, up to the first one that the bus does not take
        at once. The later ones stay in the iterator.

        :raises HistoryUnavailable: like :meth:`publish`.
        """
        assert self.identify is not None
        for payload in payloads:
            filing = Filing(self.identify(payload))
            result = self.publish(channel, payload, binary, filing)
            self.filed.append(filing)
            if result is not None:
                return result
        return None

    def _publish_chunk(
        self, channel: str, retention: Retention, run: list[bytes], binary: bool, waiting: list[Deferred[None]]
    ) -> None:
        try:
            marked = _check(self.store.append(channel, retention, run, binary))
        except HistoryUnavailable as error:
            if len(run) == 1:
                raise
            raise HistoryUnavailable(f"{len(run)} publications in a row: {error.reason}") from error
        placed = self.placed
        if placed is not None:
            epoch = self.store.epoch_of(retention)
            placed += [format_position(epoch, offset).encode() for offset in _offsets(marked)]
        rest = iter(marked)
        try:
            while length_hint(rest):  # a bus that returns a Deferred leaves the rest
                result = self._bus.publish_run(channel, rest, binary)
                if result is not None:
                    waiting.append(result)
        except BaseException:
            if placed is not None:  # the bus has refused the last one that it took, and was not given the rest
                del placed[len(placed) - length_hint(rest) - 1 :]
            raise

    def confirm(self) -> MaybeDeferred:
        """
        Find out when the store and the bus have all earlier publications; see :meth:`lhttp_tx.interfaces.IBus.confirm`.

        If the Deferred fails with :exc:`~lhttp_tx.errors.HistoryUnavailable`, only the store has failed.
        """
        stored, arrived = self.store.confirm(), self._bus.confirm()
        if stored is None or arrived is None:
            return arrived if stored is None else stored
        return stored.addBoth(_with, arrived)


def _with(stored: Failure | None, arrived: Deferred[None]) -> Deferred[Any]:
    """Return a Deferred with the result of the store if the bus has everything, else with the failure of the bus."""

    def failed(failure: Failure) -> Failure:
        error = failure.value
        if isinstance(stored, Failure) and isinstance(error, ChannelsRefused):  # more is lost than what this one says
            return Failure(BusUnavailable(error.reason))
        return failure

    return arrived.addCallbacks(lambda _: stored, failed)


def _check(marked: object) -> list[bytes]:
    """:raises TypeError: if a store's ``append`` has returned anything but a list."""
    if not isinstance(marked, list):
        raise TypeError(f"append of a history store has returned {marked!r}, which is no list of bytes")
    return marked


def _offsets(marked: list[bytes]) -> Iterable[int]:
    """Return the offsets of publications that a store has marked. They rise; mostly, they are consecutive."""
    first, last = offset_of(marked[0]), offset_of(marked[-1])
    return range(first, last + 1) if last - first == len(marked) - 1 else map(offset_of, marked)
