"""
``GET /health``: whether this node serves, for load balancers and monitoring.

It tells nothing that a stranger could use, so it asks for no token.
"""

from __future__ import annotations

import json

from twisted.web.resource import Resource
from twisted.web.server import Request

from lhttp_tx.factory import LHTTPServerFactory
from lhttp_tx.interfaces import IBus

__all__ = ["HealthResource"]


class HealthResource(Resource):
    """
    Answers 200 with ``{"status": "ok"}``, or ``degraded`` while other nodes cannot be reached, which clients of this
    node need not notice; and 503 with ``stopping`` once the server lets go of its clients.
    """

    isLeaf = True

    def __init__(self, bus: IBus, factory: LHTTPServerFactory) -> None:
        """
        :param bus: says whether other nodes are reached.
        :param factory: says whether connections are taken.
        """
        super().__init__()
        self._bus = bus
        self._factory = factory

    def render(self, request: Request) -> bytes:
        """Answer with a line of JSON, or with 405."""
        request.responseHeaders.removeHeader(b"server")
        if request.method not in (b"GET", b"HEAD"):
            request.setResponseCode(405)
            request.setHeader(b"allow", b"GET, HEAD")
            request.setHeader(b"content-type", b"text/plain; charset=utf-8")
            return b"ask with GET\n"
        request.setHeader(b"content-type", b"application/json")
        request.setHeader(b"cache-control", b"no-store")
        status = "stopping" if self._factory.draining else "ok" if self._bus.available else "degraded"
        if status == "stopping":
            request.setResponseCode(503)
        return b"" if request.method == b"HEAD" else json.dumps({"status": status}).encode("ascii") + b"\n"
