"""lhttp_tx.transports.websocket.timers."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from lhttp_tx.transports.websocket.timers import ExactTimer


@pytest.mark.parametrize("delay", [0.3, 1.0, 1.7])
def test_a_time_limit_is_kept_to_the_fraction_of_a_second(delay: float) -> None:
    clock, calls = Clock(), []
    clock.advance(0.25)
    ExactTimer(clock).call_later(delay, calls.append, "late")
    clock.advance(delay - 0.01)
    assert calls == []
    clock.advance(0.01)
    assert calls == ["late"]


def test_a_call_can_be_cancelled() -> None:
    clock, calls = Clock(), []
    ExactTimer(clock).call_later(1.0, calls.append, "late").cancel()
    clock.advance(2.0)
    assert (calls, clock.getDelayedCalls()) == ([], [])
