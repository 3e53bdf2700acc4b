"""
The backends that clients may name, and how clients name them: pure functions, no I/O.

The server requests a URL that a client has written. So it allows only URLs that the operator has listed, and refuses
ambiguous URLs. Source: the protocol document, section "Upstream".
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from unicodedata import normalize
from urllib.parse import unquote_to_bytes

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

_MAX_DECODINGS = 8
"""How often a path is decoded to check its content. A path with more layers of encoding is refused."""

_HIDDEN = re.compile(
    rb"[\x00-\x1f\x7f\\]"  # a line break, a NUL, a backslash
    rb"|[\xc0\xc1]|\xe0[\x80-\x9f]|\xf0[\x80-\x8f]"  # overlong UTF-8, which is not valid
    rb"|%u[0-9a-f]{4}",  # an old encoding
    re.IGNORECASE,
)
"""Bytes that a lenient backend, or one that decodes more than once, would misread."""

_SEGMENT_END = re.compile(r"[;?#]")
"""Characters that some backends take for the end of a segment's name."""

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_6TO4 = ipaddress.ip_network("2002::/16")
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Target:
    """
    A parsed URL of a backend.

    :ivar scheme: ``http`` or ``https``.
    :ivar host: the host as written, with brackets around an IPv6 address.
    :ivar port: the port; the scheme's default if the URL has none.
    :ivar path: the path as written, at least ``/``.
    :ivar query: the query with its ``?``, or an empty text.
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
        :raises RemoteProtocolError: if *url* is anything else, or is ambiguous.
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
        """The URL, without its port if that is the scheme's default."""
        port = "" if self.port == _DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{self.host}{port}{self.path}{self.query}"


def _check_literal(host: str) -> None:
    try:
        ipaddress.IPv6Address(host[1:-1])
    except ValueError:
        raise RemoteProtocolError(f"upstream host {host[:64]} is not an IPv6 address") from None


def _check_path(path: str) -> None:
    """
    Check that a path means the same to every backend, however often the backend decodes it.

    :raises RemoteProtocolError: if it does not.
    """
    _check_decoded(path, path)
    encoded = path.encode("ascii")
    for _ in range(_MAX_DECODINGS):
        decoded = unquote_to_bytes(encoded)
        if decoded == encoded:
            return
        if _HIDDEN.search(decoded) or decoded.count(b"/") != path.count("/"):
            raise RemoteProtocolError("upstream path holds an encoded slash, backslash or NUL, or hides one")
        _check_decoded(decoded.decode("utf-8", "replace"), path)
        encoded = decoded
    raise RemoteProtocolError(f"upstream path is encoded more than {_MAX_DECODINGS} times")


def _check_decoded(text: str, path: str) -> None:
    text = normalize("NFKC", text)  # some backends do this, and take a full-width dot for a dot
    if text.count("/") != path.count("/") or "\\" in text:
        raise RemoteProtocolError("upstream path holds an encoded slash, backslash or NUL, or hides one")
    for segment in text.split("/"):
        if _SEGMENT_END.split(segment, 1)[0].strip() in (".", ".."):
            raise RemoteProtocolError("upstream path holds a dot segment")


def parse_upstream(value: str) -> tuple[str, Target]:
    """
    Return the method and the target in the value of an ``upstream`` header.

    :raises RemoteProtocolError: if the value is not a known method, one blank and a URL.
    """
    method, blank, url = value.partition(" ")
    if not blank:
        raise RemoteProtocolError("upstream header is not METHOD URL")
    if method not in METHODS:
        raise RemoteProtocolError(f"upstream method {method[:16]!a} is not one of {', '.join(sorted(METHODS))}")
    return method, Target.parse(url)


class TargetPolicy:
    """The targets that the operator has listed, and the addresses that they may have."""

    def __init__(self, allowed: Iterable[str] = (), *, original: Iterable[str] = (), public_only: bool = False) -> None:
        """
        :param allowed: URLs without a query. Each allows its own path and all paths below it.
        :param original: more URLs, of backends that were written for the original LHTTP server. They get only a
            message's body, and the message's headers as headers of the request.
        :param public_only: whether private and loopback addresses are refused, too.
        :raises ValueError: if one of the URLs is malformed or has a query, or is in both lists. The text says why.
        """
        self.public_only = public_only
        self._original = frozenset(_parse_allowed(url) for url in original)
        self._allowed = (*(_parse_allowed(url) for url in allowed), *self._original)
        for found in self._allowed[: len(self._allowed) - len(self._original)]:
            if found in self._original:
                raise ValueError(f"upstream {found.url} is listed as both kinds; leave one out")

    def __bool__(self) -> bool:
        return bool(self._allowed)

    def check(self, target: Target) -> None:
        """:raises UpstreamForbidden: if the operator did not list *target*."""
        if not any(_covers(allowed, target) for allowed in self._allowed):
            raise UpstreamForbidden("upstream target is not allowed")

    def is_original(self, target: Target) -> bool:
        """
        Return whether *target* was written for the original LHTTP server. If several URLs cover it, the longest path
        decides.
        """
        if not self._original:
            return False
        covering = [allowed for allowed in self._allowed if _covers(allowed, target)]
        return bool(covering) and max(covering, key=lambda allowed: len(allowed.path.rstrip("/"))) in self._original

    def allows_address(self, text: str) -> bool:
        """
        Return whether the server may connect to the IP address *text*.

        It may never connect to link-local, multicast, unspecified and reserved addresses. With *public_only*, it may
        not connect to private addresses either. An IPv4 address embedded in an IPv6 address counts as the IPv4 address.
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
