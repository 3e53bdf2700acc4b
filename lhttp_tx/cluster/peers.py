"""
The other nodes: those that send heartbeats, and those that are missing.

A part of :mod:`lhttp_tx.cluster.nodes`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

__all__ = ["DEAD_AFTER", "FORGET_AFTER", "Peers"]

_log = Logger()

DEAD_AFTER = 8.0
"""Seconds without a message after which a node counts as dead."""

FORGET_AFTER = 600.0
"""Seconds for which a dead node counts as missing. After that, it counts as gone."""

FIRST_WORD_AFTER = 3.5
"""
Seconds within which a node that has just begun to listen gets a heartbeat of every other node: the interval of
heartbeats, and a second.
"""

_MAX_MISSING = 1_000
"""The most nodes that may count as missing."""


class Peers:
    """
    The other nodes.

    :ivar on_join: functions that the owner calls with the name of each node that appears.
    :ivar on_leave: functions that are called with the name of each node that has stopped or died.
    :ivar on_missing: functions that are called when :attr:`missing` has changed.
    :ivar on_loss: functions that are called when another node has lost a link to the bus.
    """

    def __init__(self, clock: IReactorTime) -> None:
        """:param clock: the reactor."""
        self.on_join: list[Callable[[str], None]] = []
        self.on_leave: list[Callable[[str], None]] = []
        self.on_missing: list[Callable[[], None]] = []
        self.on_loss: list[Callable[[], None]] = []
        self._clock = clock
        self._heard: dict[str, float] = {}
        self._missing: dict[str, float] = {}
        self._numbers: dict[str, int] = {}
        self._losses: dict[str, int] = {}
        self._reset_at: float | None = None

    @property
    def others(self) -> frozenset[str]:
        """The names of the nodes that are alive."""
        return frozenset(self._heard)

    @property
    def missing(self) -> frozenset[str]:
        """The names of nodes that no longer send heartbeats, although they did not announce that they leave."""
        return frozenset(self._missing)

    def shortfall(self, required: int) -> str:
        """
        Return how many nodes this node hears of those that are required, such as ``2/3``; an empty string if they are
        enough.

        :param required: the number of nodes, including this one.
        """
        count = len(self._heard) + 1
        return "" if count >= required else f"{count}/{required}"

    def heard(self, name: str) -> bool:
        """Note that a message of a node has come. Return whether the node is new, or was dead."""
        known = name in self._heard
        self._heard[name] = self._clock.seconds()
        if not known:
            again = self._forget(name)
            _log.info("node {name} {what}", name=name, what="can be heard again" if again else "has joined")
        return not known

    def has_hole(self, name: str, message: Mapping[str, Any]) -> bool:
        """
        Return whether messages of a node to all others are missing.

        :param message: a message of the node. ``n`` is the number of a message to all, which rises by one. Another
            message has ``last``, the number of the last message to all before it. ``age`` is the seconds since the
            node's first message. A node of an earlier version sends none of these.
        """
        number, last, age = message.get("n"), message.get("last"), message.get("age")
        if isinstance(number, int):
            before = number - 1
        elif isinstance(last, int):
            number = before = last
        else:
            return False
        known = self._numbers.get(name)
        self._numbers[name] = number if known is None else max(known, number)
        if known is None:
            return isinstance(age, int | float) and self._is_overdue(age)
        return before > known

    def _is_overdue(self, age: float) -> bool:
        """
        Return whether a node whose numbers are not known should have been heard before.

        :param age: the seconds since its first message.
        """
        if self._reset_at is None:
            return False
        return min(self._clock.seconds() - self._reset_at, age) > FIRST_WORD_AFTER

    def hear_losses(self, name: str, count: Any) -> None:
        """
        Call :attr:`on_loss` if a node has lost a link since its last heartbeat, and perhaps publications.

        :param name: the node.
        :param count: the number of links that it has lost since its start; anything but an int is ignored.
        """
        if not isinstance(count, int):
            return
        last = self._losses.get(name)
        self._losses[name] = count
        if last is not None and count > last:
            _log.warn("node {name} has lost its connection, and perhaps publications that it had sent", name=name)
            for call in self.on_loss:
                call()

    def reset_numbers(self) -> None:
        """Forget the numbers of messages, because it is already known that earlier ones may be missing."""
        self._numbers.clear()
        self._losses.clear()
        self._reset_at = self._clock.seconds()

    def left(self, name: str) -> None:
        """Note that a node has announced that it leaves."""
        self._forget_numbers(name)
        self._forget(name)
        if name in self._heard:
            _log.info("node {name} has left", name=name)
            self._drop(name)

    def look(self, blind: bool) -> None:
        """
        Find the nodes that have been silent for too long.

        :param blind: whether silence means nothing, because this node could hear nobody. Then the time begins again for
            all nodes.
        """
        now = self._clock.seconds()
        if blind:
            self._heard = dict.fromkeys(self._heard, now)
        for name in [name for name, since in self._heard.items() if now - since > DEAD_AFTER]:
            if len(self._missing) < _MAX_MISSING:
                self._missing[name] = now
            _log.error("node {name} no longer sends heartbeats", name=name)
            self._drop(name)
            self._tell()
        for name in [name for name, since in self._missing.items() if now - since > FORGET_AFTER]:
            _log.warn(
                "node {name} counts as gone after {seconds:g} s without a heartbeat", name=name, seconds=FORGET_AFTER
            )
            self._forget_numbers(name)
            self._forget(name)

    def forget_missing(self) -> None:
        """Count no node as missing any more."""
        for name in tuple(self._missing):
            self._forget(name)

    def _forget_numbers(self, name: str) -> None:
        self._numbers.pop(name, None)
        self._losses.pop(name, None)

    def _drop(self, name: str) -> None:
        del self._heard[name]
        for call in self.on_leave:
            call(name)

    def _forget(self, name: str) -> bool:
        if self._missing.pop(name, None) is None:
            return False
        self._tell()
        return True

    def _tell(self) -> None:
        for call in self.on_missing:
            call()
