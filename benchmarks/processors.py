"""The processors of the benchmarked server: an echo in each of the ways in which one can be written; and its hooks."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed

from lhttp_tx import Hooks, Message, Request, Session, processor

__all__ = ["Choosing", "Watching", "coroutine", "deferred", "plain", "waiting"]


class Watching(Hooks):
    """Looks at every message, and does nothing."""

    def on_message(self, request: Request) -> None:
        """Do nothing."""


class Choosing(Hooks):
    """Looks at every delivery, and lets it happen."""

    def before_delivery(self, session: Session, message: Message) -> None:
        """Do nothing."""


@processor("echo")
def plain(request: Request) -> None:
    """Reply at once."""
    request.reply()


@processor("echo-deferred")
def deferred(request: Request) -> Deferred[None]:
    """Reply at once, and return a Deferred that has fired."""
    request.reply()
    return succeed(None)


@processor("echo-coroutine")
async def coroutine(request: Request) -> None:
    """Reply at once, as a coroutine that waits for nothing."""
    request.reply()


@processor("echo-waiting")
async def waiting(request: Request) -> None:
    """Reply in the next turn of the reactor."""
    from twisted.internet import reactor

    turn: Deferred[None] = Deferred()
    clock: Any = reactor
    clock.callLater(0, turn.callback, None)
    await turn
    request.reply()
