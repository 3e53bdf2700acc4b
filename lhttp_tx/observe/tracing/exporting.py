"""
Sends spans to a collector, within limits, and never on the reactor's thread.

The exporter may block. So each batch has a thread of its own, and there is one batch at a time. The end of the process
does not wait for this thread. Spans that do not fit into the queue, or do not arrive, are lost. The log reports how
many.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall

from lhttp_tx.observe.rationing import RationedLogger

__all__ = ["BATCH", "INTERVAL", "MAX_WAITING", "STOP_TIME", "Exporting", "in_thread"]

_log = RationedLogger(__name__)

MAX_WAITING: Final = 2_048
"""The most spans that wait for the collector. Further ones are lost."""

BATCH: Final = 256
"""The most spans of one request to the collector. If so many wait, the request is sent at once."""

INTERVAL: Final = 1.0
"""Seconds for which a span waits for others, to be sent with them."""

STOP_TIME: Final = 2.0
"""The most seconds for which a stop waits until the remaining spans are sent."""

Done = Callable[[str | None], None]
"""Called with the reason why spans did not arrive, or ``None``."""


SpanSink = Callable[[list[Any]], str | None]
"""Exports spans. Returns the reason why they did not arrive, or ``None``. It may block, and may raise."""


def in_thread(reactor: Any) -> Callable[[SpanSink, list[Any], Done], None]:
    """Return a function that exports a batch in a new thread. The end of the process does not wait for the thread."""

    def run(sink: SpanSink, spans: list[Any], done: Done) -> None:
        def work() -> None:
            try:
                reason = sink(spans)
            except Exception as error:
                reason = str(error) or type(error).__name__
            reactor.callFromThread(done, reason)

        threading.Thread(target=work, name="lhttp-traces", daemon=True).start()

    return run


class Exporting:
    """The queue of spans. Use it on the reactor's thread. Only :meth:`take` may be called on any thread."""

    def __init__(self, sink: SpanSink, clock: Any, run: Callable[[SpanSink, list[Any], Done], None]) -> None:
        """
        :param sink: exports a batch.
        :param clock: the reactor.
        :param run: calls *sink* with spans. Then, on the reactor's thread, it calls the third argument with the result.
        """
        self._sink = sink
        self._clock = clock
        self._run = run
        self._home = threading.get_ident()
        self._waiting: deque[Any] = deque()
        self._under_way = 0
        self._timer: IDelayedCall | None = None
        self._stopped: Deferred[None] | None = None

    def take(self, span: Any) -> None:
        """Queue a span that has ended."""
        if threading.get_ident() != self._home:
            self._clock.callFromThread(self._take, span)
        else:
            self._take(span)

    def _take(self, span: Any) -> None:
        if len(self._waiting) >= MAX_WAITING:
            _log.warn("a span is lost: the collector of traces does not keep up", event="trace.lost")
            return
        self._waiting.append(span)
        if self._under_way:
            return
        if self._timer is None:
            self._timer = self._clock.callLater(INTERVAL, self._send)
        elif len(self._waiting) == BATCH:
            self._timer.reset(0)

    def _send(self) -> None:
        self._timer = None
        spans = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
        self._under_way = len(spans)
        self._run(self._sink, spans, self._sent)

    def _sent(self, reason: str | None) -> None:
        count, self._under_way = self._under_way, 0
        if reason is not None:
            _log.warn("{count} spans are lost: {reason}", count=count, reason=reason, event="trace.lost")
        if self._waiting:
            at_once = self._stopped is not None or len(self._waiting) >= BATCH
            self._timer = self._clock.callLater(0 if at_once else INTERVAL, self._send)
        else:
            self._finish()

    def stop(self) -> Deferred[None]:
        """
        Send the remaining spans. Spans that end later are still sent.

        :returns: a Deferred that succeeds when all spans are sent or lost, after :data:`STOP_TIME` at the latest.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._send()
        if not self._under_way:
            return succeed(None)
        stopped = self._stopped = Deferred()
        limit = self._clock.callLater(STOP_TIME, self._give_up)
        stopped.addCallback(lambda _: limit.cancel() if limit.active() else None)
        return stopped

    def _give_up(self) -> None:
        count = self._under_way + len(self._waiting)
        self._waiting.clear()
        _log.warn(
            "{count} spans are lost: the collector of traces has not taken them within {seconds:g} s",
            count=count,
            seconds=STOP_TIME,
            event="trace.lost",
        )
        self._finish()

    def _finish(self) -> None:
        stopped, self._stopped = self._stopped, None
        if stopped is not None:
            stopped.callback(None)
