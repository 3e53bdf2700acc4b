"""
The inbox of a link: it receives acknowledgements of streams, and other answers of NATS.

A part of :class:`lhttp_tx.bus.nats.link.Link`. One subscription receives all answers. The last token of the subject
identifies the waiting caller.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Any, Protocol

from lhttp_tx.bus.nats.guarded import GuardedClient
from lhttp_tx.bus.nats.headers import Head
from lhttp_tx.bus.nats.incoming import Run

__all__ = ["Answered", "Inbox"]

_PATIENCE = 0.9
"""Seconds for which a link that is to be closed stays open for those who wait for answers over it."""


class Answered(Protocol):
    """Who waits for answers. Nothing here may raise."""

    def answer(self, answers: list[bytes], heads: list[Head] | None) -> bool:
        """
        Take answers that came one after another; return whether the last one of all is among them.

        :param heads: the headers of each; ``None`` if they have none.
        """

    def unanswered(self) -> None:
        """The link is lost, so that no more answers come."""


class Inbox:
    """
    Those who wait for answers.

    :ivar subject: what the link subscribes to.
    :ivar open: whether it has.
    """

    def __init__(self, client: GuardedClient) -> None:
        self._client = client
        self._begin = f"_INBOX.{secrets.token_hex(11)}."
        self.subject = self._begin + "*"
        self._cut = len(self._begin)
        self._waiting: dict[str, Answered] = {}
        self._count = 0
        self.open = False
        self._ended = False
        self._retired: Callable[[], object] | None = None

    def expect(self, who: Answered) -> str:
        """Return the subject that answers for *who* are to be sent to."""
        self._count += 1
        name = f"{self._count:x}"
        self._waiting[name] = who
        return self._begin + name

    def send(self, commands: bytes) -> None:
        """
        Send commands of the NATS protocol as they are, at the end of this turn of the reactor.

        :param commands: well-formed, and of sizes that the server takes. Dropped if the link is lost.
        """
        if not self._ended:
            self._client.send(commands)

    def forget(self, subject: str) -> None:
        """Wait no more for answers to *subject*."""
        self._waiting.pop(subject[self._cut :], None)
        self._retire()

    def received(self, run: Run[Any]) -> None:
        """Take answers that came one after another to the same subject."""
        name = run.subject[self._cut :]
        who = self._waiting.get(name)
        if who is not None and who.answer(run.payloads, run.heads):
            self._waiting.pop(name, None)
            self._retire()

    def retire(self, done: Callable[[], object]) -> None:
        """Call *done* once, when nobody waits any more, or a second from now at the latest."""
        self._retired = done
        self._retire()
        if self._retired is not None:
            asyncio.get_running_loop().call_later(_PATIENCE, self._retire, True)

    def _retire(self, late: bool = False) -> None:
        if self._retired is not None and (late or not self._waiting):
            done, self._retired = self._retired, None
            done()

    def end(self) -> None:
        """Tell all who wait that nothing comes any more."""
        self._ended, self._retired = True, None
        waiting, self._waiting = self._waiting, {}
        for who in waiting.values():
            who.unanswered()
