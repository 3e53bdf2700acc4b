"""lhttp_tx.web.admin.answering: calls, and answers that are kept for those that are repeated."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from lhttp_tx.observe.methods import BY_NAME
from lhttp_tx.testing import Server
from lhttp_tx.web.admin.answering import WINDOW, Answering, Remembered
from lhttp_tx.web.admin.calls import Calls
from lhttp_tx.web.admin.keys import AdminKey, digest_of
from lhttp_tx.web.admin.managed import Managed
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
        assert kept.size < 8_500_000
    kept.begin("k", "last", b"a")
    assert kept.size < 10_000_000


def test_answers_of_calls_at_the_same_time_keep_to_the_bound() -> None:
    kept = Remembered(Clock())
    for number in range(200):
        kept.begin("k", str(number), b"a")
    for number in range(200):
        kept.end("k", str(number), bytes(4_000_000))
        assert kept.size < 8_500_000


def test_a_call_under_way_is_not_forgotten_for_the_answers_of_others() -> None:
    kept = Remembered(Clock())
    kept.begin("k", "slow", b"a")
    for number in range(20):
        kept.begin("k", str(number), b"a")
        kept.end("k", str(number), bytes(1_000_000))
    with pytest.raises(Problem, match="still running"):
        kept.begin("k", "slow", b"a")


class Recording(Calls):
    """Calls that do nothing but note their names."""

    def __init__(self) -> None:
        self.names: list[str] = []

    async def call(self, name: str, params: Any, key: AdminKey) -> dict[str, Any]:
        self.names.append(params["user"])
        return {}


def test_others_have_their_turn_between_the_calls_of_a_batch() -> None:
    clock, calls = Clock(), Recording()
    key = AdminKey("k", digest_of(b"secret"), frozenset({"*"}))
    answering = Answering(calls, clock)
    listed = [{"method": "connections", "params": {"user": name}} for name in ("a", "b", "c")]
    answer = Deferred.fromCoroutine(answering.answer(BY_NAME["batch"], {"calls": listed}, key))
    seen: list[int] = []

    def have_a_turn() -> None:
        seen.append(len(calls.names))
        if not answer.called:
            clock.callLater(0, have_a_turn)

    have_a_turn()
    clock.advance(0)
    assert seen == [1, 2, 3]
    assert calls.names == ["a", "b", "c"]


def test_a_batch_that_nobody_waits_for_makes_no_more_calls() -> None:
    clock, calls = Clock(), Recording()
    key = AdminKey("k", digest_of(b"secret"), frozenset({"*"}))
    listed = [{"method": "connections", "params": {"user": name}} for name in ("a", "b", "c")]
    answering = Answering(calls, clock)
    answer = Deferred.fromCoroutine(
        answering.answer(BY_NAME["batch"], {"calls": listed}, key, "once", lambda: len(calls.names) < 2)
    )
    failures: list[Any] = []
    answer.addErrback(failures.append)
    clock.advance(0)
    clock.advance(0)
    assert (failures[0].value.status, failures[0].value.detail) == (
        504,
        "nobody waits any more: of 3 calls, 2 were made",
    )
    assert calls.names == ["a", "b"]


def test_histories_of_the_admin_side_wait_for_their_turn() -> None:
    server = Server(history=["room"])
    server.engine.publish(["room"], "say", [], "hello")
    server.clock.advance(0)
    calls = Calls(Managed(server.assembly, "1", 0.0, lambda: 0), server.clock)
    key = AdminKey("k", digest_of(b"secret"), frozenset({"*"}))
    turns = server.assembly.histories.archive.turns
    turns.spend(1_000_000, 0)
    answer = Deferred.fromCoroutine(calls.call("history", {"channel": "room"}, key))
    assert not answer.called
    server.clock.advance(0)
    assert answer.called
    found: list[Any] = []
    answer.addCallback(found.append)
    assert [told["body"] for told in found[0]["messages"]] == ["hello"]
    assert found[0]["messages"][0]["headers"] == [("offset", "1"), ("after", "0"), ("publish", "room")]
