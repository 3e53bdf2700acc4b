"""
Renews certificates while the server listens: new connections get the new certificate, and others do not change.

:mod:`lhttp_tx.twistd.renewal` uses it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.endpoints import SSL4ServerEndpoint, _parse, _WrapperServerEndpoint, serverFromString
from twisted.internet.interfaces import IStreamServerEndpoint

__all__ = ["Certificates", "tls_files"]

_PROXY = "haproxy:"
"""The prefix of an endpoint's description for the PROXY protocol."""

_PLACES = ("port", "privateKey", "certKey", "sslmethod", "interface", "backlog", "extraCertChain", "dhParameters")
"""The names of the positional parts of an endpoint's description: the parameters of Twisted's ``_parseSSL``."""

_FILES = ("privateKey", "certKey", "extraCertChain", "dhParameters")
"""The parts that name a file."""

_DEFAULT_KEY = "server.pem"
"""The file with the private key and the certificate of an endpoint that names none."""


def tls_files(description: str) -> list[str]:
    """
    Return the files that Twisted reads to listen with TLS; none for any other endpoint, or a malformed description.

    >>> tls_files("ssl:8443:privateKey=key.pem:certKey=cert.pem")
    ['key.pem', 'cert.pem']
    >>> tls_files("tcp:8081")
    []
    """
    while description.startswith(_PROXY):
        description = description.removeprefix(_PROXY)
    if not description.startswith("ssl:"):
        return []
    try:
        places, named = _parse(description)
    except RuntimeError:  # the description ends with a backslash
        return []
    found = {"privateKey": _DEFAULT_KEY, **dict(zip(_PLACES, places[1:], strict=False)), **named}
    return [found[name] for name in _FILES if found.get(name)]


class _RenewableContext:
    """Makes the TLS context of each connection, from the newest certificate."""

    def __init__(self, current: Any) -> None:
        self.current = current

    def getContext(self) -> Any:
        """Return the context for a new connection."""
        return self.current.getContext()


class Certificates:
    """The certificates of endpoints such as ``ssl:8443:privateKey=key.pem:certKey=cert.pem``."""

    def __init__(self, make_endpoint: Callable[[Any, str], IStreamServerEndpoint] = serverFromString) -> None:
        """:param make_endpoint: takes the reactor and a description, and returns the endpoint."""
        self._make_endpoint = make_endpoint
        self._contexts: dict[str, _RenewableContext] = {}

    def endpoint(self, reactor: Any, description: str) -> IStreamServerEndpoint:
        """Return the endpoint of *description*. If it is Twisted's endpoint for TLS, its certificate can be renewed."""
        made = endpoint = self._make_endpoint(reactor, description)
        while isinstance(endpoint, _WrapperServerEndpoint):
            endpoint = endpoint._wrappedEndpoint
        if isinstance(endpoint, SSL4ServerEndpoint):
            context = self._contexts[description] = _RenewableContext(endpoint._sslContextFactory)
            endpoint._sslContextFactory = context
        return made

    def renewals(self) -> list[tuple[str, Callable[[], bool]]]:
        """
        Return the descriptions of the endpoints, each with a function that reads its files again.

        The function returns whether the certificate has changed. It raises if the files cannot be used. Then the old
        certificate remains.
        """
        return [(name, lambda name=name: self._renew(name)) for name in self._contexts]  # type: ignore[misc]

    def _renew(self, description: str) -> bool:
        context = self._contexts[description]
        plain = description
        while plain.startswith(_PROXY):
            plain = plain.removeprefix(_PROXY)
        found: Any = serverFromString(None, plain)  # reads the files, and uses no reactor yet
        new, old = found._sslContextFactory, context.current
        new.getContext()  # raises if the key does not match the certificate
        if _public(new) == _public(old):
            return False
        context.current = new
        return True


def _public(options: Any) -> tuple[bytes, ...]:
    """Return the certificate of a server and those of its chain, in DER."""
    from OpenSSL.crypto import FILETYPE_ASN1, dump_certificate

    return tuple(
        dump_certificate(FILETYPE_ASN1, each) for each in (options.certificate, *(options.extraCertChain or ()))
    )
