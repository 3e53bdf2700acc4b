"""
Endpoints that connect only to allowed addresses.

Used by :mod:`lhttp_tx.upstream.client`. The addresses of a name are checked when the name is resolved for the
connection. So an attacker gains nothing by changing them between a check and the connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IProtocol,
    IProtocolFactory,
    IReactorPluggableNameResolver,
    IReactorTCP,
    IReactorTime,
    IResolutionReceiver,
    IStreamClientEndpoint,
)
from twisted.python.failure import Failure
from twisted.web.client import URI
from twisted.web.iweb import IAgentEndpointFactory, IPolicyForHTTPS
from zope.interface import implementer

from lhttp_tx.errors import UpstreamForbidden
from lhttp_tx.observe.rationing import RationedLogger
from lhttp_tx.upstream.targets import TargetPolicy

__all__ = ["CheckedEndpoints"]

_log = RationedLogger(__name__)


@implementer(IAgentEndpointFactory)
class CheckedEndpoints:
    """Endpoints that connect only to allowed addresses, whatever a name resolves to at that moment."""

    def __init__(self, reactor: Any, policy: TargetPolicy, tls_policy: IPolicyForHTTPS) -> None:
        self._reactor = reactor
        self._policy = policy
        self._tls_policy = tls_policy

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """Return the endpoint for the host and port of *uri*, with TLS for https."""
        endpoint: IStreamClientEndpoint = _CheckedEndpoint(self._reactor, self._policy, uri.host.strip(b"[]"), uri.port)
        if uri.scheme == b"https":
            return wrapClientTLS(self._tls_policy.creatorForNetloc(uri.host, uri.port), endpoint)
        return endpoint


@implementer(IStreamClientEndpoint)
class _CheckedEndpoint:
    """Connects to a host. Its errors distinguish a host without allowed addresses from a host without any addresses."""

    def __init__(self, reactor: Any, policy: TargetPolicy, host: bytes, port: int) -> None:
        self._reactor = reactor
        self._policy = policy
        self._host = host
        self._port = port

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        resolver = _CheckedResolver(self._reactor.nameResolver, self._policy)
        endpoint = HostnameEndpoint(_CheckedReactor(self._reactor, resolver), self._host, self._port)

        def explain(failure: Failure) -> Failure:
            if failure.check(DNSLookupError) and resolver.refused:
                return Failure(UpstreamForbidden("upstream address is not allowed"))
            return failure

        return endpoint.connect(protocolFactory).addErrback(explain)


@implementer(IReactorTime, IReactorTCP, IReactorPluggableNameResolver)
class _CheckedReactor:
    """The reactor for an endpoint, with another resolver."""

    def __init__(self, reactor: Any, resolver: IHostnameResolver) -> None:
        self._reactor = reactor
        self.nameResolver = resolver

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)


@implementer(IHostnameResolver)
class _CheckedResolver:
    """
    A resolver that leaves out addresses that are not allowed.

    :ivar refused: the addresses that it left out.
    """

    def __init__(self, resolver: IHostnameResolver, policy: TargetPolicy) -> None:
        self._resolver = resolver
        self._policy = policy
        self.refused: list[str] = []

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        receiver = _CheckedReceiver(resolutionReceiver, self._policy, self.refused)
        return self._resolver.resolveHostName(receiver, hostName, portNumber, addressTypes, transportSemantics)


@implementer(IResolutionReceiver)
class _CheckedReceiver:
    """Passes on the allowed addresses, and lists the others."""

    def __init__(self, receiver: IResolutionReceiver, policy: TargetPolicy, refused: list[str]) -> None:
        self._policy = policy
        self._receiver = receiver
        self._refused = refused
        self.resolutionBegan = receiver.resolutionBegan
        self.resolutionComplete = receiver.resolutionComplete

    def addressResolved(self, address: IAddress) -> None:
        host = getattr(address, "host", "")
        if self._policy.allows_address(host):
            self._receiver.addressResolved(address)
        else:
            _log.warn("upstream address {host!r} is not allowed", host=host)
            self._refused.append(host)
