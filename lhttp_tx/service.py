"""
The server as a Twisted service: the parts of :mod:`lhttp_tx.assembly` with their sockets.

:class:`LHTTPService` is the IService that ``twistd lhttp`` runs. Embedding applications add it to their own services.
Its :attr:`~LHTTPService.resource` is the IResource to mount into an existing site.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from lhttp_tx import running
from lhttp_tx.assembly import Assembly
from lhttp_tx.assembly.departure import Departure
from lhttp_tx.assembly.summary import log_summary, tell_listening
from lhttp_tx.cluster.control import Control
from lhttp_tx.cluster.presence import Presence
from lhttp_tx.config import Config
from lhttp_tx.engine.awaiting import awaitable, loop_runs
from lhttp_tx.engine.kinds import AnyAuthenticator, AnyBus, AnyFilter, AnyHistoryStore, AnyHooks, AnyProcessor
from lhttp_tx.guard.access import AccessPolicy, is_loopback, origin_name, server_name
from lhttp_tx.guard.admission import Admission
from lhttp_tx.guard.descriptors import RESERVE, AcceptGuard, raise_limit
from lhttp_tx.guard.proxies import TrustedProxies
from lhttp_tx.interfaces import IProcessor
from lhttp_tx.observe import rationing
from lhttp_tx.ports.listening import Listeners, accept
from lhttp_tx.ports.sockets import UNIXRights
from lhttp_tx.ports.starting import Starts, first_of, one_by_one
from lhttp_tx.rules.model import Rules
from lhttp_tx.running import RunningServer
from lhttp_tx.transports.tcp.factory import TCPFactory
from lhttp_tx.transports.websocket.factory import LHTTPServerFactory
from lhttp_tx.web.health import put_checks
from lhttp_tx.web.site import LHTTPSite, RootResource
from lhttp_tx.web.traced import trace_requests

__all__ = ["LHTTPService"]

_log = Logger()


class LHTTPService(Service):
    """
    One LHTTP server. It opens nothing before it is started, so you can make it before the process daemonizes.

    :ivar engine: the server without its sockets; ``engine.publish`` publishes from code.
    :ivar parts: the parts of the server, for its admin side.
    :ivar factory: makes the WebSocket connections.
    :ivar departure: the slow part of a stop.
    :ivar resource: the HTTP tree with ``/publish`` and the WebSocket; mount it into an existing site.
    """

    def __init__(
        self,
        config: Config | None = None,
        *,
        reactor: Any,
        processors: Iterable[AnyProcessor] = (),
        filters: Iterable[AnyFilter] = (),
        authenticators: Iterable[AnyAuthenticator] = (),
        hooks: Iterable[AnyHooks] = (),
        bus: AnyBus | None = None,
        history_store: AnyHistoryStore | None = None,
        make_endpoint: Callable[[Any, str], IStreamServerEndpoint] | None = None,
    ) -> None:
        """
        :param config: the settings. With the defaults, the server listens nowhere.
        :param reactor: the running reactor.
        :param processors: the processors; ``lhttp_tx.twistd.loading.load_plugins(IProcessor)`` finds the installed
            ones.
        :param filters: header filters; they run after the server's own.
        :param authenticators: identify clients, and are asked in this order. Without any, everybody may connect.
        :param hooks: the application's hooks, called in this order.
        :param bus: carries publications; by default NATS if *config* names it, else the bus in memory.
        :param make_endpoint: takes the reactor and an endpoint description, and returns the endpoint. The default makes
            Twisted's endpoint, and gives UNIX sockets the rights that *config* asks for.
        :param history_store: stores publications to channels with history; by default the store that *config* names.
        :raises ValueError: if two processors have the same command; if *config* needs to know users and nothing
            identifies them (:meth:`~lhttp_tx.config.Config.check_users`); if *config* names NATS and *reactor* is not
            Twisted's asyncio reactor; if an object does not provide the interface of its kind, for instance because it
            is a class; if *bus* or *history_store* is given although *config* names one.
        :raises TypeError: if *config* is anything else.
        """
        self.config = config = Config() if config is None else config
        if not isinstance(config, Config):
            raise TypeError(f"config is a lhttp_tx.config.Config, not {config!r}")
        if bus is not None and config.nats is not None:
            raise ValueError("there are two buses: leave out bus, or nats of the Config")
        if history_store is not None and config.history_store is not None:
            raise ValueError("there are two history stores: leave out history_store here, or in the Config")
        self._reactor = reactor
        make_endpoint = make_endpoint or UNIXRights(config.unix_mode, config.unix_group).endpoint
        known = tuple(authenticators)
        if config.require_auth and (config.allow_anonymous or not known):
            raise ValueError("anybody may connect without a login, but Config(require_auth=True) forbids it")
        config.check_users(bool(known))
        self.parts = self._parts = parts = Assembly(
            config,
            clock=reactor,
            processors=processors,
            filters=filters,
            authenticators=known,
            hooks=hooks,
            bus=bus,
            history_store=history_store,
        )
        self.engine = parts.engine
        self._policy = AccessPolicy(
            origins=frozenset(map(origin_name, config.allow_origins)),
            server_names=frozenset(map(server_name, config.server_names)),
            publish_token=config.publish_token,
        )
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
            gate=parts.gate,
            admission=self._admission,
            max_connections=config.max_connections,
            ping_interval=config.ping_interval,
            ping_timeout=config.ping_timeout,
            handshake_timeout=config.handshake_timeout,
            close_timeout=config.close_timeout,
            deflate=config.deflate,
            gzip=config.gzip,
        )
        self.resource = RootResource(factory=self.factory, demo=config.demo, events=config.events, nodes=parts.nodes)
        trace_requests(self.resource, parts.tracer)
        self._site = LHTTPSite(
            self.resource,
            max_body_size=config.limits.message_size,
            reactor=reactor,
            head_timeout=config.handshake_timeout,
            body_timeout=config.body_timeout,
            lifetime=config.http_lifetime,
            admission=self._admission,
        )
        self._reserve = RESERVE + (config.upstream_max_in_flight if parts.targets else 0)
        self._guard = AcceptGuard(
            reactor, self._reserve, judge=self._admission.admits, make_room=self._admission.make_room
        )
        self._tcp = TCPFactory(self.factory)
        self._tcp_ports: list[IListeningPort] = []
        self._listeners = Listeners(reactor, self._site, make_endpoint=make_endpoint, opened=self._listens)
        self.departure = Departure(parts.engine, reactor, delay=config.drain_delay, time=config.drain_time)
        put_checks(
            self.resource,
            *(parts.bus, self.factory, self._listeners, self._guard),
            has_store=lambda: parts.histories.available,
            refuses=lambda: parts.histories.refuses,
            is_leaving=lambda: self.departure.begun,
            missing=lambda: parts.nodes.missing,
            shortfall=lambda: parts.nodes.shortfall(config.require_nodes),
        )
        self._listening: Deferred[None] = succeed(None)
        self._stopping: Deferred[None] | None = None
        self._has_begun = False
        self._start_number = 0
        self._starts = Starts()

    @property
    def ports(self) -> list[IListeningPort]:
        """The ports that the server listens on while it runs, those of ``Config(tcp=...)`` too."""
        return self._listeners.ports

    @property
    def tcp_ports(self) -> list[IListeningPort]:
        """The ports of ``Config(tcp=...)``, for LHTTP on a plain stream."""
        return [port for port in self._tcp_ports if port in self.ports]

    @property
    def rules(self) -> Rules:
        """The current channel rules."""
        return Rules() if self._parts.rules is None else self._parts.rules

    @property
    def presence(self) -> Presence:
        """The people in the channels with presence."""
        return self._parts.presence

    @property
    def control(self) -> Control:
        """Control over the connections of this node and of the others."""
        return self._parts.control

    def set_rules(self, rules: Rules) -> None:
        """
        Replace the channel rules, for everything that clients do from now on.

        The server revokes subscriptions that the new rules do not allow, and tells the clients. If it has many
        connections, it checks a few at a time.

        :raises TypeError: if *rules* is not a :class:`~lhttp_tx.rules.model.Rules`.
        :raises ValueError: if the server was made without rules, or if the rules need to know users and nothing
            identifies them.
        """
        if isinstance(rules, Rules):
            replace(self.config, rules=rules).check_users(self._parts.gate is not None)
        self._parts.set_rules(rules)

    @property
    def server(self) -> RunningServer:
        """The server as plugins see it, ``request.server``."""
        return self._parts.server

    def replace_processors(self, pairs: Iterable[tuple[IProcessor, IProcessor]]) -> None:
        """See :meth:`lhttp_tx.assembly.Assembly.replace_processors`."""
        self._parts.replace_processors(pairs)

    def privilegedStartService(self) -> None:
        """
        Listen, while the process may still bind low ports.

        :raises CannotListenError: if an endpoint reports this at once. Then the server listens nowhere.
        """
        if self._stopping is None and not self._listeners.is_open:
            self._listen()

    def startService(self) -> None:
        """
        Start the bus and accept connections. If the server is still stopping, it starts as soon as it has stopped.

        :raises CannotListenError: if an endpoint reports at once that it cannot listen. Then the server does not run,
            and listens nowhere.
        """
        if self.running:
            return
        self.privilegedStartService()
        super().startService()
        if self._stopping is None:
            self._start()

    def when_started(self) -> Deferred[None]:
        """
        Find out when the server has started.

        :returns: a Deferred that

            - succeeds when the server listens on all its endpoints and its bus has started, which may be now. A NATS
              bus has then begun to connect, and ``/health`` says when it is connected;
            - fails with :exc:`~lhttp_tx.errors.StartFailed` when an ``on_start`` fails, or the history store does not
              open; then the server stops;
            - fails with the error of an endpoint or of the bus. The other endpoints continue to listen until the
              service is stopped;
            - fails with :exc:`twisted.internet.defer.CancelledError` if the server is stopped first.
        """
        return awaitable(self._starts.wait())

    def _listen(self) -> None:
        if self.config.listen or self.config.tcp:
            raise_limit(self.config.max_connections, self._reserve)
        self._start_number = self._starts.begin()
        self._tcp_ports = []
        try:
            self._listening = self._listeners.open(self.config.listen, [(each, self._tcp) for each in self.config.tcp])
        except Exception:
            self._starts.end(Failure(), self._start_number)
            raise

    def _start(self) -> None:
        self._has_begun = True
        self.departure.reset()
        bus = self._parts.start()
        if not self._parts.is_alone:
            self._parts.join()
        running.add(self._parts)
        rationing.begin(self._reactor)
        log_summary(self._parts, self._admission.proxies)
        plugged = self._plug_in(self._start_number)
        self.factory.starting = self.factory.draining = not plugged.called
        if not plugged.called:
            accept(self.ports, False)
        number = (self._start_number,)
        plugged.addCallbacks(self._plugged_in, self._not_plugged_in, callbackArgs=number, errbackArgs=number)
        listening, self._listening = self._listening, succeed(None)
        both: Deferred[Any] = DeferredList([listening, bus, plugged], fireOnOneErrback=True, consumeErrors=True)
        both.addErrback(first_of).addBoth(self._starts.end, self._start_number)

    def _plug_in(self, number: int) -> Deferred[None]:
        """Call ``on_start`` of processors, filters, hooks and authenticators, for the start with this number."""
        if not isinstance(self._reactor, AsyncioSelectorReactor) or loop_runs():
            return self._parts.lifecycle.start(self.server)
        turn: Deferred[Any] = deferLater(self._reactor, 0, lambda: None)  # an on_start may need asyncio's loop to run
        return turn.addCallback(
            lambda _: self._parts.lifecycle.start(self.server) if self._is_starting(number) else None
        )

    def _is_starting(self, number: int) -> bool:
        return self._start_number == number and self._stopping is None

    def _plugged_in(self, _: None, number: int) -> None:
        if self._is_starting(number):
            if self.factory.starting:
                accept(self.ports, True)
            self.factory.starting = self.factory.draining = self.factory.closed = False
            for name in self.server.unasked:
                _log.warn("[plugin.{name}]: no code has read these settings", name=name)

    def _not_plugged_in(self, failure: Failure, number: int) -> Failure:
        if self._is_starting(number):
            _log.critical("cannot start: {error}", error=failure.value)
            self._starts.end(failure, number)
            self.stopService()
            self._starts.end(failure, self._starts.begin())  # for later callers of when_started
        return failure

    def _start_again(self) -> None:
        """Start the server; ``startService`` was called while it was stopping."""
        try:
            self._listen()
        except Exception:  # the log has the error
            super().stopService()
        else:
            self._start()

    def _listens(self, port: IListeningPort, description: str, factory: IProtocolFactory) -> None:
        if factory is self._tcp:
            self._tcp_ports.append(port)
        self._guard.watch(port)
        if self.factory.starting:
            accept([port], False)
        hosts = [listening.getHost() for listening in self.ports if listening not in self._tcp_ports]
        addresses = [host.host for host in hosts if isinstance(host, IPv4Address | IPv6Address)]
        self._policy.loopback_only = bool(addresses) and all(map(is_loopback, addresses))
        tell_listening(port.getHost(), description, is_open=self._parts.gate is None)

    def stopService(self) -> Deferred[None]:
        """
        Stop listening, finish the work in progress, and close every connection with code 1001.

        Before this, go on for ``Config.drain_delay``. The connections are closed within ``Config.drain_time``.
        Then stop the bus, and close the connections to backends.

        :returns: a Deferred that succeeds when all this is done.
        """
        super().stopService()
        done: Deferred[None] = Deferred()
        self._starts.give_up()
        was_starting, self.factory.starting = self.factory.starting, False
        if self._stopping is not None:
            self._stopping.addCallback(done.callback)
            return awaitable(done)
        self._listening.addErrback(lambda _: None)
        self.departure.begin()
        stopping = self._stopping = Deferred()
        stopping.addCallback(done.callback)
        one_by_one(self._steps(was_starting)).addCallback(self._stopped, stopping)
        return awaitable(done)

    def _steps(self, was_starting: bool) -> tuple[Callable[[], Any], ...]:
        """Return the steps of a stop, in their order."""
        begun, self._has_begun = self._has_begun, False
        return (
            *((self.departure.wait,) if begun and not was_starting else ()),
            self._refuse_more,
            self._listeners.close,
            self._guard.stop,
            self.departure.spread,
            self._parts.drain,
            self.factory.close,
            self.resource.sessions.stop,
            *((lambda: self._parts.lifecycle.stop(self.server),) if begun else ()),
            self._admission.stop,
            self._parts.leave,
            lambda: running.discard(self._parts),  # after every on_stop
            self._parts.stop_bus,
            self._parts.upstream.close,
            *((lambda: rationing.end(self._reactor),) if begun else ()),
        )

    def _refuse_more(self) -> None:
        self.factory.draining = True
        self._parts.close_lobbies()
        self._tcp.go_away()

    def _stopped(self, _: object, stopping: Deferred[None]) -> None:
        self._stopping = None
        if self.running:
            self._start_again()
        stopping.callback(None)
