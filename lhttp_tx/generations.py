"""
A bounded memory of what was used last.

Part of the codec: no I/O. The engine keeps its plans in one.
"""

from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar

__all__ = ["Generations"]

_ADMITTED = 8
"""One in so many new values is kept, once there are old ones."""


class Costing(Protocol):
    """
    What can be kept.

    :ivar cost: about how many bytes of memory it takes, its key included.
    """

    @property
    def cost(self) -> int: ...


Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value", bound=Costing)


class Generations(Generic[Key, Value]):
    """
    A mapping in two generations.

    What is new, or found among the old, is kept with the young. When these reach half of the size, they become the old
    ones, and the old ones of before are forgotten: whatever was used since the last change of generations survives.
    Nothing is done for each use of a young one, and nothing ever takes longer than a few look-ups; so *young* may be
    read directly where that matters.

    From the first change on, only one in eight of those that are new is kept. What is used often gets in soon enough,
    and where more is used in turn than there is room for, a part of it stays instead of all driving each other out.

    :ivar young: what was used since the last change of generations, and some that was used before; read it, do not
        change it, and do not keep it: it is another dict after each change.
    """

    __slots__ = ("_cost", "_offered", "_old", "_size", "young")

    def __init__(self, size: int) -> None:
        """:param size: bytes that all that is kept may take, by the values' own account."""
        self.young: dict[Key, Value] = {}
        self._old: dict[Key, Value] = {}
        self._cost = 0
        self._offered = 0
        self._size = size

    def get(self, key: Key) -> Value | None:
        """Return what is kept under *key*, or ``None``."""
        value = self.young.get(key)
        if value is None:
            value = self._old.pop(key, None)
            if value is not None:
                self._keep(key, value)
        return value

    def put(self, key: Key, value: Value) -> None:
        """Keep *value* under *key*, which nothing is kept under; or do not."""
        if 2 * value.cost > self._size:
            return
        if self._old:
            self._offered += 1
            if self._offered % _ADMITTED:
                return
        self._keep(key, value)

    def _keep(self, key: Key, value: Value) -> None:
        if 2 * (self._cost + value.cost) > self._size:
            self._old, self.young, self._cost = self.young, {}, 0
        self._cost += value.cost
        self.young[key] = value

    def clear(self) -> None:
        """Forget everything."""
        self.young, self._old, self._cost = {}, {}, 0

    def __len__(self) -> int:
        return len(self.young) + len(self._old)
