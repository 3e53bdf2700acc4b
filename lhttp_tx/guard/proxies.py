"""
Whose addresses are believed: proxies that the operator trusts, and what they say about their clients.

Pure functions of addresses and header values; used by :mod:`lhttp_tx.admission`. Only ``X-Forwarded-For`` is read,
which every proxy writes: another header, which the proxy does not know, would come through as the client wrote it.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

__all__ = ["HEADER", "TrustedProxies", "address_key"]

HEADER = "x-forwarded-for"
"""The name of the header, in lower case."""

_UNIX = "unix"
"""What stands for all who come through a UNIX socket."""

_MAX_HOPS = 32
"""Addresses that are looked at, from the right."""

_MAX_LENGTH = 64
"""Characters of one of them, blanks included; the longest address with a port has 53."""

_CACHE_SIZE = 1_024
"""Addresses that are not looked at again while they keep coming."""


class TrustedProxies:
    """The proxies whose word about their clients is taken."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        """
        :param names: addresses, networks such as ``10.0.0.0/8``, or ``unix`` for who comes through a UNIX socket.
        :raises ValueError: if one of them is none of these, or a network of all addresses.
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

        :param host: an IP address; ``None`` for who has none, as through a UNIX socket.
        """
        if host is None:
            return self._unix
        return bool(self._networks) and self._is_listed(host)

    def client_of(self, host: str | None, forwarded: str | None) -> str | None:
        """
        Return the address of the client: the last one of the list that is no trusted proxy's.

        What stands before it is anybody's word. If the list ends in something that is no address, or only trusted
        proxies are in it, it is the last one that is known.

        :param host: the address that the connection comes from; ``None`` if it has none.
        :param forwarded: the value of ``X-Forwarded-For``; ``None`` without one. Of several, joined by commas.
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
    Return what a client is counted under: its address, or for IPv6 the /64 network that one customer has.

    :param host: an IP address.
    :returns: ``None`` for loopback addresses: a program on this machine can do worse than connect.
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
    if address.is_link_local:  # all of a link are in one network
        return str(address)
    return str(IPv6Network((int(address) >> 64 << 64, 64)))


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    """Return an address, an IPv4 one where it is only written as an IPv6 one; ``None`` if it is none."""
    try:
        address = ip_address(text)
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
    """Return the address of one entry, without its port; ``None`` if it is not one."""
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
