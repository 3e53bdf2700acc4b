"""
A history in the memory of one process.

Channels with history use it by default. It ends with the process. After a restart, earlier positions belong to another
epoch, and clients that use them get ``missed``.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict, deque

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

from lhttp_tx.codec.positions import format_position, mark_run
from lhttp_tx.errors import HistoryUnavailable
from lhttp_tx.history.ids import MessageIds
from lhttp_tx.history.memory_runs import CHANNEL_COST, RUN_COST, Channel, Run, first_run, size_of
from lhttp_tx.history.values import Page, Placing, Retention
from lhttp_tx.interfaces import IHistoryStore, MaybeDeferred

__all__ = ["MemoryHistory"]

_JOINED = 64
"""The most messages that are joined to one run if they come one by one."""

_JOINED_TIME = 1.0
"""The most seconds between the first and the last message that are joined."""

_SWEEPING = 10.0
"""Seconds between two searches for messages that are too old."""


@implementer(IHistoryStore)
class MemoryHistory:
    """
    Keeps messages in the memory of this process, up to a limit for all channels together.

    Beyond the limit, the store drops the oldest messages of all channels.
    """

    description = "in memory (gone when the process ends)"
    spreads = False
    trouble = ""

    def __init__(self, clock: IReactorTime, *, size: int = 67_108_864, window: float = 120.0) -> None:
        """
        :param clock: the reactor.
        :param size: the most bytes of everything, at least 1.
        :param window: seconds for which message ids are remembered.
        """
        self._clock = clock
        self._size = size
        self._taken = 0
        self.epoch = secrets.token_hex(5)
        self._channels: dict[str, Channel] = {}
        self._quiet: OrderedDict[str, None] = OrderedDict()
        self._quiet_size = 0
        self._orders: dict[Retention, deque[Run]] = {}
        self._gone = 0
        self._last: Run | None = None
        self._offset = self._forgotten = 0
        self._ids = MessageIds(window)
        self._sweeping: IDelayedCall | None = None
        self._users = 0

    @property
    def available(self) -> bool:
        """See :class:`lhttp_tx.interfaces.IHistoryStore`."""
        return True

    @property
    def size(self) -> int:
        """The bytes in use, as the store counts them."""
        return self._taken

    def start(self) -> Deferred[None]:
        """See :meth:`lhttp_tx.interfaces.IHistoryStore.start`."""
        self._users += 1
        return succeed(None)

    def stop(self) -> Deferred[None]:
        """See :meth:`lhttp_tx.interfaces.IHistoryStore.stop`. The messages stay in memory for another start."""
        self._users = max(self._users - 1, 0)
        if not self._users and self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        return succeed(None)

    def epoch_of(self, retention: Retention) -> str:
        """See :meth:`lhttp_tx.interfaces.IHistoryStore.epoch_of`. All classes have the same epoch."""
        return self.epoch

    # Writing

    def append(
        self, channel: str, retention: Retention, payloads: list[bytes], binary: bool, placing: Placing | None = None
    ) -> list[bytes]:
        """See :meth:`lhttp_tx.interfaces.IHistoryStore.append`."""
        if not self._users:
            raise HistoryUnavailable("the history store has stopped")
        now = self._clock.seconds()
        if placing is not None and placing.message_id is not None:
            known = self._ids.find(channel, placing.message_id, now)
            if known is not None:
                placing.duplicate = True
                placing.position = format_position(self.epoch, known)
                return []
        found = self._channels.get(channel) or self._open(channel)
        first = self._offset + 1
        self._offset += len(payloads)
        marked = mark_run(payloads, first, found.last, channel)
        found.last = self._offset
        self._keep(found, retention, first, marked, binary, now)
        self._trim(found, retention)
        if self._taken > self._size:
            self._make_room()
        if placing is not None:
            placing.position = format_position(self.epoch, first)
            if placing.message_id is not None:
                self._ids.note(channel, placing.message_id, first, now)
        return marked

    def confirm(self) -> MaybeDeferred:
        """
        See :meth:`lhttp_tx.interfaces.IHistoryStore.confirm`. Messages are in memory as soon as they were appended.
        """
        return None

    def remove(self, channel: str, retention: Retention) -> MaybeDeferred:
        """See :meth:`lhttp_tx.interfaces.IHistoryStore.remove`."""
        found = self._channels.get(channel)
        if found is not None:
            while found.runs:
                self._drop_run(found.runs[0])
        return None

    def _open(self, name: str) -> Channel:
        channel = self._channels[name] = Channel(name, self._forgotten)
        self._taken += CHANNEL_COST + len(name)
        return channel

    def _keep(
        self, channel: Channel, retention: Retention, first: int, marked: list[bytes], binary: bool, now: float
    ) -> None:
        size = size_of(marked)
        if self._sweeping is None:
            self._sweeping = self._clock.callLater(_SWEEPING, self._sweep)
        last = self._last
        if (
            last is not None
            and last.channel is channel
            and last.payloads
            and last.last == first - 1
            and last.binary is binary
            and len(last.payloads) + len(marked) <= _JOINED
            and now - last.time <= _JOINED_TIME
        ):
            last.payloads += marked
            last.size += size
        else:
            if not channel.runs and channel.name in self._quiet:
                del self._quiet[channel.name]
                self._quiet_size -= CHANNEL_COST + len(channel.name)
            size += RUN_COST
            last = self._last = Run(channel, first, list(marked), binary, now, size)
            channel.runs.append(last)
            order = self._orders.get(retention)
            if order is None:
                order = self._orders[retention] = deque()
            order.append(last)
        channel.count += len(marked)
        channel.had = last.end = channel.had + len(marked)
        channel.size += size
        self._taken += size

    def _trim(self, channel: Channel, retention: Retention) -> None:
        excess = channel.count - retention.messages
        while excess > 0:
            run = channel.runs[0]
            if len(run.payloads) > excess:
                self._shorten(run, excess)
                break
            excess -= len(run.payloads)
            self._drop_run(run)
        while retention.size and channel.size > retention.size and channel.runs:
            self._shorten(channel.runs[0], 1)

    def _shorten(self, run: Run, count: int) -> None:
        """Drop the first *count* messages of the oldest run of a channel."""
        if count >= len(run.payloads):
            self._drop_run(run)
            return
        size = size_of(run.payloads[:count])
        del run.payloads[:count]
        run.first += count
        run.size -= size
        channel = run.channel
        channel.floor = run.first - 1
        channel.count -= count
        channel.size -= size
        self._taken -= size

    def _drop_run(self, run: Run) -> None:
        """Drop a run, and earlier runs of its channel. There are earlier ones only if the limits have changed."""
        channel = run.channel
        while channel.runs[0] is not run:
            self._drop_run(channel.runs[0])
        del channel.runs[0]
        channel.floor = run.last
        channel.count -= len(run.payloads)
        channel.size -= run.size
        self._taken -= run.size
        run.payloads = []
        self._gone += 1
        if not channel.runs:
            self._quiet[channel.name] = None
            self._quiet_size += CHANNEL_COST + len(channel.name)
        if self._gone > 1024 and self._gone > sum(map(len, self._orders.values())) // 2:
            self._compact()

    def _compact(self) -> None:
        for order in self._orders.values():
            left = [run for run in order if run.payloads]
            order.clear()
            order.extend(left)
        self._gone = 0

    def _make_room(self) -> None:
        while self._taken > self._size:
            oldest = self._oldest()
            if self._quiet and (oldest is None or self._quiet_size > self._size // 2):
                name, _ = self._quiet.popitem(last=False)
                cost = CHANNEL_COST + len(name)
                self._quiet_size -= cost
                self._taken -= cost
                self._forgotten = max(self._forgotten, self._channels.pop(name).last)
            elif oldest is not None:
                self._drop_run(oldest)
            else:
                return

    def _oldest(self) -> Run | None:
        """Return the oldest run of all channels that is still kept."""
        found: Run | None = None
        for order in self._orders.values():
            while order and not order[0].payloads:
                order.popleft()
                self._gone -= 1
            if order and (found is None or order[0].first < found.first):
                found = order[0]
        return found

    def _sweep(self) -> None:
        """Drop messages that are too old."""
        self._sweeping = None
        now = self._clock.seconds()
        for retention, order in tuple(self._orders.items()):
            while order and (not order[0].payloads or order[0].time <= now - retention.age):
                run = order[0]
                if run.payloads:
                    self._drop_run(run)
                if order and order[0] is run:
                    order.popleft()
                    self._gone -= 1
            if not order:
                del self._orders[retention]
        if self._orders:
            self._sweeping = self._clock.callLater(_SWEEPING, self._sweep)

    # Reading

    def read(self, channel: str, retention: Retention, *, after: int, limit: int, size: int) -> Page:
        """See :meth:`lhttp_tx.interfaces.IHistoryStore.read`."""
        found = self._channels.get(channel)
        if found is None:
            return Page([], self._forgotten <= after <= self._offset, 0, self._offset)
        self._expire(found, retention)
        index = first_run(found, after + 1)
        messages = found.read(index, after, limit, size)
        return Page(messages, found.floor <= after <= self._offset, found.behind(index, after + 1), self._offset)

    def newest(self, channel: str, retention: Retention, *, before: int, limit: int, size: int) -> Page:
        """See :meth:`lhttp_tx.interfaces.IHistoryStore.newest`."""
        found = self._channels.get(channel)
        if found is None:
            return Page([], True, 0, self._offset)
        self._expire(found, retention)
        index = first_run(found, before) if before else len(found.runs)
        messages = found.newest(index, before, limit, size)
        return Page(messages, True, found.count - found.behind(index, before), self._offset)

    def _expire(self, channel: Channel, retention: Retention) -> None:
        """
        Drop messages that readers must not get: they are too old, or too many because the limits have become smaller.
        """
        self._trim(channel, retention)
        oldest = self._clock.seconds() - retention.age
        while channel.runs and channel.runs[0].time <= oldest:
            self._drop_run(channel.runs[0])
