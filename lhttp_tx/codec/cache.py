"""
A cache of recently used entries, with a limit of bytes.

Part of the codec: no I/O. The engine keeps its plans in such a cache.
"""

from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar

__all__ = ["Generations"]

_ADMITTED = 8
"""As soon as the cache has old entries, it keeps only one of this many new entries."""


class Costing(Protocol):
    """
    A value that a cache can keep.

    :ivar cost: the approximate memory of the value and its key, in bytes.
    """

    @property
    def cost(self) -> int: ...


Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value", bound=Costing)


class Generations(Generic[Key, Value]):
    """
    A mapping that keeps entries in two generations.

    New entries, and old entries that are used again, join the young generation. When the young generation reaches half
    of the limit, it becomes the old one, and the former old one is dropped. So all entries that were used since the
    last change of generations survive. Using a young entry costs nothing extra, and no operation takes longer than a
    few look-ups. Fast code may read *young* directly.

    After the first change, the cache keeps only one in eight new entries. Frequently used entries soon get in. If
    entries that do not all fit are used in turn, some of them stay. Otherwise, each would push out another before it is
    used again.

    :ivar young: the entries that were used since the last change of generations. Do not change or keep this dict: each
        change of generations makes a new one.
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
        """Return the value of *key*; ``None`` if the cache does not have it."""
        value = self.young.get(key)
        if value is None:
            value = self._old.pop(key, None)
            if value is not None:
                self._old_cost -= value.cost
                self._keep(key, value)
        return value

    def put(self, key: Key, value: Value) -> None:
        """Add *value* with *key*, which must be new. The cache may ignore it."""
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
        """The bytes of all entries, as the values' ``cost`` counts them."""
        return self._cost + self._old_cost

    def __len__(self) -> int:
        return len(self.young) + len(self._old)
