"""lhttp_tx.upstream.breaker: when requests are let through, and what the log says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from lhttp_tx.errors import UpstreamDown
from lhttp_tx.upstream.breaker import CircuitBreaker

BACKEND = "http://backend:80"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> CircuitBreaker:
    """A breaker that opens at the third failure, for ten seconds."""
    return CircuitBreaker(clock=clock, max_failures=3, cool_down=10.0)


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What is written to the log."""
    found: list[str] = []

    def observe(event: LogEvent) -> None:
        if event["log_namespace"] == "lhttp_tx.upstream.breaker":
            found.append(f"{event['log_level'].name}: {formatEvent(event)}")

    globalLogPublisher.addObserver(observe)
    yield found
    globalLogPublisher.removeObserver(observe)


def fail(breaker: CircuitBreaker, count: int = 1, backend: str = BACKEND) -> None:
    for _ in range(count):
        breaker.begin(backend).failed("refused")


def is_open(breaker: CircuitBreaker, backend: str = BACKEND) -> bool:
    try:
        breaker.begin(backend).abandoned()
    except UpstreamDown:
        return True
    return False


def test_it_is_closed_at_first(breaker: CircuitBreaker) -> None:
    assert not is_open(breaker)


def test_fewer_failures_than_the_limit_change_nothing(breaker: CircuitBreaker) -> None:
    fail(breaker, 2)
    assert not is_open(breaker)


def test_failures_in_a_row_open_it(breaker: CircuitBreaker) -> None:
    fail(breaker, 3)
    with pytest.raises(UpstreamDown, match="upstream is unavailable; the server tries again in 10 s") as caught:
        breaker.begin(BACKEND)
    assert caught.value.status == 503


def test_a_success_between_failures_begins_the_count_again(breaker: CircuitBreaker) -> None:
    fail(breaker, 2)
    breaker.begin(BACKEND).succeeded()
    fail(breaker, 2)
    assert not is_open(breaker)


def test_an_abandoned_request_between_failures_does_not(breaker: CircuitBreaker) -> None:
    fail(breaker, 2)
    breaker.begin(BACKEND).abandoned()
    fail(breaker)
    assert is_open(breaker)


def test_requests_under_way_together_count_one_by_one(breaker: CircuitBreaker) -> None:
    attempts = [breaker.begin(BACKEND) for _ in range(10)]
    for attempt in attempts[:2]:
        attempt.failed("refused")
    assert not is_open(breaker)
    attempts[2].failed("refused")
    assert is_open(breaker)


def test_nothing_is_let_through_while_it_cools_down(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.advance(9.5)
    with pytest.raises(UpstreamDown, match="in 1 s"):
        breaker.begin(BACKEND)


def test_one_request_is_let_through_after_it(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.advance(10)
    breaker.begin(BACKEND)
    with pytest.raises(UpstreamDown, match="trying again"):
        breaker.begin(BACKEND)


def test_a_probe_that_succeeds_closes_it(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.advance(10)
    breaker.begin(BACKEND).succeeded()
    fail(breaker, 2)
    assert not is_open(breaker)


def test_a_probe_that_fails_begins_the_time_again(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.advance(15)
    fail(breaker)
    clock.advance(9.9)
    assert is_open(breaker)
    clock.advance(0.1)
    assert not is_open(breaker)


def test_after_an_abandoned_probe_the_next_request_is_one(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.advance(10)
    breaker.begin(BACKEND).abandoned()
    breaker.begin(BACKEND).succeeded()
    assert not is_open(breaker)


def test_a_request_from_before_it_opened_neither_closes_nor_keeps_it(breaker: CircuitBreaker, clock: Clock) -> None:
    early = [breaker.begin(BACKEND) for _ in range(2)]
    fail(breaker, 3)
    clock.advance(5)
    early[0].failed("refused")
    early[1].succeeded()
    assert is_open(breaker)
    clock.advance(5)
    assert not is_open(breaker)


def test_a_request_from_before_it_opened_does_not_open_it_again(breaker: CircuitBreaker, clock: Clock) -> None:
    early = [breaker.begin(BACKEND) for _ in range(10)]
    fail(breaker, 3)
    clock.advance(10)
    breaker.begin(BACKEND).succeeded()
    for attempt in early:
        attempt.failed("time limit")
    assert not is_open(breaker)


def test_what_an_attempt_is_told_later_does_not_count(breaker: CircuitBreaker) -> None:
    for _ in range(3):
        attempt = breaker.begin(BACKEND)
        attempt.succeeded()
        attempt.failed("broke off")
    assert not is_open(breaker)


def test_backends_do_not_share_their_circuits(breaker: CircuitBreaker) -> None:
    fail(breaker, 3)
    assert not is_open(breaker, "http://other:80")


def test_state_is_kept_once_for_each_backend(breaker: CircuitBreaker, clock: Clock) -> None:
    for number in range(1000):
        fail(breaker, backend=f"http://backend:{number % 5}")
        clock.advance(10)
    assert len(breaker) == 5


def test_without_a_limit_it_never_opens(clock: Clock) -> None:
    breaker = CircuitBreaker(clock=clock, max_failures=0, cool_down=10.0)
    fail(breaker, 1000)
    assert not is_open(breaker)


def test_the_log_has_one_line_when_it_opens_and_one_when_it_closes(
    breaker: CircuitBreaker, clock: Clock, lines: list[str]
) -> None:
    fail(breaker, 2)
    assert lines == []
    fail(breaker)
    for _ in range(5):
        assert is_open(breaker)
        clock.advance(10)
        fail(breaker)
    assert lines == [
        "error: upstream http://backend:80 failed 3 times in a row ('refused'): not called for 10 seconds",
    ]
    clock.advance(10)
    breaker.begin(BACKEND).succeeded()
    breaker.begin(BACKEND).succeeded()
    assert lines[1:] == ["info: upstream http://backend:80 works again"]
