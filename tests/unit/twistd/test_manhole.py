"""Profiles on demand."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

pytest.importorskip("bcrypt", reason="needs lhttp_tx[manhole]")

from lhttp_tx.twistd.manhole import MAX_SECONDS, Profiler


@pytest.mark.parametrize("kind", ["profile", "allocations"])
def test_a_profile_takes_as_long_as_it_is_told(kind: str) -> None:
    clock, reports = Clock(), []
    getattr(Profiler(clock), kind)(5.0).addCallback(reports.append)
    clock.advance(4.9)
    kept = [bytearray(1_000_000)]
    assert reports == []
    clock.advance(0.2)
    assert len(reports) == 1
    assert repr(reports[0]) == reports[0]
    assert ("function calls" if kind == "profile" else "test_manhole.py") in reports[0]
    del kept


def test_one_profile_is_made_at_a_time() -> None:
    clock, refused = Clock(), []
    profiler = Profiler(clock)
    done: list[Any] = []
    profiler.profile(1.0).addCallback(done.append)
    profiler.allocations(1.0).addErrback(lambda failure: refused.append(failure.type))
    assert refused == [RuntimeError]
    clock.advance(1.0)
    profiler.allocations(1.0).addCallback(done.append)
    clock.advance(1.0)
    assert len(done) == 2


@pytest.mark.parametrize("seconds", [0, -1, MAX_SECONDS + 1])
def test_a_profile_has_a_bound(seconds: float) -> None:
    refused: list[Any] = []
    Profiler(Clock()).profile(seconds).addErrback(lambda failure: refused.append(failure.type))
    assert refused == [ValueError]
