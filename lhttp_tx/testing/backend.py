"""
Backends in memory, for tests of ``upstream``.

A resource of the test answers the requests, and both sides use the real HTTP of twisted.web. Only the network is
missing: host names are not resolved, and ``https`` is the same as ``http``. If the resource answers immediately, the
answer arrives immediately. Data that the resource writes later arrives when the clock is advanced, for example with
``server.clock.advance(0)``.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError as Refusal
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.test.iosim import FakeTransport, IOPump, connect
from twisted.web.client import URI, Agent
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IAgentEndpointFactory, IBodyProducer, IResponse
from twisted.web.resource import IResource
from twisted.web.server import Site
from zope.interface import implementer

__all__ = ["Backends"]

_SERVER, _CLIENT = IPv4Address("TCP", "127.0.0.1", 80), IPv4Address("TCP", "127.0.0.1", 40_000)


@implementer(IAgent, IAgentEndpointFactory)
class Backends:
    """
    All backends that the settings allow, with one resource that answers for all of them.

    :ivar resource: the resource; ``None``: connections are refused, as if the backend were down.
    """

    def __init__(self, resource: IResource | None, clock: Clock) -> None:
        self.resource = resource
        self._clock = clock
        self._agent = Agent.usingEndpointFactory(clock, self)
        self._pumps: list[IOPump] = []
        self._is_busy = self._is_due = False

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: IBodyProducer | None = None
    ) -> Deferred[IResponse]:
        """See :class:`twisted.web.iweb.IAgent`."""
        was_busy, self._is_busy = self._is_busy, True
        try:
            answer: Deferred[IResponse] = self._agent.request(method, uri, headers, bodyProducer)
        finally:
            self._is_busy = was_busy
        self.flush()
        return answer

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """See :class:`twisted.web.iweb.IAgentEndpointFactory`."""
        return _Endpoint(self)

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """Return a Deferred with a new connection to the resource. It has its result already."""
        if self.resource is None:
            return fail(Refusal())
        server = Site(self.resource, reactor=self._clock).buildProtocol(_CLIENT)
        client: Any = factory.buildProtocol(_SERVER)
        ends = _Transport(self, server, isServer=True), _Transport(self, client, isServer=False)
        pump = connect(server, ends[0], client, ends[1], greet=False, clock=Clock())
        self._pumps.append(pump)
        return succeed(client)

    def changed(self) -> None:
        """Pass data on soon. Called when one side has written data, or has closed the connection."""
        if not self._is_busy and not self._is_due:
            self._is_due = True
            self._clock.callLater(0, self.flush)

    def flush(self) -> None:
        """Pass written data to the other side, in both directions, until nothing is left."""
        if self._is_busy:
            return
        self._is_busy, self._is_due = True, False
        try:
            while sum(pump.flush() for pump in tuple(self._pumps)):
                pass
        finally:
            self._is_busy = False
        self._pumps = [each for each in self._pumps if not (each.clientIO.disconnected and each.serverIO.disconnected)]


@implementer(IStreamClientEndpoint)
class _Endpoint:
    def __init__(self, backends: Backends) -> None:
        self._backends = backends

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        return self._backends.connect(protocolFactory)


class _Transport(FakeTransport):
    """One side of a connection."""

    def __init__(self, backends: Backends, protocol: Any, *, isServer: bool) -> None:
        near, far = (_SERVER, _CLIENT) if isServer else (_CLIENT, _SERVER)
        super().__init__(protocol, isServer, hostAddress=near, peerAddress=far)
        self._backends = backends

    def write(self, data: bytes) -> None:
        super().write(data)
        self._backends.changed()

    def loseConnection(self) -> None:
        super().loseConnection()
        self._backends.changed()

    abortConnection = loseConnection
