"""The processors of the benchmarked server: an echo in each of the ways in which one can be written."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed

from lhttp_tx import Request, processor

__all__ = ["coroutine", "deferred", "plain", "waiting"]


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
