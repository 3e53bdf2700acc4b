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
from lhttp_tx.admission import Admission
from lhttp_tx.auth.gate import Gate
from lhttp_tx.auth.login import COMMAND, LoginFilter, LoginProcessor
from lhttp_tx.bus.memory import MemoryBus
from lhttp_tx.codes import GOING_AWAY
from lhttp_tx.community import Community
from lhttp_tx.config import Config
from lhttp_tx.control import Control
from lhttp_tx.descriptors import RESERVE, AcceptGuard, raise_limit
from lhttp_tx.engine import Engine
from lhttp_tx.factory import LHTTPServerFactory
from lhttp_tx.filters.multipart import MultipartFilter
from lhttp_tx.filters.pubsub import PublishFilter, SubscribeFilter, UnsubscribeFilter
from lhttp_tx.filters.rules import RuleBook, RuledPublishFilter, RuledSubscribeFilter, RuledUnsubscribeFilter
from lhttp_tx.filters.upstream import UpstreamFilter
from lhttp_tx.hooks import HookRunner
from lhttp_tx.hub import Hub
from lhttp_tx.interfaces import IAuthenticator, IBus, IHeaderFilter, IHooks, IProcessor
from lhttp_tx.presence import Presence
from lhttp_tx.processors import Registry
from lhttp_tx.proxies import TrustedProxies
from lhttp_tx.rules import Rules
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
        authenticators: Iterable[IAuthenticator] = (),
        hooks: Iterable[IHooks] = (),
        bus: IBus | None = None,
        make_endpoint: Callable[[Any, str], IStreamServerEndpoint] = serverFromString,
    ) -> None:
        """
        :param config: the settings; the defaults listen nowhere.
        :param reactor: the running reactor.
        :param processors: the processors; ``lhttp_tx.loading.load_plugins(IProcessor)`` finds those that are installed.
        :param filters: header filters; they run after the server's own.
        :param authenticators: what says who clients are, asked in this order; without one, everybody comes in.
        :param hooks: what the application does at the turns of a connection's life; called in this order.
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
            max_failures=config.upstream_max_failures,
            cool_down=config.upstream_cool_down,
        )
        self._policy = AccessPolicy(
            origins=frozenset(origin.lower() for origin in config.allow_origins),
            server_names=frozenset(name.lower() for name in config.server_names),
            publish_token=config.publish_token,
        )
        registry = Registry()
        for processor in processors:
            registry.add(processor)
        known = tuple(authenticators)
        self._gate = _make_gate(known, config, reactor) if known else None
        self._book = None if config.rules is None else RuleBook(config.rules)
        login: tuple[IHeaderFilter, ...] = ()
        if self._gate is not None:
            watcher = LoginFilter(self._gate)
            registry.add(LoginProcessor(self._gate, watcher.watch))
            login = (watcher,)
        private = (COMMAND,) if login else ()
        runner = HookRunner(hooks, clock=reactor, private_commands=private)
        subscribing = SubscribeFilter() if self._book is None else RuledSubscribeFilter(self._book)
        unsubscribing = UnsubscribeFilter() if self._book is None else RuledUnsubscribeFilter()
        self.engine = Engine(
            hub=Hub(bus=self._bus),
            clock=reactor,
            registry=registry,
            filters=(
                *login,
                *runner.filters,
                MultipartFilter(),
                subscribing,
                PublishFilter() if self._book is None else RuledPublishFilter(self._book, reactor),
                unsubscribing,
                UpstreamFilter(self._upstream, targets),
                *filters,
            ),
            limits=config.limits,
            private_commands=private,
        )
        self._community = Community(
            self.engine,
            self._bus,
            reactor,
            hooks=runner,
            subscribing=subscribing,
            unsubscribing=unsubscribing,
            book=self._book,
            presence=config.presence,
            presence_grace=config.presence_grace,
            max_per_user=config.max_per_user,
            login_parameter=config.login_parameter,
            wait_timeout=config.wait_timeout,
        )
        self._is_alone = isinstance(self._bus, MemoryBus) and bus is None
        self._admission = Admission(
            reactor,
            max_per_address=config.max_per_address,
            max_pending=config.max_pending,
            proxies=TrustedProxies(config.trusted_proxies),
        )
        self.factory = LHTTPServerFactory(
            engine=self.engine,
            reactor=reactor,
            policy=self._policy,
            gate=self._gate,
            admission=self._admission,
            max_connections=config.max_connections,
            ping_interval=config.ping_interval,
            ping_timeout=config.ping_timeout,
            handshake_timeout=config.handshake_timeout,
            close_timeout=config.close_timeout,
            deflate=config.deflate,
            gzip=config.gzip,
        )
        self.resource = RootResource(engine=self.engine, factory=self.factory, policy=self._policy, demo=config.demo)
        self.resource.putChild(b"health", HealthResource(self._bus, self.factory))
        self._site = LHTTPSite(
            self.resource,
            max_body_size=config.limits.message_size,
            reactor=reactor,
            head_timeout=config.handshake_timeout,
            admission=self._admission,
        )
        self._reserve = RESERVE + (config.upstream_max_in_flight if targets else 0)
        self._guard = AcceptGuard(reactor, self._reserve, judge=self._admission.admits)
        self.ports: list[IListeningPort] = []
        self._listening: list[Deferred[None]] = []

    @property
    def rules(self) -> Rules:
        """The channel rules that are in force."""
        return Rules() if self._book is None else self._book.rules

    @property
    def presence(self) -> Presence:
        """Who is in the channels whose presence is kept."""
        return self._community.presence

    @property
    def control(self) -> Control:
        """Control over the connections, of this node and of the others."""
        return self._community.control

    def set_rules(self, rules: Rules) -> None:
        """
        Put other channel rules in force, for what clients do from now on.

        Subscriptions that a client may not have by these rules are taken back, and it is told so. A server with many
        connections looks at them a few at a time.

        :raises ValueError: if the server was made without any.
        """
        self._community.set_rules(rules)

    def privilegedStartService(self) -> None:
        """Listen, while the process may still bind low ports."""
        if not self._listening:
            if self.config.listen:
                raise_limit(self.config.max_connections, self._reserve)
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
        if not self._is_alone:
            self._community.start()
        running.add(self.engine, self._community)
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
        self._guard.watch(port)
        hosts = [listening.getHost() for listening in self.ports]
        addresses = [host.host for host in hosts if isinstance(host, IPv4Address | IPv6Address)]
        self._policy.loopback_only = bool(addresses) and all(map(is_loopback, addresses))
        _log.info("listening on {address} ({description})", address=_shown(port.getHost()), description=description)

    def _log_summary(self) -> None:
        commands = ", ".join(sorted(processor.command for processor in self.engine.registry)) or "none"
        _log.info("bus: {bus}", bus=self._bus.description)
        _log.info("processors: {commands}", commands=commands)
        if self._gate is not None:
            _log.info("clients: {who}", who=self._gate.description)
        if self._admission.proxies:
            _log.info("trusted proxies: {proxies}", proxies=self._admission.proxies)
        if self.config.demo:
            _log.info("demo: a chat page at /")
        if self.config.publish_token is None:
            _log.info("POST /publish: programs on this machine only (set a token with --publish-token-file)")
        else:
            _log.info("POST /publish: whoever sends the token")
        if self._book is not None:
            _log.info("channel rules: {count}", count=len(self._book.rules))
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
        result.addCallback(lambda _: self._guard.stop())
        if self._gate is not None:
            self._gate.close_lobbies(GOING_AWAY, "server is going away")
        result.addCallback(lambda _: self.engine.drain(self.config.drain_timeout))
        result.addCallback(lambda _: self._admission.stop())
        result.addCallback(lambda _: self._community.stop())
        result.addCallback(lambda _: self._bus.stop())
        result.addCallback(lambda _: self._upstream.close())
        return result.addCallback(lambda _: None)


def _make_gate(authenticators: Iterable[IAuthenticator], config: Config, reactor: Any) -> Gate:
    return Gate(
        authenticators,
        clock=reactor,
        allow_anonymous=config.allow_anonymous,
        login_timeout=config.login_timeout,
        timeout=config.auth_timeout,
        max_in_flight=config.auth_max_in_flight,
        max_failures=config.max_failed_logins,
    )


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
