"""
``GET /health`` tells monitoring whether this node works, ``/ready`` tells load balancers whether to send clients to it,
and ``/live`` tells supervisors whether it runs at all.

Their answers contain nothing secret, so they need no token.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

from twisted.web.resource import Resource
from twisted.web.server import Request

from lhttp_tx.guard.descriptors import AcceptGuard
from lhttp_tx.interfaces import IBus
from lhttp_tx.ports.listening import Listeners
from lhttp_tx.transports.websocket.factory import LHTTPServerFactory
from lhttp_tx.web.paths import refuse_unless_read

__all__ = ["HealthResource", "put_checks"]

_NAMES = 100
"""The most nodes without heartbeats that the answer names."""


class HealthResource(Resource):
    """
    Answers with ``{"status": "ok"}``, or with another status.

    - 200 ``ok``: the node works.
    - 200 ``degraded``: the node cannot reach other nodes, or NATS does not allow it to publish or subscribe, or it
      does not listen on one of its endpoints, or the history store accepts no publications or has refused one within
      the last minute and taken none since, or other nodes send no heartbeats, or fewer nodes are connected than the
      operator requires. If the store is the reason, the answer also has ``"history": "unavailable"``, and the log
      gives the reason. ``missing`` names the nodes without heartbeats. ``nodes`` has the numbers of connected and of
      required nodes, such as ``2/3``.
    - 503 ``full``: the node accepts no more connections.
    - 503 ``starting``: a processor, filter, hook or authenticator has not started yet.
    - 503 ``stopping``: the node is told to stop, or is closing the connections of its clients.
    """

    isLeaf = True

    def __init__(
        self,
        bus: IBus,
        factory: LHTTPServerFactory,
        listeners: Listeners,
        guard: AcceptGuard,
        *,
        has_store: Callable[[], bool],
        refuses: Callable[[], bool] = lambda: False,
        missing: Callable[[], Iterable[str]] = tuple,
        shortfall: Callable[[], str] = str,
        is_leaving: Callable[[], bool] = lambda: False,
    ) -> None:
        """
        :param bus: says whether the node reaches other nodes.
        :param factory: says whether the node accepts connections.
        :param listeners: say whether the server listens.
        :param guard: says whether connections are refused.
        :param has_store: returns whether channels with history accept publications; true if there are none.
        :param refuses: returns whether the history store has refused one within the last minute and taken none since.
        :param missing: returns the names of the other nodes that no longer send heartbeats.
        :param shortfall: returns the numbers of connected and of required nodes, such as ``2/3``; empty if there are
            enough.
        :param is_leaving: returns whether the server was told to stop.
        """
        super().__init__()
        self._bus = bus
        self._factory = factory
        self._listeners = listeners
        self._guard = guard
        self._has_store = has_store
        self._refuses = refuses
        self._missing = missing
        self._shortfall = shortfall
        self._is_leaving = is_leaving

    @property
    def status(self) -> str:
        """The state of the node, in one word."""
        factory = self._factory
        if factory.draining or self._is_leaving():
            return "starting" if factory.starting else "stopping"
        if self._is_full:
            return "full"
        works = self._bus.available and self._listeners.intact and self._keeps()
        return "ok" if works and not self._shortfall() and not tuple(self._missing()) else "degraded"

    @property
    def _is_full(self) -> bool:
        factory = self._factory
        return 0 < factory.maxConnections <= factory.countConnections or self._guard.refuses

    def _keeps(self) -> bool:
        return self._has_store() and not self._refuses()

    @property
    def reasons(self) -> list[str]:
        """
        The reasons why new clients should go to another node, each in one word; empty if the node accepts clients.

        ``starting`` and ``stopping``: see above. ``full``: there is no room for connections. ``bus``: the node cannot
        reach other nodes, or NATS does not allow it to publish or subscribe. ``history``: the history store accepts no
        publications. ``listening``: the node does not listen on one of its endpoints.
        """
        found = [self.status] if self.status in ("starting", "stopping") else []
        checks = {
            "full": not self._is_full,
            "bus": self._bus.available,
            "history": self._has_store(),
            "listening": self._listeners.intact,
        }
        return found + [name for name, is_well in checks.items() if not is_well]

    def render(self, request: Request) -> bytes:
        """Answer with a line of JSON, or with 404 or 405."""
        refusal = refuse_unless_read(request, missing=b"not found\n", advice=b"use GET\n")
        if refusal is not None:
            return refusal
        request.setHeader(b"content-type", b"application/json")
        request.setHeader(b"cache-control", b"no-store")
        status = self.status
        if status in ("full", "starting", "stopping"):
            request.setResponseCode(503)
        told: dict[str, object] = {"status": status}
        if not self._keeps():
            told["history"] = "unavailable"
        if missing := sorted(self._missing()):
            told["missing"] = missing[:_NAMES]
        if shortfall := self._shortfall():
            told["nodes"] = shortfall
        return b"" if request.method == b"HEAD" else json.dumps(told).encode("ascii") + b"\n"


class _CheckResource(Resource):
    """``/ready`` or ``/live``: answers with 200 or 503, and with the reasons."""

    isLeaf = True

    def __init__(self, health: HealthResource, *, words: tuple[str, str], is_strict: bool) -> None:
        """
        :param words: the word for the status with reasons, and the one without.
        :param is_strict: whether the answer is 503 if there are reasons.
        """
        super().__init__()
        self._health = health
        self._words = words
        self._is_strict = is_strict

    def render(self, request: Request) -> bytes:
        """Answer with a line of JSON, or with 404 or 405."""
        refusal = refuse_unless_read(request, missing=b"not found\n", advice=b"use GET\n")
        if refusal is not None:
            return refusal
        request.setHeader(b"content-type", b"application/json")
        request.setHeader(b"cache-control", b"no-store")
        reasons = self._health.reasons
        if reasons and self._is_strict:
            request.setResponseCode(503)
        told = {"status": self._words[not reasons], "reasons": reasons}
        return b"" if request.method == b"HEAD" else json.dumps(told).encode("ascii") + b"\n"


def put_checks(
    root: Resource,
    bus: IBus,
    factory: LHTTPServerFactory,
    listeners: Listeners,
    guard: AcceptGuard,
    *,
    has_store: Callable[[], bool],
    is_leaving: Callable[[], bool],
    refuses: Callable[[], bool] = lambda: False,
    missing: Callable[[], Iterable[str]] = tuple,
    shortfall: Callable[[], str] = str,
) -> None:
    """
    Put ``/health``, ``/ready`` and ``/live`` below *root*. The other parameters are those of :class:`HealthResource`.
    """
    health = HealthResource(
        *(bus, factory, listeners, guard),
        has_store=has_store,
        refuses=refuses,
        is_leaving=is_leaving,
        missing=missing,
        shortfall=shortfall,
    )
    root.putChild(b"health", health)
    root.putChild(b"ready", _CheckResource(health, words=("unready", "ready"), is_strict=True))
    root.putChild(b"live", _CheckResource(health, words=("live", "live"), is_strict=False))
