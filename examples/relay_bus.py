"""
A bus of your own: nodes share all channels through a small relay.

Start the relay, then servers that use it, each on a port of its own::

    python3 relay_bus.py tcp:8100:interface=127.0.0.1
    twistd -n lhttp --bus relay_bus.py:bus --listen tcp:8081:interface=127.0.0.1

Set RELAY to reach a relay elsewhere, such as RELAY=tcp:10.0.0.5:8100. The relay trusts every program that connects to
it.
"""

import os
import sys
from collections import deque

from twisted.application.internet import ClientService
from twisted.internet import task
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.protocol import Factory
from twisted.protocols.basic import NetstringReceiver
from zope.interface import implementer

from lhttp_tx.bus.memory import MemoryBus
from lhttp_tx.errors import BusUnavailable
from lhttp_tx.interfaces import IBus

MAX_LENGTH = 1_048_576
PUBLICATION, QUESTION = b"p", b"?"


class RelayConnection(NetstringReceiver):
    """The relay's side: passes each publication on to all other nodes, and answers questions."""

    MAX_LENGTH = MAX_LENGTH

    def connectionMade(self):
        self.factory.connections.add(self)

    def stringReceived(self, string):
        if string == QUESTION:
            self.sendString(QUESTION)
            return
        for other in self.factory.connections - {self}:
            other.sendString(string)

    def connectionLost(self, reason):
        self.factory.connections.discard(self)


class Relay(Factory):
    protocol = RelayConnection

    def __init__(self):
        self.connections = set()


class Link(NetstringReceiver):
    """A node's side: passes arriving publications to the bus."""

    MAX_LENGTH = MAX_LENGTH

    def connectionMade(self):
        self.factory.bus.link = self
        self.questions = deque()

    def dataReceived(self, data):
        begin, end = self.factory.bus.brackets
        begin()
        super().dataReceived(data)
        end()

    def stringReceived(self, string):
        if string == QUESTION:
            self.questions.popleft().callback(None)
        else:
            binary, channel, payload = string[1:].split(b"\0", 2)
            self.factory.bus.local.publish(channel.decode(), payload, binary == b"b")

    def connectionLost(self, reason):
        self.factory.bus.link = None
        for question in self.questions:
            question.errback(BusUnavailable("the relay went away"))


class LinkFactory(Factory):
    protocol = Link
    noisy = False

    def __init__(self, bus):
        self.bus = bus


@implementer(IBus)
class RelayBus:
    """Delivers publications to its own node at once, and to other nodes through the relay."""

    is_immediate = True

    def __init__(self, relay):
        self.description = f"relay at {relay}"
        self.local = MemoryBus()
        self.link = None
        self.brackets = (lambda: None, lambda: None)
        self._relay = relay
        self._service = None

    @property
    def available(self):
        return self.link is not None

    def bracket(self, begin, end):
        self.brackets = begin, end

    def start(self):
        from twisted.internet import reactor  # only after the server has chosen one

        self._service = ClientService(clientFromString(reactor, self._relay), LinkFactory(self), clock=reactor)
        self._service.startService()
        return self.local.start()

    def stop(self):
        self.local.stop()
        service, self._service = self._service, None
        return succeed(None) if service is None else service.stopService()

    def subscribe(self, channel, receiver):
        return self.local.subscribe(channel, receiver)

    def unsubscribe(self, channel, receiver):
        self.local.unsubscribe(channel, receiver)

    def publish(self, channel, payload, binary):
        if self.link is None or self._service is None:
            raise BusUnavailable("the relay is away")
        self.local.publish(channel, payload, binary)
        self.link.sendString(b"\0".join([PUBLICATION + (b"b" if binary else b"t"), channel.encode(), payload]))

    def publish_run(self, channel, payloads, binary):
        for payload in payloads:
            self.publish(channel, payload, binary)

    def confirm(self):
        answer = Deferred()
        if self.link is None:
            answer.errback(BusUnavailable("the relay is away"))
        else:
            self.link.questions.append(answer)
            self.link.sendString(QUESTION)
        return answer


bus = RelayBus(os.environ.get("RELAY", "tcp:127.0.0.1:8100"))


def main(reactor, endpoint):
    return serverFromString(reactor, endpoint).listen(Relay()).addCallback(lambda _: Deferred())


if __name__ == "__main__":
    task.react(main, sys.argv[1:])
