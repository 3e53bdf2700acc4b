"""When a cluster's publications are confirmed: by the link that carries them in the end, or not at all."""

from __future__ import annotations

from typing import Any

import pytest
from fake_nats import A, B, FakeLink, FakeNATS
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from lhttp_tx.errors import BusUnavailable

UNKNOWN = "the bus has not confirmed the publication: it is not known whether it arrived"


def published(nats: FakeNATS, payload: bytes = b"1") -> list[Any]:
    """Publish, and return a list in which will be whether it is confirmed: ``None``, or why not."""
    nats.bus.publish("room", payload, False)
    return confirmed(nats)


def confirmed(nats: FakeNATS) -> list[Any]:
    found: list[Any] = []
    result: Deferred[None] | None = nats.bus.confirm()

    def told(outcome: Any) -> None:
        found.append(outcome.value.reason if isinstance(outcome, Failure) else outcome)

    if result is None:
        found.append(None)
    else:
        result.addBoth(told)
    return found


def moving() -> tuple[FakeNATS, FakeLink, FakeLink]:
    """Return a node that holds publications back, because it moves from a first to a second link."""
    nats = FakeNATS(A, B)
    old = nats.start()
    new = nats.accept()
    nats.subscribe()
    old.owner.link_leaving(old)
    nats.clock.advance(0.2)
    nats.clock.advance(0.2)
    return nats, old, new


def test_a_publication_is_confirmed_when_nats_has_it() -> None:
    nats = FakeNATS()
    link = nats.start()
    found = published(nats)
    assert found == []
    link.take()
    assert found == [None]


def test_a_publication_that_nats_was_lost_with_is_not_confirmed() -> None:
    nats = FakeNATS()
    link = nats.start()
    found = [published(nats), published(nats)]
    link.lose()
    assert found == [[UNKNOWN], [UNKNOWN]]


def test_nothing_is_confirmed_while_nats_is_away() -> None:
    nats = FakeNATS()
    nats.start().lose()
    assert confirmed(nats) == [UNKNOWN]


def test_nothing_is_confirmed_by_a_link_that_takes_nothing_yet() -> None:
    nats = FakeNATS()
    nats.start().lose()
    nats.clock.advance(0)
    link = nats.accept()
    assert (confirmed(nats), link.confirmations) == ([UNKNOWN], [])


def test_a_link_that_is_not_open_yet_confirms_nothing_that_another_was_lost_with() -> None:
    nats = FakeNATS(A, B)
    link = nats.start()
    standby = nats.accept()
    found = published(nats)
    link.lose()
    standby.take()
    assert found == [UNKNOWN]


def test_a_bus_that_stops_confirms_what_it_still_sends() -> None:
    nats = FakeNATS()
    nats.start()
    found = published(nats)
    nats.bus.stop()
    assert (found, confirmed(nats)) == ([None], [UNKNOWN])


def test_a_bus_that_stops_while_the_node_moves_sends_what_is_held_back() -> None:
    nats, old, _ = moving()
    found = published(nats)
    nats.bus.stop()
    assert (old.published, found) == ([("lhttp.room", b"1", False)], [None])


# While the node moves


def test_what_was_sent_by_the_old_way_is_confirmed_by_it() -> None:
    nats = FakeNATS(A, B)
    old = nats.start()
    new = nats.accept()
    nats.subscribe()
    old.owner.link_leaving(old)
    found = published(nats)
    new.take()
    assert found == []
    old.take()
    assert found == [None]


def test_what_is_held_back_is_confirmed_by_the_new_way() -> None:
    nats, old, new = moving()
    found = published(nats)
    old.take()
    new.take()
    assert found == []
    nats.clock.advance(0.02)
    assert found == []
    new.take()
    assert (new.published, found) == ([("lhttp.room", b"1", False)], [None])


def test_what_is_held_back_when_the_new_server_dies_is_confirmed_by_the_old_way() -> None:
    nats, old, new = moving()
    found = published(nats)
    new.lose()
    assert found == []
    old.take()
    assert found == [None]


def test_what_is_held_back_when_the_old_server_dies_is_not_confirmed() -> None:
    nats, old, new = moving()
    found = published(nats)
    old.lose()
    new.take()
    assert found == [UNKNOWN]


def test_what_the_new_server_does_not_take_is_not_confirmed() -> None:
    nats, _old, new = moving()
    found = [published(nats), published(nats)]
    new.usable = False
    nats.clock.advance(0.02)
    assert (found, new.published) == ([[UNKNOWN], [UNKNOWN]], [])


def test_where_the_new_server_does_not_take_all_nothing_is_confirmed(monkeypatch: pytest.MonkeyPatch) -> None:
    nats, _old, new = moving()
    found = [published(nats, b"1"), published(nats, b"2")]
    take = new.publish

    def take_some(subject: str, payload: bytes, binary: bool) -> None:
        if payload == b"1":
            raise BusUnavailable("the bus is congested, try again later")
        take(subject, payload, binary)

    monkeypatch.setattr(new, "publish", take_some)
    nats.clock.advance(0.02)
    new.take()
    assert (found, new.published) == ([[UNKNOWN], [UNKNOWN]], [("lhttp.room", b"2", False)])


def test_nobody_waits_for_ever_for_a_move_that_comes_to_nothing() -> None:
    nats, old, new = moving()
    found = confirmed(nats)
    new.lose()
    old.take()
    assert found == [None]


def test_nobody_waits_for_ever_for_a_move_that_holds_nothing_back() -> None:
    nats, _old, new = moving()
    found = confirmed(nats)
    nats.clock.advance(0.02)
    new.take()
    assert found == [None]


def test_those_who_wait_for_a_move_are_bounded() -> None:
    nats, _old, new = moving()
    found = [confirmed(nats) for _ in range(50_001)]
    assert found[-2:] == [[], [UNKNOWN]]
    nats.clock.advance(0.02)
    new.take()
    assert found[0] == found[-2] == [None]


# Where publications stay on their node while NATS is away


def test_where_a_node_may_be_alone_its_publications_wait_for_nats_all_the_same() -> None:
    nats = FakeNATS(local_delivery=True)
    link = nats.start()
    found = published(nats)
    assert found == []
    link.take()
    assert found == [None]


def test_where_a_node_may_be_alone_it_is_enough_that_it_has_the_publication() -> None:
    nats = FakeNATS(local_delivery=True)
    link = nats.start()
    found = [published(nats)]
    link.lose()
    found.append(published(nats))
    assert found == [[None], [None]]
