"""
Lets requests fetch the messages of a session.

A part of :mod:`lhttp_tx.transports.http.session`. One request fetches at a time. If no request fetches for too long,
the session ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from lhttp_tx.errors import Refused
from lhttp_tx.transports.http.backlog import Backlog

__all__ = ["Fetched", "Outlet"]

_REPLACED = "another request fetches now"


@dataclass(frozen=True, slots=True)
class Fetched:
    """
    The answer to one fetch.

    :ivar last: the number of the last entry in *entries*. Without entries, the number after which the client asked.
    :ivar entries: entries with consecutive numbers.
    :ivar over: whether no entry will follow.
    """

    last: int
    entries: list[bytes]
    over: bool


class _Fetch:
    """A request that waits for entries."""

    __slots__ = ("after", "done", "most", "timer")

    def __init__(self, after: int, most: int, done: Deferred[Fetched]) -> None:
        self.after = after
        self.most = most
        self.done = done
        self.timer: IDelayedCall | None = None

    def conclude(self, outcome: Fetched | Refused) -> None:
        if self.timer is not None and self.timer.active():
            self.timer.cancel()
        if isinstance(outcome, Refused):
            self.done.errback(Failure(outcome))
        else:
            self.done.callback(outcome)


class Outlet:
    """
    The entries of one client, and the request that fetches them.

    :ivar backlog: the entries.
    :ivar patience: seconds within which the next request must come.
    :ivar closed: whether no more entries may be added.
    """

    def __init__(self, clock: IReactorTime, limit: int, patience: float, lapsed: Callable[[], None]) -> None:
        """
        :param clock: the reactor.
        :param limit: bytes of entries; see :class:`~lhttp_tx.transports.http.backlog.Backlog`.
        :param patience: seconds within which the next request must come.
        :param lapsed: called if no request comes within this time.
        """
        self.backlog = Backlog(limit)
        self.patience = patience
        self.closed = False
        self._clock = clock
        self._lapsed = lapsed
        self._fetcher = ""
        self._fetch: _Fetch | None = None
        self._waking: IDelayedCall | None = None
        self._deadline: IDelayedCall | None = None
        self._on_drained: Callable[[], None] | None = None

    def expect(self) -> None:
        """Start to wait for the next request, unless a request waits here."""
        if self._fetch is None:
            self._unexpect()
            self._deadline = self._clock.callLater(self.patience, self._lapsed)

    def _unexpect(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()

    def stop(self, why: Refused) -> None:
        """Stop all timers. Fail the waiting request with *why*."""
        self._unexpect()
        if self._waking is not None and self._waking.active():
            self._waking.cancel()
        fetch, self._fetch = self._fetch, None
        if fetch is not None:
            fetch.conclude(why)

    def call_when_drained(self, call: Callable[[], None]) -> None:
        """Call *call* once, as soon as all entries were fetched."""
        if self.backlog.unhanded:
            self._on_drained = call
        else:
            call()

    def fetch(self, fetcher: str, after: int, *, wait: float, most: int, begins: bool) -> Deferred[Fetched]:
        """
        Get entries as soon as there are any.

        One request fetches at a time. A new request replaces the one before, whose connection may be dead.

        :param fetcher: the name of the request. Only this request knows it.
        :param after: the number of the last entry that was fetched. If *begins* is true, this acknowledges the entries
            up to it.
        :param wait: seconds after which the answer may have no entries.
        :param most: the most bytes to get. A single entry may be larger.
        :param begins: whether this is the first fetch of the request.
        :returns: a Deferred that

            - succeeds with a :class:`Fetched`;
            - fails with :exc:`~lhttp_tx.errors.Refused`: with status 409 if another request has replaced this one, or
              with the error that :meth:`stop` gets.
        :raises Refused: with status 409 if another request has replaced this one before; 400 if no entry with the
            number *after* was handed out; 410 if entries after it are no longer kept.
        """
        if not begins and fetcher != self._fetcher:
            raise Refused(409, _REPLACED)
        self.backlog.check(after)
        replaced, self._fetch = self._fetch, None
        self._fetcher = fetcher
        self._unexpect()
        if begins:
            self.backlog.acknowledge(after)
        done: Deferred[Fetched] = Deferred(self._cancel)
        fetch = self._fetch = _Fetch(after, most, done)
        if replaced is not None:
            replaced.conclude(Refused(409, _REPLACED))
        if self.backlog.last > after or wait <= 0:
            self._answer()
        else:
            fetch.timer = self._clock.callLater(wait, self._answer)
        return done

    def _cancel(self, done: Deferred[Fetched]) -> None:
        fetch = self._fetch
        if fetch is not None and fetch.done is done:
            self._fetch = None
            if fetch.timer is not None and fetch.timer.active():
                fetch.timer.cancel()
            self.expect()

    def wake(self) -> None:
        """Answer the waiting request in the next turn of the reactor, because more entries may be added in this one."""
        if self._fetch is not None and self._waking is None:
            self._waking = self._clock.callLater(0, self._awake)

    def _awake(self) -> None:
        self._waking = None
        if self._fetch is not None:
            self._answer()

    def _answer(self) -> None:
        fetch, self._fetch = self._fetch, None
        assert fetch is not None
        self.expect()
        backlog = self.backlog
        entries = backlog.take(fetch.after, fetch.most)
        last = fetch.after + len(entries)
        fetch.conclude(Fetched(last, entries, self.closed and last == backlog.last))
        if self._on_drained is not None and not backlog.unhanded and not self.closed:
            drained, self._on_drained = self._on_drained, None
            drained()
