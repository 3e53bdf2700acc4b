"""A server in memory, on a clock that stands still until it is advanced."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.web.resource import IResource

from lhttp_tx import running
from lhttp_tx.assembly import Assembly
from lhttp_tx.auth.attempts import LoginAttempt, read_parameters
from lhttp_tx.cluster.control import Control
from lhttp_tx.cluster.presence import Presence
from lhttp_tx.config import Config
from lhttp_tx.engine.awaiting import awaitable
from lhttp_tx.engine.engine import Engine
from lhttp_tx.engine.handshake import Handshake
from lhttp_tx.engine.kinds import AnyAuthenticator, AnyBus, AnyFilter, AnyHistoryStore, AnyHooks, AnyProcessor
from lhttp_tx.errors import Refused
from lhttp_tx.identity import Identity, new_connection_id
from lhttp_tx.interfaces import IBus
from lhttp_tx.ports.starting import Starts, one_by_one
from lhttp_tx.rules.model import Rules
from lhttp_tx.running import RunningServer
from lhttp_tx.testing.backend import Backends
from lhttp_tx.testing.client import Client

__all__ = ["Server"]


class Server:
    """
    A server in memory, which runs as soon as it is made. It has the parts of a real server, but no sockets.

    :ivar assembly: its parts.
    :ivar bus: its bus.
    :ivar clock: its clock; ``clock.advance(seconds)`` lets time pass.
    :ivar backends: the backends for ``upstream``. Set ``backends.resource`` to use another resource.
    """

    def __init__(
        self,
        *,
        config: Config | None = None,
        processors: Iterable[AnyProcessor] = (),
        filters: Iterable[AnyFilter] = (),
        authenticators: Iterable[AnyAuthenticator] = (),
        hooks: Iterable[AnyHooks] = (),
        bus: AnyBus | None = None,
        history_store: AnyHistoryStore | str | None = None,
        clock: Clock | None = None,
        beside: Server | None = None,
        backend: IResource | None = None,
        **settings: Any,
    ) -> None:
        """
        :param config: the settings. Those about sockets have no effect: endpoints, the limits of connections and
            handshakes, pings, rates, encodings. A test may set the user of a client, so it needs no authenticators,
            even if a real server would.
        :param processors: the processors under test.
        :param filters: header filters. They run after the server's own, as in a real server.
        :param authenticators: identify clients. Without any, everybody may connect.
        :param hooks: the hooks under test.
        :param bus: the bus; what is published to one of two servers with one bus reaches both.
        :param history_store: the history store, or the setting of that name; by default what *config* says.
        :param clock: the clock; two servers with one bus and one clock know of each other's connections, too.
        :param beside: another node of the cluster. This server shares its bus, its clock and its history store.
        :param backend: the resource that answers for all backends that the settings allow. Without it, connections to
            them are refused.
        :param settings: fields of :class:`~lhttp_tx.config.Config`, which replace those of *config*. A list may stand
            for a tuple.
        :raises TypeError: if a setting is unknown or has a wrong type, like :class:`~lhttp_tx.config.Config`.
        :raises ValueError: if a setting is out of bounds or not valid, likewise.
        """
        for name, value in settings.items():
            if isinstance(value, list):
                settings[name] = tuple(value)
        if beside is not None and (bus is not None or clock is not None or history_store is not None):
            raise ValueError(
                "beside uses the bus, the clock and the history store of the other server: leave out bus, clock and "
                "history_store"
            )
        if isinstance(history_store, str):
            settings["history_store"], history_store = history_store, None
        shares_clock = clock is not None or beside is not None
        if beside is not None:
            bus, clock = beside.bus, beside.clock
            history_store = beside.assembly.histories.store
            beside.assembly.join()
        self.clock: Clock = Clock() if clock is None else clock
        self.backends = Backends(backend, self.clock)
        self.assembly: Assembly = Assembly(
            replace(Config() if config is None else config, **settings),
            clock=self.clock,
            processors=processors,
            filters=filters,
            authenticators=authenticators,
            hooks=hooks,
            bus=bus,
            history_store=history_store,
            backends=self.backends,
            now=self.clock.seconds,
        )
        self.bus: IBus = self.assembly.bus
        self._is_draining = False
        started = self.assembly.start()
        if shares_clock:
            self.assembly.join()
        running.stand_in(self)
        self._starts = Starts()
        plugged = self.assembly.lifecycle.start(self.server)
        started.addCallback(lambda _: plugged).addBoth(self._starts.end, self._starts.begin())

    @property
    def config(self) -> Config:
        """The settings."""
        return self.assembly.config

    @property
    def engine(self) -> Engine:
        """The real engine."""
        return self.assembly.engine

    @property
    def presence(self) -> Presence:
        """Who is in the channels whose presence is kept."""
        return self.assembly.presence

    @property
    def control(self) -> Control:
        """Control over its connections and those of the servers that share its bus."""
        return self.assembly.control

    @property
    def server(self) -> RunningServer:
        """The server as plugins see it, ``request.server``."""
        return self.assembly.server

    def when_started(self) -> Deferred[None]:
        """
        See :meth:`lhttp_tx.service.LHTTPService.when_started`. The server has already started unless an ``on_start``
        waits.
        """
        return awaitable(self._starts.wait())

    def _used(self) -> None:
        """Treat what a client does as one turn of the reactor."""
        running.stand_in(self)
        self.assembly.histories.archive.turns.begin()

    def set_rules(self, rules: Rules) -> None:
        """See :meth:`lhttp_tx.service.LHTTPService.set_rules`. Work of more than one turn goes on with the clock."""
        running.stand_in(self)
        self.assembly.set_rules(rules)

    def stop(self) -> Deferred[None]:
        """
        Stop like :meth:`lhttp_tx.service.LHTTPService.stopService`: finish the work in progress, and close every
        connection with code 1001.

        From now on, no client may connect. When ``Config.drain_timeout`` has passed on the clock, unfinished work is
        cancelled.

        :returns: a Deferred that succeeds when every ``on_close`` is done. After that, ``lhttp_tx.publish`` does not
            find this server any more.
        """
        running.stand_in(self)
        self._is_draining = True
        parts = self.assembly
        parts.close_lobbies()
        done: Deferred[None] = Deferred()
        steps = (
            parts.drain,
            lambda: parts.lifecycle.stop(self.server),
            parts.leave,
            lambda: running.stand_in(None),
            parts.stop_bus,
            parts.upstream.close,
        )
        one_by_one(steps).addCallback(done.callback)
        return awaitable(done)

    def connect(
        self,
        peer: str = "test",
        *,
        user: str | None = None,
        claims: Mapping[str, Any] | None = None,
        target: str = "/",
        headers: Mapping[str, str] | None = None,
    ) -> Client:
        """
        Return a client that has just connected.

        If an authenticator does not answer at once, the client's ``session`` is ``None`` until it has answered. Its
        ``refusal`` then tells whether the client was refused.

        :param peer: its address.
        :param user: the name of its user; then no authenticator is asked.
        :param claims: what else is known about *user*.
        :param target: path and query of its handshake.
        :param headers: headers of its handshake, with lower-case names.
        :raises Refused: if the client is refused at once; with status 503 once the server stops.
        """
        running.stand_in(self)
        if self._is_draining:
            raise Refused(503, "server is going away")
        path, _, query = target.partition("?")
        attempt = LoginAttempt(peer, new_connection_id(), path, read_parameters(query), headers or {})
        # The client keeps a reference to the server, so that lhttp_tx.publish finds the server while the client exists.
        client = Client(
            self.engine,
            peer,
            handshake=Handshake(path, query, dict(headers or {})),
            used=self._used,
            is_draining=lambda: self._is_draining,
        )
        gate = self.assembly.gate
        if user is not None:
            client.enter(attempt.identify(user, claims))
        elif gate is None:
            client.enter(Identity(None, attempt.connection_id, {}, attempt.parameters, peer))
        else:
            client.ask(gate, attempt)
        return client
