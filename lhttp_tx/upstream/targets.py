"""
Which backends clients may name, and how they name them: pure functions, no I/O.

A client writes the URL that this server then requests, so nothing is allowed that the operator did not list, and a
URL that could be read in two ways is refused. Source: the protocol document, section "Upstream: the server as a
proxy".
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote

from lhttp_tx.errors import RemoteProtocolError, UpstreamForbidden

__all__ = ["METHODS", "Target", "TargetPolicy", "parse_upstream"]

METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})
"""The methods that a client may use."""

_DEFAULT_PORTS = {"http": 80, "https": 443}
_MAX_URL_SIZE = 2_048

_URL = re.compile(
    r"(?P<scheme>https?)://"
    r"(?P<host>[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?"
    r"(?P<path>/(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2})*)?"
    r"(?P<query>\?(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?]|%[0-9A-Fa-f]{2})*)?",
    re.ASCII,
)

_HIDDEN = re.compile(r"%(?:2f|5c|00|c0|c1|25(?:2e|2f|5c|00|c0|c1))", re.IGNORECASE)
"""What a backend that decodes twice, or leniently, would read as a slash or a dot."""

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_6TO4 = ipaddress.ip_network("2002::/16")
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Target:
    """
    What a URL names.

    :ivar scheme: ``http`` or ``https``.
    :ivar host: the host as written, with brackets around an IPv6 address.
    :ivar port: the port, also where the URL left it out.
    :ivar path: the path as written, ``/`` at least.
    :ivar query: the query with its ``?``, or nothing.
    """

    scheme: str
    host: str
    port: int
    path: str
    query: str = ""

    @classmethod
    def parse(cls, url: str) -> "Target":
        """
        :param url: an absolute http or https URL, without user name and fragment.
        :raises RemoteProtocolError: if it is anything else, or could be read in two ways.
        """
        match = _URL.fullmatch(url) if len(url) <= _MAX_URL_SIZE else None
        if match is None:
            raise RemoteProtocolError(f"upstream URL {url[:64]!a} is not a plain http or https URL")
        if match["host"].startswith("["):
            _check_literal(match["host"])
        port = int(match["port"] or _DEFAULT_PORTS[match["scheme"]])
        if port > 65_535:
            raise RemoteProtocolError(f"upstream port {port} is larger than 65535")
        path = match["path"] or "/"
        _check_path(path)
        return cls(match["scheme"], match["host"], port, path, match["query"] or "")

    @property
    def url(self) -> str:
        """The URL, its port left out where it is the scheme's own."""
        port = "" if self.port == _DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{self.host}{port}{self.path}{self.query}"


def _check_literal(host: str) -> None:
    try:
        ipaddress.IPv6Address(host[1:-1])
    except ValueError:
        raise RemoteProtocolError(f"upstream host {host[:64]} is not an IPv6 address") from None


def _check_path(path: str) -> None:
    if _HIDDEN.search(path):
        raise RemoteProtocolError("upstream path holds an encoded slash, backslash or NUL, or hides one")
    for segment in unquote(path).split("/"):
        if segment.partition(";")[0] in (".", ".."):
            raise RemoteProtocolError("upstream path holds a dot segment")


def parse_upstream(value: str) -> tuple[str, Target]:
    """
    Return method and target that the value of an ``upstream`` header names.

    :raises RemoteProtocolError: if it is not a known method, one blank and a URL.
    """
    method, blank, url = value.partition(" ")
    if not blank:
        raise RemoteProtocolError("upstream header is not METHOD URL")
    if method not in METHODS:
        raise RemoteProtocolError(f"upstream method {method[:16]!a} is not one of {', '.join(sorted(METHODS))}")
    return method, Target.parse(url)


class TargetPolicy:
    """The targets that the operator listed, and the addresses they may have."""

    def __init__(self, allowed: Iterable[str] = (), *, public_only: bool = False) -> None:
        """
        :param allowed: URLs without a query; each allows its own path and all paths below it.
        :param public_only: whether private and loopback addresses are refused too.
        :raises ValueError: if one of *allowed* is no such URL; the text says why.
        """
        self.public_only = public_only
        self._allowed = tuple(_parse_allowed(url) for url in allowed)

    def __bool__(self) -> bool:
        return bool(self._allowed)

    def check(self, target: Target) -> None:
        """:raises UpstreamForbidden: if the operator did not list *target*."""
        if not any(_covers(allowed, target) for allowed in self._allowed):
            raise UpstreamForbidden("upstream target is not allowed")

    def allows_address(self, text: str) -> bool:
        """
        Return whether a connection to the IP address *text* may be made.

        Link-local, multicast, unspecified and reserved addresses never; private ones not if only public targets are
        wanted. An IPv4 address inside an IPv6 one counts as itself.
        """
        try:
            address: IPAddress = ipaddress.ip_address(text.partition("%")[0])
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address):
            if address.ipv4_mapped is not None:
                address = address.ipv4_mapped
            elif address in _NAT64 or address in _6TO4:
                return False
        if address.is_link_local or address.is_multicast or address.is_unspecified:
            return False
        if address.is_loopback:
            return not self.public_only
        if address.is_reserved:
            return False
        site_local = isinstance(address, ipaddress.IPv6Address) and address.is_site_local
        return (address.is_global and not site_local) or not self.public_only


def _parse_allowed(url: str) -> Target:
    try:
        target = Target.parse(url)
    except RemoteProtocolError as error:
        raise ValueError(error.reason) from None
    if target.query:
        raise ValueError(f"allowed upstream {url!r} has a query; list the path alone")
    return target


def _covers(allowed: Target, target: Target) -> bool:
    """Return whether *allowed* names the origin of *target* and a whole-segment prefix of its path."""
    if (allowed.scheme, allowed.host, allowed.port) != (target.scheme, target.host, target.port):
        return False
    prefix = allowed.path.rstrip("/")
    return target.path == prefix or target.path.startswith(prefix + "/")
