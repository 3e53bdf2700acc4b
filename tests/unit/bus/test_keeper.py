"""The upkeep of the way to NATS: waits, settling, pings, complaints, a second connection, and moving."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fake_nats import A, B, FakeLink, FakeNATS
from twisted.logger import formatEvent, globalLogPublisher

from lhttp_tx.bus.nats.servers import NATSServers
from lhttp_tx.errors import BusUnavailable

SETTLED = 0.31
"""Seconds in which a node that was away for a moment is open again."""


@pytest.fixture
def log() -> Iterator[list[str]]:
    """The lines that are logged while the test runs."""
    lines: list[str] = []

    def observe(event: dict[str, Any]) -> None:
        lines.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


def waits(nats: FakeNATS, count: int) -> list[float]:
    """Refuse *count* attempts, and return how long each next one was waited for."""
    found = []
    for _ in range(count):
        before = nats.clock.seconds()
        nats.refuse()
        (call,) = nats.clock.getDelayedCalls()
        nats.clock.advance(call.getTime() - before)
        found.append(round(nats.clock.seconds() - before, 2))
    return found


def started(*urls: str, **settings: Any) -> FakeNATS:
    nats = FakeNATS(*urls, **settings)
    nats.bus.start()
    nats.clock.advance(0)
    return nats


# Connecting


def test_it_connects_when_the_reactor_runs_and_not_before() -> None:
    nats = FakeNATS()
    nats.bus.start()
    assert nats.attempts == []
    nats.clock.advance(0)
    assert nats.attempts == [A]


def test_a_nats_that_is_there_is_used_at_once() -> None:
    nats = FakeNATS()
    nats.start()
    assert nats.bus.available


def test_it_tries_often_at_first_and_then_twice_a_second() -> None:
    nats = started()
    assert waits(nats, 110) == [0.1] * 50 + [0.2] * 50 + [0.5] * 10


def test_it_tries_all_servers_in_turn() -> None:
    nats = started(A, B)
    waits(nats, 3)
    assert nats.attempts in ([A, B, A, B], [B, A, B, A])


def test_one_attempt_is_under_way_at_a_time() -> None:
    nats = started()
    nats.clock.advance(10.0)
    assert len(nats.attempts) == 1


def test_after_an_absence_it_waits_until_the_others_have_subscribed() -> None:
    nats = started()
    waits(nats, 1)
    nats.accept()
    nats.clock.advance(0.29)
    assert not nats.bus.available
    nats.clock.advance(0.02)
    assert nats.bus.available


def test_after_a_long_absence_it_waits_longer_because_the_others_try_seldom() -> None:
    nats = started()
    waits(nats, 160)
    nats.accept()
    nats.clock.advance(1.4)
    assert not nats.bus.available
    nats.clock.advance(0.2)
    assert nats.bus.available


def test_it_opens_when_its_subscriptions_are_restored() -> None:
    nats = started()
    nats.bus.subscribe("a", print)
    nats.bus.subscribe("b", print)
    nats.answers = False
    link = nats.accept()
    link.grant("lhttp.a")
    nats.clock.advance(1.0)
    assert not nats.bus.available
    link.grant("lhttp.b")
    nats.clock.advance(0)
    assert nats.bus.available


def test_a_subscription_that_nats_refuses_does_not_keep_it_closed() -> None:
    nats = started()
    refused: list[Any] = []
    waiting = nats.bus.subscribe("a", print)
    assert waiting is not None
    waiting.addErrback(refused.append)
    nats.answers = False
    nats.accept().deny("lhttp.a")
    nats.clock.advance(0)
    assert nats.bus.available and refused


# Complaining


def test_it_complains_of_an_absence_once_a_minute(log: list[str]) -> None:
    nats = started()
    while nats.clock.seconds() < 130:
        waits(nats, 1)
    assert log == [f"cannot reach NATS, retrying: {A}: refused"] * 3


def test_it_says_what_is_lost_and_when_it_is_back(log: list[str]) -> None:
    nats = FakeNATS()
    nats.start().lose("unexpected EOF")
    nats.clock.advance(0)
    waits(nats, 2)
    nats.accept()
    nats.clock.advance(1.0)
    assert log == [
        f"connected to NATS at {A}",
        "lost NATS, publications are refused until it is back: unexpected EOF",
        f"cannot reach NATS, retrying: {A}: refused",
        f"connected to NATS at {A}",
    ]


def test_it_says_that_publications_stay_on_the_node(log: list[str]) -> None:
    nats = FakeNATS(local_delivery=True)
    nats.start().lose()
    assert "publications are delivered on this node alone until it is back" in log[-1]


# Losing


def test_a_lost_link_is_replaced_at_once_and_subscribed_again() -> None:
    nats = FakeNATS()
    link = nats.start()
    nats.subscribe("a")
    nats.subscribe("b")
    link.lose()
    assert not nats.bus.available
    nats.clock.advance(0)
    second = nats.accept()
    assert second.subscribed == ["lhttp.a", "lhttp.b"]
    nats.clock.advance(SETTLED)
    nats.bus.publish("a", b"1", False)
    assert second.published == [("lhttp.a", b"1", False)]


def test_a_link_that_is_lost_while_it_settles_is_replaced() -> None:
    nats = started()
    waits(nats, 1)
    nats.accept().lose()
    nats.clock.advance(SETTLED)
    nats.accept()
    nats.clock.advance(SETTLED)
    assert nats.bus.available


def test_another_server_is_tried_first_when_one_is_lost() -> None:
    nats = FakeNATS()
    nats.other_urls = [B]
    link = nats.start()
    nats.refuse()  # the second connection
    link.lose()
    nats.clock.advance(0)
    assert nats.attempts == [A, B, B]


def test_the_loss_of_a_link_that_is_not_in_use_changes_nothing() -> None:
    nats = FakeNATS()
    first = nats.start()
    first.lose()
    nats.clock.advance(0)
    nats.accept()
    nats.clock.advance(SETTLED)
    first.owner.link_lost(first, "again")
    assert nats.bus.available and nats.pending == 0


def test_it_asks_for_a_sign_of_life_every_two_seconds() -> None:
    nats = FakeNATS()
    nats.answers = False
    link = nats.start()
    assert len(link.checks) == 1
    for count in (2, 3):
        link.checks[-1].callback(None)
        nats.clock.advance(1.9)
        assert len(link.checks) == count - 1
        nats.clock.advance(0.1)
        assert len(link.checks) == count


def test_it_asks_no_more_before_it_is_answered() -> None:
    nats = FakeNATS()
    nats.answers = False
    link = nats.start()
    nats.clock.advance(60.0)
    assert len(link.checks) == 1


# A second connection


def with_standby(**settings: Any) -> tuple[FakeNATS, FakeLink, FakeLink]:
    nats = FakeNATS(A, B, **settings)
    link = nats.start()
    return nats, link, nats.accept()


def test_where_there_are_two_servers_a_connection_to_the_other_one_stands_by() -> None:
    nats, link, standby = with_standby()
    nats.subscribe()
    assert {link.url, standby.url} == {A, B}
    assert standby.subscribed == []


def test_where_there_is_one_server_none_stands_by() -> None:
    nats = FakeNATS(A, "nats://me:secret@a:4222/")
    nats.start()
    nats.clock.advance(10.0)
    assert len(nats.attempts) == 1


def test_a_server_that_dies_costs_no_connecting_where_one_stands_by() -> None:
    nats, link, standby = with_standby()
    nats.subscribe()
    link.lose()
    assert standby.subscribed == ["lhttp.room"]
    nats.clock.advance(SETTLED)
    assert nats.bus.available
    nats.bus.publish("room", b"1", False)
    assert standby.published


def test_a_standby_that_is_lost_is_replaced_and_nobody_notices() -> None:
    nats, _link, standby = with_standby()
    standby.lose()
    assert nats.bus.available and nats.pending == 0
    nats.clock.advance(2.0)
    assert nats.attempts[-1] == standby.url and nats.pending == 1


def test_one_second_connection_is_sought_at_a_time() -> None:
    nats = FakeNATS(A, B)
    nats.start()
    nats.clock.advance(2.0)
    nats.clock.advance(2.0)
    assert len(nats.attempts) == 2


def test_another_server_stands_by_where_one_cannot_be_reached() -> None:
    nats = FakeNATS(A, B, "nats://c:4222")
    nats.start()
    nats.refuse()
    nats.clock.advance(2.0)
    nats.accept()
    assert len(set(nats.attempts)) == 3


def test_a_standby_that_is_of_no_use_when_it_is_needed_is_not_used() -> None:
    nats, link, standby = with_standby()
    standby.usable = False
    link.lose()
    assert standby.subscribed == []
    nats.clock.advance(0)
    assert nats.pending == 1


# Links that break before the node gets them: they have told it already, when it did not know them


def test_a_link_that_broke_as_soon_as_it_was_there_is_not_used() -> None:
    nats = started()
    broken = nats.accept(lost=True)
    nats.clock.advance(0.1)
    assert nats.pending == 1 and not nats.bus.available
    assert broken.closed is False and broken.mark == b""
    nats.accept()
    nats.clock.advance(SETTLED)
    assert nats.bus.available


def test_a_standby_that_broke_as_soon_as_it_was_there_is_replaced() -> None:
    nats = FakeNATS(A, B)
    nats.start()
    nats.accept(lost=True)
    nats.clock.advance(2.0)
    first, *others = nats.attempts
    assert nats.bus.available and others == [{A: B, B: A}[first]] * 2 and nats.pending == 1


def test_a_node_does_not_move_to_a_link_that_broke_as_soon_as_it_was_there() -> None:
    nats = FakeNATS(A, B, "nats://c:4222")
    link = nats.start()
    nats.refuse()
    link.owner.link_leaving(link)
    nats.clock.advance(0.2)
    broken = nats.accept(lost=True)
    assert broken.closed is False and nats.pending == 1
    second = nats.accept()
    nats.clock.advance(0.2)
    nats.clock.advance(0.02)
    assert nats.bus.available and second.mark


# Moving


def leaving() -> tuple[FakeNATS, FakeLink, FakeLink, list[bytes]]:
    """Return a node that moves from a first to a second link, and what a subscriber of ``room`` gets."""
    nats, link, standby = with_standby()
    received = nats.subscribe()
    link.owner.link_leaving(link)
    nats.clock.advance(0.2)
    return nats, link, standby, received


def test_a_server_that_is_going_to_stop_is_left_when_the_other_has_the_subscriptions() -> None:
    nats, old, new, _ = leaving()
    assert new.subscribed == ["lhttp.room"] and old.closed is None
    nats.clock.advance(0.2)
    nats.clock.advance(0.02)
    assert old.closed is False and nats.bus.available
    nats.bus.publish("room", b"1", False)
    assert (old.published, new.published) == ([], [("lhttp.room", b"1", False)])


def test_publications_of_a_node_that_moves_go_out_in_order_and_once() -> None:
    nats, old, new, received = leaving()
    nats.bus.publish("room", b"1", False)
    nats.clock.advance(0.2)
    nats.bus.publish("room", b"2", False)
    assert ([old.published], new.published) == ([[("lhttp.room", b"1", False)]], [])
    nats.clock.advance(0.02)
    nats.bus.publish("room", b"3", False)
    assert new.published == [("lhttp.room", b"2", False), ("lhttp.room", b"3", False)]
    assert received == [b"1", b"2", b"3"]


def test_a_run_of_a_node_that_moves_goes_out_in_order_and_once() -> None:
    nats, old, new, received = leaving()
    nats.bus.publish_run("room", iter([b"1", b"2"]), False)
    nats.clock.advance(0.2)
    nats.bus.publish_run("room", iter([b"3", b"4"]), False)
    nats.clock.advance(0.02)
    nats.clock.advance(1.0)
    nats.bus.publish_run("room", iter([b"5", b"6"]), False)
    assert [payload for _, payload, _ in old.published] == [b"1", b"2"]
    assert [payload for _, payload, _ in new.published] == [b"3", b"4", b"5", b"6"]
    assert (old.pieces, new.pieces) == (0, 1)
    assert received == [b"1", b"2", b"3", b"4", b"5", b"6"]


def test_what_arrives_on_both_ways_is_delivered_once_and_in_order() -> None:
    nats, old, new, received = leaving()
    old.receive("lhttp.room", b"1", b"2")
    new.receive("lhttp.room", b"2", b"3")
    assert received == [b"1", b"2"]
    nats.clock.advance(0.2)
    nats.clock.advance(0.02)
    assert received == [b"1", b"2", b"3"]
    new.receive("lhttp.room", b"4")
    assert received == [b"1", b"2", b"3", b"4"]


def test_what_comes_late_for_the_second_time_is_dropped() -> None:
    nats, old, new, received = leaving()
    nats.clock.advance(0.2)
    old.receive("lhttp.room", b"1")
    nats.clock.advance(0.02)
    new.receive("lhttp.room", b"1")
    assert received == [b"1"]
    new.receive("lhttp.room", b"1")
    nats.clock.advance(1.0)
    new.receive("lhttp.room", b"1")
    assert received == [b"1"] * 3


def test_what_came_before_all_servers_passed_on_to_the_new_one_does_not_count_for_equal_ones_later() -> None:
    nats, old, new, received = leaving()
    old.receive("lhttp.room", b"1", b"2")
    new.receive("lhttp.room", b"2")
    nats.clock.advance(0.2)
    nats.clock.advance(0.02)
    new.receive("lhttp.room", b"1")
    assert received == [b"1", b"2", b"1"]


def test_what_came_before_the_new_server_was_asked_is_counted() -> None:
    """It may have been on its way to the new server when that was asked to pass on."""
    nats, link, standby = with_standby()
    received = nats.subscribe()
    link.owner.link_leaving(link)
    link.receive("lhttp.room", b"1")
    nats.clock.advance(0.2)
    standby.receive("lhttp.room", b"1", b"2")
    nats.clock.advance(0.2)
    nats.clock.advance(0.02)
    assert received == [b"1", b"2"]


def test_a_second_after_the_move_equal_publications_are_different_ones_again() -> None:
    nats, old, new, received = leaving()
    old.receive("lhttp.room", b"1")
    nats.clock.advance(0.2)
    nats.clock.advance(0.02)
    nats.clock.advance(1.0)
    new.receive("lhttp.room", b"1")
    assert received == [b"1", b"1"]


def test_publications_bear_the_mark_of_the_link_that_is_used() -> None:
    nats, old, new, _ = leaving()
    marks = [old.mark, new.mark]
    nats.clock.advance(0.2)
    nats.clock.advance(0.02)
    node = nats.bus.origins.node
    assert (marks, new.mark) == ([b"_L.%b.1" % node, b""], b"_L.%b.2" % node)
    new.lose()
    nats.clock.advance(0)
    assert nats.accept().mark == b"_L.%b.3" % node


def test_what_is_told_when_a_link_is_used_goes_out_first() -> None:
    nats = FakeNATS(A, B)
    nats.bus.on_open.append(lambda: nats.bus.publish("hello", b"", False))
    first = nats.start()
    second = nats.accept()
    first.owner.link_leaving(first)
    nats.clock.advance(0.2)
    nats.clock.advance(0.2)
    nats.bus.publish("room", b"1", False)
    nats.clock.advance(0.02)
    assert [subject for subject, _, _ in first.published + second.published] == [
        "lhttp.hello",
        "lhttp.hello",
        "lhttp.room",
    ]


def test_a_channel_that_is_subscribed_while_the_node_moves_is_asked_for_on_both_ways() -> None:
    nats, old, new, _ = leaving()
    nats.answers = False
    assert nats.bus.subscribe("late", print) is not None
    assert old.subscribed[-1] == new.subscribed[-1] == "lhttp.late"


def test_a_node_publishes_no_more_to_a_server_that_stops_where_there_is_no_other(log: list[str]) -> None:
    """Soon, some nodes will not get it any more. Until then, it gets what others send."""
    nats = FakeNATS()
    link = nats.start()
    received = nats.subscribe()
    link.owner.link_leaving(link)
    assert not nats.bus.available and len(nats.attempts) == 1
    with pytest.raises(BusUnavailable):
        nats.bus.publish("room", b"1", False)
    link.receive("lhttp.room", b"2")
    assert (received, link.closed, link.published) == ([b"2"], None, [])
    assert "is stopping, and there is no other server: no publications until it is back" in log[-1]
    link.lose()
    nats.clock.advance(0)
    nats.accept()
    nats.clock.advance(SETTLED)
    nats.bus.publish("room", b"3", False)


def test_a_standby_whose_server_is_going_to_stop_is_let_go() -> None:
    nats, link, standby = with_standby()
    standby.owner.link_leaving(standby)
    assert standby.closed is False and nats.bus.available and link.closed is None


def test_a_node_that_leaves_a_server_tries_all_others() -> None:
    nats = FakeNATS(A, B, "nats://c:4222")
    link = nats.start()
    nats.refuse()
    link.owner.link_leaving(link)
    nats.clock.advance(0.2)
    nats.refuse()
    assert nats.bus.available
    second = nats.accept()
    nats.clock.advance(0.2)
    nats.clock.advance(0.02)
    nats.bus.publish("room", b"1", False)
    assert second.published and link.closed is False and len(set(nats.attempts)) == 3


def test_a_node_that_finds_no_other_server_publishes_no_more() -> None:
    nats = FakeNATS(A, B)
    link = nats.start()
    nats.refuse()
    link.owner.link_leaving(link)
    nats.clock.advance(0.2)
    nats.refuse()
    assert not nats.bus.available and link.closed is None


def test_a_server_that_announces_its_end_twice_is_left_once() -> None:
    nats, old, _new, _ = leaving()
    old.owner.link_leaving(old)
    nats.clock.advance(0.2)
    nats.clock.advance(0.02)
    assert old.closed is False and len(nats.attempts) == 2


def test_a_server_that_dies_while_the_node_moves_is_a_loss_like_any_other(log: list[str]) -> None:
    nats, old, new, received = leaving()
    nats.clock.advance(0.2)
    nats.bus.publish("room", b"1", False)
    old.lose()
    assert new.closed is False
    assert any(line.startswith("a publication was lost while moving") for line in log)
    nats.clock.advance(0)
    link = nats.accept()
    nats.clock.advance(SETTLED)
    nats.bus.publish("room", b"2", False)
    assert link.published == [("lhttp.room", b"2", False)] and received == [b"1", b"2"]


def test_a_new_server_that_dies_while_the_node_moves_leaves_it_where_it_was_for_a_moment() -> None:
    nats, old, new, received = leaving()
    nats.clock.advance(0.2)
    nats.bus.publish("room", b"1", False)
    new.lose()
    nats.bus.publish("room", b"2", False)
    assert [payload for _, payload, _ in old.published] == [b"1", b"2"] == received


def test_a_node_whose_new_server_dies_moves_to_another_one() -> None:
    nats = FakeNATS(A, B, "nats://c:4222")
    link = nats.start()
    standby = nats.accept()
    nats.subscribe()
    link.owner.link_leaving(link)
    nats.clock.advance(0.2)
    standby.lose()
    nats.clock.advance(0.0)
    nats.clock.advance(0.2)
    third = nats.accept()
    nats.clock.advance(0.2)
    nats.clock.advance(0.02)
    nats.bus.publish("room", b"1", False)
    assert [link.published, third.published] == [[], [("lhttp.room", b"1", False)]]
    assert link.closed is False


def test_a_node_whose_new_server_dies_publishes_no_more_where_there_is_no_other_until_there_is() -> None:
    nats, old, new, received = leaving()
    new.lose()
    nats.clock.advance(0.0)
    nats.clock.advance(0.2)
    nats.refuse()
    assert not nats.bus.available and old.closed is None
    old.receive("lhttp.room", b"1")
    nats.clock.advance(2.0)
    back = nats.accept()
    nats.clock.advance(2.0)
    nats.clock.advance(SETTLED)
    assert old.closed is False and nats.bus.available and back.subscribed == ["lhttp.room"]
    nats.bus.publish("room", b"2", False)
    assert (back.published, received) == ([("lhttp.room", b"2", False)], [b"1", b"2"])


def test_a_new_server_that_died_before_it_had_the_subscriptions_is_no_matter_to_the_next_move() -> None:
    nats, link, standby = with_standby()
    nats.subscribe()
    nats.answers = False
    link.owner.link_leaving(link)
    nats.clock.advance(0.2)
    answers, standby._asked = standby._asked, {}
    standby.lose()
    nats.answers = True
    link.owner.link_leaving(link)
    nats.clock.advance(0.2)
    new = nats.accept()
    answers["lhttp.room"].errback(BusUnavailable("the bus is unavailable, try again later"))
    nats.clock.advance(0.2)
    nats.clock.advance(0.02)
    nats.bus.publish("room", b"1", False)
    assert (link.published, new.published) == ([], [("lhttp.room", b"1", False)])


def test_publications_that_are_held_back_are_bounded() -> None:
    nats, _old, _new, _ = leaving()
    nats.answers = False
    nats.clock.advance(0.2)
    for _ in range(50_000):
        nats.bus.publish("other", b"1", False)
    with pytest.raises(BusUnavailable, match="congested"):
        nats.bus.publish("other", b"1", False)


def test_publications_that_are_held_back_are_bounded_in_bytes() -> None:
    nats, _old, _new, _ = leaving()
    nats.answers = False
    nats.clock.advance(0.2)
    taken = 0
    with pytest.raises(BusUnavailable, match="congested"):
        for _ in range(1_000):
            nats.bus.publish("other", 65_536 * b"x", False)
            taken += 65_536
    assert taken <= NATSServers(("nats://a",)).pending_size + 65_536


# Stopping, in each state


@pytest.mark.parametrize(
    "state", ["new", "connecting", "waiting", "settling", "open", "standby", "moving", "lost", "grace"]
)
def test_a_bus_that_is_stopped_leaves_nothing_under_way(state: str) -> None:
    nats = FakeNATS(A, B) if state in ("standby", "moving") else FakeNATS()
    links: list[FakeLink] = []
    nats.bus.start()
    if state != "new":
        nats.clock.advance(0)
    if state in ("waiting", "settling"):
        nats.refuse()
    if state == "settling":
        nats.clock.advance(0.1)
    if state in ("settling", "open", "standby", "moving", "lost", "grace"):
        links.append(nats.accept())
    if state in ("standby", "moving"):
        links.append(nats.accept())
    if state == "moving":
        links[0].owner.link_leaving(links[0])
        nats.clock.advance(0.2)
    if state == "grace":
        nats.bus.subscribe("room", print)
        nats.bus.unsubscribe("room", print)
    if state == "lost":
        links.pop().lose()
    stopped: list[Any] = []
    nats.bus.stop().addCallback(stopped.append)
    assert stopped == [None]
    assert nats.clock.getDelayedCalls() == []
    assert nats.pending == 0
    assert all(link.closed is not None for link in links)
    assert not links or links[0].closed is True


def test_a_connection_that_is_made_before_it_can_be_cancelled_is_closed() -> None:
    nats = started()
    nats.too_late = True
    nats.bus.stop()
    (link,) = nats.links
    assert link.closed is False
    assert nats.clock.getDelayedCalls() == []
