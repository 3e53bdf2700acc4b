"""
``GET /metrics``: the counters and the current state of the server, for Prometheus.

The metrics are collected on request, at most once a second. Needs the extra ``metrics`` (prometheus-client). Only this
module, :mod:`lhttp_tx.web.admin.collector` and :mod:`lhttp_tx.web.admin.workers` know that package.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.server import NOT_DONE_YET, Request

from lhttp_tx.observe.counters import Counters
from lhttp_tx.web.admin.collector import make_registry
from lhttp_tx.web.admin.gate import AdminGate
from lhttp_tx.web.admin.keys import AdminKey
from lhttp_tx.web.admin.managed import Managed, Siblings
from lhttp_tx.web.admin.problems import answer
from lhttp_tx.web.admin.site import AdminResource, header
from lhttp_tx.web.admin.workers import gather, tell

__all__ = ["MAX_AGE", "MetricsResource"]

_log = Logger()

MAX_AGE = 1.0
"""Seconds for which the same answer is sent again, so that frequent requests cost little."""


class MetricsResource(AdminResource):
    """Answers ``GET /metrics`` in the text format of Prometheus, or as OpenMetrics if ``Accept`` asks for it."""

    scope = "metrics"

    def __init__(
        self,
        gate: AdminGate,
        managed: Managed,
        counters: Counters,
        clock: IReactorTime,
        siblings: Siblings | None = None,
    ) -> None:
        """
        :param gate: checks the keys.
        :param managed: the server.
        :param counters: its counters.
        :param clock: the reactor.
        :param siblings: the workers whose metrics are answered together; ``None``: only those of this server.
        """
        super().__init__(gate)
        self._clock = clock
        self._registry = make_registry(managed, counters)
        self._control = managed.control
        self._siblings = siblings
        if siblings is not None:
            tell(managed.control, self._registry, siblings)
        self._kept: dict[str, tuple[float, bytes]] = {}
        self._waiting: list[Deferred[CollectorRegistry]] = []

    def respond(self, request: Request, key: AdminKey | None) -> int | bytes:
        """Answer with the metrics, or with the last answer if it is at most :data:`MAX_AGE` old."""
        encode, content_type = choose_encoder(header(request, b"accept") or "")
        now = self._clock.seconds()
        kept = self._kept.get(content_type)
        if kept is not None and 0 <= now - kept[0] < MAX_AGE:
            return answer(request, 200, content_type, kept[1])

        def told(registry: CollectorRegistry) -> bytes:
            if len(self._kept) > 8:  # an Accept header may name any escaping
                self._kept.clear()
            body: bytes = encode(registry)
            self._kept[content_type] = self._clock.seconds(), body
            return answer(request, 200, content_type, body)

        if self._siblings is None:
            return told(self._registry)
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)

        def finish(registry: CollectorRegistry) -> None:
            if not gone:
                request.write(told(registry))
                request.finish()

        self._gather(self._siblings).addCallback(finish).addErrback(
            lambda failure: _log.failure("answering failed", failure)
        )
        return NOT_DONE_YET

    def _gather(self, siblings: Siblings) -> Deferred[CollectorRegistry]:
        """Gather the metrics of all workers, once for all requests that arrive meanwhile."""
        waiting: Deferred[CollectorRegistry] = Deferred()
        self._waiting.append(waiting)
        if len(self._waiting) == 1:
            gather(self._control, siblings).addCallback(self._gathered)
        return waiting

    def _gathered(self, registry: CollectorRegistry) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(registry)
