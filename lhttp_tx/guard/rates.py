"""
How fast a client may go: a token bucket.

Pure: the time is passed in. Used by :mod:`lhttp_tx.throttle`.
"""

from __future__ import annotations

__all__ = ["TokenBucket"]

_SHORTEST_WAIT = 0.01
"""Seconds that are worth waiting: for less, the timers would cost more than what they hold back."""

_ALMOST = 1 - 1e-6
"""What counts as one token: times are not exact."""


class TokenBucket:
    """
    Fills with *rate* tokens a second up to *burst*; what is taken beyond that is a debt.

    It counts what has happened already, so that nothing need be refused: who owes waits.
    """

    __slots__ = ("_burst", "_level", "_rate", "_seen")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        """
        :param rate: tokens a second, above 0.
        :param burst: tokens that it holds, at least 1; it begins full.
        :param now: the time in seconds.
        """
        self._rate = rate
        self._burst = burst
        self._level = float(burst)
        self._seen = now

    def available(self, now: float) -> int:
        """Return how many whole tokens there are."""
        return max(0, int(self._fill(now) + 1 - _ALMOST))

    def spend(self, count: int, now: float) -> float:
        """Take *count* tokens, whether or not they are there; return :meth:`wait`."""
        self._level = self._fill(now) - count
        return self.wait(now)

    def wait(self, now: float) -> float:
        """Return the seconds to wait until there are tokens again; 0 while there are."""
        level = self._fill(now)
        if level >= _ALMOST:
            return 0.0
        return max((1 - level) / self._rate, min(_SHORTEST_WAIT, self._burst / self._rate))

    def _fill(self, now: float) -> float:
        if now > self._seen:
            self._level = min(self._burst, self._level + (now - self._seen) * self._rate)
        self._seen = now  # a clock that was put back gives nothing and takes nothing
        return self._level
