"""
One worker of :mod:`lhttp_tx.supervisor`: ``python -m lhttp_tx.worker [options of twistd lhttp]``.

It is not for the command line. It gets the listening sockets from the supervisor, logs events in JSON to the standard
output, and stops when its standard input ends: then the supervisor is gone.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Any

from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Protocol
from twisted.logger import ILogObserver, LogEvent, eventAsText, globalLogBeginner
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from lhttp_tx.supervisor import FIRST_DESCRIPTOR

__all__ = ["AdoptingReactor", "main"]


class AdoptingReactor:
    """Listens on sockets that are open already, in the order in which it is asked to listen."""

    def __init__(self, reactor: Any, first: int = FIRST_DESCRIPTOR) -> None:
        """
        :param reactor: does all the rest.
        :param first: the number of the first socket's file descriptor.
        """
        self._reactor = reactor
        self._next = first

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def endpoint(self, _: Any, description: str) -> Any:
        """Return the endpoint that *description* names."""
        return serverFromString(self, description)

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> IListeningPort:
        """Adopt the next socket."""
        descriptor = self._next
        self._next += 1
        with socket.socket(fileno=os.dup(descriptor)) as sock:
            family = sock.family
        adopted: IListeningPort = self._reactor.adoptStreamPort(descriptor, family, factory)
        os.close(descriptor)
        return adopted

    def listenSSL(
        self, port: int, factory: Any, contextFactory: Any, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        """Adopt the next socket, with TLS."""
        return self.listenTCP(port, TLSMemoryBIOFactory(contextFactory, False, factory))

    def listenUNIX(
        self, address: str, factory: Any, backlog: int = 50, mode: int = 0o666, wantPID: bool = False
    ) -> IListeningPort:
        """Adopt the next socket."""
        return self.listenTCP(0, factory)

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> IListeningPort:
        """Adopt the next socket: the descriptor that the description names is the supervisor's."""
        return self.listenTCP(0, factory)


class _Lifeline(Protocol):
    """Stops the worker when the supervisor is gone."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def connectionLost(self, reason: Failure | None = None) -> None:
        if self._reactor.running:
            self._reactor.stop()


@implementer(ILogObserver)
def _log_line(event: LogEvent) -> None:
    """Tell the supervisor of an event, in one line."""
    line = {
        "text": eventAsText(event, includeTimestamp=False, includeSystem=False),
        "level": event["log_level"].name,
        "namespace": event.get("log_namespace", "-"),
        "time": event["log_time"],
    }
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str]) -> None:
    """Run a worker until it gets SIGTERM."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    globalLogBeginner.beginLoggingTo([_log_line], redirectStandardIO=False)

    from lhttp_tx.options import Options
    from lhttp_tx.signals import stop_once
    from lhttp_tx.tap import installed_reactor, make_server, with_reload

    options = Options()
    options.parseOptions(list(arguments))

    reactor = installed_reactor()
    stop_once(reactor)
    from twisted.internet.stdio import StandardIO

    StandardIO(_Lifeline(reactor), reactor=reactor)
    server = make_server(options, reactor, make_endpoint=AdoptingReactor(reactor).endpoint)
    service = with_reload(server, options, server.set_rules, reactor)
    service.privilegedStartService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.callWhenRunning(service.startService)
    reactor.run()


if __name__ == "__main__":
    main(sys.argv[1:])
