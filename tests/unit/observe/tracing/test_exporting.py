"""The queue of spans: bounded, one batch at a time, and no stop waits for long."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher

from lhttp_tx.observe import rationing
from lhttp_tx.observe.tracing.exporting import BATCH, INTERVAL, MAX_WAITING, STOP_TIME, Exporting, in_thread


class Collector:
    """Takes batches when a test lets it."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.answers: list[Any] = []

    def run(self, sink: Any, spans: list[Any], done: Any) -> None:
        assert len(self.batches) == len(self.answers) or self.answers[-1] is None, "one at a time"
        self.batches.append(spans)
        self.answers.append(done)

    def answer(self, reason: str | None = None) -> None:
        done, self.answers[-1] = self.answers[-1], None
        done(reason)


@pytest.fixture
def lines() -> Iterator[list[str]]:
    found: list[str] = []

    def note(event: Any) -> None:
        found.append(formatEvent(event))

    globalLogPublisher.addObserver(note)
    yield found
    globalLogPublisher.removeObserver(note)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def collector() -> Collector:
    return Collector()


@pytest.fixture
def exporting(collector: Collector, clock: Clock) -> Exporting:
    return Exporting(lambda spans: None, clock, collector.run)


def test_spans_wait_for_others(exporting: Exporting, collector: Collector, clock: Clock) -> None:
    exporting.take(1)
    clock.advance(INTERVAL * 0.9)
    exporting.take(2)
    assert not collector.batches
    clock.advance(INTERVAL * 0.1)
    assert collector.batches == [[1, 2]]
    collector.answer()
    assert not clock.getDelayedCalls()


def test_a_full_batch_goes_at_once(exporting: Exporting, collector: Collector, clock: Clock) -> None:
    for number in range(BATCH):
        exporting.take(number)
    clock.advance(0)
    assert collector.batches == [list(range(BATCH))]


def test_one_batch_is_under_way_at_a_time(exporting: Exporting, collector: Collector, clock: Clock) -> None:
    exporting.take(1)
    clock.advance(INTERVAL)
    for number in range(2, BATCH + 5):
        exporting.take(number)
    clock.advance(INTERVAL * 100)
    assert collector.batches == [[1]]
    collector.answer()
    clock.advance(0)
    assert collector.batches[1:] == [list(range(2, BATCH + 2))]
    collector.answer()
    clock.advance(INTERVAL)
    assert collector.batches[2:] == [[BATCH + 2, BATCH + 3, BATCH + 4]]


def test_no_more_wait_than_allowed_and_the_log_says_so_once(
    exporting: Exporting, collector: Collector, clock: Clock, lines: list[str]
) -> None:
    rationing.begin(clock)
    try:
        exporting.take(0)
        clock.advance(INTERVAL)
        for number in range(MAX_WAITING + 1000):
            exporting.take(number)
        assert [line for line in lines if "lost" in line] == [
            "a span is lost: the collector of traces does not keep up"
        ]
        sizes = []
        while collector.answers[-1] is not None:
            collector.answer()
            clock.advance(INTERVAL)
            sizes.append(len(collector.batches[-1]))
        assert sum(len(batch) for batch in collector.batches[1:]) == MAX_WAITING
    finally:
        rationing.end(clock)
    assert any(line.startswith("999 more within 10 s") for line in lines)


def test_a_failure_is_logged_with_its_reason(
    exporting: Exporting, collector: Collector, clock: Clock, lines: list[str]
) -> None:
    exporting.take(1)
    exporting.take(2)
    clock.advance(INTERVAL)
    collector.answer("connection refused")
    assert "2 spans are lost: connection refused" in lines
    exporting.take(3)
    clock.advance(INTERVAL)
    assert collector.batches[-1] == [3]


def test_a_stop_sends_what_is_left(exporting: Exporting, collector: Collector, clock: Clock) -> None:
    for number in range(BATCH + 1):
        exporting.take(number)
    stopped = exporting.stop()
    assert not stopped.called
    collector.answer()
    clock.advance(0)
    assert not stopped.called
    collector.answer()
    assert stopped.called
    assert sum(map(len, collector.batches)) == BATCH + 1
    assert not clock.getDelayedCalls()
    assert exporting.stop().called


def test_a_stop_does_not_wait_for_a_collector_that_hangs(
    exporting: Exporting, collector: Collector, clock: Clock, lines: list[str]
) -> None:
    for number in range(BATCH + 7):
        exporting.take(number)
    stopped = exporting.stop()
    clock.advance(STOP_TIME * 0.99)
    assert not stopped.called
    clock.advance(STOP_TIME * 0.01)
    assert stopped.called
    assert f"{BATCH + 7} spans are lost: the collector of traces has not taken them within 2 s" in lines
    collector.answer()  # it answers after all
    assert len(collector.batches) == 1


def test_after_a_stop_it_may_go_on(exporting: Exporting, collector: Collector, clock: Clock) -> None:
    assert exporting.stop().called
    exporting.take(1)
    clock.advance(INTERVAL)
    assert collector.batches == [[1]]


def test_spans_of_other_threads_come_in_on_the_reactors(collector: Collector) -> None:
    calls: list[Any] = []

    class Reactor(Clock):
        def callFromThread(self, call: Any, *arguments: Any) -> None:
            calls.append((call, arguments))

    clock = Reactor()
    exporting = Exporting(lambda spans: None, clock, collector.run)
    thread = threading.Thread(target=exporting.take, args=(1,))
    thread.start()
    thread.join()
    assert not clock.getDelayedCalls()
    ((call, arguments),) = calls
    call(*arguments)
    clock.advance(INTERVAL)
    assert collector.batches == [[1]]


@pytest.mark.parametrize(
    ("outcome", "told"), [(None, None), ("no", "no"), (OSError("broken"), "broken"), (ValueError(), "ValueError")]
)
def test_a_batch_is_exported_in_a_thread_that_does_not_hold_the_process(outcome: Any, told: str | None) -> None:
    seen: list[Any] = []
    ended = threading.Event()

    def sink(spans: list[Any]) -> str | None:
        seen.append((spans, threading.current_thread()))
        if isinstance(outcome, Exception):
            raise outcome
        return outcome  # type: ignore[no-any-return]

    class Reactor:
        def callFromThread(self, call: Any, *arguments: Any) -> None:
            call(*arguments)
            ended.set()

    reasons: list[str | None] = []
    in_thread(Reactor())(sink, [1], reasons.append)
    assert ended.wait(60)
    ((spans, thread),) = seen
    assert spans == [1]
    assert thread is not threading.main_thread()
    assert thread.daemon
    assert reasons == [told]
