"""
The counters and the current state of the server, as metrics of Prometheus.

The counters are those of :mod:`lhttp_tx.observe.counters`. Everything else is collected on request. Clients cannot
choose the value of any label. Needs the extra ``metrics`` (prometheus-client).
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

import twisted
from lhttp_tx.cluster.listing import codec_of, kind_of, stage_of
from lhttp_tx.observe.counters import Counters, Histogram
from lhttp_tx.web.admin.managed import Managed

__all__ = ["ServerCollector", "make_registry"]


class ServerCollector:
    """Collects the metrics of one server, as prometheus-client's registry asks for them."""

    def __init__(self, managed: Managed, counters: Counters) -> None:
        """
        :param managed: the server.
        :param counters: its counters.
        """
        self._managed = managed
        self._counters = counters

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics."""
        yield from self._of_connections()
        yield from self._of_messages()
        yield from self._of_times()
        yield from self._of_bus()

    def _of_connections(self) -> Iterator[Metric]:
        counters, managed = self._counters, self._managed
        states: Counter[tuple[str, str, str]] = Counter()
        queued = queued_bytes = unsent = 0
        for session in managed.engine.sessions:
            transport = session._transport
            state = stage_of(session)
            states[kind_of(transport), codec_of(transport), state] += 1
            waiting, size = session.waiting
            queued += waiting
            queued_bytes += size
            if state != "closing":
                unsent += transport.unsent
        yield _gauges("lhttp_connections", "Open connections.", ("transport", "codec", "state"), states)
        yield _gauge("lhttp_connections_pending", "Connections that have not opened a WebSocket.", managed.pending)
        yield _gauge("lhttp_connections_limit", "The most connections; 0: no limit.", managed.config.max_connections)
        yield _counter("lhttp_connections_opened", "Connections that got a session.", counters.opened)
        yield _counters("lhttp_connections_closed", "Connections that ended.", ("code", "by"), counters.closed)
        yield _counters(
            "lhttp_handshakes_refused", "Refused opening handshakes.", ("status",), _single(counters.refused)
        )
        yield _counters("lhttp_http_requests", "Answered HTTP requests.", ("status",), _single(counters.requests))
        yield _gauge("lhttp_queued_messages", "Messages of clients that wait for their turn.", queued)
        yield _gauge("lhttp_queued_bytes", "Bytes of these messages.", queued_bytes)
        yield _gauge("lhttp_unsent_bytes", "Bytes for clients that have not left the server.", unsent)
        yield _counters(
            "lhttp_reading_pauses", "Pauses in reading from a client.", ("reason",), _single(counters.pauses)
        )

    def _of_messages(self) -> Iterator[Metric]:
        counters, managed = self._counters, self._managed
        yield _counter("lhttp_received_messages", "Messages of clients.", counters.received_messages)
        yield _counter("lhttp_received_bytes", "Bytes read from WebSocket and TCP clients.", counters.received_bytes)
        yield _counter("lhttp_publications", "Publications, one for each channel.", counters.publications)
        yield _counter("lhttp_deliveries", "Publications handed to subscribers.", counters.deliveries)
        yield _counter("lhttp_delivered_bytes", "Bytes of these, before framing.", counters.delivered_bytes)
        yield _counters("lhttp_errors", "Error messages to clients.", ("status", "cause"), counters.errors)
        yield _counters("lhttp_recoveries", "Channels that clients caught up with.", ("outcome",),
                        _single(counters.recoveries))  # fmt: skip
        yield _counters("lhttp_upstream_requests", "Requests to backends.", ("outcome",), _single(counters.upstream))
        users, sessions = managed.control.muting.mutes.counts()
        muted = {("user",): users, ("connection",): sessions}
        yield _gauges("lhttp_muted", "Mutes that are in force on this node.", ("kind",), muted)
        channels = managed.engine.hub.channels
        yield _gauge("lhttp_channels", "Channels with subscribers on this node.", len(channels))
        yield _gauge("lhttp_subscriptions", "Subscriptions on this node.", sum(channels.values()))
        rooms, people, connections = managed.presence.totals()
        yield _gauge("lhttp_presence_channels", "Channels of the cluster with people in them.", rooms)
        yield _gauge("lhttp_presence_people", "People in these channels.", people)
        yield _gauge("lhttp_presence_connections", "Connections of these people.", connections)

    def _of_times(self) -> Iterator[Metric]:
        counters = self._counters
        times = HistogramMetricFamily("lhttp_processor_seconds", "Time of processors.", labels=["command"])
        for command, histogram in sorted(counters.processors.items()):
            _fill(times, (command,), histogram)
        yield times
        for name, meaning, histogram in (
            ("lhttp_handshake_seconds", "Time until a WebSocket was open.", counters.handshakes),
            ("lhttp_upstream_seconds", "Time of backends.", counters.upstream_times),
            ("lhttp_bus_confirmation_seconds", "Time until the bus had publications.", counters.bus_times),
            ("lhttp_history_commit_seconds", "Time until the history store had publications.", counters.history_times),
            ("lhttp_bus_round_trip_seconds", "Time of a round trip to the bus.", counters.round_trips),
            ("lhttp_reactor_lag_seconds", "Time by which the reactor was late.", counters.lag),
        ):
            family = HistogramMetricFamily(name, meaning, labels=())
            _fill(family, (), histogram)
            yield family

    def _of_bus(self) -> Iterator[Metric]:
        counters, managed = self._counters, self._managed
        store = managed.histories.store
        yield _gauge("lhttp_bus_up", "Whether the bus takes publications.", int(managed.bus.available))
        yield _counter("lhttp_bus_gaps", "Times that publications may have been missed.", counters.gaps)
        yield _counters("lhttp_unconfirmed", "Confirmations that failed.", ("cause",), _single(counters.unconfirmed))
        yield _gauge("lhttp_nodes", "Nodes of the cluster, with this one.", 1 + len(managed.nodes.others))
        yield _gauge("lhttp_history_up", "Whether histories take publications.", int(managed.histories.available))
        size = _size_of(store)
        if size is not None:
            yield _gauge("lhttp_history_bytes", "Bytes of all histories.", size)
        info = GaugeMetricFamily("lhttp_build_info", "Versions.", labels=["version", "python", "twisted"])
        info.add_metric([managed.version, platform.python_version(), twisted.__version__], 1)
        yield info


def make_registry(managed: Managed, counters: Counters) -> CollectorRegistry:
    """Return the registry with the metrics of one server and of its process."""
    registry = CollectorRegistry()
    registry.register(ServerCollector(managed, counters))
    ProcessCollector(registry=registry)
    return registry


def _size_of(store: object) -> int | None:
    """Return the bytes of a history store: of its memory, or of its files; ``None`` if it does not know them."""
    files: Iterable[Path] | None = getattr(store, "files", None)
    if files is not None:
        with suppress(OSError):
            return sum(file.stat().st_size for file in files if file.exists())
    size = getattr(store, "size", None)
    return size if isinstance(size, int) else None


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(name, meaning, value=value)


def _gauges(name: str, meaning: str, labels: tuple[str, ...], values: dict[Any, int]) -> Metric:
    family = GaugeMetricFamily(name, meaning, labels=labels)
    for key, value in sorted(values.items()):
        family.add_metric(key, value)
    return family


def _counter(name: str, meaning: str, value: float) -> Metric:
    return CounterMetricFamily(name, meaning, value=value)


def _counters(name: str, meaning: str, labels: tuple[str, ...], values: Any) -> Metric:
    family = CounterMetricFamily(name, meaning, labels=labels)
    for key, value in sorted(dict(values).items()):
        family.add_metric(key, value)
    return family


def _single(values: Counter[str]) -> Iterable[tuple[tuple[str], int]]:
    return [((key,), value) for key, value in values.items()]


def _fill(family: HistogramMetricFamily, labels: tuple[str, ...], histogram: Histogram) -> None:
    buckets = [("+Inf" if bound == float("inf") else f"{bound:g}", count) for bound, count in histogram.buckets()]
    family.add_metric(labels, buckets, histogram.total)
