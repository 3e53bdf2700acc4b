"""
Finds out whether NATS allows a node to publish and subscribe at all, for ``/health`` and the log.

A node learns whether a subject is allowed only by trying it. Refusals of clients' channels prove nothing, because an
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
"""Seconds between log lines about subjects that NATS forbids."""

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
