"""
A program with a chat server in it: it publishes the time, lists the people in a room, and closes connections.

Run it, connect to ``ws://127.0.0.1:8081/?name=jack`` and subscribe to ``room.a``::

    python examples/embedded.py 8081 8080

Then ask the program, on its own port::

    curl http://127.0.0.1:8080/people/room.a
    curl -X POST http://127.0.0.1:8080/close/jack
"""

import json
import sys
from typing import Any

from twisted.application.internet import StreamServerEndpointService, TimerService
from twisted.application.service import MultiService
from twisted.internet import endpoints, task
from twisted.internet.defer import Deferred
from twisted.logger import globalLogBeginner, textFileLogObserver
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from lhttp_tx import processor
from lhttp_tx.config import Config
from lhttp_tx.service import LHTTPService


@processor("echo")
def echo(request: Any) -> None:
    """Send a message back to its sender."""
    request.reply()


class People(Resource):
    """GET /people/CHANNEL: lists the people in a channel."""

    def __init__(self, server: LHTTPService) -> None:
        super().__init__()
        self._server = server

    def getChild(self, path: bytes, request: Request) -> Resource:  # noqa: N802 - Twisted's name
        """Take any name."""
        return self

    def render_GET(self, request: Request) -> bytes:  # noqa: N802
        """Answer with the names."""
        people = self._server.presence.people(request.prepath[-1].decode())
        return json.dumps([person["user"] for person in people]).encode() + b"\n"


class Close(Resource):
    """POST /close/USER: closes the connections of a user."""

    def __init__(self, server: LHTTPService) -> None:
        super().__init__()
        self._server = server

    def getChild(self, path: bytes, request: Request) -> Resource:  # noqa: N802
        """Take any name."""
        return self

    def render_POST(self, request: Request) -> int:  # noqa: N802
        """Answer with the number of closed connections."""
        closing = self._server.control.close(user=request.prepath[-1].decode(), code=1008, reason="please leave")

        def closed(reached: Any) -> None:
            request.write(f"{reached.count}\n".encode())
            request.finish()

        closing.addCallback(closed).addErrback(request.processingFailed)
        return NOT_DONE_YET


async def main(reactor: Any, port: str, web_port: str) -> None:
    """Serve until the process is stopped."""
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)])
    services = MultiService()
    server = LHTTPService(
        Config(listen=(f"tcp:{port}:interface=127.0.0.1",), presence=("room.*",), login_parameter="name"),
        reactor=reactor,
        processors=[echo],
    )
    server.setServiceParent(services)

    def tick() -> Deferred[None]:
        return server.engine.publish("clock", "time", body=f"{reactor.seconds():.0f}")

    TimerService(1.0, tick).setServiceParent(services)
    root = Resource()
    root.putChild(b"people", People(server))
    root.putChild(b"close", Close(server))
    web = endpoints.serverFromString(reactor, f"tcp:{web_port}:interface=127.0.0.1")
    StreamServerEndpointService(web, Site(root)).setServiceParent(services)

    services.startService()
    reactor.addSystemEventTrigger("before", "shutdown", services.stopService)
    await server.when_started()
    await Deferred()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: embedded.py PORT WEB_PORT")
    task.react(main, sys.argv[1:])
