"""
The histories of one server, wired once.

A part of :mod:`lhttp_tx.assembly`: chooses the store, and connects it with the hub, the filters, the rules and the
command ``history``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from lhttp_tx.bus.memory import MemoryBus
from lhttp_tx.config import Config
from lhttp_tx.engine.attributes import check_instance
from lhttp_tx.engine.engine import Engine
from lhttp_tx.engine.kinds import AnyHistoryStore
from lhttp_tx.engine.session import Session
from lhttp_tx.filters.pubsub import PublishFilter, SubscribeFilter
from lhttp_tx.history.archive import Archive
from lhttp_tx.history.memory import MemoryHistory
from lhttp_tx.history.query import HistoryProcessor
from lhttp_tx.history.recovery import Recovery
from lhttp_tx.history.sqlite import SQLiteHistory
from lhttp_tx.history.values import Retention
from lhttp_tx.interfaces import IBus, IHistoryStore, MaybeAwaitable
from lhttp_tx.rules.keeping import check_kept, kept_classes, patterns_of, retention_of
from lhttp_tx.rules.model import Rules

__all__ = ["Histories"]

_log = Logger()

_MEMORY_SIZE = 67_108_864
_DISK_SIZE = 1_073_741_824
"""The default limit of all histories together, in bytes: in memory, and on disk."""


class Histories:
    """
    The parts of a server that store and return publications.

    :ivar archive: joins the bus and the store.
    :ivar is_active: whether a channel may have history.
    :ivar timeout: seconds within which the store must start; ``None``: the server's own limit.
    """

    timeout: float | None = None

    __name__ = "the history store"  # in error texts

    def __init__(
        self,
        store: AnyHistoryStore | None,
        bus: IBus,
        *,
        config: Config,
        clock: Any,
        rules: Callable[[], Rules | None],
        subscribing: SubscribeFilter,
        publishing: PublishFilter,
        check_access: Callable[[Session, str], MaybeAwaitable],
    ) -> None:
        """
        :param store: the history store; ``None`` for the one that *config* names.
        :param bus: the bus.
        :param config: the settings.
        :param clock: the reactor.
        :param rules: returns the active channel rules.
        :param subscribing: the filter behind the header ``subscribe``.
        :param publishing: the filter behind the header ``publish``.
        :param check_access: raises, or fails, if a client may not subscribe to a channel.
        :raises ValueError: if *store* is not a history store, or does not work with the bus or the rules; if two
            history classes have the same name and different limits.
        """
        if store is not None:
            check_instance(store, IHistoryStore)
        self._bus = bus
        self._config = config
        self._rules = rules
        self._publishing = publishing
        self._check_access = check_access
        self._engine: Engine
        self._is_known = self._has_begun = False
        self._patterns = patterns_of(config.history, config.retention)
        self.is_active = False
        made = self._make_store(config, clock) if store is None else cast(IHistoryStore, store)
        self.archive = Archive(made, bus, find=self._find, clock=clock, window=config.message_id_window)
        self._recovery = subscribing.recovery = Recovery(self.archive, clock)
        publishing.files = True

    @property
    def store(self) -> IHistoryStore:
        """The history store."""
        return self.archive.store

    @property
    def available(self) -> bool:
        """Whether channels with history accept publications. True if no channel has history."""
        return not self.is_active or self.store.available

    @property
    def refuses(self) -> bool:
        """Whether the store has refused a publication within the last minute and taken none since."""
        refuses: Callable[[], bool] | None = getattr(self.store, "refuses", None)
        return self.is_active and refuses is not None and refuses()

    def attach(self, engine: Engine) -> None:
        """
        Let *engine* use the histories. Call this once, before anything is published.

        :raises ValueError: if the rules need something that the store or the bus cannot do, or if another processor has
            the command ``history``.
        """
        self._engine = engine
        engine.hub.archive = self.archive
        rules = self._rules()
        self.check(Rules() if rules is None else rules)
        on_gap = getattr(self._bus, "on_gap", None)
        if on_gap is not None:
            on_gap.append(engine.hub.tell_gaps)
        on_missed = getattr(self.store, "on_missed", None)
        if on_missed is not None:
            on_missed.append(engine.hub.tell_missed)
        self.rules_changed()

    def check(self, rules: Rules) -> None:
        """:raises ValueError: if *rules* need something that the store or the bus cannot do."""
        classes = kept_classes(rules, self._patterns)
        if not classes:
            return
        check_kept(rules, self._patterns)
        check_classes = getattr(self.store, "check_classes", None)
        if check_classes is not None:
            check_classes(classes)
        if not self.store.spreads and not isinstance(self._bus, MemoryBus):
            raise ValueError(
                f"history in {self.store.description} works only on a server without other nodes; "
                f"{type(self._bus).__name__} needs a store that sends to all nodes what it appends "
                "(IHistoryStore.spreads): pass one as history_store"
            )

    def rules_changed(self) -> None:
        """Find out again which channels have history."""
        self.archive.forget()
        rules = self._rules()
        self.is_active = bool(self._patterns) or any(rule.history is not None for rule in rules or ())
        if self.is_active and not self._is_known:
            self._is_known = True
            self._engine.registry.add(HistoryProcessor(self.archive, self._engine.limits, self._check_access))
        self._engine.hub.has_history = self._publishing.has_history = self.is_active
        reconsider = getattr(self.store, "reconsider", None)
        if reconsider is not None:
            reconsider()

    def on_start(self, _: object) -> Deferred[None]:
        """
        Open the store; see :class:`lhttp_tx.engine.lifecycle.Lifecycle`.

        If the server stops meanwhile, it no longer waits. The store continues to open, and :meth:`close` waits for it.
        """
        self._has_begun = True
        waiter: Deferred[None] = Deferred()

        def opened(result: object) -> None:
            if not waiter.called:
                waiter.callback(result)  # type: ignore[arg-type] # or a failure
            elif isinstance(result, Failure):
                _log.failure("the history store did not open", result)

        maybeDeferred(self.store.start).addBoth(opened)
        return waiter

    def close(self) -> Deferred[None]:
        """Close the store, if it was opened or is being opened."""
        begun, self._has_begun = self._has_begun, False
        self._recovery.close()
        return maybeDeferred(self.store.stop) if begun else succeed(None)

    def _find(self, channel: str) -> Retention | None:
        return retention_of(channel, self._rules(), self._patterns)

    def _make_store(self, config: Config, clock: Any) -> IHistoryStore:
        """Return the store that *config* asks for, not started."""
        window = config.message_id_window
        if config.nats is not None and (config.history or config.rules is not None):
            return self._make_streams(config, clock)
        chosen = config.history_store or "memory"
        if chosen.startswith("sqlite:"):
            path = Path(chosen.removeprefix("sqlite:")).absolute()  # a daemon has another working directory
            return SQLiteHistory(path, clock, size=config.history_size or _DISK_SIZE, window=window)
        return MemoryHistory(clock, size=config.history_size or _MEMORY_SIZE, window=window)

    def _make_streams(self, config: Config, clock: Any) -> IHistoryStore:
        from lhttp_tx.bus.nats.bus import NATSBus
        from lhttp_tx.bus.nats.jetstream.settings import StreamSettings
        from lhttp_tx.bus.nats.jetstream.store import JetStreamHistory

        if not isinstance(self._bus, NATSBus):
            raise ValueError(f"{type(self._bus).__name__} needs a history store of its own: pass history_store")
        return JetStreamHistory(
            self._bus,
            retention_of=lambda channel: self.archive.retention(channel),  # noqa: PLW0108 - it is made later
            classes=kept_classes(config.rules, self._patterns),
            settings=StreamSettings(
                replicas=config.history_replicas,
                storage="memory" if config.history_in_memory else "file",
                size=config.history_size,
                window=config.message_id_window,
            ),
            clock=clock,
        )
