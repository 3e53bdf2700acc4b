"""
The runs of messages that :mod:`lhttp_tx.history.memory` keeps for each channel.

Histories may be long, and a client may ask for many messages with few bytes. So the functions here handle whole runs,
and count the messages after an offset without looking at each.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import partial
from itertools import accumulate, chain, count, islice, repeat
from operator import attrgetter, itemgetter
from typing import final

from lhttp_tx.history.values import Stored

__all__ = ["CHANNEL_COST", "RUN_COST", "Channel", "Run", "first_run", "size_of"]

RUN_COST = 250
MESSAGE_COST = 56
CHANNEL_COST = 450
"""
Bytes of memory of a run, of each message in it, and of a channel, in addition to payloads and names. Measured, and
rounded up.
"""

_stored = partial(tuple.__new__, Stored)
_FIRST, _LAST, _PAYLOADS, _BINARY = map(attrgetter, ("first", "last", "payloads", "binary"))


@final
class Run:
    """
    Messages of one channel with consecutive offsets.

    :ivar channel: the channel.
    :ivar first: the offset of the first message.
    :ivar binary: whether the messages are binary.
    :ivar time: the time of the clock at which the first one was appended.
    :ivar size: the bytes of the run, as the store counts them.
    :ivar end: the number of messages that the channel has ever had, up to the last one of this run.
    :ivar payloads: the messages; empty if the run was dropped.
    """

    __slots__ = ("binary", "channel", "end", "first", "payloads", "size", "time")

    def __init__(
        self, channel: Channel, first: int, payloads: list[bytes], binary: bool, time: float, size: int
    ) -> None:
        self.channel = channel
        self.first = first
        self.payloads = payloads
        self.binary = binary
        self.time = time
        self.end = 0
        self.size = size

    @property
    def last(self) -> int:
        """The offset of the last message."""
        return self.first + len(self.payloads) - 1


@final
class Channel:
    """
    The history of one channel.

    :ivar count: the number of messages that are kept.
    :ivar had: the number of messages that the channel has ever had.
    :ivar floor: the offset of the last message that was dropped; 0 if there is none.
    :ivar last: the offset of the last message. If the store has forgotten the channel meanwhile, the largest offset
        that it may have had.
    :ivar runs: the runs that are kept, oldest first.
    :ivar size: the bytes of these runs, as the store counts them.
    """

    __slots__ = ("count", "floor", "had", "last", "name", "runs", "size")

    def __init__(self, name: str, floor: int) -> None:
        self.name = name
        self.floor = floor
        self.last = floor
        self.count = self.had = 0
        self.size = 0
        self.runs: list[Run] = []

    def behind(self, index: int, offset: int) -> int:
        """Return the number of messages from *offset* on. *index* is that of :func:`first_run` for this offset."""
        if index >= len(self.runs):
            return 0
        run = self.runs[index]
        return self.had - run.end + len(run.payloads) - max(offset - run.first, 0)

    def read(self, index: int, after: int, limit: int, size: int) -> list[Stored]:
        """Return the oldest messages after an offset. *index* is that of :func:`first_run` for ``after + 1``."""
        runs = self.runs[index : index + limit]
        skipped = max(after + 1 - runs[0].first, 0) if runs else 0
        some = map(zip, map(count, map(_FIRST, runs)), map(_PAYLOADS, runs), map(repeat, map(_BINARY, runs)))
        return _fitting([*islice(chain.from_iterable(some), skipped, skipped + limit)], size)

    def newest(self, index: int, before: int, limit: int, size: int) -> list[Stored]:
        """
        Return the newest messages before an offset, oldest first. *index* is that of :func:`first_run` for this offset,
        or the number of runs if there is no offset.
        """
        skipped = 0
        if index < len(self.runs):
            run = self.runs[index]
            skipped = len(run.payloads) - max(before - run.first, 0)
        runs = self.runs[max(0, index - limit) : index + 1][::-1]
        offsets = map(count, map(_LAST, runs), repeat(-1))
        some = map(zip, offsets, map(reversed, map(_PAYLOADS, runs)), map(repeat, map(_BINARY, runs)))
        return _fitting([*islice(chain.from_iterable(some), skipped, skipped + limit)], size)[::-1]


def size_of(payloads: list[bytes]) -> int:
    """Return the bytes of messages, as the store counts them, without their run."""
    return sum(map(len, payloads)) + MESSAGE_COST * len(payloads)


def first_run(channel: Channel, offset: int) -> int:
    """Return the index of the first run that has *offset* or later offsets; the number of runs if there is none."""
    return bisect_left(channel.runs, offset, key=_LAST)


def _fitting(some: list[tuple[int, bytes, bool]], size: int) -> list[Stored]:
    """Return the first of these messages, up to the one with which they reach *size* bytes."""
    sizes = [*accumulate(map(len, map(itemgetter(1), some)), initial=0)]
    return [*map(_stored, some[: bisect_left(sizes, size)])]
