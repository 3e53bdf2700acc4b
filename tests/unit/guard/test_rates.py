"""lhttp_tx.guard.rates: tokens a second."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from lhttp_tx.guard.rates import TokenBucket


def test_a_full_bucket_gives_its_burst_at_once() -> None:
    bucket = TokenBucket(rate=10, burst=3, now=0)
    assert bucket.available(0) == 3
    assert [bucket.spend(1, 0) > 0 for _ in range(3)] == [False, False, True]
    assert bucket.available(0) == 0


def test_it_fills_at_its_rate_and_no_further_than_its_burst() -> None:
    bucket = TokenBucket(rate=10, burst=3, now=0)
    bucket.spend(3, 0)
    assert [bucket.available(now) for now in (0.05, 0.1, 0.2, 0.35, 100)] == [0, 1, 2, 3, 3]


def test_a_debt_is_waited_for() -> None:
    bucket = TokenBucket(rate=10, burst=3, now=0)
    assert bucket.spend(8, 0) == pytest.approx(0.6)
    assert bucket.wait(0.5) == pytest.approx(0.1)
    assert bucket.wait(0.6) == 0


def test_a_wait_is_not_too_short_to_be_worth_a_timer() -> None:
    assert TokenBucket(rate=100_000, burst=100_000, now=0).spend(100_000, 0) == 0.01


def test_nothing_overflows_while_a_short_wait_lasts() -> None:
    assert TokenBucket(rate=1_000, burst=1, now=0).spend(1, 0) == 0.001


def test_a_clock_that_is_put_back_gives_nothing_and_takes_nothing() -> None:
    bucket = TokenBucket(rate=10, burst=3, now=100)
    bucket.spend(3, 100)
    assert bucket.available(50) == 0
    assert bucket.available(50.1) == 1


@given(
    st.floats(0.1, 1_000_000),
    st.integers(1, 1_000),
    st.lists(st.tuples(st.floats(0, 10), st.integers(1, 500)), max_size=50),
)
def test_who_waits_gets_no_more_than_rate_and_burst(rate: float, burst: int, spent: list[tuple[float, int]]) -> None:
    bucket, now, total, last = TokenBucket(rate, burst, 0), 0.0, 0, 0
    for pause, count in spent:
        now += pause
        now += bucket.wait(now)
        bucket.spend(count, now)
        total += count
        last = count
    assert total - last <= burst + rate * now + 1
