"""
Listens for gRPC, with the library's own server in the event loop of Twisted's asyncio reactor.

The library opens its sockets itself. So an endpoint here takes only the descriptions ``tcp:`` and ``ssl:`` of Twisted.
Used by :mod:`lhttp_tx.web.admin.service`.
"""

from __future__ import annotations

import asyncio
import re
import socket
from pathlib import Path
from typing import Any

import grpc
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from zope.interface import implementer

from lhttp_tx.guard.files import read_file
from lhttp_tx.web.admin.site import MAX_BODY_SIZE

__all__ = ["GRACE", "MAX_CONNECTIONS", "MAX_METADATA", "MAX_STREAMS", "GRPCEndpoint", "read_description"]

MAX_CONNECTIONS = 200
"""The most connections at a time. The library closes further ones at once."""

MAX_STREAMS = 100
"""The most calls at a time on one connection. A caller waits before it begins more."""

MAX_CALLS = 1_000
"""The most calls at a time on all connections, including those without a key. The library refuses further ones."""

MAX_METADATA = 16_384
"""The most bytes of the metadata of a call."""

GRACE = 2.0
"""Seconds that running calls may take when the server stops."""

_HANDSHAKE = 10
"""The most seconds until a connection speaks HTTP/2."""

_IDLE = 60
"""Seconds after which a connection without calls is closed."""

_PINGS = 2
"""The number of needless pings after which a connection is closed."""

_OPTIONS = (
    ("grpc.so_reuseport", 0),  # otherwise two servers could share a port, and its callers
    ("grpc.max_receive_message_length", MAX_BODY_SIZE),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_metadata_size", MAX_METADATA),
    ("grpc.absolute_max_metadata_size", MAX_METADATA),
    ("grpc.max_concurrent_streams", MAX_STREAMS),
    # Otherwise it refuses calls within the limit while the ends of earlier calls are on their way.
    ("grpc.http.overload_protection", 0),
    ("grpc.max_allowed_incoming_connections", MAX_CONNECTIONS),
    ("grpc.server_handshake_timeout_ms", _HANDSHAKE * 1_000),
    ("grpc.max_connection_idle_ms", _IDLE * 1_000),
    ("grpc.http2.max_ping_strikes", _PINGS),
    # A small compressed message could become a large one, so compression is off.
    ("grpc.compression_enabled_algorithms_bitset", 1),
)

_KNOWN = {
    "tcp": {"port", "interface"},
    "ssl": {"port", "interface", "privateKey", "certKey", "extraCertChain"},
}


def read_description(description: str) -> tuple[str, dict[str, str]]:
    """
    Return the kind of an endpoint, ``tcp`` or ``ssl``, and its parameters.

    :param description: such as ``tcp:9082:interface=127.0.0.1``. Twisted must accept it.
    :raises ValueError: if it is of another kind, or has a parameter that gRPC does not use.

    >>> read_description("tcp:9082:interface=127.0.0.1")
    ('tcp', {'port': '9082', 'interface': '127.0.0.1'})
    """
    kind, *rest = (re.sub(r"\\(.)", r"\1", part) for part in re.split(r"(?<!\\):", description))
    if kind not in _KNOWN:
        raise ValueError(f"gRPC has no endpoints {kind}: use tcp:9082:interface=127.0.0.1 or ssl:")
    found = {}
    for part in rest:
        name, equals, value = part.partition("=")
        found[name if equals else "port"] = value if equals else name
    for name in found:
        if name not in _KNOWN[kind]:
            raise ValueError(f"gRPC has no use for {name}= in {kind}:")
    return kind, found


@implementer(IListeningPort)
class _Port:
    """A listening server of gRPC."""

    def __init__(self, server: Any, host: str, port: int) -> None:
        self._server = server
        self._host = IPv6Address("TCP", host, port) if ":" in host else IPv4Address("TCP", host, port)

    def startListening(self) -> None:
        """Do nothing: the server listens already."""

    def stopListening(self) -> Deferred[None]:
        """Take no more calls, and wait for running ones for at most :data:`GRACE` seconds."""
        return Deferred.fromCoroutine(_awaited(self._server.stop(GRACE)))

    def getHost(self) -> IPv4Address | IPv6Address:
        """Return its address."""
        return self._host


