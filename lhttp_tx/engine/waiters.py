"""
Deferreds that wait for an event of one connection.

A session makes this object when somebody asks for such a Deferred. Imports nothing of the project.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

__all__ = ["Waiters"]


class Waiters:
    """Deferreds that all succeed at the same time. A Deferred that is cancelled is removed."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: dict[Deferred[None], None] = {}

    def wait(self) -> Deferred[None]:
        """Return a Deferred that succeeds at the next call of :meth:`fire`."""
        waiter: Deferred[None] = Deferred(self._forget)
        self._waiting[waiter] = None
        return waiter

    def fire(self) -> None:
        """Fire all Deferreds that wait."""
        waiting, self._waiting = self._waiting, {}
        for waiter in waiting:
            if not waiter.called:
                waiter.callback(None)

    def _forget(self, waiter: Deferred[None]) -> None:
        self._waiting.pop(waiter, None)

    def __len__(self) -> int:
        return len(self._waiting)
