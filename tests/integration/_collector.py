"""A collector of traces that speaks OTLP over HTTP, written from its definition."""

from __future__ import annotations

import http.server
import threading
from typing import Any, NamedTuple

__all__ = ["Collector", "Span"]


class Span(NamedTuple):
    """
    What a collector has got of a span.

    :ivar resource: the attributes of the process that it comes from.
    """

    name: str
    kind: int
    trace: str
    own: str
    parent: str
    attributes: dict[str, Any]
    resource: dict[str, Any]

    @property
    def header(self) -> str:
        """The ``traceparent`` that tells others of it."""
        return f"00-{self.trace}-{self.own}-"


class Collector:
    """
    Takes spans on the loopback interface.

    :ivar port: where.
    :ivar headers: the headers of each request, with lower-case names.
    """

    def __init__(self, *, status: int = 200, hangs: bool = False) -> None:
        """
        :param status: what it answers with.
        :param hangs: whether it never answers.
        """
        self.headers: list[dict[str, str]] = []
        self._spans: list[Span] = []
        self._lock = threading.Lock()
        self._end = threading.Event()
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector._take(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
                if hangs:
                    collector._end.wait()
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """Its URL, for ``--trace``."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def spans(self) -> list[Span]:
        """What it has got so far."""
        with self._lock:
            return list(self._spans)

    def named(self, name: str) -> list[Span]:
        """Return the spans with this name."""
        return [span for span in self.spans if span.name == name]

    def _take(self, path: str, headers: dict[str, str], body: bytes) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        assert path == "/v1/traces"
        found = []
        for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = _attributes(of_resource.resource.attributes)
            for of_scope in of_resource.scope_spans:
                for span in of_scope.spans:
                    ids = span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()
                    found.append(Span(span.name, span.kind, *ids, _attributes(span.attributes), resource))
        with self._lock:
            self.headers.append(headers)
            self._spans += found

    def stop(self) -> None:
        """Take no more."""
        self._end.set()
        self._server.shutdown()
        self._server.server_close()


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
