"""A server in memory, on a clock that moves only when it is advanced."""

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
    A running server in memory. It has the parts of a real server, but no sockets.

    :ivar assembly: the parts of the server.
    :ivar bus: the bus of the server.
    :ivar clock: the clock of the server; ``clock.advance(seconds)`` lets time pass.
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
            handshakes, pings, rates, encodings. Settings with which a real server needs authenticators do not need them
            here, because a test may set the user of a client.
        :param processors: the processors under test.
        :param filters: header filters. As in a real server, they run after the server's own filters.
        :param authenticators: the authenticators under test. Without any, every client may connect.
        :param hooks: the hooks under test.
        :param bus: the bus. If two servers have the same bus, publications to one reach both.
        :param history_store: the history store, or the value of the setting with this name; default: as in *config*.
        :param clock: the clock. If two servers have the same bus and the same clock, each also knows the other's
            connections.
        :param beside: another node of the cluster. This server shares its bus, its clock and its history store.
        :param backend: the resource that answers for all backends that the settings allow. Without it, connections to
            them are refused.
        :param settings: fields of :class:`~lhttp_tx.config.Config`. They replace those of *config*. Lists are allowed
            instead of tuples.
        :raises TypeError: if a setting is unknown or has a wrong type; see :class:`~lhttp_tx.config.Config`.
        :raises ValueError: if a setting is out of bounds or not valid, or *beside* is combined with *bus*, *clock* or
            *history_store*.
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
        """The engine of the server."""
        return self.assembly.engine

    @property
    def presence(self) -> Presence:
        """The members of the channels with presence."""
        return self.assembly.presence

    @property
    def control(self) -> Control:
        """Control over the connections of all servers that share the bus and the clock."""
        return self.assembly.control

    @property
    def server(self) -> RunningServer:
        """The server as processors and hooks see it, such as ``request.server``."""
        return self.assembly.server

    def when_started(self) -> Deferred[None]:
        """
        See :meth:`lhttp_tx.service.LHTTPService.when_started`. The server starts immediately unless an ``on_start`` of
        the hooks waits.
        """
        return awaitable(self._starts.wait())

    def _used(self) -> None:
        """
        Begin a new turn of the reactor, and let ``lhttp_tx.publish`` use this server. Called when a client does
        something.
        """
        running.stand_in(self)
        self.assembly.histories.archive.turns.begin()

    def set_rules(self, rules: Rules) -> None:
        """
        See :meth:`lhttp_tx.service.LHTTPService.set_rules`. Work that takes several turns continues as the clock
        advances.
        """
        running.stand_in(self)
        self.assembly.set_rules(rules)

    def stop(self) -> Deferred[None]:
        """
        Stop as :meth:`lhttp_tx.service.LHTTPService.stopService` does: finish the work in progress, and close every
        connection with code 1001.

        No client can connect after this call. After ``Config.drain_timeout`` seconds on the clock, unfinished work is
        cancelled.

        :returns: a Deferred that succeeds when all work is finished, including every ``on_close``. Then
            ``lhttp_tx.publish`` no longer uses this server.
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

        If an authenticator does not answer immediately, the client's ``session`` is ``None`` until the authenticator
        has answered. If the authenticator refuses the client, the client's ``refusal`` is the error.

        :param peer: the client's address.
        :param user: the name of the client's user. With it, no authenticator is asked.
        :param claims: the claims of *user*.
        :param target: path and query of the handshake.
        :param headers: headers of the handshake, with lower-case names.
        :raises Refused: if an authenticator immediately refuses the client, or with status 503 if the server is
            stopping.
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
