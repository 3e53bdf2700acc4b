"""
A bounded cache of recently used entries.

Part of the codec: no I/O. The engine keeps its plans in one.
"""

from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar

__all__ = ["Generations"]

_ADMITTED = 8
"""Once there are old values, the cache keeps one of this many new values."""


class Costing(Protocol):
    """
    A value that the cache can keep.

    :ivar cost: its memory in bytes, approximately, including its key.
    """

    @property
    def cost(self) -> int: ...


Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value", bound=Costing)


class Generations(Generic[Key, Value]):
    """
    A mapping in two generations.

    New entries, and old entries that are used again, join the young generation. When the young generation reaches half
    of the size, it becomes the old one, and the former old one is dropped. So every entry used since the last change of
    generations survives. The use of a young entry costs nothing extra, and no operation takes longer than a few
    look-ups. Fast code may read *young* directly.

    From the first change on, only one in eight new entries is kept. Entries in frequent use get in soon. If more
    entries are used in turn than there is room for, some of them stay, rather than all of them pushing each other out.

    :ivar young: the entries used since the last change of generations, and some older ones. Read it, but do not change
        or keep it: each change makes a new dict.
    """

    __slots__ = ("_cost", "_offered", "_old", "_old_cost", "_size", "young")

    def __init__(self, size: int) -> None:
        """:param size: the most bytes of all entries, as the values' ``cost`` counts them."""
        self.young: dict[Key, Value] = {}
        self._old: dict[Key, Value] = {}
        self._cost = self._old_cost = 0
        self._offered = 0
        self._size = size

    def get(self, key: Key) -> Value | None:
        """Return the value of *key*, or ``None``."""
        value = self.young.get(key)
        if value is None:
            value = self._old.pop(key, None)
            if value is not None:
                self._old_cost -= value.cost
                self._keep(key, value)
        return value

    def put(self, key: Key, value: Value) -> None:
        """Add *value* under *key*, which must be new. The cache may decide not to keep it."""
        if 2 * value.cost > self._size:
            return
        if self._old:
            self._offered += 1
            if self._offered % _ADMITTED:
                return
        self._keep(key, value)

    def _keep(self, key: Key, value: Value) -> None:
        if 2 * (self._cost + value.cost) > self._size:
            self._old, self._old_cost = self.young, self._cost
            self.young, self._cost = {}, 0
        self._cost += value.cost
        self.young[key] = value

    def clear(self) -> None:
        """Drop all entries."""
        self.young, self._old = {}, {}
        self._cost = self._old_cost = 0

    @property
    def cost(self) -> int:
        """The bytes of all entries, as their costs count them."""
        return self._cost + self._old_cost

    def __len__(self) -> int:
        return len(self.young) + len(self._old)
