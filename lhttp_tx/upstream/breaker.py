"""
Circuit breakers: they stop requests to a failing backend for some time.

Used by :mod:`lhttp_tx.upstream.client`, which decides what counts as a failure. No HTTP, no I/O.
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
    The state of one backend.

    :ivar failures: consecutive failures since the last success. While the circuit is closed, they are fewer than it
        takes to open it.
    :ivar closed: whether requests are let through.
    :ivar period: counts how often the circuit opened and closed. Requests that began in an earlier period are ignored.
    :ivar again: the time from which a probe is allowed, while the circuit is open.
    :ivar probe: the request that tests whether the backend works again; ``None`` without one.
    """

    failures: int = 0
    closed: bool = True
    period: int = 0
    again: float = 0.0
    probe: Attempt | None = None


class CircuitBreaker:
    """
    Refuses requests to backends that failed several times in a row.

    A circuit is closed at first. After *max_failures* consecutive failures, it opens, and refuses every request for
    *cool_down* seconds. Then it lets one request at a time through, as a probe. If the probe succeeds, the circuit
    closes. If it fails, the next probe is allowed after another *cool_down*. Requests that were under way when the
    circuit opened or closed do not count.

    There is one circuit for each backend that was ever asked, so at most as many as the operator lists.
    """

    def __init__(self, *, clock: IReactorTime, max_failures: int, cool_down: float) -> None:
        """
        :param clock: the reactor, for the time.
        :param max_failures: consecutive failures that open a circuit; 0: no circuit ever opens.
        :param cool_down: seconds for which an open circuit refuses every request.
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

        :param backend: the backend; its text appears in the log.
        :returns: the attempt. The caller must tell it how the request ended.
        :raises UpstreamDown: if the circuit is open.
        """
        circuit = self._circuits.setdefault(backend, _Circuit())
        attempt = Attempt(self, backend, circuit)
        if not circuit.closed:
            wait = circuit.again - self._clock.seconds()
            if wait > 0:
                raise UpstreamDown(f"upstream is unavailable; the server tries again in {ceil(wait)} s")
            if circuit.probe is not None:
                raise UpstreamDown("upstream is unavailable; the server is trying again")
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
                "upstream {backend} failed {count} times in a row ({why!r}): not called for {seconds:g} seconds",
                backend=backend,
                count=circuit.failures,
                why=why,
                seconds=self._cool_down,
            )
        circuit.again = self._clock.seconds() + self._cool_down


class Attempt:
    """One request to a backend. Only its first outcome counts."""

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
        Note that the backend has failed.

        :param why: the error; its text appears in the log.
        """
        if self._counts():
            self._breaker._failed(self._backend, self._circuit, why)

    def abandoned(self) -> None:
        """
        Note that the request shows nothing about the backend. If it was a probe, the next request becomes the probe.
        """
        self._counts()

    def _counts(self) -> bool:
        """Return whether the outcome counts. A probe ends in any case."""
        if self._told:
            return False
        self._told = True
        if self._circuit.probe is self:
            self._circuit.probe = None
        return self._period == self._circuit.period
