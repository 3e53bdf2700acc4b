"""
Finds out whether NATS lets a node publish and subscribe at all, for ``/health`` and the log.

NATS answers only for one subject at a time, and only when a node tries it. Attempts of clients prove nothing, since an
operator may forbid some channels on purpose. So the node tries a subject of its own. Used by
:mod:`lhttp_tx.bus.nats.link`.
"""

from __future__ import annotations

import asyncio
from typing import Any

from twisted.logger import Logger

from lhttp_tx.bus.nats.subjects import subject_of

__all__ = ["Complaints", "Permission"]

_log = Logger()

_COMPLAINT_INTERVAL = 10.0
"""Seconds between log lines about what NATS forbids."""

_CHANNEL = "$node.0"
"""A channel that nobody listens to. It is of the kind that nodes talk to each other on, which they need, too."""


async def _ignore(_: object) -> None:
    """Ignore the messages of other nodes, which try the same subject."""


class Permission:
    """
    The permissions of one connection to NATS.

    :ivar denied: whether publishing or subscribing was refused at the last try.
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
        """Try to publish and to subscribe. Call :meth:`conclude` after the next sign of life from NATS."""
        self._refused = False
        await self._client.publish(self._subject, b"")
        subscription = await self._client.subscribe(self._subject, cb=_ignore)
        await subscription.unsubscribe()

    def is_about(self, subject: str) -> bool:
        """Note that NATS refuses *subject*. Return whether it is this object's own test."""
        if subject != self._subject:
            return False
        self._refused = True
        return True

    def conclude(self) -> None:
        """Draw the conclusion: all refusals have arrived."""
        if self.denied and not self._refused:
            _log.info("NATS allows this node to publish and subscribe again")
        self.denied = self._refused


class Complaints:
    """
    Writes log lines about what NATS forbids.

    :ivar told: for each kind, the time of the next line, and how many lines were left out.
    """

    def __init__(self) -> None:
        self.told: dict[str, tuple[float, int]] = {}

    def add(self, verb: str, subject: str) -> None:
        """Log what NATS forbids. The number of lines is limited, since clients could cause any number of them."""
        now = asyncio.get_running_loop().time()
        begin, count = self.told.get(verb, (now, 0))
        if now < begin:
            self.told[verb] = (begin, count + 1)
            return
        others = f" ({count} more such lines)" if count else ""
        _log.error("NATS forbids this node to {verb} {subject!r}{others}", verb=verb, subject=subject, others=others)
        self.told[verb] = (now + _COMPLAINT_INTERVAL, 0)
