"""
The inbox of a link: it receives acknowledgements of streams, and other answers of NATS.

A part of :class:`lhttp_tx.bus.nats.link.Link`. One subscription receives all answers. The last token of a reply subject
identifies the caller that waits.
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
"""The most seconds for which a link that is to be closed stays open for callers that still wait for answers."""


class Answered(Protocol):
    """A caller that waits for answers. The methods must not raise."""

    def answer(self, answers: list[bytes], heads: list[Head] | None) -> bool:
        """
        Take consecutive answers. Return whether no more answers are expected.

        :param answers: the payload of each answer.
        :param heads: the headers of each answer; ``None`` if they have none.
        """

    def unanswered(self) -> None:
        """Called when the link is lost: no more answers will come."""


class Inbox:
    """
    The callers that wait for answers over one link.

    :ivar subject: the subject that the link subscribes to, with a wildcard.
    :ivar open: whether the link has subscribed to it.
    :ivar denied: called with the subject of a publication to a stream that NATS has refused. It must not raise.
    """

    def __init__(self, client: GuardedClient) -> None:
        self._client = client
        self._begin = f"_INBOX.{secrets.token_hex(11)}."
        self.subject = self._begin + "*"
        self._cut = len(self._begin)
        self._waiting: dict[str, Answered] = {}
        self._count = 0
        self.open = False
        self.denied: Callable[[str], None] = _ignore
        self._ended = False
        self._retired: Callable[[], object] | None = None

    def expect(self, who: Answered) -> str:
        """Return a new reply subject. Answers to it go to *who*."""
        self._count += 1
        name = f"{self._count:x}"
        self._waiting[name] = who
        return self._begin + name

    def send(self, commands: bytes) -> None:
        """
        Send commands of the NATS protocol unchanged, at the end of this turn of the reactor. Drop them if the link is
        lost.

        :param commands: well-formed commands, of sizes that the server accepts.
        """
        if not self._ended:
            self._client.send(commands)

    def forget(self, subject: str) -> None:
        """Ignore further answers to *subject*."""
        self._waiting.pop(subject[self._cut :], None)
        self._retire()

    def received(self, run: Run[Any]) -> None:
        """Take consecutive answers to one reply subject."""
        name = run.subject[self._cut :]
        who = self._waiting.get(name)
        if who is not None and who.answer(run.payloads, run.heads):
            self._waiting.pop(name, None)
            self._retire()

    def retire(self, done: Callable[[], object]) -> None:
        """Call *done* once, when no caller waits any more, or 0.9 seconds from now at the latest."""
        self._retired = done
        self._retire()
        if self._retired is not None:
            asyncio.get_running_loop().call_later(_PATIENCE, self._retire, True)

    def _retire(self, late: bool = False) -> None:
        if self._retired is not None and (late or not self._waiting):
            done, self._retired = self._retired, None
            done()

    def end(self) -> None:
        """Tell all callers that wait that no more answers will come."""
        self._ended, self._retired = True, None
        waiting, self._waiting = self._waiting, {}
        for who in waiting.values():
            who.unanswered()


def _ignore(subject: str) -> None:
    """Do nothing: this link has no streams."""
