"""
Composition: the only place that wires the parts of a server together.

:class:`LHTTPService` is the IService that ``twistd lhttp`` runs and that embedders add to their own; its
:attr:`~LHTTPService.resource` is the IResource to mount into an existing site.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from lhttp_tx import running
from lhttp_tx.access import AccessPolicy, is_loopback
from lhttp_tx.bus.memory import MemoryBus
from lhttp_tx.config import Config
from lhttp_tx.engine import Engine
from lhttp_tx.filters.multipart import MultipartFilter
from lhttp_tx.filters.pubsub import PublishFilter, SubscribeFilter, UnsubscribeFilter
from lhttp_tx.filters.upstream import UpstreamFilter
from lhttp_tx.hub import Hub
from lhttp_tx.interfaces import IBus, IHeaderFilter, IProcessor
from lhttp_tx.processors import Registry
from lhttp_tx.protocol import LHTTPServerFactory
from lhttp_tx.targets import TargetPolicy
from lhttp_tx.upstream import UpstreamClient
from lhttp_tx.web.health import HealthResource
from lhttp_tx.web.site import LHTTPSite, RootResource

__all__ = ["LHTTPService"]

_log = Logger()


class LHTTPService(Service):
    """
    One LHTTP server. Nothing is opened before it is started, so it can be made before the process daemonizes.

    :ivar engine: the server without its sockets; ``engine.publish`` publishes from code.
    :ivar factory: makes the WebSocket connections.
    :ivar resource: the HTTP tree, to be mounted into an existing site: ``/publish`` and the WebSocket.
    :ivar ports: what it listens on while it runs.
    """

    def __init__(
        self,
        config: Config | None = None,
        *,
        reactor: Any,
        processors: Iterable[IProcessor] = (),
        filters: Iterable[IHeaderFilter] = (),
        bus: IBus | None = None,
        make_endpoint: Callable[[Any, str], IStreamServerEndpoint] = serverFromString,
    ) -> None:
        """
        :param config: the settings; the defaults listen nowhere.
        :param reactor: the running reactor.
        :param processors: the processors; ``lhttp_tx.loading.load_plugins(IProcessor)`` finds those that are installed.
        :param filters: header filters; they run after the server's own.
        :param bus: what publications travel on; by default NATS if *config* names it, else the memory.
        :param make_endpoint: returns what to listen on, of the reactor and a description.
        :raises ValueError: if two processors have the same command, or an upstream URL is malformed, or NATS is named
            and *reactor* is not Twisted's asyncio reactor.
        """
        self.config = config = Config() if config is None else config
        self._reactor = reactor
        self._make_endpoint = make_endpoint
        self._bus = _make_bus(config, reactor) if bus is None else bus
        targets = TargetPolicy(config.upstream_allow, public_only=config.upstream_public_only)
        self._upstream = UpstreamClient(
            reactor=reactor,
            policy=targets,
            timeout=config.upstream_timeout,
            max_response_size=config.upstream_max_response,
            max_in_flight=config.upstream_max_in_flight,
        )
        self._policy = AccessPolicy(
            origins=frozenset(origin.lower() for origin in config.allow_origins),
            server_names=frozenset(name.lower() for name in config.server_names),
            publish_token=config.publish_token,
        )
        registry = Registry()
        for processor in processors:
            registry.add(processor)
        self.engine = Engine(
            hub=Hub(bus=self._bus),
            clock=reactor,
            registry=registry,
            filters=(
                MultipartFilter(),
                SubscribeFilter(),
                PublishFilter(),
                UnsubscribeFilter(),
                UpstreamFilter(self._upstream, targets),
                *filters,
            ),
            limits=config.limits,
        )
        self.factory = LHTTPServerFactory(
            engine=self.engine,
            reactor=reactor,
            policy=self._policy,
            max_connections=config.max_connections,
            ping_interval=config.ping_interval,
            ping_timeout=config.ping_timeout,
            handshake_timeout=config.handshake_timeout,
            close_timeout=config.close_timeout,
        )
        self.resource = RootResource(engine=self.engine, factory=self.factory, policy=self._policy, demo=config.demo)
        self.resource.putChild(b"health", HealthResource(self._bus, self.factory))
        self._site = LHTTPSite(
            self.resource,
            max_body_size=config.limits.message_size,
            reactor=reactor,
            head_timeout=config.handshake_timeout,
        )
        self.ports: list[IListeningPort] = []
        self._listening: list[Deferred[None]] = []

    def privilegedStartService(self) -> None:
        """Listen, while the process may still bind low ports."""
        if not self._listening:
            self._listening = [self._listen(description) for description in self.config.listen]

    def startService(self) -> None:
        """
        Start the bus and take connections.

        :raises CannotListenError: if an endpoint cannot be listened on and says so at once.
        """
        super().startService()
        self.privilegedStartService()
        self.factory.draining = False
        self._bus.start().addErrback(lambda failure: _log.failure("the bus did not start", failure))
        running.add(self.engine)
        self._log_summary()

    def _listen(self, description: str) -> Deferred[None]:
        listening = self._make_endpoint(self._reactor, description).listen(self._site)
        starting = True

        def failed(failure: Failure) -> Failure | None:
            _log.critical("cannot listen on {description}: {why}", description=description, why=failure.value)
            return failure if starting else None

        outcome: list[Failure] = []
        result: Deferred[None] = listening.addCallback(self._listens, description)
        result.addErrback(failed).addErrback(outcome.append)
        starting = False
        if outcome:
            raise outcome[0].value.with_traceback(None) from None  # type: ignore[union-attr]
        return result

    def _listens(self, port: IListeningPort, description: str) -> None:
        self.ports.append(port)
        hosts = [listening.getHost() for listening in self.ports]
        addresses = [host.host for host in hosts if isinstance(host, IPv4Address | IPv6Address)]
        self._policy.loopback_only = bool(addresses) and all(map(is_loopback, addresses))
        _log.info("listening on {address} ({description})", address=_shown(port.getHost()), description=description)

    def _log_summary(self) -> None:
        commands = ", ".join(sorted(processor.command for processor in self.engine.registry)) or "none"
        _log.info("bus: {bus}", bus=self._bus.description)
        _log.info("processors: {commands}", commands=commands)
        if self.config.demo:
            _log.info("demo: a chat page at /")
        if self.config.publish_token is None:
            _log.info("POST /publish: programs on this machine only (set a token with --publish-token-file)")
        else:
            _log.info("POST /publish: whoever sends the token")
        _log.info("upstream: {targets}", targets=", ".join(self.config.upstream_allow) or "off (--upstream-allow)")

    def stopService(self) -> Deferred[None]:
        """
        Stop listening, finish what is in hand, close every connection with 1001, then let go of bus and backends.

        :returns: a Deferred that succeeds when all this is done.
        """
        super().stopService()
        running.discard(self.engine)
        self.factory.draining = True
        ports, self.ports, self._listening = self.ports, [], []
        result: Deferred[Any] = DeferredList([maybeDeferred(port.stopListening) for port in ports], consumeErrors=True)
        result.addCallback(lambda _: self.engine.drain(self.config.drain_timeout))
        result.addCallback(lambda _: self._bus.stop())
        result.addCallback(lambda _: self._upstream.close())
        return result.addCallback(lambda _: None)


def _make_bus(config: Config, reactor: Any) -> IBus:
    if config.nats is None:
        return MemoryBus()
    if not isinstance(reactor, AsyncioSelectorReactor):
        raise ValueError("NATS needs Twisted's asyncio reactor: call twisted.internet.asyncioreactor.install() first")
    from lhttp_tx.bus.nats import NATSBus

    return NATSBus(config.nats, clock=reactor)


def _shown(address: Any) -> str:
    if isinstance(address, IPv6Address):
        return f"[{address.host}]:{address.port}"
    if isinstance(address, IPv4Address):
        return f"{address.host}:{address.port}"
    return str(address)
