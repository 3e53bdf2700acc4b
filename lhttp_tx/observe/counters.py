"""
The counters of a server, for its metrics: plain numbers, which cost almost nothing.

Only a server with ``Config(metrics=True)`` has a :class:`Counters`. It counts for runs of messages, for connections and
for errors, never for each message on its own. :mod:`lhttp_tx.web.admin.metrics` shows the numbers. Imports nothing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence

__all__ = ["LONG", "SHORT", "Counters", "Histogram"]

SHORT: tuple[float, ...] = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
"""Upper bounds, in seconds, for work inside the server."""

LONG: tuple[float, ...] = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds, in seconds, for work that waits for other programs."""


class Histogram:
    """
    The numbers of values between bounds.

    :ivar count: the number of values.
    :ivar total: their sum.
    """

    __slots__ = ("_bounds", "_counts", "count", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        """:param bounds: the upper bounds of the buckets, which rise. A bucket for larger values is added."""
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self.count = 0
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.count += 1
        self.total += value

    def buckets(self) -> Iterator[tuple[float, int]]:
        """Yield each bound, and the number of values that are at most as large. The last bound is infinite."""
        below = 0
        for bound, count in zip((*self._bounds, float("inf")), self._counts, strict=True):
            below += count
            yield bound, below


class Counters:
    """
    The numbers of one server since it was made. All of them only rise.

    Clients cannot make the dicts grow: their keys are statuses, names of exceptions of this project, close codes that
    the server knows, and commands of processors.

    :ivar received_messages: messages that clients sent.
    :ivar received_bytes: bytes that clients sent over WebSocket or plain TCP, after TLS is removed.
    :ivar publications: publications that this node made, one for each channel.
    :ivar deliveries: publications handed to connections, one for each subscriber.
    :ivar delivered_bytes: bytes of these, before framing and compression.
    :ivar opened: connections that got a session.
    :ivar closed: connections that ended, by close code and by the side that closed: ``server`` or ``client``.
    :ivar refused: opening handshakes that were refused, by HTTP status.
    :ivar requests: HTTP requests that were answered on the public port, by status.
    :ivar errors: error messages to clients, by status and cause.
    :ivar unconfirmed: confirmations that failed, by cause; each may concern many receipts.
    :ivar pauses: how often reading from a client was paused, by reason.
    :ivar recoveries: channels that clients have recovered, and channels in which they have missed messages.
    :ivar gaps: how often this node may have missed publications.
    :ivar upstream: requests to backends, by outcome.
    :ivar handshakes: seconds from the arrival of a handshake until the connection is open.
    :ivar upstream_times: seconds that backends took.
    :ivar bus_times: seconds until the bus had confirmed publications.
    :ivar history_times: seconds until the history store had confirmed publications.
    :ivar round_trips: seconds of a round trip to the bus, once a second.
    :ivar lag: seconds by which the reactor was late, once a second.
    """

    __slots__ = (
        *("bus_times", "closed", "delivered_bytes", "deliveries", "errors", "gaps", "handshakes", "history_times"),
        *("lag", "opened", "pauses", "processors", "publications", "received_bytes", "received_messages"),
        *("recoveries", "refused", "requests", "round_trips", "unconfirmed", "upstream", "upstream_times"),
    )

    def __init__(self) -> None:
        self.received_messages = self.received_bytes = 0
        self.publications = self.deliveries = self.delivered_bytes = 0
        self.opened = self.gaps = 0
        self.closed: Counter[tuple[str, str]] = Counter()
        self.refused: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        self.errors: Counter[tuple[str, str]] = Counter()
        self.unconfirmed: Counter[str] = Counter()
        self.pauses: Counter[str] = Counter()
        self.recoveries: Counter[str] = Counter()
        self.upstream: Counter[str] = Counter()
        self.processors: dict[str, Histogram] = {}
        self.handshakes = Histogram(LONG)
        self.upstream_times = Histogram(LONG)
        self.bus_times = Histogram(LONG)
        self.history_times = Histogram(LONG)
        self.round_trips = Histogram(SHORT)
        self.lag = Histogram(SHORT)

    def processor(self, command: str) -> Histogram:
        """Return the times of the processor of *command*: seconds for each message."""
        found = self.processors.get(command)
        if found is None:
            found = self.processors[command] = Histogram(SHORT)
        return found

    def count_recovery(self, recovered: int, missed: int) -> None:
        """Count the channels in which a client has recovered everything, and those in which it has missed messages."""
        self.recoveries["recovered"] += recovered
        self.recoveries["missed"] += missed

    def count_gap(self) -> None:
        """Count an interruption in which this node may have missed publications."""
        self.gaps += 1
