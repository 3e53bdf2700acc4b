"""What nodes send each other about who is where: it grows with what changes, not with how many there are."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from benchmarks.rosters import MAX_PAYLOAD, MAX_WAITING, Cluster, Traffic
from lhttp_tx.cluster import telling
from lhttp_tx.cluster.telling import TURN_SIZE, Backlog, Journal

FEW, MANY = 200, 3_000


def changed(users: int, work: str) -> Traffic:
    cluster = Cluster(users)

    def change() -> None:
        cluster.exit()
        cluster.enter()

    if work == "churn":
        traffic = cluster.measured(5.0, change)
    elif work == "outage":
        traffic = cluster.outage(30.0, change)
    else:
        traffic = cluster.measured(60.0)
    assert cluster.agrees
    return traffic


@pytest.mark.parametrize("work", ["rest", "churn", "outage"])
def test_a_change_takes_as_many_bytes_whatever_the_number_of_users(work: str) -> None:
    few, many = changed(FEW, work), changed(MANY, work)
    assert many.sent == pytest.approx(few.sent, rel=0.05)
    assert many.messages == pytest.approx(few.messages, rel=0.05)


def test_no_message_and_no_turn_is_too_large_for_nats(monkeypatch: pytest.MonkeyPatch) -> None:
    """The least bounds, so that few users are many."""
    monkeypatch.setattr(telling, "TURN_SIZE", 40_000)
    cluster = Cluster(MANY, nodes=4)
    for traffic in (cluster.restart(), cluster.move_all()):
        assert cluster.agrees
        assert (traffic.refused, traffic.largest < MAX_PAYLOAD, traffic.burst < MAX_WAITING) == (0, True, True)


def test_what_a_node_has_missed_for_too_long_is_told_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "JOURNAL_SIZE", 2_000)
    cluster = Cluster(FEW)

    def change() -> None:
        for _ in range(100):
            cluster.exit()
            cluster.enter()

    cluster.outage(30.0, change)
    assert cluster.agrees


def batch(number: int) -> dict[str, Any]:
    return {"number": number, "changes": [["exit", str(number)]]}


def numbers(journal: Journal, number: object, last: int) -> list[int] | None:
    found = journal.after(number, last)
    return None if found is None else [told["number"] for told, _ in found]


def test_a_journal_knows_what_came_behind_a_number() -> None:
    journal = Journal()
    for number in range(5, 9):
        journal.add(batch(number), 10)
    assert numbers(journal, 4, 8) == [5, 6, 7, 8]
    assert numbers(journal, 7, 8) == [8]
    assert numbers(journal, 8, 8) == []
    for unknown in (3, 0, -1, 9, None, "7", 7.5):
        assert numbers(journal, unknown, 8) is None
    journal.clear()
    assert numbers(journal, 7, 8) is None
    assert numbers(journal, 8, 8) == []


def test_a_journal_forgets_the_oldest() -> None:
    journal = Journal()
    for number in range(1, 11):
        journal.add(batch(number), telling.JOURNAL_SIZE // 4)
    assert numbers(journal, 6, 10) == [7, 8, 9, 10]
    assert numbers(journal, 5, 10) is None


class Told:
    def __init__(self) -> None:
        self.clock = Clock()
        self.got: list[tuple[str, str, Any]] = []
        self.refuses = False
        self.backlog = Backlog(self.clock, self._tell)

    def _tell(self, name: str, kind: str, data: Any) -> bool:
        if not self.refuses:
            self.got.append((name, kind, data))
        return not self.refuses


LARGE = TURN_SIZE // 2


def test_a_backlog_sends_a_bounded_amount_in_a_turn_and_all_of_it_in_order() -> None:
    told = Told()
    told.backlog.add("a", "all", [(number, LARGE) for number in range(3)])
    told.backlog.add("b", "all", [(number, LARGE) for number in range(2)])
    counts = []
    for _ in range(4):
        counts.append(len(told.got))
        told.clock.advance(0.05)
    assert counts == [2, 4, 5, 5]
    assert told.got == [("a", "all", 0), ("a", "all", 1), ("a", "all", 2), ("b", "all", 0), ("b", "all", 1)]
    assert told.clock.getDelayedCalls() == []


def test_who_asks_again_gets_nothing_of_what_was_begun() -> None:
    told = Told()
    told.backlog.add("a", "all", [("old", LARGE)] * 4)
    told.backlog.add("a", "all", [("new", LARGE)])
    told.clock.advance(0.05)
    assert [data for _, _, data in told.got] == ["old", "old", "new"]


def test_a_backlog_stops_where_the_bus_refuses_or_the_node_has_left() -> None:
    told = Told()
    told.backlog.add("a", "all", [(0, LARGE)] * 4)
    told.backlog.add("b", "all", [(0, LARGE)] * 4)
    told.backlog.left("b")
    told.refuses = True
    told.clock.advance(0.05)
    told.refuses = False
    told.clock.advance(1.0)
    assert len(told.got) == 2
    told.backlog.add("a", "all", [(0, LARGE)] * 4)
    told.backlog.stop()
    assert told.clock.getDelayedCalls() == []
