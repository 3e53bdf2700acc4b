"""
A chat server inside an existing twisted.web site: pages on ``/``, LHTTP below ``/chat``.

Run it and connect to ``ws://127.0.0.1:8081/chat``; publish with a POST to ``/chat/publish``::

    python examples/site.py 8081
"""

import sys
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
    # A mounted server does not know where the site listens, so tell it the host names that it answers to.
    service = LHTTPService(Config(server_names=("localhost", "127.0.0.1")), reactor=reactor)
    root = Resource()
    root.putChild(b"", Data(b"<!DOCTYPE html><title>my site</title><p>The page that was here before.\n", "text/html"))
    root.putChild(b"chat", service.resource)

    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    endpoint = endpoints.serverFromString(reactor, f"tcp:{port}:interface=127.0.0.1")
    await endpoint.listen(Site(root))
    await Deferred()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: site.py PORT")
    task.react(main, sys.argv[1:])
