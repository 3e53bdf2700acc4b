"""
A collector of traces: it prints the spans that a server sends, each below its parent.

Start it with a port, and let the chat server send its spans there::

    python examples/collector.py 4318
    twistd -n lhttp --port 8081 --trace http://127.0.0.1:4318

It needs the extra ``otel``. It shows what a real collector gets, and keeps nothing.
"""

import sys
from collections.abc import Iterable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

_SHOWN = ("messaging.destination.name", "http.response.status_code", "error.type")
"""The attributes that are printed."""


class Collector(BaseHTTPRequestHandler):
    """Prints the spans of each request."""

    def do_POST(self) -> None:
        """Take spans."""
        request = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
        spans = [span for process in request.resource_spans for part in process.scope_spans for span in part.spans]
        spans.sort(key=lambda span: span.start_time_unix_nano)
        known = {span.span_id for span in spans}
        for span in spans:
            if span.parent_span_id not in known:
                print("\n".join([f"trace {span.trace_id.hex()}", *_tree(span, spans)]), flush=True)
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


def _tree(span: Any, spans: Iterable[Any], indent: str = "  ") -> Iterator[str]:
    kind = Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower()
    values = {pair.key: pair.value for pair in span.attributes}
    shown = [str(getattr(values[name], values[name].WhichOneof("value"))) for name in _SHOWN if name in values]
    yield " ".join([f"{indent}{span.name} ({kind})", *shown])
    for child in spans:
        if child.parent_span_id == span.span_id:
            yield from _tree(child, spans, indent + "  ")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: collector.py PORT")
    server = HTTPServer(("127.0.0.1", int(sys.argv[1])), Collector)
    print("waiting for spans", flush=True)
    server.serve_forever()
