"""
Two chat servers in one process, with a service of your own beside them.

The first is for everybody, and the second only for this machine. They share no channels. A timer publishes the number
of the first server's connections to the channel ``status`` of the second one::

    python examples/two_servers.py 8081 8082
"""

import sys
from typing import Any

from twisted.application.internet import TimerService
from twisted.application.service import MultiService
from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.logger import globalLogBeginner, textFileLogObserver

from lhttp_tx.config import Config
from lhttp_tx.service import LHTTPService


async def main(reactor: Any, public_port: str, private_port: str) -> None:
    """Serve until the process is stopped."""
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)])
    public = LHTTPService(Config(listen=(f"tcp:{public_port}",)), reactor=reactor)
    private = LHTTPService(Config(listen=(f"tcp:{private_port}:interface=127.0.0.1",)), reactor=reactor)

    def report() -> Deferred[None]:
        return private.engine.publish("status", "status", body=f"{len(public.engine.sessions)} connections")

    services = MultiService()
    for service in (public, private, TimerService(0.5, report)):
        service.setServiceParent(services)
    services.startService()
    reactor.addSystemEventTrigger("before", "shutdown", services.stopService)
    await Deferred()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: two_servers.py PUBLIC_PORT PRIVATE_PORT")
    task.react(main, sys.argv[1:])
