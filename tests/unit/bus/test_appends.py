"""What a stream answers to what was appended, in runs as one by one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, strategies as st
from twisted.internet.task import Clock

pytest.importorskip("nats")

from lhttp_tx.bus.nats.jetstream.appends import Appends
from lhttp_tx.bus.nats.jetstream.tips import Tips
from lhttp_tx.errors import HistoryUnavailable
from lhttp_tx.history.values import Placing


def stored(number: int) -> bytes:
    return b'{"stream":"S","seq":%d}' % number


REFUSED = b'{"type":"x","error":{"code":500,"description":"no room"},"stream":"S","seq":0}'
DUPLICATE = b'{"stream":"S","seq":2,"duplicate":true}'
IN_PROCESS = b'{"error":{"code":409,"err_code":10158,"description":"in process"},"stream":"S","seq":0}'
NOBODY = b"NATS/1.0 503\r\n\r\n"


class FakeLink:
    """A link that is known by itself."""


class Ends:
    """Appends, and the stream and the link that they are for."""

    def __init__(self) -> None:
        self.waiting: dict[str, Any] = {}
        self.sent: list[bytes] = []
        self.kicks = 0
        self.told: list[str] = []
        self.stream: Any = SimpleNamespace(
            name="S", tip=4, ready=True, trouble="", epoch="e", kick=self._kick, refused=None
        )
        self.stream.subject_of = lambda channel: f"s.{channel}"
        link: Any = FakeLink()
        self.link = link
        link.inbox = SimpleNamespace(expect=self._expect, send=self.sent.append, forget=lambda name: None)
        self.tips = Tips()
        self.clock = Clock()
        self.appends = Appends(self.stream, lambda: link, self.tips, clock=self.clock, timeout=5.0)

    def _kick(self) -> None:
        self.kicks += 1

    def _expect(self, who: Any) -> str:
        self.waiting[f"i.{len(self.waiting)}"] = who
        return f"i.{len(self.waiting) - 1}"

    def add(self, count: int, *, placing: Placing | None = None) -> Any:
        """Append so many publications, and return who waits for their answers."""
        self.appends.add("room", [b"x" * (number + 1) for number in range(count)], False, placing, None)
        waiter = self.appends.confirm()
        if waiter is not None:
            waiter.addCallbacks(
                lambda _: self.told.append("stored"), lambda failure: self.told.append(str(failure.value))
            )
        return list(self.waiting.values())[-1]

    @property
    def state(self) -> Any:
        appends = self.appends
        counts = appends._count, appends._size, appends._under_way, appends._under_way_size
        return counts, self.stream.tip, self.tips.find(self.stream, "room"), self.kicks, self.told, self.sent


ANSWERS = st.lists(
    st.integers(1, 40).map(stored) | st.sampled_from([stored(7), stored(8), REFUSED, DUPLICATE, NOBODY, b"nonsense"]),
    min_size=1,
    max_size=12,
)


@given(ANSWERS, st.integers(0, 2), st.lists(st.integers(0, 12), max_size=4))
def test_answers_that_come_together_say_what_they_say_one_by_one(
    answers: list[bytes], missing: int, cuts: list[int]
) -> None:
    one_by_one, in_runs = Ends(), Ends()
    count = len(answers) + missing
    both = [(ends, ends.add(count)) for ends in (one_by_one, in_runs)]
    for ends, _ in both:
        ends.add(1)
    (_, single), (_, several) = both
    last = [
        single.answer([b""] if each == NOBODY else [each], [NOBODY] if each == NOBODY else None) for each in answers
    ]
    ends = sorted({min(cut, len(answers)) for cut in cuts} | {len(answers)})
    found = False
    for begin, end in zip([0, *ends], ends, strict=False):
        while begin < end:  # those with headers come apart from those without
            headed = answers[begin] == NOBODY
            stop = next((n for n in range(begin, end) if (answers[n] == NOBODY) is not headed), end)
            run = answers[begin:stop]
            found = several.answer([b""] * len(run) if headed else run, run if headed else None)
            begin = stop
    assert found == last[-1] == (not missing)
    assert in_runs.state == one_by_one.state


def test_answers_to_all_of_a_run_tell_those_who_wait() -> None:
    ends = Ends()
    run = ends.add(3)
    assert not run.answer([stored(5), stored(6)], None)
    assert ends.told == []
    assert run.answer([stored(9)], None)
    assert ends.told == ["stored"] and ends.appends.empty
    assert (ends.stream.tip, ends.tips.find(ends.stream, "room")) == (9, 9)


def test_an_offset_that_was_in_use_before_is_not_believed() -> None:
    ends = Ends()
    run = ends.add(2)
    assert run.answer([stored(5), stored(4)], None)
    assert len(ends.told) == 1 and "not known" in ends.told[0]
    assert ends.tips.find(ends.stream, "room") == 5


def test_a_run_whose_caller_wants_to_know_is_told_where_it_is() -> None:
    ends, placing = Ends(), Placing("room")
    assert ends.add(1, placing=placing).answer([stored(7)], None)
    assert (placing.position, placing.duplicate) == ("e-7", False)
    refused = Placing("room")
    assert ends.add(1, placing=refused).answer([REFUSED], None)
    assert isinstance(refused.failure, HistoryUnavailable)
    assert refused.failure.reason == "JetStream: no room"


def test_answers_that_come_when_everything_was_given_up_are_ignored() -> None:
    ends = Ends()
    run = ends.add(2)
    ends.appends.close()
    before = ends.state
    assert run.answer([stored(5), stored(6)], None)
    assert ends.state == before


def test_those_who_wait_are_told_when_all_that_they_wait_for_is_decided() -> None:
    ends, placing = Ends(), Placing("room")
    plain = ends.add(1)
    asked = ends.add(1, placing=placing)
    assert plain.answer([REFUSED], None)
    assert ends.told == ["JetStream: no room"]  # of the first; the second one is not decided yet
    assert asked.answer([stored(5)], None)
    assert ends.told == ["JetStream: no room"] * 2
    assert (placing.position, placing.failure) == ("e-5", None)


def test_a_failure_is_of_no_concern_to_those_who_ask_when_it_is_over() -> None:
    ends = Ends()
    first, second = ends.add(1), ends.add(2)
    assert first.answer([REFUSED], None)
    assert not second.answer([REFUSED], None)
    third = ends.add(1)
    assert second.answer([stored(5)], None)
    assert third.answer([stored(6)], None)
    assert ends.told == ["JetStream: no room"] * 3
    assert ends.add(1).answer([stored(7)], None)
    assert ends.told[3:] == ["stored"]


def test_a_duplicate_of_what_is_not_decided_is_sent_again() -> None:
    ends, placing = Ends(), Placing("room", "id")
    run = ends.add(1, placing=placing)
    sent = ends.sent[-1]
    assert not run.answer([IN_PROCESS], None)
    ends.clock.advance(0.1)
    assert ends.sent[1:] == [sent] and ends.told == []
    assert run.answer([DUPLICATE], None)
    assert (placing.position, placing.duplicate, ends.told) == ("e-2", True, ["stored"])
    assert ends.state[0] == (0, 0, 0, 0)


def test_a_duplicate_of_what_is_never_decided_is_given_up() -> None:
    ends, placing = Ends(), Placing("room", "id")
    run = ends.add(1, placing=placing)
    while not run.answer([IN_PROCESS], None):
        ends.clock.advance(0.05)
    assert ends.clock.seconds() < 4 and len(ends.sent) > 10
    assert placing.failure is not None and "not known" in placing.failure.reason
    assert ends.state[0] == (0, 0, 0, 0)


def test_a_duplicate_that_waits_ends_with_the_store() -> None:
    ends, placing = Ends(), Placing("room", "id")
    run = ends.add(1, placing=placing)
    run.answer([IN_PROCESS], None)
    ends.appends.close()
    assert placing.failure is not None
    assert ends.state[0] == (0, 0, 0, 0) and ends.clock.getDelayedCalls() == []
    assert len(ends.sent) == 1


def test_who_publishes_what_nats_forbids_is_told_at_once() -> None:
    ends, allowed, forbidden = Ends(), Placing("room"), Placing("shut")
    run = ends.add(1, placing=allowed)
    ends.appends.add("shut", [b"1"], False, forbidden, None)
    ends.appends.add("shut", [b"2", b"3"], False, None, None)  # nobody asks
    for _ in range(4):  # once for each, and once more
        ends.appends.denied(ends.link, "shut")
    assert forbidden.failure is not None and forbidden.failure.reason == "the bus does not allow this channel"
    assert run.answer([stored(5)], None)
    assert (allowed.position, ends.told, ends.appends.empty) == ("e-5", ["stored"], True)
    assert ends.state[0] == (0, 0, 0, 0) and ends.kicks == 0
    with pytest.raises(HistoryUnavailable, match="does not allow"):
        ends.appends.add("shut", [b"4"], False, None, None)
    ends.clock.advance(31)
    ends.appends.add("shut", [b"5"], False, None, None)  # an operator may have allowed it
    assert not ends.appends.empty


def test_the_oldest_publication_that_was_sent_is_the_one_that_nats_forbids() -> None:
    ends, other = Ends(), FakeLink()
    first = ends.add(2)
    ends.appends.denied(other, "room")  # nothing went over this link
    assert not ends.appends.empty
    assert not first.answer([stored(5)], None)
    ends.appends.denied(ends.link, "room")
    assert ends.appends.empty and ends.told == ["the bus does not allow this channel"]
    assert ends.tips.find(ends.stream, "room") == 5


def test_the_offset_of_a_duplicate_is_not_believed_while_the_epoch_is_in_doubt() -> None:
    ends = Ends()

    def duplicate() -> Placing:
        placing = Placing("room", "id")
        assert ends.add(1, placing=placing).answer([DUPLICATE], None)
        return placing

    assert duplicate().position == "e-2"
    assert ends.add(1).answer([stored(1)], None)  # the stream has begun again
    doubted = duplicate()
    assert doubted.position is None and doubted.failure is not None and "not known" in doubted.failure.reason
    ends.stream.epoch = "f"
    assert duplicate().position == "f-2"
    ends.stream.epoch = "e"
    ends.clock.advance(31)
    assert duplicate().position == "e-2"


def test_a_stream_has_refused_until_it_takes_a_publication() -> None:
    ends = Ends()
    run = ends.add(3)
    ends.clock.advance(3.0)
    run.answer([REFUSED], None)
    assert ends.stream.refused == 3.0
    run.answer([stored(5)], None)
    assert ends.stream.refused is None
    run.unanswered()  # which does not tell that it was refused
    assert ends.stream.refused is None


def test_a_stream_that_is_away_for_a_moment_has_refused_nothing() -> None:
    ends = Ends()
    ends.add(1).answer([b""], [NOBODY])
    assert ends.kicks == 1  # the stream finds out whether it is there
    assert ends.stream.refused is None
