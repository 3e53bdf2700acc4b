"""lhttp_tx.web.admin.api: answers that are kept for calls that are repeated."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from lhttp_tx.web.admin.api import WINDOW, Remembered
from lhttp_tx.web.admin.problems import Problem


def test_a_repeated_call_has_the_answer_of_the_first() -> None:
    kept = Remembered(Clock())
    assert kept.begin("k", "1", b"a") is None
    kept.end("k", "1", b"answer")
    assert kept.begin("k", "1", b"a") == b"answer"
    assert kept.begin("other", "1", b"a") is None


def test_another_call_may_not_have_the_same_key() -> None:
    kept = Remembered(Clock())
    kept.begin("k", "1", b"a")
    for digest, why in ((b"a", "still running"), (b"b", "another call")):
        with pytest.raises(Problem, match=why) as caught:
            kept.begin("k", "1", digest)
        assert caught.value.status == 409


def test_a_call_that_failed_may_be_repeated() -> None:
    kept = Remembered(Clock())
    kept.begin("k", "1", b"a")
    kept.end("k", "1", None)
    assert kept.begin("k", "1", b"a") is None


def test_answers_are_kept_for_a_time_and_within_bounds() -> None:
    clock = Clock()
    kept = Remembered(clock)
    kept.begin("k", "1", b"a")
    kept.end("k", "1", b"answer")
    clock.advance(WINDOW + 1)
    assert kept.begin("k", "1", b"a") is None
    for number in range(100):
        kept.begin("k", f"x{number}", b"a")
        kept.end("k", f"x{number}", bytes(1_000_000))
    kept.begin("k", "last", b"a")
    assert kept.size < 10_000_000
