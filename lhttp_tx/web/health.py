"""
``GET /health`` tells load balancers and monitoring whether this node works.

Its answer contains nothing that a stranger could use, so it needs no token.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

from twisted.web.resource import Resource
from twisted.web.server import Request

from lhttp_tx.guard.descriptors import AcceptGuard
from lhttp_tx.interfaces import IBus
from lhttp_tx.ports.listening import Listeners
from lhttp_tx.web.paths import refuse_unless_read
from lhttp_tx.websocket.factory import LHTTPServerFactory

__all__ = ["HealthResource"]

_NAMES = 100
"""The most silent nodes that the answer names."""


class HealthResource(Resource):
    """
    Answers with ``{"status": "ok"}``, or with another status.

    - 200 ``ok``: the node works.
    - 200 ``degraded``: the node cannot reach other nodes, or NATS does not allow it to publish or subscribe, or it
      does not listen on one of its endpoints, or the history store accepts no publications, or other nodes fell silent,
      or fewer nodes are heard than the operator requires. If the store is the reason, the answer also has ``"history":
      "unavailable"``, and the log gives the reason. ``missing`` names the silent nodes, and ``nodes`` says how many are
      heard of those that are required, such as ``2/3``.
    - 503 ``full``: the node accepts no more connections.
    - 503 ``starting``: a processor, filter, hook or authenticator has not started yet.
    - 503 ``stopping``: the node is closing the connections of its clients.
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
        missing: Callable[[], Iterable[str]] = tuple,
        shortfall: Callable[[], str] = str,
    ) -> None:
        """
        :param bus: says whether the node reaches other nodes.
        :param factory: says whether the node accepts connections.
        :param listeners: say whether the server listens.
        :param guard: says whether connections are refused.
        :param has_store: returns whether channels with history accept publications; true if there are none.
        :param missing: returns the names of other nodes that fell silent.
        :param shortfall: returns how many nodes are heard of those that are required, if they are too few.
        """
        super().__init__()
        self._bus = bus
        self._factory = factory
        self._listeners = listeners
        self._guard = guard
        self._has_store = has_store
        self._missing = missing
        self._shortfall = shortfall

    @property
    def status(self) -> str:
        """The state of the node, in one word."""
        factory = self._factory
        if factory.draining:
            return "starting" if factory.starting else "stopping"
        if 0 < factory.maxConnections <= factory.countConnections or self._guard.refuses:
            return "full"
        works = self._bus.available and self._listeners.intact and self._has_store()
        return "ok" if works and not self._shortfall() and not tuple(self._missing()) else "degraded"

    def render(self, request: Request) -> bytes:
        """Answer with a line of JSON, or with 404 or 405."""
        refusal = refuse_unless_read(request, missing=b"there is nothing here\n", advice=b"ask with GET\n")
        if refusal is not None:
            return refusal
        request.setHeader(b"content-type", b"application/json")
        request.setHeader(b"cache-control", b"no-store")
        status = self.status
        if status in ("full", "starting", "stopping"):
            request.setResponseCode(503)
        told: dict[str, object] = {"status": status}
        if not self._has_store():
            told["history"] = "unavailable"
        if missing := sorted(self._missing()):
            told["missing"] = missing[:_NAMES]
        if shortfall := self._shortfall():
            told["nodes"] = shortfall
        return b"" if request.method == b"HEAD" else json.dumps(told).encode("ascii") + b"\n"
