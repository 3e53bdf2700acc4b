"""
The PROXY protocol of ``haproxy:`` endpoints: checks the addresses that such a proxy reports.

Used by :mod:`lhttp_tx.guard.descriptors`, :mod:`lhttp_tx.guard.admission` and the web resources. Twisted reads the
header. This module also checks its addresses. An invalid header ends the connection without a log line.
"""

from __future__ import annotations

from ipaddress import IPv4Address as IPv4, ip_address
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress
from twisted.protocols.haproxy._info import ProxyInfo
from twisted.protocols.haproxy._v1parser import V1Parser
from twisted.protocols.haproxy._v2parser import V2Parser
from twisted.protocols.haproxy._wrapper import HAProxyProtocolWrapper, HAProxyWrappingFactory
from twisted.protocols.policies import ProtocolWrapper

__all__ = ["expects_proxy", "is_proxied"]


def is_proxied(transport: object) -> bool:
    """Return whether a proxy reports the client's address at the beginning of the connection of *transport*."""
    while isinstance(transport, ProtocolWrapper):
        if isinstance(transport, HAProxyProtocolWrapper):
            return True
        transport = transport.transport
    return False


def expects_proxy(factory: Any) -> bool:
    """
    Return whether the connections of *factory* begin with a header of the PROXY protocol.

    If they do, the header is read strictly from now on.
    """
    while factory is not None:
        if isinstance(factory, HAProxyWrappingFactory):
            factory.protocol = _Strict  # type: ignore[assignment]
            return True
        factory = getattr(factory, "wrappedFactory", None)
    return False


class _Strict(HAProxyProtocolWrapper):
    """Accepts a header only if its addresses are valid."""

    def dataReceived(self, data: bytes) -> None:
        if self._proxyInfo is None:
            data = self._read_header(data)
        if data and self.wrappedProtocol is not None:
            self.wrappedProtocol.dataReceived(data)

    def _read_header(self, data: bytes) -> bytes:
        """
        Return the data after the header, once the header is complete. Drop the connection if the header is not valid.
        """
        try:
            if self._parser is None:
                self._parser = _parser_for(data)
            info, behind = self._parser.feed(data)
            if info is None:
                return b""
            self._proxyInfo = ProxyInfo(info.header, _read(info.source), _read(info.destination))
        except Exception:  # Twisted's parsers may raise anything for malformed input
            self.abortConnection()
            return b""
        return behind or b""


def _parser_for(data: bytes) -> V1Parser | V2Parser:
    if len(data) >= 16 and data.startswith(V2Parser.PREFIX) and data[12] >> 4 == 2:
        return V2Parser()
    if len(data) >= 8 and data.startswith(V1Parser.PROXYSTR):
        return V1Parser()
    raise ValueError("no header of the PROXY protocol")


def _read(address: IAddress | None) -> IAddress | None:
    """Return an address in the form of :mod:`ipaddress`; ``None`` for a socket that has none."""
    if not isinstance(address, IPv4Address | IPv6Address):
        return None
    if "%" in address.host or not 0 <= address.port <= 65_535:
        raise ValueError("an address without a zone and a port are needed")
    host = ip_address(address.host)
    return (IPv4Address if isinstance(host, IPv4) else IPv6Address)("TCP", str(host), address.port)
