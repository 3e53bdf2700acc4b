"""
Circuit breakers: a backend that does not work is left alone for a while.

Used by :mod:`lhttp_tx.upstream`, which decides what is a failure; knows nothing of HTTP, does no I/O.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from math import ceil

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from lhttp_tx.errors import UpstreamDown

__all__ = ["Attempt", "CircuitBreaker"]

_log = Logger()


@dataclass(slots=True)
class _Circuit:
    """
    What is known of one backend.

    :ivar failures: failures in a row since the last success; while closed, fewer than it takes to open.
    :ivar closed: whether requests are let through.
    :ivar period: counts how often the circuit opened and closed. What began in an earlier period says nothing now.
    :ivar again: the time from which a probe may go, while it is open.
    :ivar probe: the request that goes to find out whether the backend works again.
    """

    failures: int = 0
    closed: bool = True
    period: int = 0
    again: float = 0.0
    probe: Attempt | None = None


class CircuitBreaker:
    """
    Keeps requests from backends that failed several times in a row.

    A circuit is closed at first. When *max_failures* requests in a row have failed it opens, and every request is
    refused for *cool_down* seconds. Then one request at a time is let through, as a probe: if it succeeds the circuit
    closes; if it fails the next one may go after another *cool_down*. Requests that were already under way when the
    circuit opened or closed are not counted any more.

    There is one circuit for each backend that was ever asked, so as many as the operator lists at most.
    """

    def __init__(self, *, clock: IReactorTime, max_failures: int, cool_down: float) -> None:
        """
        :param clock: keeps time.
        :param max_failures: failures in a row that open a circuit; 0: none ever opens.
        :param cool_down: seconds for which nothing is let through.
        """
        self._clock = clock
        self._max_failures = max_failures
        self._cool_down = cool_down
        self._circuits: dict[Hashable, _Circuit] = {}

    def __len__(self) -> int:
        """Return the number of backends that were asked."""
        return len(self._circuits)

    def begin(self, backend: Hashable) -> Attempt:
        """
        Begin a request.

        :param backend: whom it goes to; its text stands in the log.
        :returns: the attempt, which must be told how it ended.
        :raises UpstreamDown: if the circuit is open.
        """
        circuit = self._circuits.setdefault(backend, _Circuit())
        attempt = Attempt(self, backend, circuit)
        if not circuit.closed:
            wait = circuit.again - self._clock.seconds()
            if wait > 0:
                raise UpstreamDown(f"upstream does not work; it is tried again in {ceil(wait)} s")
            if circuit.probe is not None:
                raise UpstreamDown("upstream does not work; it is being tried again")
            circuit.probe = attempt
        return attempt

    def _succeeded(self, backend: Hashable, circuit: _Circuit) -> None:
        circuit.failures = 0
        if not circuit.closed:
            circuit.closed = True
            circuit.period += 1
            _log.info("upstream {backend} works again", backend=backend)

    def _failed(self, backend: Hashable, circuit: _Circuit, why: object) -> None:
        circuit.failures += 1
        if circuit.closed:
            if not self._max_failures or circuit.failures < self._max_failures:
                return
            circuit.closed = False
            circuit.period += 1
            _log.error(
                "upstream {backend} failed {count} times in a row ({why!r}): not asked for {seconds:g} seconds",
                backend=backend,
                count=circuit.failures,
                why=why,
                seconds=self._cool_down,
            )
        circuit.again = self._clock.seconds() + self._cool_down


class Attempt:
    """One request to a backend. What it is told first counts; what it is told later does not."""

    __slots__ = ("_backend", "_breaker", "_circuit", "_period", "_told")

    def __init__(self, breaker: CircuitBreaker, backend: Hashable, circuit: _Circuit) -> None:
        self._breaker = breaker
        self._backend = backend
        self._circuit = circuit
        self._period = circuit.period
        self._told = False

    def succeeded(self) -> None:
        """Note that the backend has answered."""
        if self._counts():
            self._breaker._succeeded(self._backend, self._circuit)

    def failed(self, why: object) -> None:
        """
        Note that it has not.

        :param why: what went wrong; its text stands in the log.
        """
        if self._counts():
            self._breaker._failed(self._backend, self._circuit, why)

    def abandoned(self) -> None:
        """Note that nothing was learnt of the backend; if this was a probe, the next request is one."""
        self._counts()

    def _counts(self) -> bool:
        """Return whether the outcome says something; a probe has come back either way."""
        if self._told:
            return False
        self._told = True
        if self._circuit.probe is self:
            self._circuit.probe = None
        return self._period == self._circuit.period
