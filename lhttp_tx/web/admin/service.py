"""
The admin side of a server, on a listener of its own.

``twistd lhttp --admin`` adds it to the server's service. A program that embeds a server adds an :class:`AdminService`
beside its :class:`~lhttp_tx.service.LHTTPService`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.logger import Logger

from lhttp_tx.guard.access import AccessPolicy, is_loopback, server_name
from lhttp_tx.guard.admission import Admission
from lhttp_tx.ports.listening import Listeners
from lhttp_tx.web.admin.answering import Answering
from lhttp_tx.web.admin.api import ApiResource
from lhttp_tx.web.admin.calls import Calls
from lhttp_tx.web.admin.gate import AdminGate
from lhttp_tx.web.admin.keys import AdminKey, Keyring
from lhttp_tx.web.admin.managed import Managed, Parts, Siblings
from lhttp_tx.web.admin.page import Static
from lhttp_tx.web.admin.site import AdminRoot, AdminSite
from lhttp_tx.web.admin.watch import Watch

__all__ = ["MAX_CONNECTIONS", "AdminService", "manage"]

_log = Logger()

MAX_CONNECTIONS = 200
"""The most connections of the admin side at one time. Beyond that, idle ones are closed to make room."""


class AdminService(Service):
    """
    Listens for the admin side. Start it with the server. Stop it after the server.

    :ivar root: the root resource.
    :ivar renew_grpc: reads the certificate for gRPC again; ``None`` without gRPC. It returns whether the certificate
        has changed, and raises an exception if it cannot be used.
    """

    def __init__(
        self,
        *,
        reactor: Any,
        parts: Parts,
        listen: str,
        keys: Iterable[AdminKey] = (),
        server_names: Iterable[str] = (),
        make_endpoint: Callable[[Any, str], IStreamServerEndpoint] = serverFromString,
        count_pending: Callable[[], int] = lambda: 0,
        siblings: Siblings | None = None,
        grpc: str | None = None,
    ) -> None:
        """
        :param reactor: the running reactor.
        :param parts: the server's parts, ``service.parts``. With ``Config(metrics=True)``, there is ``/metrics``.
        :param listen: the description of the endpoint, such as ``tcp:9081:interface=127.0.0.1``.
        :param keys: the keys. Without keys, the admin side answers only ``/live`` and the files of the dashboard.
        :param server_names: the host names that it answers to, besides loopback names. If empty, it answers to any
            name, or only to loopback names if it listens on the loopback interface.
        :param make_endpoint: takes the reactor and a description, and returns the endpoint.
        :param count_pending: returns the number of the server's connections that have not opened a WebSocket.
        :param siblings: the workers whose metrics ``/metrics`` answers together; ``None``: only those of this server.
        :param grpc: the description of an endpoint for gRPC, ``tcp:`` or ``ssl:``; ``None``: there is none. It needs
            the asyncio reactor and the extra ``grpc``.
        :raises ValueError: if two keys have the same name or secret, if one of *server_names* is not a valid name, or
            if the reactor or the description is not one for gRPC.
        """
        self._listen = listen
        self._keyring = Keyring(keys)
        self._policy = AccessPolicy(server_names=frozenset(map(server_name, server_names)), loopback_only=True)
        self.gate = AdminGate(self._keyring, self._policy, reactor)
        self.root = AdminRoot(self.gate)
        managed = manage(parts, count_pending)
        answering = Answering(Calls(managed, reactor), reactor)
        self.root.putChild(b"api", ApiResource(self.gate, answering, managed.version, self.root.nothing))
        static = Static(self.gate, self.root.nothing)
        self.root.putChild(b"", static.page)
        self.root.putChild(b"static", static)
        self._watch = Watch(parts, reactor)
        if parts.counters is not None:
            from lhttp_tx.web.admin.metrics import MetricsResource  # needs an optional package

            self.root.putChild(b"metrics", MetricsResource(self.gate, managed, parts.counters, reactor, siblings))
        self._admission = Admission(reactor, max_pending=MAX_CONNECTIONS)
        site = AdminSite(self.root, self.gate, reactor=reactor, admission=self._admission)
        self._others: list[tuple[Listeners, str]] = []
        self.renew_grpc: Callable[[], bool] | None = None
        if grpc is not None:
            from lhttp_tx.web.admin.grpc.listening import GRPCEndpoint  # needs optional packages
            from lhttp_tx.web.admin.grpc.serving import Service as GRPCService

            endpoint = GRPCEndpoint(reactor, grpc)  # raises its errors at once
            self.renew_grpc = endpoint.renew
            service: Any = GRPCService(self.gate, answering)
            listeners = Listeners(reactor, service, make_endpoint=lambda *_: endpoint, opened=self._opened_grpc)
            self._others.append((listeners, grpc))
        self._listeners = Listeners(reactor, site, make_endpoint=make_endpoint, opened=self._opened)

    @property
    def ports(self) -> list[IListeningPort]:
        """The port that it listens on while it runs, and that of gRPC."""
        return [*self._listeners.ports, *(port for listeners, _ in self._others for port in listeners.ports)]

    def set_keys(self, keys: Iterable[AdminKey]) -> None:
        """
        Replace all keys, for all requests from now on.

        :raises ValueError: if two keys have the same name or secret. Then nothing changes.
        """
        self._keyring.replace(keys)

    def privilegedStartService(self) -> None:
        """
        Listen, while the process may still bind low ports.

        :raises CannotListenError: if it cannot listen.
        """
        for listeners, description in ((self._listeners, self._listen), *self._others):
            if not listeners.is_open:
                opening = listeners.open([description])
                opening.addErrback(lambda _: None)  # the log has the error

    def startService(self) -> None:
        """Listen, if it does not listen yet."""
        self.privilegedStartService()
        super().startService()
        self._watch.startService()
        if not len(self._keyring):
            _log.warn("the admin side has no key, so nobody can use it: add [admin.keys.NAME] to the file")

    def stopService(self) -> Deferred[None]:
        """
        Stop listening.

        :returns: a Deferred that succeeds when this is done.
        """
        super().stopService()
        self._watch.stopService()
        closing = [listeners.close() for listeners in (self._listeners, *(each for each, _ in self._others))]
        return DeferredList(closing, consumeErrors=True).addCallback(lambda _: self._admission.stop())

    def _opened(self, port: IListeningPort, description: str, _: IProtocolFactory) -> None:
        host = port.getHost()
        self._policy.loopback_only = not isinstance(host, IPv4Address | IPv6Address) or is_loopback(host.host)
        _tell("admin side", port, description)

    def _opened_grpc(self, port: IListeningPort, description: str, _: IProtocolFactory) -> None:
        _tell("gRPC side", port, description)


def _tell(what: str, port: IListeningPort, description: str) -> None:
    """Log that *what* listens. Warn if keys may cross a network unencrypted."""
    host = port.getHost()
    address = f"{host.host}:{host.port}" if isinstance(host, IPv4Address | IPv6Address) else str(host)
    _log.info("{what} on {address} ({description})", what=what, address=address, description=description)
    if isinstance(host, IPv4Address | IPv6Address) and not is_loopback(host.host) and "ssl:" not in description:
        _log.warn(
            "the {what} can be reached from other machines, and gets its keys unencrypted: listen on "
            "tcp:{port}:interface=127.0.0.1, or with ssl:",
            what=what,
            port=host.port,
        )


def manage(parts: Parts, count_pending: Callable[[], int]) -> Managed:
    """Return a server as an admin side sees it."""
    return Managed(parts, _version(), time.time(), count_pending)


def _version() -> str:
    """Return the version of the package."""
    try:
        return version("lhttp_tx")
    except PackageNotFoundError:  # it runs from a copy that is not installed
        return "unknown"
