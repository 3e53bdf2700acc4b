"""
A model of a history, as a plain list. The contract tests compare stores with it.

Needs hypothesis. Imported only by the other modules of the contract.
"""

from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies

from lhttp_tx.codec.positions import offsets_of, unmarked
from lhttp_tx.history.values import Page, Retention

__all__ = ["RETENTIONS", "Model", "payload_of", "stories"]

RETENTIONS = (
    Retention("plain", messages=1000, age=86_400.0),
    Retention("few", messages=10, age=86_400.0),
    Retention("small", messages=1000, age=86_400.0, size=4096),
    Retention("short", messages=1000, age=2.0),
)
"""
The history classes of the tests: one without tight bounds, and one each with few messages, few bytes and a short time.
"""

_SLACK = 1.5
"""Seconds by which a message may be removed too early, because stores group messages that came together."""


def payload_of(number: int, size: int = 0) -> bytes:
    """Return a payload with a number in a header, and a body of *size* bytes."""
    return b"LHTTP/1.0 chat\r\nnumber:%d\r\n\r\n" % number + b"x" * size


def stories(outlives: bool) -> Any:
    """
    Return a strategy for lists of operations: tuples of a name and its arguments.

    :param outlives: whether they may restart the store.
    """
    channel = strategies.integers(0, len(RETENTIONS) - 1)
    size = strategies.sampled_from([0, 0, 10, 300, 1500, 5000])
    bounds = strategies.integers(1, 12), strategies.sampled_from([1, 500, 2**20])
    place = strategies.floats(0.0, 1.05)
    steps = [
        strategies.tuples(strategies.just("append"), channel, strategies.integers(1, 10), size),
        strategies.tuples(strategies.just("place"), channel, strategies.integers(1, 3)),
        strategies.tuples(strategies.just("read"), channel, place, *bounds),
        strategies.tuples(strategies.just("newest"), channel, place, *bounds),
        strategies.tuples(strategies.just("pass_time"), strategies.sampled_from([0.25, 1.0, 3.0])),
        strategies.tuples(strategies.just("remove"), channel),
    ]
    if outlives:
        steps.append(strategies.just(("restart",)))
    return strategies.lists(strategies.one_of(steps), min_size=1, max_size=25)


@dataclass
class _Channel:
    retention: Retention
    messages: list["_Message"] = field(default_factory=list)
    ids: dict[str, tuple[int, float]] = field(default_factory=dict)


@dataclass(eq=False)
class _Message:
    channel: _Channel
    offset: int
    payload: bytes
    time: float
    removed: bool = False


class Model:
    """
    All messages that were ever appended.

    :ivar now: seconds since the model was made.
    :ivar number: the number of the next payload.
    """

    def __init__(self, window: float, knows_gone: bool = True) -> None:
        self.now = 0.0
        self._knows_gone = knows_gone
        self.number = 0
        self._window = window
        self._channels = [_Channel(retention) for retention in RETENTIONS]

    def payloads(self, count: int, size: int = 0) -> list[bytes]:
        """Return *count* payloads that differ from all others."""
        self.number += count
        return [payload_of(number, size) for number in range(self.number - count, self.number)]

    def append(self, index: int, offsets: list[int], payloads: list[bytes]) -> None:
        """Check that the offsets of payloads appended to a channel are new and rise. Remember the payloads."""
        channel = self._channels[index]
        for offset, payload in zip(offsets, payloads, strict=True):
            assert offset > self.last(index), "an offset that was there before, or that is not behind the others"
            channel.messages.append(_Message(channel, offset, payload, self.now))

    def last(self, index: int) -> int:
        """Return the largest offset that was seen in a channel; 0: none."""
        messages = self._channels[index].messages
        return messages[-1].offset if messages else 0

    def known(self, index: int, message_id: str) -> int | None:
        """Return the offset of the message with an id; ``None``: a message with this id is not a duplicate."""
        offset, time = self._channels[index].ids.get(message_id, (0, -self._window))
        return offset if self.now - time < self._window else None

    def note(self, index: int, message_id: str, offset: int) -> None:
        """Remember the offset of the message with an id."""
        self._channels[index].ids[message_id] = offset, self.now

    def remove(self, index: int) -> None:
        """Remember that the messages of a channel were removed."""
        for message in self._channels[index].messages:
            message.removed = True

    def check_read(self, index: int, page: Page, after: int, limit: int, size: int) -> None:
        """Compare a page read forwards from *after* with what was appended."""
        channel = self._channels[index]
        found = self._check(channel, page, limit, size)
        newer = [message for message in channel.messages if message.offset > after]
        assert all(message.offset > after for message in found)
        if page.reaches:
            assert found == newer[: len(found)], "it is said to be complete, and is not"
            assert page.total == len(newer)
        if after > page.tip:
            assert not page.reaches
        elif all(map(self._is_sure, newer)):
            assert page.reaches, "nothing was lost"
        assert page.total >= sum(map(self._is_sure, newer))
        if found and not page.more:
            assert found[-1] is newer[-1] or not self._is_sure(newer[-1])
        assert page.tip >= (channel.messages[-1].offset if channel.messages else 0)

    def check_newest(self, index: int, page: Page, before: int, limit: int, size: int) -> None:
        """Compare a page of the newest messages before *before* with what was appended."""
        channel = self._channels[index]
        found = self._check(channel, page, limit, size, newest=True)
        older = [message for message in channel.messages if not before or message.offset < before]
        assert found == older[len(older) - len(found) :]
        assert page.total >= sum(map(self._is_sure, older))
        assert page.tip >= (channel.messages[-1].offset if channel.messages else 0)

    def _check(self, channel: _Channel, page: Page, limit: int, size: int, *, newest: bool = False) -> list[_Message]:
        """Check what must be true of every page, and return its messages."""
        known = {message.offset: message for message in channel.messages}
        found = [known[stored.offset] for stored in page.messages]
        assert [unmarked(stored.payload) for stored in page.messages] == [message.payload for message in found]
        offsets = [stored.offset for stored in page.messages]
        assert offsets == sorted(set(offsets)), "out of order, or twice"
        before = {message.offset: last for last, message in zip([0, *known], channel.messages, strict=False)}
        marks = [offsets_of(stored.payload) for stored in page.messages]
        if marks and marks[0][1] == 0 and not self._knows_gone:
            assert not before[offsets[0]] or not self._is_sure(known[before[offsets[0]]])
            marks[0] = marks[0][0], before[offsets[0]]
        assert marks == [(each, before[each]) for each in offsets]
        assert len(found) <= limit and len(found) <= page.total <= channel.retention.messages
        others = page.messages[1:] if newest else page.messages[:-1]  # without the message that filled the page
        assert sum(len(stored.payload) for stored in others) < size
        assert found or not page.total
        assert not any(message.removed or message.time <= self.now - channel.retention.age for message in found)
        if page.more:
            assert len(found) == limit or sum(len(stored.payload) for stored in page.messages) >= size
        return found

    def _is_sure(self, message: _Message) -> bool:
        """Return whether the store must still have a message."""
        channel = message.channel
        return not (
            message.removed
            or channel.retention.size
            or channel.messages[-channel.retention.messages :][0].offset > message.offset
            or message.time <= self.now - channel.retention.age + _SLACK
        )
