"""
The event streams of one server, and the objects that they share.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote
from weakref import WeakValueDictionary

from lhttp_tx.errors import HistoryUnavailable, Refused
from lhttp_tx.transports.pulse import Beating, Pulse
from lhttp_tx.transports.websocket.factory import LHTTPServerFactory
from lhttp_tx.web.events.encoding import VIEWS, Several, Single, View
from lhttp_tx.web.events.query import MAX_ID_SIZE
from lhttp_tx.web.events.tickets import Tickets

__all__ = ["Streams"]

_POSITION_SIZE = 22
"""Bytes of a position in an id, without its channel and epoch: the offset and the separators."""


class Streams:
    """
    The objects that the streams of a server share: encodings, heartbeats, tickets, and the count.

    :ivar factory: makes the WebSockets of the server. Streams count as such, and use its outbox.
    :ivar engine: the engine.
    :ivar clock: the reactor.
    :ivar tickets: the unused tickets.
    :ivar patience: seconds for which a client may leave bytes unacknowledged; 0: the default of the system.
    :ivar close_timeout: seconds within which a client must read the last bytes.
    """

    def __init__(self, factory: LHTTPServerFactory) -> None:
        """:param factory: makes the WebSockets of the server."""
        self.factory = factory
        self.engine = factory.engine
        self.clock: Any = factory.reactor
        self.tickets = Tickets(self.clock)
        interval: float = factory.autoPingInterval
        self.patience: float = interval + factory.autoPingTimeout if interval else 0.0
        self.close_timeout: float = factory.closeHandshakeTimeout
        self._pulse = Pulse(self.clock, interval)
        self._several = {view: Several(view) for view in VIEWS.values()}
        self._singles: WeakValueDictionary[tuple[View, str], Single] = WeakValueDictionary()

    def several(self, view: View) -> Several:
        """Return the encoding for streams of several channels."""
        return self._several[view]

    def single(self, view: View, channel: str) -> Single:
        """Return the encoding for streams of one channel. It is kept while a stream uses it."""
        found = self._singles.get((view, channel))
        if found is None:
            found = self._singles[view, channel] = Single(view, channel, self.epoch_of)
        return found

    def is_kept(self, channel: str) -> bool:
        """Return whether a channel has history."""
        archive = self.engine.hub.archive
        return archive is not None and archive.retention(channel) is not None

    def epoch_of(self, channel: str) -> str | None:
        """Return the epoch of the positions of a channel; ``None`` if it has no history, or the epoch is not known."""
        archive = self.engine.hub.archive
        retention = None if archive is None else archive.retention(channel)
        if archive is None or retention is None:
            return None
        try:
            return archive.store.epoch_of(retention)
        except HistoryUnavailable:
            return None

    def check_ids(self, channels: tuple[str, ...]) -> None:
        """:raises Refused: with status 400 if the ids of the events of these channels would be too long."""
        if len(channels) == 1:
            return
        size = 0
        for channel in channels:
            epoch = self.epoch_of(channel)
            size += 0 if epoch is None else len(quote(channel, safe="")) + len(epoch) + _POSITION_SIZE
        if size > MAX_ID_SIZE:
            raise Refused(400, f"an id of these channels has more than {MAX_ID_SIZE} bytes: use several streams")

    def check_room(self) -> None:
        """:raises Refused: with status 503 if there are too many connections already."""
        if 0 < self.factory.maxConnections <= self.factory.countConnections:
            raise Refused(503, "too many connections")

    def entered(self, stream: Beating) -> None:
        """Count a stream, and send heartbeats to it."""
        self.factory.countConnections += 1
        self._pulse.add(stream)

    def left(self, stream: Beating) -> None:
        """Stop counting a stream, and send it no more heartbeats."""
        if stream.part >= 0:
            self.factory.countConnections -= 1
            self._pulse.discard(stream)
            stream.part = -1
