"""
``lhttp bench``: publishes messages at a rate, and measures their delivery.

Each body begins with the time, the number of the publisher, and the number of the message. So a subscriber sees the
latency, and whether a message was lost, duplicated, or out of order. All connections share one process and one clock.
"""

from __future__ import annotations

import json
import math
import secrets
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import click
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import LoopingCall, deferLater

from lhttp_tx.client.client import Client
from lhttp_tx.client.command.login_options import Connect
from lhttp_tx.client.command.parameters import channel_option, connection_options, login_options
from lhttp_tx.client.command.running import Exit, run_client
from lhttp_tx.client.command.text import say, write_line
from lhttp_tx.client.errors import LoginFailed, QueueFull, ReplyError
from lhttp_tx.codec.message import Message
from lhttp_tx.errors import LHTTPError

__all__ = ["MIN_SIZE", "Histogram", "Result", "Settings", "bench_command"]

MIN_SIZE = 40
"""The fewest bytes of a body: time, publisher and number."""

_TICK = 0.005
"""Seconds between bursts, if there is a rate."""

_WINDOW = 64
"""The messages that a publisher sends before it waits for a receipt, if there is no rate."""

_PATIENCE = 5.0
"""Seconds without any delivery after which missing messages count as lost."""

_REFRESH = 0.5
_CONNECTS_AT_ONCE = 100
_PERCENTILES = (50.0, 90.0, 99.0, 99.9)


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a measurement. The options of the command have the same names."""

    publishers: int = 1
    subscribers: int = 1
    rate: float = 1_000.0
    size: int = 64
    duration: float = 5.0
    channel: str | None = None


class Histogram:
    """
    A histogram of times. It keeps three significant digits of each, so it needs little memory for any number of times.
    """

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self.count = 0
        self.maximum = 0

    def add(self, nanoseconds: int) -> None:
        """Add one time."""
        value = max(nanoseconds // 1_000, 0)
        self.maximum = max(self.maximum, value)
        if value >= 1_000:
            scale = 10 ** (int(math.log10(value)) - 2)
            value = value // scale * scale
        self._counts[value] += 1
        self.count += 1

    def percentile(self, percent: float) -> float:
        """Return a percentile of the times, in milliseconds; 0 if there are no times."""
        rank = math.ceil(self.count * percent / 100)
        seen = 0
        for value in sorted(self._counts):
            seen += self._counts[value]
            if seen >= rank:
                return value / 1_000
        return 0.0


@dataclass(slots=True)
class Result:
    """
    The result of a measurement.

    :ivar published: messages that were sent, without those that the server refused.
    :ivar refused: messages that the server refused, or that did not fit into the queue of the client.
    """

    published: int = 0
    refused: int = 0
    delivered: int = 0
    lost: int = 0
    repeated: int = 0
    publishing_seconds: float = 0.0
    delivering_seconds: float = 0.0
    latency: Histogram = field(default_factory=Histogram)

    def refuse(self) -> None:
        """Note that the server has refused a message that was sent."""
        self.published -= 1
        self.refused += 1

    def summary(self, settings: Settings) -> dict[str, Any]:
        """Return the result as a dict for JSON. Times are milliseconds; rates are per second."""
        return {
            "settings": asdict(settings),
            "published": self.published,
            "refused": self.refused,
            "delivered": self.delivered,
            "lost": self.lost,
            "repeated": self.repeated,
            "published_per_second": round(self.published / max(self.publishing_seconds, 1e-9), 1),
            "delivered_per_second": round(self.delivered / max(self.delivering_seconds, 1e-9), 1),
            "latency_ms": {
                **{f"p{percent:g}": self.latency.percentile(percent) for percent in _PERCENTILES},
                "max": self.latency.maximum / 1_000,
            },
        }

    def text(self, settings: Settings) -> str:
        """Return the result as text for people."""
        found = self.summary(settings)
        latency = "  ".join(f"{name} {value:.3f}" for name, value in found["latency_ms"].items())
        return "\n".join(
            (
                f"published  {self.published:>12,}   {found['published_per_second']:>12,.1f} a second",
                f"delivered  {self.delivered:>12,}   {found['delivered_per_second']:>12,.1f} a second",
                f"refused    {self.refused:>12,}   lost {self.lost:,}   repeated or out of order {self.repeated:,}",
                f"latency    ms   {latency}",
            )
        )


class _Subscriber:
    """Checks the deliveries of one connection."""

    def __init__(self, result: Result, publishers: int) -> None:
        self._result = result
        self._next = [0] * publishers

    def take(self, message: Message) -> None:
        now = time.perf_counter_ns()
        sent, publisher, number = map(int, message.body[:MIN_SIZE].split(b" ", 3)[:3])
        self._result.latency.add(now - sent)
        self._result.delivered += 1
        expected = self._next[publisher]
        if number < expected:
            self._result.repeated += 1
        else:
            self._next[publisher] = number + 1


class _Publisher:
    """Publishes on one connection."""

    def __init__(self, client: Client, index: int, channel: str, size: int, result: Result) -> None:
        self.client = client
        self._index = index
        self._channel = channel
        self._size = size
        self._result = result
        self._number = 0
        self._message = Message("bench", {"publish": channel})

    def _next(self) -> Message:
        body = b"%020d %04d %012d " % (time.perf_counter_ns(), self._index, self._number)
        return self._message.replace(body=body.ljust(self._size, b"."))

    def publish(self) -> None:
        """Publish one message, without a receipt."""
        try:
            self.client.send(self._next())
        except QueueFull:
            self._result.refused += 1
        else:
            self._number += 1
            self._result.published += 1

    async def flood(self, end: float, refused: Callable[[LHTTPError], None]) -> None:
        """
        Publish until the time *end*, at most :data:`_WINDOW` messages ahead of the server.

        :param refused: called with the error if the server refuses a message with a receipt.
        """
        while time.perf_counter() < end:
            for _ in range(_WINDOW - 1):
                self.publish()
            receipt = self.client.confirm(self._next())
            self._number += 1
            self._result.published += 1
            try:
                await receipt
            except ReplyError as error:
                refused(error)


async def bench(
    reactor: Any,
    *,
    connect: Connect,
    settings: Settings,
    as_json: bool,
    live: bool,
) -> int:
    """Run ``lhttp bench`` and write its result."""
    result = Result()
    channel = settings.channel or f"bench.{secrets.token_hex(8)}"
    first: list[LHTTPError] = []

    def failed(error: LHTTPError) -> None:
        if isinstance(error, LoginFailed):
            say(error.reason)  # the connection stays
        elif not first:
            first.append(error)

    def refused(error: LHTTPError) -> None:
        failed(error)
        if isinstance(error, ReplyError):
            result.refuse()

    subscribers = [connect(reactor, on_error=failed) for _ in range(settings.subscribers)]
    publishers = [connect(reactor, on_error=refused) for _ in range(settings.publishers)]
    clients = subscribers + publishers
    progress = LoopingCall(_show_progress, result, time.perf_counter())
    progress.clock = reactor
    try:
        for start in range(0, len(clients), _CONNECTS_AT_ONCE):
            await _all([client.connect() for client in clients[start : start + _CONNECTS_AT_ONCE]])
        subscriptions = [
            client.subscribe(channel, _Subscriber(result, settings.publishers).take) for client in subscribers
        ]
        await _all([subscription.confirmed() for subscription in subscriptions])
        sources = [_Publisher(client, index, channel, settings.size, result) for index, client in enumerate(publishers)]
        if live:
            progress.start(_REFRESH, now=False).addErrback(lambda _: None)
        await _publish(reactor, settings, sources, result, refused)
        await _await_deliveries(reactor, settings, result)
    finally:
        if progress.running:
            progress.stop()
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
        await _all([client.close() for client in clients])
    write_line(json.dumps(result.summary(settings)) if as_json else result.text(settings))
    if first:
        say(f"the server refused messages: {first[0].status} {first[0].reason}")
    return Exit.FAILED if first or result.lost or result.repeated else Exit.OK


async def _publish(
    reactor: Any,
    settings: Settings,
    sources: list[_Publisher],
    result: Result,
    refused: Callable[[LHTTPError], None],
) -> None:
    begin = time.perf_counter()
    end = begin + settings.duration
    if settings.rate == 0:
        await _all([Deferred.fromCoroutine(source.flood(end, refused)) for source in sources])
    else:
        turn = 0
        while (now := time.perf_counter()) < end:
            due = int((now - begin) * settings.rate) - result.published - result.refused
            for _ in range(due):
                sources[turn].publish()
                turn = (turn + 1) % len(sources)
            await deferLater(reactor, _TICK)
    result.publishing_seconds = time.perf_counter() - begin
    result.delivering_seconds = result.publishing_seconds


async def _await_deliveries(reactor: Any, settings: Settings, result: Result) -> None:
    """Wait until all messages have arrived, or until no more arrive."""
    begin = time.perf_counter()
    before, since = result.delivered, begin
    while result.delivered < result.published * settings.subscribers and time.perf_counter() - since < _PATIENCE:
        await deferLater(reactor, _TICK)
        if result.delivered != before:
            before, since = result.delivered, time.perf_counter()
    result.delivering_seconds += since - begin
    result.lost = max(result.published * settings.subscribers - result.delivered + result.repeated, 0)


def _show_progress(result: Result, begin: float) -> None:
    seconds = time.perf_counter() - begin
    latency = result.latency
    sys.stderr.write(
        f"\r\x1b[K{seconds:5.1f} s   published {result.published:,}   delivered {result.delivered:,}   "
        f"p50 {latency.percentile(50):.2f} ms   p99 {latency.percentile(99):.2f} ms"
    )
    sys.stderr.flush()


def _all(waiting: list[Deferred[Any]]) -> Deferred[Any]:
    """Wait for all of *waiting*. If some fail, the Deferred fails with the first failure."""

    def unwrap(failure: Any) -> Any:
        return failure.value.subFailure

    return gatherResults(waiting, consumeErrors=True).addErrback(unwrap)


@click.command("bench")
@click.option(
    "--publishers",
    metavar="N",
    type=click.IntRange(1, 1_000),
    default=1,
    show_default=True,
    help="Number of connections that publish.",
)
@click.option(
    "--subscribers",
    metavar="N",
    type=click.IntRange(1, 5_000),
    default=1,
    show_default=True,
    help="Number of connections that subscribe.",
)
@click.option(
    "--rate",
    metavar="N",
    type=click.FloatRange(min=0),
    default=1_000.0,
    show_default=True,
    help="Messages a second of all publishers together; 0 for as many as possible.",
)
@click.option(
    "--size",
    metavar="BYTES",
    type=click.IntRange(MIN_SIZE, 1_000_000),
    default=64,
    show_default=True,
    help="The size of a body.",
)
@click.option(
    "--duration",
    metavar="SECONDS",
    type=click.FloatRange(min=0.1),
    default=5.0,
    show_default=True,
    help="How long to publish.",
)
@channel_option("The channel.  [default: a new one]")
@click.option("--json", "as_json", is_flag=True, help="Write the result as JSON.")
@login_options
@connection_options
def bench_command(
    publishers: int,
    subscribers: int,
    rate: float,
    size: int,
    duration: float,
    channel: str | None,
    as_json: bool,
    **common: Any,
) -> int:
    """
    Measure throughput and latency.

    All publishers and subscribers are connections of this process. At high rates, this process is the bottleneck. Then
    run several at the same time. The command fails if a message is lost, duplicated or out of order.
    """
    settings = Settings(publishers, subscribers, rate, size, duration, channel)
    return run_client(bench, **common, settings=settings, as_json=as_json, live=sys.stderr.isatty())
