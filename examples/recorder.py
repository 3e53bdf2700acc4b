"""
A backend that records chat: an HTTP server that uses only the standard library.

Start it with a port and a file, and allow the chat server to call it::

    python examples/recorder.py 8000 chat.log
    twistd -n lhttp --port 8081 --upstream-allow http://127.0.0.1:8000/record

To have a message recorded, a client adds ``upstream:POST http://127.0.0.1:8000/record`` to it. The backend gets the
whole LHTTP message as the body of the request. A GET to the same URL returns the record.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from lhttp_tx import LHTTPError, parse

_MAX_SIZE = 65_536


class Recorder(BaseHTTPRequestHandler):
    """Appends one line of JSON to the record for each message."""

    protocol_version = "HTTP/1.1"
    record: Path

    def do_POST(self) -> None:
        """Record a message."""
        size = int(self.headers.get("Content-Length", "0"))
        if size > _MAX_SIZE:
            self.close_connection = True
            self._answer(413, b"too large\n")
            return
        try:
            message = parse(self.rfile.read(size), binary=True)
        except LHTTPError as error:
            self._answer(400, error.reason.encode() + b"\n")
            return
        entry = {
            "command": message.command,
            "channels": message.headers.get("publish", ""),
            "body": message.body.decode("utf-8", "replace"),
        }
        with self.record.open("a") as record:
            record.write(json.dumps(entry) + "\n")
        self._answer(200, b"recorded")

    def do_GET(self) -> None:
        """Return the record."""
        self._answer(200, self.record.read_bytes() if self.record.exists() else b"")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: recorder.py PORT FILE")
    Recorder.record = Path(sys.argv[2])
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Recorder).serve_forever()
