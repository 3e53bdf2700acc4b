"""
A token bucket, which limits a client's rate.

Pure functions of time, which the caller passes. Used by :mod:`lhttp_tx.transports.websocket.throttle`.
"""

from __future__ import annotations

__all__ = ["TokenBucket"]

_SHORTEST_WAIT = 0.01
"""The shortest wait, in seconds. The timer for a shorter wait would cost more than it saves."""

_ALMOST = 1 - 1e-6
"""The fraction that counts as one token, because times are not exact."""


class TokenBucket:
    """
    Fills with *rate* tokens a second, up to *burst*. It can also have less than zero tokens.

    It counts events that have already happened, so it refuses nothing. With less than one token, a client must wait.
    """

    __slots__ = ("_burst", "_level", "_rate", "_seen")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        """
        :param rate: tokens a second, above 0.
        :param burst: the most tokens, at least 1. The bucket is full at first.
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
        """Take *count* tokens, even if there are fewer. Return :meth:`wait`."""
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
        self._seen = now  # if the clock was set back, nothing changes
        return self._level
