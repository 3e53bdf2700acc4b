"""
Who may come in: rules about ``Host``, ``Origin`` and the HTTP publishing door.

Pure functions of header values; used by the WebSocket protocol and the web resources. Knows no request class.
Source: the protocol document, section "HTTP".
"""

import hmac
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import urlsplit

from lhttp_tx.errors import Refused

__all__ = ["AccessPolicy", "host_name", "is_loopback"]

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
"""How the names of headers begin that a proxy adds; a request with one of them did not begin on this machine."""

_NAME_COUNT = 64
"""Names that are not looked at again while they are asked about; the largest fills a head, 16 KiB."""


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

    :ivar origins: origins of browser pages that may connect though their host is another one, such as
        ``https://app.example``; ``*`` allows all.
    :ivar server_names: the names that the server answers to beside ``localhost`` and loopback addresses; empty: any.
    :ivar loopback_only: whether the server listens on the loopback interface alone: then it answers to ``localhost``
        and loopback addresses only, so that no foreign name that resolves to this machine reaches it.
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
        :param origin: the value of the ``Origin`` header, or ``None`` without one: no browser.
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
        Let a ``POST /publish`` in or not.

        :param peer: the caller's IP address; ``None`` if it has none, as over a UNIX socket.
        :param host: the value of its ``Host`` header.
        :param origin: the value of its ``Origin`` header.
        :param fetch_site: the value of its ``Sec-Fetch-Site`` header.
        :param authorization: the value of its ``Authorization`` header.
        :param header_names: the lower-case names of all its headers.
        :raises Refused: with status 401 if the token is missing or wrong, 403 if there is no token to tell strangers
            apart by and the caller is not a program on this machine.
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
