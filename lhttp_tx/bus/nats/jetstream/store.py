"""
The history of a cluster, in streams of NATS JetStream.

A publication goes only to a stream. The stream stores and acknowledges it, and republishes it with its offset on the
ordinary subject of its channel. From there, it reaches all nodes over the bus.
:mod:`lhttp_tx.bus.nats.jetstream.appends` appends, :mod:`lhttp_tx.bus.nats.jetstream.reading` reads,
:mod:`lhttp_tx.bus.nats.jetstream.order` sorts publications that arrive, and :mod:`lhttp_tx.bus.nats.jetstream.streams`
creates the streams. The store uses the links of the bus.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any, final

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from lhttp_tx.bus.nats.bus import NATSBus
from lhttp_tx.bus.nats.headers import Head
from lhttp_tx.bus.nats.jetstream.appends import Appends
from lhttp_tx.bus.nats.jetstream.classes import Classes
from lhttp_tx.bus.nats.jetstream.republished import read_news
from lhttp_tx.bus.nats.jetstream.settings import StreamSettings, check_streams
from lhttp_tx.bus.nats.jetstream.streams import Stream
from lhttp_tx.bus.nats.jetstream.watching import Watch
from lhttp_tx.bus.nats.link import Link, in_deferred
from lhttp_tx.errors import BusUnavailable, HistoryUnavailable, StartFailed
from lhttp_tx.history.values import Page, Placing, Retention
from lhttp_tx.interfaces import IHistoryStore, MaybeDeferred

__all__ = ["JetStreamHistory"]

_log = Logger()

_AWAY = "the bus is unavailable, try again later"

_FAREWELL = 2.0
"""The most seconds for which a store that stops waits for acknowledgements."""


@final
@implementer(IHistoryStore)
class JetStreamHistory:
    """
    Keeps each history class in a stream of its own.

    :ivar on_missed: functions that are called when subscribers of this node have missed publications that the store no
        longer has: with a channel or a wildcard, and the position after which it continues. They must not raise.
    :ivar refuses: see :meth:`~lhttp_tx.bus.nats.jetstream.classes.Classes.refuse`.
    :ivar check_classes: see :func:`~lhttp_tx.bus.nats.jetstream.settings.check_streams`.
    """

    spreads = True

    def __init__(
        self,
        bus: NATSBus,
        *,
        retention_of: Callable[[str], Retention | None],
        classes: Iterable[Retention] = (),
        settings: StreamSettings | None = None,
        clock: Any,
    ) -> None:
        """
        :param bus: the bus of the node. The store does not start or stop it.
        :param retention_of: returns the history class of a channel; ``None`` if it has no history.
        :param classes: the history classes whose streams are created at the start. Other streams are created when they
            are first used.
        :param settings: the settings of the streams.
        :param clock: the reactor.
        """
        self.on_missed: list[Callable[[str, str], None]] = []
        self._settings = settings or StreamSettings()
        self._retentions = tuple(classes)
        self._clock = clock
        self._users = 0
        self._link: Link | None = None
        self._bus = bus
        self._parts = parts = bus.attach(self)
        self._classes = Classes(parts, self._settings, lambda: self._link, clock=clock)
        self.refuses = self._classes.refuse
        self._watch = Watch(lambda: self._link, self._classes, retention_of, parts, self._missed, clock=clock)
        self._reader = self._watch.reader
        self._classes.changed = self._watch.changed
        self._classes.wanted = self._connect
        self.check_classes = partial(check_streams, prefix=parts.servers.prefix)

    @property
    def description(self) -> str:
        """See :class:`lhttp_tx.interfaces.IHistoryStore`."""
        kept = f"{self._settings.replicas} replicas, " if self._settings.replicas > 1 else ""
        where = "on disk" if self._settings.storage == "file" else "in memory"
        return f"in streams of JetStream, {kept}{where}"

    @property
    def available(self) -> bool:
        """See :class:`lhttp_tx.interfaces.IHistoryStore`."""
        return not self.trouble

    @property
    def trouble(self) -> str:
        """See :class:`lhttp_tx.interfaces.IHistoryStore`."""
        if not self._users:
            return "the history store has stopped"
        if self._link is None and self._classes.all():
            return _AWAY
        return next((stream.why for stream in self._classes.all() if not stream.ready), "")

    def epoch_of(self, retention: Retention) -> str:
        """See :meth:`lhttp_tx.interfaces.IHistoryStore.epoch_of`."""
        return self._classes.stream(retention).epoch

    # Start and stop

    def start(self) -> Deferred[None]:
        """See :meth:`lhttp_tx.interfaces.IHistoryStore.start`. The Deferred does not wait for NATS."""
        try:
            self.check_classes(self._retentions)
        except ValueError as error:
            return fail(StartFailed(str(error)))
        self._users += 1
        if self._users == 1:
            for retention in self._retentions:
                self._classes.stream(retention)
            self._watch.start()
            self._connect()
        return succeed(None)

    def _connect(self) -> None:
        """Use the link of the bus, if there is one."""
        link = self._parts.keeper.link
        if link is not None and self._link is None:
            self.linked(link)

    def stop(self) -> Deferred[None]:
        """
        See :meth:`lhttp_tx.interfaces.IHistoryStore.stop`. The Deferred waits up to two seconds for acknowledgements.
        """
        if self._users != 1:
            self._users = max(self._users - 1, 0)
            return succeed(None)
        self._users = 0
        waiter = _quiet(self.confirm())
        waiter.addTimeout(_FAREWELL, self._clock, onTimeoutCancel=lambda _, __: None)
        return waiter.addCallback(lambda _: self._stopped())

    def _stopped(self) -> None:
        if self._users:
            return
        self._classes.close()
        self._watch.stop()
        self._link = None

    # The link: see lhttp_tx.bus.nats.bus.BusHistory

    def linked(self, link: Link) -> None:
        """See :class:`lhttp_tx.bus.nats.bus.BusHistory`."""
        if not self._classes.all():
            return  # no channel has history yet
        if self._users and link.inbox.open:
            self._opened(None, link)
        elif self._users:
            link.subscribe(link.inbox.subject).addBoth(self._opened, link)

    def _opened(self, result: Failure | None, link: Link) -> None:
        if result is not None:
            result.trap(BusUnavailable)
            if link.usable:
                _log.error(
                    "NATS does not allow the inbox {subject}, so there is no history", subject=link.inbox.subject
                )
            return
        link.inbox.open = True
        link.inbox.denied = partial(self._classes.denied, link)
        if self._users and link is self._parts.keeper.link:
            moved, self._link = self._link is not None, link
            self._classes.open()
            if moved:
                self._watch.look()

    def unlinked(self) -> None:
        """See :class:`lhttp_tx.bus.nats.bus.BusHistory`."""
        self._link = None
        self._watch.doubt()
        self._classes.unlinked(_AWAY)

    def doubt(self) -> None:
        """See :class:`lhttp_tx.bus.nats.bus.BusHistory`."""
        self._watch.doubt()
        if self._users:
            self._watch.look()

    def take(self, channel: str, heads: list[Head], payloads: list[bytes]) -> list[int]:
        """See :class:`lhttp_tx.bus.nats.bus.BusHistory`."""
        left: list[int] = []
        number = 0
        for news in read_news(heads, payloads):
            stream = self._classes.named(news.stream)
            if stream is None or not self._watch.order.take(channel, stream, news):
                left += range(number, number + len(news.payloads))
            number += len(news.payloads)
        return left

    def watch(self, name: str, subscribed: MaybeDeferred) -> MaybeDeferred:
        """See :meth:`lhttp_tx.bus.nats.jetstream.watching.Watch.add`."""
        return self._watch.add(name, subscribed) if self._users else subscribed

    def left(self, name: str) -> None:
        """See :class:`lhttp_tx.bus.nats.bus.BusHistory`."""
        self._watch.remove(name)

    def reconsider(self) -> None:
        """Look up the history classes of all subscribed channels again, because the rules have changed."""
        if self._users:
            self._watch.reconsider(self._bus.channels)

    def _missed(self, channel: str, position: str) -> None:
        for call in self.on_missed:
            call(channel, position)

    # Writing

    def append(
        self, channel: str, retention: Retention, payloads: list[bytes], binary: bool, placing: Placing | None = None
    ) -> list[bytes]:
        """
        See :meth:`lhttp_tx.interfaces.IHistoryStore.append`.

        :raises MessageTooLarge: if NATS does not accept messages of this size.
        """
        self._appends(retention).add(channel, payloads, binary, placing, self._parts.keeper.link)
        return []

    def _appends(self, retention: Retention) -> Appends:
        """:raises HistoryUnavailable: if the stream of the class does not accept messages."""
        if not self._users:
            raise HistoryUnavailable("the history store has stopped")
        stream = self._classes.stream(retention)
        if self._parts.keeper.link is None:
            raise HistoryUnavailable(_AWAY)
        if stream.trouble:
            raise HistoryUnavailable(stream.trouble)
        return self._classes.appends(stream)

    def confirm(self) -> MaybeDeferred:
        """See :meth:`lhttp_tx.interfaces.IHistoryStore.confirm`."""
        return self._classes.confirm()

    def remove(self, channel: str, retention: Retention) -> MaybeDeferred:
        """See :meth:`lhttp_tx.interfaces.IHistoryStore.remove`."""
        return self._settled(retention, lambda stream: self._reader.remove(stream, channel))

    # Reading

    def read(self, channel: str, retention: Retention, *, after: int, limit: int, size: int) -> Deferred[Page]:
        """See :meth:`lhttp_tx.interfaces.IHistoryStore.read`."""
        return self._settled(retention, lambda stream: self._reader.read(stream, channel, after, limit, size))

    def newest(self, channel: str, retention: Retention, *, before: int, limit: int, size: int) -> Deferred[Page]:
        """See :meth:`lhttp_tx.interfaces.IHistoryStore.newest`."""
        return self._settled(retention, lambda stream: self._reader.newest(stream, channel, before, limit, size))

    def _settled(self, retention: Retention, call: Callable[[Stream], Coroutine[Any, Any, Any]]) -> Deferred[Any]:
        """Run *call* when the stream has acknowledged all earlier publications, or they have failed."""
        try:
            appends = self._appends(retention)
        except HistoryUnavailable:
            return fail()
        stream = appends.stream

        async def read() -> Any:
            if not stream.ready:
                await stream.look()
            return await call(stream)

        if appends.empty:
            return in_deferred(read())
        return _quiet(appends.confirm()).addCallback(lambda _: in_deferred(read()))


def _quiet(waiting: MaybeDeferred) -> Deferred[Any]:
    return succeed(None) if waiting is None else waiting.addErrback(lambda _: None)
