"""
The proxies that the operator trusts, and the client addresses that they report.

Pure functions of addresses and header values, used by :mod:`lhttp_tx.guard.admission`. They read only
``X-Forwarded-For``, which every proxy writes. A proxy passes on other headers as the client wrote them, if it does not
know them.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

__all__ = ["HEADER", "TrustedProxies", "address_key"]

HEADER = "x-forwarded-for"
"""The name of the header, in lower case."""

_UNIX = "unix"
"""The name for all clients of a UNIX socket."""

_MAX_HOPS = 32
"""The most addresses that are checked, from the right."""

_MAX_LENGTH = 64
"""The most characters of an address, including blanks. The longest address with a port has 53."""

_CACHE_SIZE = 1_024
"""The most addresses with cached results."""


class TrustedProxies:
    """The proxies whose reports about client addresses the server trusts."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        """
        :param names: addresses, networks such as ``10.0.0.0/8``, or ``unix`` for all clients of a UNIX socket.
        :raises ValueError: if a name is none of these, or is a network of all addresses.
        """
        self._names = tuple(names)
        self._unix = _UNIX in self._names
        self._networks = tuple(_network(name) for name in self._names if name != _UNIX)
        self._is_listed = lru_cache(_CACHE_SIZE)(self._find)

    def __bool__(self) -> bool:
        return bool(self._names)

    def __str__(self) -> str:
        return ", ".join(self._names) or "none"

    def trusts(self, host: str | None) -> bool:
        """
        Return whether *host* is a trusted proxy.

        :param host: an IP address; ``None`` for a client without one, such as on a UNIX socket.
        """
        if host is None:
            return self._unix
        return bool(self._networks) and self._is_listed(host)

    def client_of(self, host: str | None, forwarded: str | None) -> str | None:
        """
        Return the address of the client: the last address in the list that is not a trusted proxy.

        Anybody may have written the addresses before it. If the list ends with something that is not an address, or
        contains only trusted proxies, return the last known address.

        :param host: the address that the connection comes from; ``None`` if it has none.
        :param forwarded: the value of ``X-Forwarded-For``; ``None`` without one. Several values are joined by commas.
        """
        if forwarded is None or not self.trusts(host):
            return host
        client = host
        for entry in reversed(forwarded.rsplit(",", _MAX_HOPS)[-_MAX_HOPS:]):
            found = _read_entry(entry) if len(entry) <= _MAX_LENGTH else None
            if found is None:
                break
            client = found
            if not self.trusts(client):
                break
        return client

    def _find(self, host: str) -> bool:
        address = _parse(host)
        return address is not None and any(address in network for network in self._networks)


def address_key(host: str) -> str | None:
    """
    Return the key under which a client is counted: its address, or for IPv6 its /64 network, which belongs to one
    customer.

    :param host: an IP address.
    :returns: ``None`` for loopback addresses, which have no limit.
    """
    if ":" not in host:
        return None if host.startswith("127.") else host
    return _key_of_ipv6(host)


@lru_cache(_CACHE_SIZE)
def _key_of_ipv6(host: str) -> str | None:
    address = _parse(host)
    if address is None:
        return host
    if isinstance(address, IPv4Address) or address.is_loopback:
        return None if address.is_loopback else str(address)
    if address.is_link_local:  # all addresses of a link are in one network
        return str(address) + host[host.find("%") :] if "%" in host else str(address)
    return str(IPv6Network((int(address) >> 64 << 64, 64)))


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    """
    Parse an address; turn an IPv4-mapped IPv6 address into IPv4. Return ``None`` if it is not an address.

    A zone, which names a link of this machine, is left out.
    """
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _network(name: str) -> IPv4Network | IPv6Network:
    try:
        network = ip_network(name)
    except ValueError as error:
        raise ValueError(f"{name!r}: {error}; write an address, a network such as 10.0.0.0/8, or unix") from None
    if network.prefixlen == 0:
        raise ValueError(f"{name!r}: that trusts everybody; name the addresses of your proxies")
    return network


@lru_cache(_CACHE_SIZE)
def _read_entry(entry: str) -> str | None:
    """Return the address of one entry, without its port and its zone; ``None`` if the entry is not an address."""
    text = entry.strip(" \t")
    if text.startswith("["):
        text, bracket, port = text[1:].partition("]")
        if not bracket or (port and not _is_port(port)):
            return None
    elif text.count(":") == 1:
        text, _, port = text.partition(":")
        if not _is_port(":" + port):
            return None
    address = _parse(text)
    return None if address is None else str(address)


def _is_port(text: str) -> bool:
    return text[:1] == ":" and text[1:].isascii() and text[1:].isdigit()
