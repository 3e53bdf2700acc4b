"""
Publications that NATS forbids: finds out whose they are, so that nobody else's receipts fail.

A part of :class:`lhttp_tx.bus.nats.link.Link`. NATS does not answer publications. If it forbids one, it names the
subject, but not the publication. So at the first refusal nobody knows which receipts are concerned, and all that wait
must fail. From then on, the link is alert: it refuses forbidden subjects itself, and tries each subject that is new to
it. The publisher of a tried subject waits for the next ping. If NATS refuses the subject before it answers the ping,
only the publishers of this subject are concerned. So a client that publishes to forbidden channels can fail the
receipts of others only once, however many channels it names.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from lhttp_tx.bus.nats.confirmations import UNCONFIRMED, tell
from lhttp_tx.errors import BusUnavailable

__all__ = ["Denials", "Forbidden"]

_ALERT = 60.0
"""Seconds after the last refusal for which a link is alert."""

_DENIED = 30.0
"""Seconds for which a subject counts as forbidden. Then it is tried again, because an operator may have allowed it."""

_MOST = 10_000
"""The most forbidden subjects, and the most allowed ones, that are remembered. Then the oldest are forgotten."""


class Forbidden(BusUnavailable):
    """NATS does not allow this node to publish to a channel."""

    def __init__(self) -> None:
        super().__init__("the bus does not allow this channel")


class Denials:
    """
    The subjects that NATS forbids to one link.

    :ivar alert: whether NATS has refused a publication lately. If not, call none of :meth:`is_new` and :meth:`attempt`.
    """

    def __init__(self, confirm: Callable[[], Deferred[None]], own: str) -> None:
        """
        :param confirm: asks NATS whether it has all earlier publications; see
            :meth:`lhttp_tx.bus.nats.link.Link.confirm`.
        :param own: the beginning of the subjects that nodes use among themselves, which are never tried.
        """
        self.alert = False
        self._confirm = confirm
        self._own = own
        self._denied: dict[str, float] = {}
        self._allowed: dict[str, None] = {}
        self._attempts: dict[str, deque[Deferred[None]]] = {}
        self._settling = self._ended = False
        self._timer: asyncio.TimerHandle | None = None

    def is_new(self, subject: str) -> bool:
        """
        Return whether a publication to *subject* must be followed by :meth:`attempt`.

        :raises Forbidden: if NATS forbids it.
        """
        if subject.startswith(self._own):
            return False
        until = self._denied.get(subject)
        if until is not None:
            if asyncio.get_running_loop().time() < until:
                raise Forbidden
            del self._denied[subject]
        return subject not in self._allowed

    def attempt(self, subject: str) -> Deferred[None]:
        """
        Find out whether NATS has allowed a publication, which was sent just before.

        :returns: a Deferred that

            - succeeds when NATS has the publication;
            - fails with :exc:`Forbidden` if NATS refuses the subject; or with
              :exc:`~lhttp_tx.errors.BusUnavailable` if it is not known whether it has.
        """
        waiter: Deferred[None] = Deferred()
        self._attempts.setdefault(subject, deque()).append(waiter)
        self._confirm().addBoth(self._tried, subject)
        return waiter

    def _tried(self, result: Failure | None, subject: str) -> None:
        waiters = self._attempts[subject]
        waiter = waiters.popleft()  # NATS answers in order
        if not waiters:
            del self._attempts[subject]
        if isinstance(result, Failure):
            tell(waiter, BusUnavailable(UNCONFIRMED))
        elif subject not in self._denied:
            self._allowed[subject] = None
            _bound(self._allowed)
            tell(waiter, None)

    def refused(self, subject: str) -> bool:
        """
        Note that NATS has refused a publication to *subject*. Afterwards, call :meth:`watch`.

        :returns: whether only tried publications can be concerned. Their publishers have been told.
        """
        is_known = subject in self._attempts and not self._settling
        self._denied.pop(subject, None)
        self._denied[subject] = asyncio.get_running_loop().time() + _DENIED
        _bound(self._denied)
        self._allowed.pop(subject, None)
        for waiter in tuple(self._attempts.get(subject, ())):
            tell(waiter, Forbidden())
        return is_known

    def watch(self) -> None:
        """Be alert for some time. Publications that were not tried may be refused until the next ping is answered."""
        if self._ended:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(_ALERT, self._relax)
        if not self.alert:
            self.alert = self._settling = True
            self._confirm().addBoth(self._settled)

    def _settled(self, result: Failure | None) -> None:
        if not isinstance(result, Failure):
            self._settling = False
        elif not self._ended:  # another publication was refused meanwhile
            self._confirm().addBoth(self._settled)

    def _relax(self) -> None:
        self._timer = None
        self.alert = False
        self._denied.clear()
        self._allowed.clear()

    def end(self) -> None:
        """Stop, because the link has ended."""
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()


def _bound(found: dict[str, Any]) -> None:
    if len(found) > _MOST:
        del found[next(iter(found))]
