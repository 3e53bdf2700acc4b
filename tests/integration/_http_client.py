"""A client without WebSocket, on :mod:`http.client` alone."""

from __future__ import annotations

import http.client
import json
import time
from typing import Any, Self

from event_source import Event, Parser

from integration._server import TIME_LIMIT, http_request, message

__all__ = ["HTTPClient", "LiveStream"]


class LiveStream:
    """
    An event stream that Python's :mod:`http.client` reads.

    :ivar parser: has got what was read.
    """

    def __init__(self, port: int, path: str, headers: dict[str, str] | None = None) -> None:
        """:param headers: further ones of the request."""
        self.parser = Parser()
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=4 * TIME_LIMIT)
        self.connection.request("GET", path, headers={"Accept": "text/event-stream", **(headers or {})})
        self.response = self.connection.getresponse()

    def wait_for(self, count: int) -> list[Event]:
        """Return the first *count* events."""
        while len(self.parser.events) < count:
            data = self.response.read1(4096)
            assert data, f"the stream has ended after {self.parser.events}"
            self.parser.feed(data)
        return self.parser.events[:count]

    def read_to_the_end(self) -> list[Event]:
        """Return all events of a stream that ends."""
        while data := self.response.read1(4096):
            self.parser.feed(data)
        return self.parser.events

    def close(self) -> None:
        """Hang up."""
        self.response.close()
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class HTTPClient:
    """
    A client that has connected.

    :ivar ports: those of the nodes; each request goes to the next one.
    :ivar last: the number of the last message that it has.
    :ivar got: the messages that it has.
    """

    def __init__(self, *ports: int, headers: dict[str, str] | None = None, body: str = "", query: str = "") -> None:
        self.ports = [*ports]
        self.last = self.number = 0
        self.got: list[str] = []
        status, _, answer = http_request(ports[0], "POST", f"/connect{query}", body, headers)
        assert status == 200, answer
        self.told: dict[str, Any] = json.loads(answer)
        self.secret: str = self.told["session"]
        self.headers = {"Authorization": f"Bearer {self.secret}"}

    def _port(self) -> int:
        self.ports.append(self.ports.pop(0))
        return self.ports[-1]

    def send(self, *messages: str) -> int:
        """Send messages, and return the status."""
        raw = [found.encode("utf-8") for found in messages]
        body = b"".join(b"%d\n%b" % (len(found), found) for found in raw)
        self.number += 1
        return http_request(self._port(), "POST", f"/send?number={self.number}", body, self.headers)[0]

    def subscribe(self, channel: str) -> None:
        """Subscribe, and wait for the receipt."""
        assert self.send(message("chat", {"subscribe": channel, "receipt": "s"})) == 204
        self.wait_for(1)
        assert self.got.pop().startswith("LHTTP/1.0 receipt\r\nreceipt-id:s")

    def poll(self, wait: int = 20) -> int:
        """Fetch messages once, and return the status."""
        path = f"/connect?poll=1&after={self.last}&wait={wait}"
        status, _, answer = http_request(self._port(), "GET", path, None, self.headers)
        if status == 200:
            found = json.loads(answer)
            assert found["last"] == self.last + len(found["messages"])
            self.last = found["last"]
            self.got += found["messages"]
        return status

    def wait_for(self, count: int) -> list[str]:
        """Poll until there are *count* messages."""
        end = time.monotonic() + 2 * TIME_LIMIT
        while len(self.got) < count:
            assert time.monotonic() < end, self.got
            status = self.poll()
            assert status == 200, status
        return self.got

    def stream(self, after: int | None = None) -> LiveStream:
        """Open a stream."""
        return LiveStream(self._port(), f"/connect?after={self.last if after is None else after}", self.headers)

    def end(self) -> int:
        """End the session, and return the status."""
        return http_request(self._port(), "DELETE", "/connect", None, self.headers)[0]
