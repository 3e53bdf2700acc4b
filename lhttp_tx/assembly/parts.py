"""
The parts of one server, wired once.

:mod:`lhttp_tx.service` adds sockets to them, :mod:`lhttp_tx.testing` adds clients in memory. Nothing here listens, or
opens anything before :meth:`Assembly.start`. Must not import ``websocket`` or ``web``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, cast

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IAgent

from lhttp_tx.assembly.counted import CountedHub, CountedUpstream, count
from lhttp_tx.assembly.gaps import follow_gaps
from lhttp_tx.assembly.histories import Histories
from lhttp_tx.assembly.making import check_bus, make_bus, make_gate
from lhttp_tx.assembly.tracing.messages import TraceFilter
from lhttp_tx.assembly.tracing.wiring import make_tracer, trace
from lhttp_tx.assembly.witness import witness
from lhttp_tx.auth.lobby import COMMAND, LoginFilter, LoginProcessor
from lhttp_tx.bus.memory import MemoryBus
from lhttp_tx.cluster.control import Control
from lhttp_tx.cluster.members import Members
from lhttp_tx.cluster.nodes import Nodes
from lhttp_tx.cluster.presence import Presence
from lhttp_tx.cluster.reach import connect
from lhttp_tx.cluster.roster import Roster, watch_channels
from lhttp_tx.codec.codes import GOING_AWAY
from lhttp_tx.config import Config
from lhttp_tx.engine.engine import Engine
from lhttp_tx.engine.hub import Hub
from lhttp_tx.engine.kinds import AnyAuthenticator, AnyBus, AnyFilter, AnyHistoryStore, AnyHooks, AnyProcessor
from lhttp_tx.engine.lifecycle import Lifecycle
from lhttp_tx.engine.processors import Registry
from lhttp_tx.engine.session import Session
from lhttp_tx.filters.multipart import MultipartFilter
from lhttp_tx.filters.pubsub import PublishFilter, SubscribeFilter, UnsubscribeFilter
from lhttp_tx.hooks import HookRunner
from lhttp_tx.interfaces import IBus, IProcessor, MaybeAwaitable
from lhttp_tx.observe.counters import Counters
from lhttp_tx.rules.filters import RuleBook, RuledPublishFilter, RuledSubscribeFilter, RuledUnsubscribeFilter
from lhttp_tx.rules.model import Rules
from lhttp_tx.rules.revoking import Revoker
from lhttp_tx.running import RunningServer
from lhttp_tx.upstream.client import UpstreamClient
from lhttp_tx.upstream.filter import UpstreamFilter
from lhttp_tx.upstream.targets import TargetPolicy

__all__ = ["Assembly"]

_log = Logger()

_SLOW_STOP = 10.0
"""Seconds after which the log names the part for which a stop still waits."""


class Assembly:
    """
    A server without its connections.

    :ivar config: its settings.
    :ivar bus: carries publications.
    :ivar engine: handles messages.
    :ivar gate: identifies clients; ``None``: clients do not log in.
    :ivar targets: the backends that clients may name.
    :ivar upstream: makes requests to them.
    :ivar nodes: the other nodes.
    :ivar members: the users connected to all nodes.
    :ivar control: control over connections, here and on the other nodes.
    :ivar server: the server as plugins see it, ``request.server``.
    :ivar histories: the histories of channels.
    :ivar counters: the counters of the parts; ``None`` without ``Config(metrics=True)``.
    :ivar tracer: makes spans; ``None`` without ``Config(trace=...)``.
    :ivar lifecycle: calls ``on_start`` and ``on_stop`` of processors, filters, hooks and authenticators.
    :ivar is_alone: whether there can be no other nodes.
    """

    def __init__(
        self,
        config: Config,
        *,
        clock: Any,
        processors: Iterable[AnyProcessor] = (),
        filters: Iterable[AnyFilter] = (),
        authenticators: Iterable[AnyAuthenticator] = (),
        hooks: Iterable[AnyHooks] = (),
        bus: AnyBus | None = None,
        history_store: AnyHistoryStore | None = None,
        backends: IAgent | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """
        :param config: the settings. The assembly ignores those about sockets.
        :param clock: the reactor.
        :param processors: the processors.
        :param filters: header filters; they run after the server's own.
        :param authenticators: identify clients, and are asked in this order. Without any, everybody may connect.
        :param hooks: the application's hooks, called in this order.
        :param bus: carries publications; by default NATS if *config* names it, else the bus in memory.
        :param backends: makes the requests to backends; by default Twisted's agent, which uses *clock* as its reactor.
        :param now: returns the current time, in seconds since 1970.
        :param history_store: stores publications to channels with history; by default the store that *config* names.
        :raises ValueError: if two processors have the same command; if the bus cannot do what the rules ask; if
            *config* names NATS and *clock* is not Twisted's asyncio reactor; if an object does not provide the
            interface of its kind.
        """
        self.config = config
        if bus is not None:
            check_bus(bus)
        self.bus: IBus = make_bus(config, clock) if bus is None else cast(IBus, bus)
        self.targets = TargetPolicy(
            config.upstream_allow, original=config.upstream_original, public_only=config.upstream_public_only
        )
        self.counters = counters = Counters() if config.metrics else None
        self.upstream = (UpstreamClient if counters is None else CountedUpstream)(
            reactor=clock,
            policy=self.targets,
            timeout=config.upstream_timeout,
            max_response_size=config.upstream_max_response,
            max_in_flight=config.upstream_max_in_flight,
            max_failures=config.upstream_max_failures,
            cool_down=config.upstream_cool_down,
            agent=backends,
        )
        # Registry, Engine, Gate and HookRunner check each of these against its interface.
        given_hooks: tuple[Any, ...] = tuple(hooks)
        given_filters: tuple[Any, ...] = tuple(filters)
        registry = Registry()
        for processor in processors:
            registry.add(cast(IProcessor, processor))
        known: tuple[Any, ...] = tuple(authenticators)
        self.gate = make_gate(known, config, clock, now) if known else None
        login: tuple[LoginFilter, ...] = ()
        if self.gate is not None:
            watcher = LoginFilter(self.gate)
            registry.add(LoginProcessor(self.gate, watcher.watch))
            login = (watcher,)
        private = (COMMAND,) if login else ()
        self.nodes = Nodes(self.bus, clock, now)
        self.tracer = tracer = make_tracer(config, clock, node=self.nodes.name)
        self._hooks = HookRunner(given_hooks, clock=clock, private_commands=private)
        self._book = None if config.rules is None else RuleBook(config.rules)
        self._subscribing = SubscribeFilter() if self._book is None else RuledSubscribeFilter(self._book)
        unsubscribing = UnsubscribeFilter() if self._book is None else RuledUnsubscribeFilter()
        publishing = PublishFilter() if self._book is None else RuledPublishFilter(self._book, clock)
        self.histories = Histories(
            history_store,
            self.bus,
            config=config,
            clock=clock,
            rules=lambda: self.rules,
            subscribing=self._subscribing,
            publishing=publishing,
            check_access=self._check_access,
        )
        self.engine = Engine(
            hub=Hub(bus=self.bus) if counters is None else CountedHub(bus=self.bus, counters=counters),
            clock=clock,
            registry=registry,
            filters=(
                *(() if tracer is None else (TraceFilter(tracer),)),
                *login,
                *self._hooks.filters,
                MultipartFilter(),
                self._subscribing,
                publishing,
                unsubscribing,
                UpstreamFilter(self.upstream, self.targets),
                *given_filters,
            ),
            limits=config.limits,
            private_commands=private,
            defaults=config.default_headers,
        )
        self.engine.wait_timeout = config.wait_timeout
        witness(self.engine, clock, connections=config.log_connections, slow=config.log_slow)
        self.engine.watch_expiry = login[0].watch if login else None
        if counters is not None:
            count(self.engine, self.upstream, self._subscribing.recovery, self.bus, counters)
        self.histories.attach(self.engine)
        if tracer is not None:
            trace(self.engine, self.upstream, tracer)
        self._revoker: Revoker | None = None
        if self._book is not None and isinstance(self._subscribing, RuledSubscribeFilter):
            self._check_echo(self._book.rules)
            self._revoker = Revoker(self.engine, clock, book=self._book, subscribing=self._subscribing)
        connect(self.nodes, self.bus, clock)
        self._unaware = follow_gaps(self.engine, self.nodes, self.bus, clock, config.close_after_gap)
        self._hooks.attach(self.engine)
        self._channels = Roster(self.nodes, clock, kind="channels") if self._hooks.watches_channels else None
        if self._channels is not None:
            self._watch_channels(self._channels)
        self.members = Members(
            self.engine,
            self.nodes,
            clock,
            subscribing=self._subscribing,
            unsubscribing=unsubscribing,
            check_access=self._check_access,
            book=self._book,
            presence=config.presence,
            presence_grace=config.presence_grace,
            max_per_user=config.max_per_user,
            login_parameter=config.login_parameter,
        )
        if config.require_nodes:
            self.engine.receipt_note = self._note
        self.control = Control(self.engine, self.nodes, name_of=self.members.name_of)
        getattr(self.bus, "on_gap", []).append(self.control.muting.catch_up)
        self.is_alone = isinstance(self.bus, MemoryBus) and bus is None
        self.server = self.engine.server = RunningServer(self)
        self.lifecycle = Lifecycle(
            [self.histories, *given_hooks, *known, *registry, *given_filters],
            clock=clock,
            timeout=config.limits.processor_timeout,
        )
        self._has_begun = False

    @property
    def presence(self) -> Presence:
        """The people in the channels with presence."""
        return self.members.presence

    @property
    def rules(self) -> Rules | None:
        """The current channel rules; ``None``: there are none, and none can be set."""
        return None if self._book is None else self._book.rules

    def set_rules(self, rules: Rules) -> None:
        """
        Replace the channel rules, for new messages and for existing subscriptions.

        :raises TypeError: if *rules* is not a :class:`~lhttp_tx.rules.model.Rules`.
        :raises ValueError: if the server was made without rules, or if the bus or the store cannot do what a rule
            needs.
        """
        if self._book is None or self._revoker is None:
            raise ValueError("a server without channel rules cannot get any later: make it with Config(rules=Rules())")
        if not isinstance(rules, Rules):
            raise TypeError(f"rules is Rules, not {type(rules).__name__}")
        self._check_echo(rules)
        self.histories.check(rules)
        before = self._book.rules
        if rules == before:
            return
        self._book.rules = rules
        self.histories.rules_changed()
        self.engine.forget_plans()
        self.members.rules_changed(before)
        self._revoker.rules_changed(before)

    def replace_processors(self, pairs: Iterable[tuple[IProcessor, IProcessor]]) -> None:
        """
        Replace the first processor of each pair by the second, for new messages.

        The ``on_start`` of the new processors must have succeeded.

        :raises ValueError: if a command would get two processors; then nothing changes.
        """
        known = tuple(pairs)
        self.engine.registry.replace(known)
        self.lifecycle.replace(known)

    # Beginning and end

    def start(self) -> Deferred[None]:
        """
        Start the bus.

        :returns: a Deferred that succeeds when the bus has started, or fails with the bus's error, which is then in the
            log.
        """
        self._has_begun = True
        return maybeDeferred(self.bus.start).addErrback(_bus_failed)

    def join(self) -> None:
        """Begin to look for the other nodes. Does nothing if this has begun."""
        if not self.nodes.running:
            if not self.is_alone:
                self.control.expect_others()
            self.nodes.start()

    def close_lobbies(self) -> None:
        """Close the connections of all clients that have not logged in yet, because the server is stopping."""
        if self.gate is not None:
            self.gate.close_lobbies(GOING_AWAY, "server is going away")

    def drain(self) -> Deferred[None]:
        """Finish the work in progress, and close every connection; see :meth:`lhttp_tx.engine.engine.Engine.drain`."""
        return self.engine.drain(self.config.drain_timeout)

    def leave(self) -> None:
        """Tell the other nodes that this node leaves, and stop all timers. The assembly may be started again."""
        self._unaware.stop()
        self.members.stop()
        self.control.stop()
        if self._revoker is not None:
            self._revoker.stop()
        if self._channels is not None:
            self._channels.stop()
        if self.nodes.running:
            self.nodes.stop()

    def stop_bus(self) -> Deferred[Any]:
        """
        Close the histories, then stop the bus. Both only if this assembly has started them, because others may use
        them. Send the remaining spans.
        """
        begun, self._has_begun = self._has_begun, False
        stopping = self._stop("the history store", self.histories.close)
        stopping.addCallback(lambda _: self._stop("the bus", self.bus.stop) if begun else None)
        tracer = self.tracer
        return stopping if tracer is None else stopping.addCallback(lambda _: tracer.stop())

    def _stop(self, name: str, stop: Callable[[], Any]) -> Deferred[Any]:
        """
        Call *stop*. Log if it fails or takes long. The Deferred succeeds in any case, so that the other parts stop,
        too.
        """
        stopping = maybeDeferred(stop)
        if not stopping.called:
            warning = self.engine.clock.callLater(
                _SLOW_STOP, _log.warn, "the server still waits until {name} has stopped", name=name
            )
            stopping.addBoth(_without, warning)
        return stopping.addErrback(lambda failure: _log.failure("{name} did not stop", failure, name=name))

    # Callbacks between the parts

    def _note(self) -> bytes:
        """
        Return the header line ``nodes`` for receipts if fewer nodes are connected than required; otherwise nothing.
        """
        shortfall = self.nodes.shortfall(self.config.require_nodes)
        return b"nodes:%b\r\n" % shortfall.encode() if shortfall else b""

    def _check_echo(self, rules: Rules) -> None:
        """
        :raises ValueError: if a rule has ``echo = false``, but the bus does not show the hub who the publisher is.
        """
        silent = next((rule.match for rule in rules if not rule.echo), None)
        if silent is not None and not getattr(self.bus, "is_immediate", False):
            raise ValueError(
                f"the channel rule {silent!r} has echo = false, which needs a bus that delivers publications to its "
                f"own node before publish returns (IBus.is_immediate); {type(self.bus).__name__} does not"
            )

    def _check_access(self, session: Session, channel: str) -> MaybeAwaitable:
        if isinstance(self._subscribing, RuledSubscribeFilter):
            self._subscribing.check_access(session, channel)
        return self._hooks.may_subscribe(session, channel)

    def _watch_channels(self, channels: Roster) -> None:
        mine = self.nodes.name
        channels.enter(mine, None, 0.0)
        watch_channels(channels, lambda channel, opened: self._hooks.channel_changed(channel, opened, "cluster"))

        def changed(channel: str, opened: bool) -> None:
            if channel.startswith("$"):
                return
            if opened:
                channels.join(mine, channel)
            else:
                channels.leave(mine, channel)

        self.engine.hub.on_channel.append(changed)


def _bus_failed(failure: Failure) -> Failure:
    _log.failure("the bus did not start", failure)
    return failure


def _without(result: Any, warning: IDelayedCall) -> Any:
    """Cancel a warning that is no longer needed, and return *result*."""
    if warning.active():
        warning.cancel()
    return result
