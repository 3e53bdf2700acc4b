"""lhttp_tx.observe.rationing: what clients cause does not fill the log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher

from lhttp_tx.observe import rationing
from lhttp_tx.observe.rationing import INTERVAL, MAX_KINDS, RationedLogger

LOG = RationedLogger("lhttp_tx.there")


@pytest.fixture
def lines() -> Iterator[list[str]]:
    found: list[str] = []

    def observe(event: dict[str, Any]) -> None:
        found.append(f"{event['log_namespace']} {event['log_level'].name}: {formatEvent(event)}")

    globalLogPublisher.addObserver(observe)
    yield found
    globalLogPublisher.removeObserver(observe)


@pytest.fixture
def running(clock: Clock) -> Iterator[Clock]:
    rationing.begin(clock)
    yield clock
    rationing.end(clock)
    assert not clock.getDelayedCalls()


def refuse(peer: int, reason: str = "no", code: int = 400) -> None:
    LOG.info("{peer}: refused with {code}: {reason!r}", peer=peer, reason=reason, code=code)


def test_every_line_is_written_while_no_server_runs(lines: list[str]) -> None:
    for peer in range(3):
        refuse(peer)
    assert len(lines) == 3


def test_there_is_one_line_of_a_kind_in_an_interval_and_then_their_number(running: Clock, lines: list[str]) -> None:
    for peer in range(12_000):
        refuse(peer)
        refuse(peer, code=403)
    first = ["lhttp_tx.there info: 0: refused with 400: 'no'", "lhttp_tx.there info: 0: refused with 403: 'no'"]
    assert lines == first
    running.advance(INTERVAL)
    count = "lhttp_tx.there info: 11999 more within 10 s, the last: 11999: refused with 400: 'no'"
    assert lines[2:] == [count, count.replace("400", "403")]
    refuse(1)
    assert len(lines) == 4
    running.advance(INTERVAL)
    assert lines[4:] == [count.replace("11999", "1")], "the number and the peer are others now"
    running.advance(INTERVAL)
    refuse(7)
    assert lines[5:] == ["lhttp_tx.there info: 7: refused with 400: 'no'"]


def test_kinds_are_bounded_and_so_is_what_a_client_sent(running: Clock, lines: list[str]) -> None:
    for number in range(10_000):
        refuse(1, reason=f"{number}" + "x" * 10_000)
    assert len(lines) <= MAX_KINDS + 1
    assert max(map(len, lines)) < 300
    running.advance(INTERVAL)
    assert len(lines) <= MAX_KINDS + 2
    count = f"lhttp_tx warn: {10_000 - MAX_KINDS - 1} lines of other kinds within 10 s, the last: 1: refused with 400:"
    assert lines[-1].startswith(f"{count} '9999x") and len(lines[-1]) < 400


def fail(kind: type[Exception]) -> None:
    try:
        raise kind("x")
    except Exception:
        LOG.failure("a processor failed")


def test_tracebacks_of_one_line_are_written_once(running: Clock, lines: list[str], failures: list[Any]) -> None:
    for kind in (ValueError, KeyError):
        for _ in range(100):
            fail(kind)
    assert [type(failure) for failure in failures] == [ValueError, KeyError]
    running.advance(INTERVAL)
    assert lines[2:] == [
        f"lhttp_tx.there critical: 99 more within 10 s, the last: a processor failed ({kind})"
        for kind in ("ValueError", "KeyError")
    ]


def test_counts_are_written_at_the_end(clock: Clock, lines: list[str]) -> None:
    rationing.begin(clock)
    rationing.begin(clock)
    refuse(1)
    refuse(2)
    rationing.end(clock)
    assert len(lines) == 2
    refuse(3)
    rationing.end(clock)
    assert len(lines) == 3
    refuse(4)
    assert len(lines) == 4
    assert not clock.getDelayedCalls()
