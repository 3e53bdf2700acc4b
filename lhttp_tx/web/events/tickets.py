"""
One-time tickets, with which an ``EventSource`` logs in, because it cannot send headers.

A token in a URL ends up in the logs of proxies, and remains valid there. A ticket is valid once, and only for some
seconds.
"""

from __future__ import annotations

import secrets
from collections import Counter
from dataclasses import replace

from twisted.internet.interfaces import IReactorTime

from lhttp_tx.errors import Refused
from lhttp_tx.identity import Identity

__all__ = ["LIFETIME", "Tickets"]

LIFETIME = 30.0
"""Seconds for which a ticket is valid."""

_MAX_COUNT = 10_000
_MAX_PER_USER = 16
"""The most unused tickets at one time, of all users together and of one user."""

_MAX_SIZE = 16_777_216
_CLAIM_COST = 8
"""
The most bytes of the claims of all tickets, and the bytes that each character of the claims counts. The claims of a
token may be many small values, which take more memory than their text.
"""

_SIZE = 24
"""Random bytes of a ticket."""


class Tickets:
    """The tickets that a server has issued and that are not used yet."""

    def __init__(self, clock: IReactorTime) -> None:
        """:param clock: the reactor."""
        self._clock = clock
        self._known: dict[str, tuple[Identity, float, int]] = {}  # in the order of their ends
        self._size = 0
        self._users: Counter[str | None] = Counter()

    def __len__(self) -> int:
        self._expire()
        return len(self._known)

    def issue(self, identity: Identity) -> str:
        """
        Return a new ticket for a user: 32 characters that need no escapes in a URL.

        :raises Refused: with status 429 if the user, or all users together, have too many unused tickets.
        """
        self._expire()
        kept = replace(identity, parameters={})
        size = _CLAIM_COST * len(repr(kept.claims))
        is_full = len(self._known) >= _MAX_COUNT or self._size + size > _MAX_SIZE
        if is_full or self._users[identity.user] >= _MAX_PER_USER:
            raise Refused(429, f"there are too many unused tickets; each is valid for {LIFETIME:g} seconds")
        ticket = secrets.token_urlsafe(_SIZE)
        self._known[ticket] = kept, self._clock.seconds() + LIFETIME, size
        self._size += size
        self._users[identity.user] += 1
        return ticket

    def redeem(self, ticket: str) -> Identity:
        """
        Return the identity of the user of a ticket. The ticket becomes invalid.

        :raises Refused: with status 403 if it is not valid. After 401, a browser would ask its user for a password.
        """
        self._expire()
        found = self._known.pop(ticket, None)
        if found is None:
            raise Refused(403, "this ticket has been used, has expired, or is from another server: get a new one")
        self._forget(found[0], found[2])
        return found[0]

    def _expire(self) -> None:
        now = self._clock.seconds()
        while self._known:
            ticket, (identity, end, size) = next(iter(self._known.items()))
            if end > now:
                break
            del self._known[ticket]
            self._forget(identity, size)

    def _forget(self, identity: Identity, size: int) -> None:
        self._size -= size
        self._users[identity.user] -= 1
        if not self._users[identity.user]:
            del self._users[identity.user]
