"""
The presence of :mod:`lhttp_tx.client.sync`.
"""

from __future__ import annotations

from typing import final

from lhttp_tx.client import aio
from lhttp_tx.client.presence import PresenceChange, PresenceView
from lhttp_tx.client.sync.stream import Run, Stream

__all__ = ["Presence"]


@final
class Presence(PresenceView, Stream[PresenceChange]):
    """
    The people in a channel, kept up to date by the client's thread. Iterate over the changes with ``for change in
    presence``, until :meth:`close`. The first change is a ``sync``.
    """

    def __init__(self, made: aio.Presence, run: Run) -> None:
        """
        :param made: the presence of the client for asyncio.
        :param run: runs a coroutine in the client's thread.
        """
        PresenceView.__init__(self, made.members)
        Stream.__init__(self, made, run)
        self._made = made

    def close(self) -> None:
        """End the presence. Changes in the buffer can still be taken."""
        self._run(self._made.close())

    def __repr__(self) -> str:
        return f"<sync.Presence {self.channel}>"
