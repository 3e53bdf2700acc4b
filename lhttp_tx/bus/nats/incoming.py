"""
Takes messages out of the stream of a NATS server.

A pure parser without I/O, used by :mod:`lhttp_tx.bus.nats.tap`. It takes all messages of known subscriptions out of one
read in one pass. It drops messages from a link that the sending node has abandoned, and messages that come too late
(:mod:`lhttp_tx.bus.nats.origins`). It returns all other bytes unchanged, for nats-py. Source: the NATS documentation,
"Client Protocol".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Generic, TypeVar, final

from lhttp_tx.bus.nats.origins import Origin

__all__ = ["MAX_LINE", "MAX_SIZE", "BadStream", "Incoming", "Run"]

MAX_SIZE: Final = 67_174_400
"""The most bytes of a message. A NATS server accepts no message above 64 MiB, including its headers."""

MAX_LINE: Final = 1_048_576
"""The most bytes of a line. The longest lines list the servers of a cluster."""

_MAX_KNOWN = 4_096
"""The most different first lines of messages that are remembered."""

_MAX_KNOWN_LINE = 512
"""The most bytes of a first line that is remembered."""

_Owner = TypeVar("_Owner")


class BadStream(Exception):
    """The server has sent a message or a line that is too long. The text says what."""


@final
class Run(Generic[_Owner]):
    """
    Consecutive messages to one subject, for one subscription.

    :ivar owner: the owner of the subscription.
    :ivar subject: the subject that they were published to.
    :ivar heads: the headers of each; ``None`` if they have none.
    :ivar payloads: the payload of each.
    """

    __slots__ = ("heads", "owner", "payloads", "subject")

    def __init__(self, owner: _Owner, subject: str, heads: list[bytes] | None) -> None:
        self.owner = owner
        self.subject = subject
        self.heads = heads
        self.payloads: list[bytes] = []


@final
class _Target(Generic[_Owner]):
    """
    The common properties of messages to one subject, for one subscription, from one link.

    :ivar kind: the target of such messages from an unknown link. Targets with the same *kind* share a run.
    :ivar origin: the link that has sent them; ``None`` if it is not known.
    """

    __slots__ = ("has_heads", "kind", "origin", "owner", "subject")

    def __init__(
        self, owner: _Owner, subject: str, has_heads: bool, kind: _Target[_Owner] | None, origin: Origin | None
    ) -> None:
        self.owner = owner
        self.subject = subject
        self.has_heads = has_heads
        self.kind = self if kind is None else kind
        self.origin = origin


@final
class Incoming(Generic[_Owner]):
    """
    The parser of one connection.

    It holds at most one incomplete message, or one incomplete line.
    """

    def __init__(
        self,
        owners: Mapping[bytes, _Owner],
        find: Callable[[bytes], Origin | None] | None = None,
        *,
        max_size: int = MAX_SIZE,
        max_line: int = MAX_LINE,
    ) -> None:
        """
        :param owners: the owners of the subscriptions whose messages are taken, by the subscription's number in the
            protocol. The mapping may change between two calls; call :meth:`forget` after a removal.
        :param find: returns the link that has sent a message, by its reply subject; ``None`` if it is not known.
        :param max_size: the most bytes of a message.
        :param max_line: the most bytes of a line.
        """
        self._owners = owners
        self._find = find
        self._max_size = max_size
        self._max_line = max_line
        self._known: dict[bytes, tuple[_Target[_Owner] | None, int, int]] = {}
        self._targets: dict[tuple[bytes, bytes, bool, bytes], _Target[_Owner]] = {}
        self._held: list[bytes] = []
        self._held_size = 0
        self._needed = 0

    def forget(self) -> None:
        """Forget what was remembered about subscriptions, because one was removed."""
        self._known.clear()
        self._targets.clear()

    def feed(self, data: bytes) -> tuple[list[Run[_Owner]], bytes]:
        """
        Take the next bytes of the stream.

        :returns: the complete messages in the order in which they came; and the bytes for nats-py.
        :raises BadStream: if a message or a line is longer than its limit.
        """
        if self._held:
            self._held.append(data)
            self._held_size += len(data)
            if self._held_size < self._needed:
                return [], b""
            data = b"".join(self._held)
            self._held.clear()
        runs: list[Run[_Owner]] = []
        rest: list[bytes] = []
        position, size, needed = 0, len(data), 0
        known, find = self._known, data.find
        current: _Target[_Owner] | None = None
        kind: _Target[_Owner] | None = None
        heads: list[bytes] | None = None
        payloads: list[bytes] = []
        while position < size:
            end = find(b"\r\n", position)
            if end < 0:
                if size - position > self._max_line:
                    raise BadStream(f"a line of more than {self._max_line} bytes")
                break
            line = data[position:end]
            found = known.get(line) or self._look(line)
            if found is None:
                rest.append(data[position : end + 2])
                position = end + 2
                continue
            target, head_size, message_size = found
            begin = end + 2
            stop = begin + message_size
            if stop + 2 > size:
                needed = stop + 2 - position
                break
            if target is None:
                rest.append(data[position : stop + 2])
            else:
                if target is not current:
                    current = target
                    origin = target.origin
                    if origin is not None and (origin.late or (origin.owner is not None and origin.is_old())):
                        kind, heads, payloads = None, [] if target.has_heads else None, []  # dropped
                    elif target.kind is not kind:
                        kind = target.kind
                        heads = [] if target.has_heads else None
                        run = Run(target.owner, target.subject, heads)
                        payloads = run.payloads
                        runs.append(run)
                if heads is not None:
                    heads.append(data[begin : begin + head_size])
                    begin += head_size
                payloads.append(data[begin:stop])
            position = stop + 2
        if position < size:
            self._held.append(data[position:])
            self._held_size = size - position
            self._needed = needed
        return runs, b"".join(rest)

    def _look(self, line: bytes) -> tuple[_Target[_Owner] | None, int, int] | None:
        """
        Parse the first line of a message.

        :returns: the target, or ``None`` if the message is for nats-py; the bytes of the headers; and the bytes of
            headers and payload together. ``None`` if the line does not begin a message.
        :raises BadStream: if the message is longer than its limit.
        """
        if not line.startswith((b"MSG", b"HMSG")) or not line[-1:].isdigit():
            return None
        words = line.split()
        has_heads = words[0] == b"HMSG"
        count = len(words) - has_heads
        if words[0] not in (b"MSG", b"HMSG") or not 4 <= count <= 5:
            return None
        if (has_heads and not words[-2].isdigit()) or not words[-1].isdigit():
            return None
        size, head_size = int(words[-1]), int(words[-2]) if has_heads else 0
        if size > self._max_size:
            raise BadStream(f"a message of {size} bytes")
        reply = words[3] if count == 5 else b""
        target = self._target(words[1], words[2], head_size > 0, reply) if head_size <= size else None
        found = target, head_size, size
        if target is not None and len(line) <= _MAX_KNOWN_LINE:
            if len(self._known) >= _MAX_KNOWN:
                self.forget()
            self._known[line] = found
        return found

    def _target(self, subject: bytes, number: bytes, has_heads: bool, reply: bytes) -> _Target[_Owner] | None:
        target = self._targets.get((subject, number, has_heads, reply))
        if target is not None:
            return target
        owner = self._owners.get(number)
        if owner is None:
            return None
        origin = self._find(reply) if reply and self._find is not None else None
        if reply and origin is None:
            return self._target(subject, number, has_heads, b"")
        if len(self._targets) >= _MAX_KNOWN:
            self.forget()
        kind = None if origin is None else self._target(subject, number, has_heads, b"")
        name = subject.decode("utf-8", "replace") if kind is None else kind.subject
        target = self._targets[subject, number, has_heads, reply] = _Target(owner, name, has_heads, kind, origin)
        return target
