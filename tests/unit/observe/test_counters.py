"""lhttp_tx.observe.counters: numbers, and how often values fell between bounds."""

from __future__ import annotations

from lhttp_tx.observe.counters import Counters, Histogram


def test_a_value_counts_in_its_bucket_and_in_all_larger_ones() -> None:
    histogram = Histogram([1.0, 2.0])
    for value in (0.5, 1.0, 1.5, 7.0):
        histogram.observe(value)
    assert list(histogram.buckets()) == [(1.0, 2), (2.0, 3), (float("inf"), 4)]
    assert (histogram.count, histogram.total) == (4, 10.0)


def test_a_processor_has_one_histogram() -> None:
    counters = Counters()
    assert counters.processor("a") is counters.processor("a")
    assert counters.processor("b") is not counters.processor("a")
