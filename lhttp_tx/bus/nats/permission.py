"""
Finds out what NATS allows a node: to publish and subscribe at all, for ``/health`` and the log; and to publish to the
channels of clients.

A node learns whether a subject is allowed only by trying it. Refusals of clients' channels do not prove that the node
may do nothing, because an operator may forbid some channels on purpose. So the node tries a subject of its own.

NATS does not answer publications. If it forbids one, it names the subject, but not the publication. So at the first
refusal all receipts that wait for this channel fail. From then on, the link is alert: it
refuses forbidden subjects itself, and tries each subject that is new to it. The publisher of a tried subject waits for
the next ping. If NATS refuses the subject before it answers the ping, only the publishers of this subject are
concerned. Then nobody gets the publication, not even on this node. Used by :mod:`lhttp_tx.bus.nats.link`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from lhttp_tx.bus.nats.confirmations import UNCONFIRMED, tell
from lhttp_tx.bus.nats.subjects import subject_of
from lhttp_tx.errors import BusUnavailable, ChannelsRefused

__all__ = ["FORBIDDEN", "Complaints", "Denials", "Forbidden", "ForbiddenNames", "Permission"]

_log = Logger()

_COMPLAINT_INTERVAL = 10.0
"""Seconds between log lines about subjects that NATS forbids."""

_ALERT = 60.0
"""Seconds after the last refusal for which a link is alert."""

FORBIDDEN = "the bus does not allow this channel"
"""The error text for a publication that NATS does not allow."""

_DENIED = 30.0
"""Seconds for which a subject counts as forbidden. Then it is tried again, because an operator may have allowed it."""

_MOST = 10_000
"""The most forbidden subjects, and the most allowed ones, that are remembered. Then the oldest are forgotten."""

_CHANNEL = "$node.0"
"""
A channel without a listener. It resembles the channels that nodes use among themselves, which must be allowed, too.
"""


async def _ignore(_: object) -> None:
    """Ignore the messages of other nodes, which try the same subject."""


class Permission:
    """
    The permissions of one connection to NATS.

    :ivar denied: whether the last try was refused.
    """

    def __init__(self, client: Any, prefix: str) -> None:
        """
        :param client: the client of nats-py.
        :param prefix: the prefix of the node's subjects.
        """
        self.denied = False
        self._client = client
        self._subject = subject_of(_CHANNEL, prefix)
        self._refused = False

    async def ask(self) -> None:
        """Try to publish and to subscribe. Call :meth:`conclude` when NATS has answered the next ping."""
        self._refused = False
        await self._client.publish(self._subject, b"")
        subscription = await self._client.subscribe(self._subject, cb=_ignore)
        await subscription.unsubscribe()

    def is_about(self, subject: str) -> bool:
        """Take the refusal of *subject*. Return whether this was the subject of the try."""
        if subject != self._subject:
            return False
        self._refused = True
        return True

    def conclude(self) -> None:
        """Set :attr:`denied`, because all refusals of the last try have arrived by now."""
        if self.denied and not self._refused:
            _log.info("NATS allows this node to publish and subscribe again")
        self.denied = self._refused


class Complaints:
    """
    Writes log lines about subjects that NATS forbids.

    :ivar told: by verb, the earliest time of the next line, and the number of lines that were left out.
    """

    def __init__(self) -> None:
        self.told: dict[str, tuple[float, int]] = {}

    def add(self, verb: str, subject: str) -> None:
        """
        Log that NATS forbids *subject*. At most one line is logged in ten seconds for each verb, because clients could
        cause any number.

        :param verb: ``subscribe to`` or ``publish to``.
        """
        now = asyncio.get_running_loop().time()
        begin, count = self.told.get(verb, (now, 0))
        if now < begin:
            self.told[verb] = (begin, count + 1)
            return
        others = f" ({count} more such lines)" if count else ""
        _log.error("NATS forbids this node to {verb} {subject!r}{others}", verb=verb, subject=subject, others=others)
        self.told[verb] = (now + _COMPLAINT_INTERVAL, 0)


class Forbidden(BusUnavailable):
    """NATS does not allow this node to publish to a channel."""

    def __init__(self) -> None:
        super().__init__(FORBIDDEN)


class ForbiddenNames:
    """The names that NATS has refused lately, 10,000 at most. It is false if there are none."""

    def __init__(self) -> None:
        self._ends: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._ends)

    def add(self, name: str, now: float) -> None:
        """Add a name, or keep it for longer. *now* is the time, in seconds."""
        self._ends.pop(name, None)
        self._ends[name] = now + _DENIED
        _bound(self._ends)

    def has(self, name: str, now: float) -> bool:
        """Return whether NATS has refused a name in the last 30 seconds. *now* is the time, in seconds."""
        end = self._ends.get(name)
        if end is None:
            return False
        if now < end:
            return True
        del self._ends[name]
        return False

    def clear(self) -> None:
        """Forget all names."""
        self._ends.clear()


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
        self._denied = ForbiddenNames()
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
        if self._denied and self._denied.has(subject, asyncio.get_running_loop().time()):
            raise Forbidden
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
        if isinstance(result, Failure) and not result.check(ChannelsRefused):
            tell(waiter, BusUnavailable(UNCONFIRMED))
        elif not self._denied.has(subject, asyncio.get_running_loop().time()):
            self._allowed[subject] = None
            _bound(self._allowed)
            tell(waiter, None)

    def refused(self, subject: str) -> bool:
        """
        Note that NATS has refused a publication to *subject*. Afterwards, call :meth:`watch`.

        :returns: whether only tried publications can be concerned. Their publishers have been told.
        """
        is_known = subject in self._attempts and not self._settling
        self._denied.add(subject, asyncio.get_running_loop().time())
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
