"""The nodes of a cluster: who is there, who is dead, and who answers."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock

from lhttp_tx.bus.memory import MemoryBus
from lhttp_tx.cluster import questions
from lhttp_tx.cluster.nodes import DEAD_AFTER, HELLO_INTERVAL, Nodes
from lhttp_tx.errors import BusUnavailable


class Bus(MemoryBus):
    """A bus that may be away."""

    away = False
    sent = 0

    @property
    def available(self) -> bool:
        return not self.away

    def publish(self, channel: str, payload: bytes, binary: bool) -> None:
        if self.away:
            raise BusUnavailable("away")
        self.sent += 1
        super().publish(channel, payload, binary)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def bus() -> Bus:
    return Bus()


def node(bus: Bus, clock: Clock) -> Nodes:
    made = Nodes(bus, clock)
    made.start()
    return made


def crash(nodes: Nodes, bus: Bus) -> None:
    """Let *nodes* fall silent, as a killed process does."""
    assert nodes._timer is not None
    nodes._timer.cancel()
    for channel in ("$nodes", f"$node.{nodes.name}"):
        bus.unsubscribe(channel, nodes._receive)


def test_nodes_find_each_other(bus: Bus, clock: Clock) -> None:
    one, two, three = (node(bus, clock) for _ in range(3))
    assert one.others == {two.name, three.name}
    assert two.others == {one.name, three.name}
    assert three.others == {one.name, two.name}


def test_a_node_that_joins_is_told_of_once(bus: Bus, clock: Clock) -> None:
    joined: list[str] = []
    one = node(bus, clock)
    one.on_join.append(joined.append)
    two = node(bus, clock)
    clock.pump([HELLO_INTERVAL] * 5)
    assert joined == [two.name]


def test_a_node_that_stops_has_left_at_once(bus: Bus, clock: Clock) -> None:
    left: list[str] = []
    one, two = node(bus, clock), node(bus, clock)
    one.on_leave.append(left.append)
    two.stop()
    assert left == [two.name]
    assert one.others == frozenset()


def test_a_node_that_is_silent_is_dead_after_a_while(bus: Bus, clock: Clock) -> None:
    left: list[str] = []
    one, two = node(bus, clock), node(bus, clock)
    one.on_leave.append(left.append)
    crash(two, bus)
    clock.pump([0.5] * int(2 * DEAD_AFTER))
    assert left == []
    clock.pump([0.5] * int(2 * HELLO_INTERVAL + 2))
    assert left == [two.name]


def test_nobody_is_dead_while_the_bus_is_away(bus: Bus, clock: Clock) -> None:
    one, two = node(bus, clock), node(bus, clock)
    bus.away = True
    clock.pump([1.0] * 60)
    assert one.others == {two.name}
    bus.away = False
    clock.pump([1.0] * 60)
    assert one.others == {two.name}


def test_a_bus_that_comes_later_is_found(bus: Bus, clock: Clock) -> None:
    bus.away = True
    one, two = node(bus, clock), node(bus, clock)
    assert one.others == frozenset()
    bus.away = False
    clock.pump([HELLO_INTERVAL] * 2)
    assert one.others == {two.name}


def test_what_is_told_to_all_reaches_every_other_node(bus: Bus, clock: Clock) -> None:
    got: list[Any] = []
    nodes = [node(bus, clock) for _ in range(3)]
    for found in nodes:
        found.handle("news", lambda sender, data, name=found.name: got.append((name, sender, data)))
    assert nodes[0].tell_all("news", {"a": [1]})
    assert sorted(got) == sorted((found.name, nodes[0].name, {"a": [1]}) for found in nodes[1:])


def test_what_is_told_to_one_reaches_it_alone(bus: Bus, clock: Clock) -> None:
    got: list[Any] = []
    nodes = [node(bus, clock) for _ in range(3)]
    for found in nodes:
        found.handle("news", lambda sender, data, name=found.name: got.append(name))
    nodes[0].tell(nodes[2].name, "news", None)
    assert got == [nodes[2].name]


def test_a_question_is_answered_by_every_other_node(bus: Bus, clock: Clock) -> None:
    nodes = [node(bus, clock) for _ in range(3)]
    for number, found in enumerate(nodes):
        found.handle("number", lambda sender, data, number=number: number + data)
    answers: list[Any] = []
    nodes[0].ask_all("number", 10).addCallback(answers.append)
    assert answers == [{nodes[1].name: 11, nodes[2].name: 12}]
    assert len(clock.getDelayedCalls()) == 3  # the beats


def test_a_node_that_does_not_answer_is_not_waited_for(bus: Bus, clock: Clock) -> None:
    one, two, three = (node(bus, clock) for _ in range(3))
    two.handle("number", lambda sender, data: 2)
    crash(three, bus)
    answers: list[Any] = []
    one.ask_all("number", None, timeout=2.0).addCallback(answers.append)
    assert answers == []
    clock.advance(2.0)
    assert answers == [{two.name: 2}]


def test_a_question_ends_with_the_node_that_was_asked(bus: Bus, clock: Clock) -> None:
    one, two = node(bus, clock), node(bus, clock)
    answers: list[Any] = []
    bus.unsubscribe("$nodes", two._receive)
    one.ask_all("number", None, timeout=60.0).addCallback(answers.append)
    two.stop()
    assert answers == [{}]


def test_a_node_that_is_alone_has_its_answer_at_once(bus: Bus, clock: Clock) -> None:
    answers: list[Any] = []
    node(bus, clock).ask_all("number", None).addCallback(answers.append)
    assert answers == [{}]


def test_a_question_while_the_bus_is_away_has_no_answers(bus: Bus, clock: Clock) -> None:
    one = node(bus, clock)
    node(bus, clock)
    bus.away = True
    answers: list[Any] = []
    one.ask_all("number", None).addCallback(answers.append)
    assert answers == [{}]


def test_a_handler_that_fails_is_logged_and_answers_nothing(bus: Bus, clock: Clock, failures: list[Any]) -> None:
    one, two = node(bus, clock), node(bus, clock)
    two.handle("number", lambda sender, data: 1 / 0)
    answers: list[Any] = []
    one.ask_all("number", None).addCallback(answers.append)
    assert answers == [{two.name: None}]
    assert [type(failure) for failure in failures] == [ZeroDivisionError]


@pytest.mark.parametrize("payload", [b"", b"\xff", b"[]", b"{}", b'{"from": 1}', b"7"])
def test_what_cannot_be_read_is_ignored(bus: Bus, clock: Clock, payload: bytes) -> None:
    one = node(bus, clock)
    bus.publish("$nodes", payload, False)
    assert one.others == frozenset()


def test_a_node_that_has_stopped_hears_nothing(bus: Bus, clock: Clock) -> None:
    one = node(bus, clock)
    one.stop()
    node(bus, clock)
    assert one.others == frozenset()
    assert bus.channels == {"$nodes"} | {channel for channel in bus.channels if channel.startswith("$node.")}


def test_an_answer_may_come_later(bus: Bus, clock: Clock) -> None:
    one, two = node(bus, clock), node(bus, clock)
    waiting: Deferred[int] = Deferred()
    two.handle("number", lambda sender, data: waiting)
    answers: list[Any] = []
    one.ask_all("number", None).addCallback(answers.append)
    assert answers == []
    waiting.callback(7)
    assert answers == [{two.name: 7}]


def test_an_answer_that_fails_later_is_logged_and_answers_nothing(bus: Bus, clock: Clock, failures: list[Any]) -> None:
    one, two = node(bus, clock), node(bus, clock)
    two.handle("number", lambda sender, data: fail(KeyError("x")))
    answers: list[Any] = []
    one.ask_all("number", None).addCallback(answers.append)
    assert answers == [{two.name: None}]
    assert [type(found) for found in failures] == [KeyError]


def test_signs_of_life_carry_what_was_asked_for(bus: Bus, clock: Clock) -> None:
    one, two = Nodes(bus, clock), Nodes(bus, clock)
    heard: list[Any] = []
    one.greet("weather", lambda: "sun", lambda name, said: None)
    one.greet("time", lambda: 12, lambda name, said: None)
    two.greet("weather", lambda: "rain", lambda name, said: heard.append((name, said)))
    two.start()
    one.start()
    assert set(heard) == {(one.name, "sun")}
    assert (one.running, two.running) == (True, True)
    one.stop()
    assert not one.running


@pytest.mark.parametrize(
    "payload",
    [
        b"[" * 200_000,
        b"9" * 5_000,
        b'{"from":"x","kind":"k","answer":1,"to":[]}',
        b'{"from":"x","kind":"k","answer":1,"to":1e999}',
        b'{"from":"x","kind":"hello","data":7}',
    ],
    ids=["nested", "digits", "to nobody", "to infinity", "no greeting"],
)
def test_what_is_no_message_of_a_node_does_no_harm(
    bus: Bus, clock: Clock, payload: bytes, failures: list[BaseException]
) -> None:
    one = node(bus, clock)
    bus.publish("$nodes", payload, False)
    failures.clear()
    assert node(bus, clock).name in one.others


def test_a_bus_that_breaks_its_contract_is_asked_again(bus: Bus, clock: Clock, failures: list[Any]) -> None:
    subscribe = bus.subscribe

    def boom(channel: str, receiver: Any) -> None:
        raise ZeroDivisionError("boom")

    bus.subscribe = boom  # type: ignore[method-assign]
    one, two = node(bus, clock), node(bus, clock)
    assert {str(failure) for failure in failures} == {"boom"}
    bus.subscribe = subscribe  # type: ignore[method-assign]
    clock.pump([HELLO_INTERVAL, 0.0])
    assert (one.others, two.others) == ({two.name}, {one.name})


def test_one_node_is_asked_and_no_other(bus: Bus, clock: Clock) -> None:
    one, two, three = (node(bus, clock) for _ in range(3))
    for asked in (two, three):
        asked.handle("double", lambda sender, data: data * 2)
    told = one.ask(two.name, "double", 21, 2.0)
    assert told.called
    assert told.result == 42


def test_one_node_that_does_not_answer_is_not_waited_for(bus: Bus, clock: Clock) -> None:
    one, two = node(bus, clock), node(bus, clock)
    two.handle("never", lambda sender, data: Deferred())
    told = one.ask(two.name, "never", None, 2.0)
    clock.advance(1.9)
    assert not told.called
    clock.advance(0.2)
    assert told.called
    assert told.result is None


def test_a_node_that_is_not_there_is_not_asked(bus: Bus, clock: Clock) -> None:
    one = node(bus, clock)
    two = node(bus, clock)
    for name in ("nobody", one.name):
        told = one.ask(name, "double", 21, 2.0)
        assert told.called
        assert told.result is None
    bus.away = True
    assert one.ask(two.name, "double", 21, 2.0).called


def test_many_questions_to_one_node_leave_room_for_those_to_all(
    bus: Bus, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions, "_MAX_ASKED", 500)  # a Clock sorts all calls at each one
    one, two = node(bus, clock), node(bus, clock)
    two.handle("never", lambda sender, data: Deferred())
    two.handle("double", lambda sender, data: data * 2)
    waiting = [one.ask(two.name, "never", None, 2.0) for _ in range(501)]
    assert [told.called for told in waiting] == [False] * 500 + [True]
    all_told = one.ask_all("double", 21)
    assert all_told.result == {two.name: 42}
    clock.advance(2)
    assert all(told.called for told in waiting)
    assert one.ask(two.name, "double", 1, 2.0).result == 2
