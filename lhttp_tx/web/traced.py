"""
Spans of HTTP requests that bring messages: ``POST /publish`` and ``POST /send``.

The resources get a subclass, so that a server without traces does no extra work. Source of the names: OpenTelemetry's
conventions for HTTP.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.web.server import Request

from lhttp_tx.observe.tracing.carrier import NAMES, only
from lhttp_tx.observe.tracing.tracer import Tracer
from lhttp_tx.transports.http.bodies import Run
from lhttp_tx.web.connect.resource import SendResource

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from lhttp_tx.web.asking import Asked
    from lhttp_tx.web.site import RootResource

__all__ = ["trace_requests"]

_ROUTES = (b"publish", b"send")


def trace_requests(root: RootResource, tracer: Tracer | None) -> None:
    """
    Let the resources of a server make spans of requests. Call this once, before the server starts.

    :param root: the root resource of the server.
    :param tracer: makes the spans; ``None``: there are none, and nothing changes.
    """
    for name in _ROUTES:
        found: Any = root.children.get(name)
        if found is not None and tracer is not None:
            found.__class__ = _traced_resource(type(found), f"/{name.decode()}", tracer)


def _traced_resource(own: Any, route: str, tracer: Tracer) -> Any:
    class TracedResource(own):  # type: ignore[misc]
        def render(self, request: Request) -> int | bytes:
            span = _begin(request, route, tracer)
            if span is None:
                return own.render(self, request)  # type: ignore[no-any-return]
            request.notifyFinish().addBoth(_end, request, span, tracer)
            with tracer.within(span):
                return own.render(self, request)  # type: ignore[no-any-return]

    if not issubclass(own, SendResource):
        return TracedResource

    class TracedSend(TracedResource):
        def _runs(self, request: Request, asked: Asked) -> tuple[list[Run], int]:
            """Write the span of the request into messages that name no parent."""
            runs, size = own._runs(self, request, asked)
            span = tracer.current()
            if span is None:
                return runs, size
            fields = tracer.fields(span)
            return [([_named(data, fields, tracer) for data in found], binary) for found, binary in runs], size

    return TracedSend


def _named(data: bytes, fields: list[tuple[str, str]], tracer: Tracer) -> bytes:
    if b"\r\ntraceparent:" in data.partition(b"\r\n\r\n")[0].lower():
        return data
    return tracer.write(data, fields, is_received=True)


def _begin(request: Request, route: str, tracer: Tracer) -> Span | None:
    if request.method != b"POST":
        return None
    parent, state = (request.requestHeaders.getRawHeaders(name) or () for name in map(str.encode, NAMES))
    found = tracer.join(only(parent), ",".join(value.decode("latin-1") for value in state))
    if found is None and (parent or not tracer.draw()):
        return None
    return tracer.begin(
        f"POST {route}",
        "SERVER",
        found,
        {
            "http.request.method": "POST",
            "http.route": route,
            "url.path": route,
            "url.scheme": "https" if request.isSecure() else "http",
            "network.protocol.version": "1.1",
            "client.address": getattr(request.getClientAddress(), "host", ""),
        },
    )


def _end(_: object, request: Request, span: Span, tracer: Tracer) -> None:
    span.set_attribute("http.response.status_code", request.code)
    tracer.end(span, str(request.code) if request.code >= 500 else None)
