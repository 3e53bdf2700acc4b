"""
Endpoints that connect to allowed addresses alone.

Used by :mod:`lhttp_tx.upstream`: a name is checked by what it resolves to at the moment of connecting, so an answer
that changes between the check and the connection gains nothing.
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
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import URI
from twisted.web.iweb import IAgentEndpointFactory, IPolicyForHTTPS
from zope.interface import implementer

from lhttp_tx.errors import UpstreamForbidden
from lhttp_tx.targets import TargetPolicy

__all__ = ["CheckedEndpoints"]

_log = Logger()


@implementer(IAgentEndpointFactory)
class CheckedEndpoints:
    """Endpoints that connect to allowed addresses alone, whatever a name resolves to at that moment."""

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
    """Connects to a host, and tells a host without allowed addresses from one without any."""

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
    """The reactor as an endpoint needs it, with another resolver."""

    def __init__(self, reactor: Any, resolver: IHostnameResolver) -> None:
        self._reactor = reactor
        self.nameResolver = resolver

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)


@implementer(IHostnameResolver)
class _CheckedResolver:
    """
    A resolver that holds back addresses which are not allowed.

    :ivar refused: the addresses that it held back.
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
    """Passes on the addresses that are allowed and lists the others."""

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