@implementer(IStreamServerEndpoint)
class GRPCEndpoint:
    """Where a server of gRPC listens. Its factory is a :class:`lhttp_tx.web.admin.grpc.serving.Service`."""

    def __init__(self, reactor: Any, description: str) -> None:
        """
        :param reactor: the asyncio reactor.
        :param description: as in :func:`read_description`.
        :raises ValueError: if gRPC cannot use the description, or *reactor* is not an asyncio reactor.
        """
        if not isinstance(reactor, AsyncioSelectorReactor):
            raise ValueError(
                "gRPC needs Twisted's asyncio reactor: call twisted.internet.asyncioreactor.install() first"
            )
        self._loop: asyncio.AbstractEventLoop = reactor._asyncioEventloop
        self._kind, self._parameters = read_description(description)
        self._certificate: tuple[bytes, bytes] | None = None
        self._configuration: Any = None

    def renew(self) -> bool:
        """
        Read the certificate and the key again. New connections get them, others do not change.

        :returns: whether they have changed.
        :raises Exception: if they cannot be used. Then the old ones remain.
        """
        if self._certificate is None:
            return False
        found = self._read()
        if found == self._certificate:
            return False
        _check_pair(*found)
        self._use(found)
        return True

    def listen(self, protocolFactory: Any) -> Deferred[IListeningPort]:
        """
        Listen.

        :returns: a Deferred that

            - succeeds with the port, at once if the reactor does not run yet;
            - fails with :exc:`~twisted.internet.error.CannotListenError`.
        """
        opening = self._open(protocolFactory)
        if self._loop.is_running():
            return Deferred.fromCoroutine(_awaited(opening))
        try:
            return succeed(self._loop.run_until_complete(opening))
        except CannotListenError:
            return fail()

    async def _open(self, service: Any) -> IListeningPort:
        server = grpc.aio.server(options=_OPTIONS, maximum_concurrent_rpcs=MAX_CALLS)
        server.add_generic_rpc_handlers((service,))
        host, port = self._parameters.get("interface", ""), int(self._parameters["port"])
        host = host or "0.0.0.0"  # noqa: S104 - as with Twisted, no interface means all of them
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            _try(host, port)
            if self._kind == "ssl":
                found = server.add_secure_port(address, self._credentials())
            else:
                found = server.add_insecure_port(address)
            if not found:  # older versions of the library return 0 after an error
                raise RuntimeError("Address already in use")
        except (OSError, RuntimeError, ValueError) as error:
            await server.stop(None)
            raise CannotListenError(host, port, error) from None
        await server.start()
        return _Port(server, host, found)  # type: ignore[return-value,unused-ignore]

    def _credentials(self) -> Any:
        self._use(self._read())
        return grpc.dynamic_ssl_server_credentials(self._configuration, lambda: self._configuration)

    def _use(self, found: tuple[bytes, bytes]) -> None:
        self._certificate = found
        self._configuration = grpc.ssl_server_certificate_configuration([found])

    def _read(self) -> tuple[bytes, bytes]:
        """Return the key and the chain of certificates."""
        parameters = self._parameters
        key = Path(parameters.get("privateKey", "server.pem"))
        certificates = read_file(parameters.get("certKey", key))
        if "extraCertChain" in parameters:
            certificates += b"\n" + read_file(parameters["extraCertChain"])
        return read_file(key), certificates


def _check_pair(key: bytes, certificates: bytes) -> None:
    """:raises Exception: if the key does not belong to the first certificate, or one of them is malformed."""
    from OpenSSL.crypto import FILETYPE_PEM, load_certificate, load_privatekey
    from OpenSSL.SSL import TLS_METHOD, Context

    context = Context(TLS_METHOD)
    context.use_privatekey(load_privatekey(FILETYPE_PEM, key))
    context.use_certificate(load_certificate(FILETYPE_PEM, certificates))
    context.check_privatekey()


def _try(host: str, port: int) -> None:
    """
    Bind a socket as the library will do, because the library does not say why it cannot.

    :raises OSError: if this is not possible.
    """
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[:1]:
        with socket.socket(family, kind, protocol) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(address)


async def _awaited(awaitable: Any) -> Any:
    """Await an awaitable of asyncio in a coroutine of Twisted, and return its result."""
    return await Deferred.fromFuture(asyncio.ensure_future(awaitable))
