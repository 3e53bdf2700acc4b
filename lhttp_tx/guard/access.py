"""
Access rules for ``Host``, ``Origin`` and ``POST /publish``.

Pure functions of header values, used by the WebSocket protocol and the web resources. Knows no request class. Source:
the protocol document, section "HTTP".
"""

import hmac
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import urlsplit

from lhttp_tx.errors import Refused

__all__ = ["AccessPolicy", "check_token", "host_name", "is_loopback", "origin_name", "server_name"]

FORWARDING_HEADERS = (
    "forwarded",
    "via",
    "x-forwarded",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "cf-connecting-ip",
    "fastly-client-ip",
    "true-client-ip",
)
"""The beginnings of header names that a proxy adds. A request with such a header does not come from this machine."""

_MIN_TOKEN_SIZE = 16
"""The fewest bytes of a secret. A shorter one can be guessed."""

_LISTED = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?|[0-9a-f]*:[0-9a-f:.]*")
"""A host name or an address that a request can have in its ``Host``, in lower case."""

_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([\x21-\x7e]+)")
_NO_ORIGIN = re.compile(r"[/?#@*,\\\"<>]")
"""Characters that a browser's origin never has after its scheme."""

_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
"""The port that browsers leave out of an origin, for each scheme."""

_NAME_COUNT = 64
"""The most cached results for names. The largest name fills a head, 16 KiB."""


@lru_cache(_NAME_COUNT)
def host_name(value: str) -> str | None:
    """
    Return the name in a ``Host`` header, in lower case, without port and brackets; ``None`` if it is malformed.

    :param value: ``name``, ``name:port``, ``address``, ``[address]:port`` (RFC 9110, section 7.2).
    """
    try:
        parts = urlsplit("//" + value.strip())
        name, _ = parts.hostname, parts.port
    except ValueError:
        return None
    if not name or parts.username is not None or parts.path or parts.query or parts.fragment:
        return None
    return name.rstrip(".") or None


def server_name(value: str) -> str:
    """
    Return an operator's name for the server in the form of :func:`host_name`.

    :raises ValueError: if no request can have it as its ``Host``, such as ``*.example``.
    """
    name = host_name(value)
    if name is None or _LISTED.fullmatch(name) is None:
        raise ValueError(f"{value!r}: write a host name, such as chat.example; each name is listed by itself")
    return name


def origin_name(value: str) -> str:
    """
    Return an operator's origin in the form that browsers send, in lower case; ``*`` for all.

    The scheme's default port is left out, as in browsers.

    :raises ValueError: if no browser sends it, such as ``https://*.example`` and ``https://app.example/chat``.
    """
    if value in ("*", "null", "file://"):
        return value
    if "://" not in value:
        raise ValueError(f"{value!r}: write scheme and host, such as https://{value or 'app.example'}")
    origin = value.rstrip("/").lower()
    found = _ORIGIN.fullmatch(origin)
    if found is None or _NO_ORIGIN.search(found[2]):
        raise ValueError(f"{value!r}: write nothing but scheme, host and port, such as https://app.example:8443")
    return origin.removesuffix(_DEFAULT_PORTS.get(found[1], "/"))


def check_token(token: bytes) -> bytes:
    """
    Return a secret for ``POST /publish``, if it is valid.

    :raises ValueError: if it is shorter than 16 bytes, or has blanks around it, which no request can send.
    """
    if len(token) < _MIN_TOKEN_SIZE:
        raise ValueError(f"is shorter than {_MIN_TOKEN_SIZE} bytes; make a longer one")
    if token != token.strip():
        raise ValueError("has blanks around it; take them out")
    return token


@lru_cache(_NAME_COUNT)
def is_loopback(name: str | None) -> bool:
    """Return whether *name* is ``localhost`` or an address of the loopback interface."""
    if name is None:
        return False
    if name == "localhost":
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


@dataclass(slots=True)
class AccessPolicy:
    """
    The operator's rules.

    :ivar origins: origins of browser pages on other hosts that may connect, such as ``https://app.example``; ``*``
        allows all.
    :ivar server_names: the names that the server answers to, besides ``localhost`` and loopback addresses; empty: any.
    :ivar loopback_only: whether the server listens only on the loopback interface. Then it answers only to
        ``localhost`` and loopback addresses, so that an attacker's name that resolves to this machine does not reach
        it.
    :ivar publish_token: the secret that ``POST /publish`` asks for; ``None``: only local programs may use it.
    """

    origins: frozenset[str] = frozenset()
    server_names: frozenset[str] = frozenset()
    loopback_only: bool = False
    publish_token: bytes | None = field(default=None, repr=False)

    def check_host(self, host: str | None) -> None:
        """
        :param host: the value of the ``Host`` header, or ``None`` without one.
        :raises Refused: with status 403 if the server does not answer to that name, 400 if it is malformed.
        """
        name = host_name(host or "")
        if name is None:
            raise Refused(400, "Host header is missing or malformed")
        restricted = self.loopback_only or bool(self.server_names)
        if restricted and not is_loopback(name) and name not in self.server_names:
            raise Refused(403, "this server does not answer to that Host; the operator can add it with --server-name")

    def check_origin(self, origin: str | None, host: str | None) -> None:
        """
        :param origin: the value of the ``Origin`` header; ``None`` without one, which means that the client is not a
            browser.
        :param host: the value of the ``Host`` header.
        :raises Refused: with status 403 if it is a page of another site that the operator did not list.
        """
        if origin is None or "*" in self.origins or origin.lower() in self.origins:
            return
        if not _same_host(origin, host):
            raise Refused(403, "this Origin is not allowed; the operator can add it with --allow-origin")

    def check_publish(
        self,
        *,
        peer: str | None,
        host: str | None,
        origin: str | None,
        fetch_site: str | None,
        authorization: str | None,
        header_names: Iterable[str],
    ) -> None:
        """
        Check whether a ``POST /publish`` is allowed.

        :param peer: the caller's IP address; ``None`` if it has none, as over a UNIX socket.
        :param host: the value of its ``Host`` header.
        :param origin: the value of its ``Origin`` header.
        :param fetch_site: the value of its ``Sec-Fetch-Site`` header.
        :param authorization: the value of its ``Authorization`` header.
        :param header_names: the lower-case names of all its headers.
        :raises Refused: with status 401 if the token is missing or wrong, 403 if the server has no token and the caller
            is not a program on this machine.
        """
        if self.publish_token is not None:
            scheme, _, token = (authorization or "").partition(" ")
            given = token.strip().encode("utf-8", "surrogateescape")
            if scheme.lower() != "bearer" or not hmac.compare_digest(given, self.publish_token):
                raise Refused(401, "a valid token is needed: Authorization: Bearer TOKEN")
            return
        hint = "; the operator can set a token with --publish-token-file"
        if not is_loopback(peer):
            raise Refused(403, "only programs on the server's machine may publish" + hint)
        if any(name.startswith(FORWARDING_HEADERS) for name in header_names):
            raise Refused(403, "requests through a proxy may not publish" + hint)
        name = host_name(host or "")
        if not (is_loopback(name) or name in self.server_names):
            raise Refused(403, "requests to that Host may not publish" + hint)
        if fetch_site not in (None, "same-origin", "none") or (origin is not None and not _same_host(origin, host)):
            raise Refused(403, "pages of another site may not publish" + hint)


def _same_host(origin: str, host: str | None) -> bool:
    scheme, separator, rest = origin.partition("://")
    name = host_name(rest)
    return (
        bool(separator) and scheme.lower() in ("http", "https") and name is not None and name == host_name(host or "")
    )
