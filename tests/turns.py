"""Turns of a reactor whose time stands still: what is due is done once, and what that makes due waits for the next."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock

__all__ = ["is_due", "spend", "turn"]


def spend(clock: Clock, seconds: float) -> None:
    """Let something take a time, during which nothing else happens."""
    clock.rightNow += seconds  # type: ignore[attr-defined]


def is_due(clock: Clock) -> bool:
    """Return whether there is something to do in the next turn."""
    return any(call.getTime() <= clock.seconds() for call in clock.getDelayedCalls())


def turn(clock: Clock) -> None:
    """Do what is due."""
    own: Any = clock
    for call in [found for found in clock.getDelayedCalls() if found.getTime() <= clock.seconds()]:
        if call.active():
            own.calls.remove(call)
            call.called = 1
            call.func(*call.args, **call.kw)
