"""
Rooms that show who is there: a chat page with a live count, names, and the commands ``/name`` and ``/room``.

Run it, and open http://127.0.0.1:8081/ in two windows::

    python examples/rooms/server.py 8081

The WebSocket's URL contains the user's name, as in ``ws://127.0.0.1:8081/chat?name=jack``. If a client connects with a
name that is taken, the server closes the older connection. There are no passwords here. If users log in,
``Config(presence=..., max_per_user=1)`` does the same with their names.
"""

import sys
from pathlib import Path
from typing import Any

from twisted.internet import endpoints, task
from twisted.internet.defer import Deferred
from twisted.logger import globalLogBeginner, textFileLogObserver
from twisted.web.resource import Resource
from twisted.web.server import Site
from twisted.web.static import Data

from lhttp_tx.config import Config
from lhttp_tx.service import LHTTPService


async def main(reactor: Any, port: str) -> None:
    """Serve until the process is stopped."""
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)])
    config = Config(
        server_names=("localhost", "127.0.0.1"), presence=("room.*",), login_parameter="name", max_per_user=1
    )
    service = LHTTPService(config, reactor=reactor)
    root = Resource()
    root.putChild(b"", Data(Path(__file__).with_name("index.html").read_bytes(), "text/html; charset=utf-8"))
    root.putChild(b"chat", service.resource)

    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    await endpoints.serverFromString(reactor, f"tcp:{port}:interface=127.0.0.1").listen(Site(root))
    await Deferred()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: server.py PORT")
    task.react(main, sys.argv[1:])
