"""Who is subscribed on a node of a cluster: confirmation, refusal, grace, and what is published and delivered."""

from __future__ import annotations

from typing import Any

import pytest
from fake_nats import FakeNATS
from twisted.internet.defer import Deferred

from lhttp_tx.bus.nats.servers import NATSServers
from lhttp_tx.errors import BusUnavailable, MessageTooLarge


def nobody(*_: Any) -> None:
    raise AssertionError("nothing is published")


def outcome(waiting: Deferred[None] | None) -> list[Any]:
    """Return a list in which the outcome of a subscription will be: ``None`` or the reason of its refusal."""
    found: list[Any] = []
    assert waiting is not None
    waiting.addCallbacks(found.append, lambda failure: found.append(failure.value.reason))
    return found


# Subscribing


def test_a_subscription_is_answered_when_nats_has_it() -> None:
    nats = FakeNATS()
    link = nats.start()
    nats.answers = False
    found = outcome(nats.bus.subscribe("room", nobody))
    assert (link.subscribed, found) == (["lhttp.room"], [])
    link.grant("lhttp.room")
    assert found == [None]


def test_a_second_receiver_of_a_channel_waits_with_the_first() -> None:
    nats = FakeNATS()
    link = nats.start()
    nats.answers = False
    found = [outcome(nats.bus.subscribe("room", lambda *_: None)) for _ in range(3)]
    assert link.subscribed == ["lhttp.room"]
    link.grant("lhttp.room")
    assert found == [[None]] * 3


def test_a_receiver_of_a_channel_that_nats_has_is_subscribed_at_once() -> None:
    nats = FakeNATS()
    link = nats.start()
    nats.subscribe()
    assert nats.bus.subscribe("room", nobody) is None
    assert link.subscribed == ["lhttp.room"]


def test_a_subscription_while_nats_is_away_waits_for_it() -> None:
    nats = FakeNATS()
    nats.bus.start()
    nats.clock.advance(0)
    found = outcome(nats.bus.subscribe("room", nobody))
    nats.clock.advance(4.9)
    link = nats.accept()
    assert (link.subscribed, found) == (["lhttp.room"], [None])


def test_a_subscription_while_nats_is_away_is_refused_after_five_seconds() -> None:
    nats = FakeNATS()
    nats.bus.start()
    found = outcome(nats.bus.subscribe("room", nobody))
    nats.clock.advance(4.9)
    assert found == []
    nats.clock.advance(0.1)
    assert found == ["the bus did not answer within 5 s, try again later"]
    assert nats.accept().subscribed == ["lhttp.room"]  # for the grace
    nats.clock.advance(2.0)
    assert nats.bus.channels == frozenset()


def test_a_refused_subscription_gets_nothing() -> None:
    nats = FakeNATS()
    link = nats.start()
    nats.answers = False
    outcome(nats.bus.subscribe("room", nobody))
    nats.clock.advance(5.0)
    link.receive("lhttp.room", b"1")
    nats.bus.publish("room", b"2", False)


def test_what_nats_does_not_allow_is_refused() -> None:
    nats = FakeNATS()
    link = nats.start()
    nats.answers = False
    found = outcome(nats.bus.subscribe("room", nobody))
    link.deny("lhttp.room")
    assert found == ["the bus does not allow this channel"]


def test_a_subscription_that_was_asked_for_when_nats_went_is_asked_for_again() -> None:
    nats = FakeNATS()
    link = nats.start()
    nats.answers = False
    found = outcome(nats.bus.subscribe("room", nobody))
    link.lose()
    assert found == []
    nats.clock.advance(0)
    second = nats.accept()
    second.grant("lhttp.room")
    assert (second.subscribed, found) == (["lhttp.room"], [None])


def test_a_channel_that_nats_had_is_waited_for_after_it_went() -> None:
    nats = FakeNATS()
    link = nats.start()
    nats.subscribe()
    link.lose()
    found = outcome(nats.bus.subscribe("room", nobody))
    assert found == []
    nats.clock.advance(0)
    nats.accept()
    assert found == [None]


# Leaving, with a grace


def left(nats: FakeNATS, *channels: str) -> None:
    for channel in channels:
        nats.bus.subscribe(channel, nobody)
        nats.bus.unsubscribe(channel, nobody)


def test_a_channel_without_receivers_stays_subscribed_for_two_seconds() -> None:
    nats = FakeNATS()
    link = nats.start()
    left(nats, "room")
    nats.clock.advance(1.9)
    assert link.unsubscribed == []
    nats.clock.advance(0.1)
    assert (link.unsubscribed, nats.bus.channels) == (["lhttp.room"], frozenset())


def test_a_receiver_that_comes_back_in_the_grace_costs_nats_nothing() -> None:
    nats = FakeNATS()
    link = nats.start()
    left(nats, "room")
    nats.clock.advance(1.0)
    assert nats.bus.subscribe("room", lambda *_: None) is None
    nats.clock.advance(10.0)
    assert (link.subscribed, link.unsubscribed) == (["lhttp.room"], [])


def test_the_grace_begins_with_the_last_leaving() -> None:
    nats = FakeNATS()
    link = nats.start()
    left(nats, "room")
    nats.clock.advance(1.5)
    left(nats, "room")
    nats.clock.advance(1.5)
    assert link.unsubscribed == []
    nats.clock.advance(0.5)
    assert link.unsubscribed == ["lhttp.room"]


def test_channels_leave_in_their_turn() -> None:
    nats = FakeNATS()
    link = nats.start()
    for channel in ("a", "b", "c"):
        left(nats, channel)
        nats.clock.advance(0.5)
    for expected in (["a"], ["a", "b"], ["a", "b", "c"]):
        nats.clock.advance(0.5)
        assert link.unsubscribed == [f"lhttp.{name}" for name in expected]
    assert nats.clock.getDelayedCalls() == [call for call in nats.clock.getDelayedCalls() if call.getTime() > 3.4]


def test_no_more_than_ten_thousand_channels_are_in_their_grace() -> None:
    nats = FakeNATS()
    link = nats.start()
    left(nats, *(f"room{number}" for number in range(10_002)))
    assert link.unsubscribed == ["lhttp.room0", "lhttp.room1"]
    assert len(nats.bus.channels) == 10_000


def test_a_channel_in_its_grace_that_somebody_uses_does_not_leave_for_the_others() -> None:
    nats = FakeNATS()
    link = nats.start()
    left(nats, "used")
    nats.bus.subscribe("used", nobody)
    left(nats, *(f"room{number}" for number in range(10_000)))
    assert link.unsubscribed == [] and "used" in nats.bus.channels


def test_a_channel_that_leaves_while_nats_is_away_is_not_asked_for_again() -> None:
    nats = FakeNATS()
    link = nats.start()
    left(nats, "room")
    link.lose()
    nats.clock.advance(2.0)
    assert nats.accept().subscribed == []


def test_unsubscribing_who_never_subscribed_does_nothing() -> None:
    nats = FakeNATS()
    nats.start()
    nats.subscribe()
    nats.bus.unsubscribe("room", nobody)
    nats.bus.unsubscribe("other", nobody)
    nats.clock.advance(5.0)
    assert nats.bus.channels == {"room"}


# Publications


def test_a_publication_goes_to_nats_and_once_to_its_own_node() -> None:
    nats = FakeNATS()
    link = nats.start()
    received = nats.subscribe()
    assert nats.bus.publish("room", b"1", True) is None
    assert (link.published, received) == ([("lhttp.room", b"1", True)], [b"1"])


def test_what_nats_does_not_take_is_not_delivered_on_its_own_node_either() -> None:
    nats = FakeNATS()
    link = nats.start()
    nats.subscribe().append(b"nothing else")
    link.usable = False
    with pytest.raises(BusUnavailable):
        nats.bus.publish("room", b"1", False)


@pytest.mark.parametrize("away", ["not yet there", "lost", "settling"])
def test_while_nats_is_away_publications_are_refused(away: str) -> None:
    nats = FakeNATS()
    if away == "lost":
        nats.start().lose()
    else:
        nats.bus.start()
        nats.clock.advance(0)
    if away == "settling":
        nats.refuse()
        nats.clock.advance(0.1)
        nats.accept()
    received = nats.subscribe()
    with pytest.raises(BusUnavailable, match="the bus is unavailable, try again later"):
        nats.bus.publish("room", b"1", False)
    assert received == [] and not nats.bus.available


def test_a_run_goes_to_nats_and_to_the_receivers_in_two_pieces() -> None:
    nats = FakeNATS()
    link = nats.start()
    runs: list[tuple[str, list[bytes]]] = []
    for name in ("room.1", "room.*"):
        nats.bus.subscribe(name, lambda channel, payloads, binary: runs.append((channel, payloads)))
    assert nats.bus.publish_run("room.1", iter([b"1", b"2", b"3"]), True) is None
    assert link.published == [("lhttp.room.1", payload, True) for payload in (b"1", b"2", b"3")]
    assert link.pieces == 1
    assert [payloads for channel, payloads in runs if channel == "room.1"] == [[b"1"], [b"2", b"3"]]
    assert [payloads for channel, payloads in runs if channel == "room.*"] == [[b"1"], [b"2", b"3"]]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_publication_that_is_too_large_keeps_none_before_it_back(place: int) -> None:
    nats = FakeNATS()
    link = nats.start()
    link.max_size = 5
    received = nats.subscribe()
    payloads = [b"1", b"2", b"3"]
    payloads.insert(place, b"too large")
    run = iter(payloads)
    with pytest.raises(MessageTooLarge):
        nats.bus.publish_run("room", run, False)
    assert received == [payload for _, payload, _ in link.published] == payloads[:place]
    assert list(run) == payloads[place + 1 :]


def test_while_nats_is_away_publications_stay_on_the_node_if_the_operator_wants_it() -> None:
    nats = FakeNATS(local_delivery=True)
    link = nats.start()
    link.lose()
    received: list[bytes] = []
    assert nats.bus.subscribe("room", lambda channel, payloads, binary: received.extend(payloads)) is None
    nats.bus.publish("room", b"1", False)
    assert received == [b"1"] and link.published == []
    nats.clock.advance(0)
    second = nats.accept()
    nats.clock.advance(1.0)
    nats.bus.publish("room", b"2", False)
    assert received == [b"1", b"2"] and second.published == [("lhttp.room", b"2", False)]


def test_what_arrives_goes_to_all_receivers_of_its_channel() -> None:
    nats = FakeNATS(prefix="")
    link = nats.start()
    received = [nats.subscribe("a*b"), nats.subscribe("a*b"), nats.subscribe("other")]
    link.receive("a%2Ab", b"1", b"2")
    assert received == [[b"1", b"2"], [b"1", b"2"], []]


def test_what_arrives_for_a_channel_that_was_left_is_dropped() -> None:
    nats = FakeNATS()
    link = nats.start()
    left(nats, "room")
    link.receive("lhttp.room", b"1")
    nats.clock.advance(2.0)
    link.receive("lhttp.room", b"2")
    link.receive("strange", b"3")


def test_a_receiver_that_fails_does_not_keep_it_from_the_others(failures: list[Any]) -> None:
    nats = FakeNATS()
    link = nats.start()
    nats.bus.subscribe("room", nobody)
    received = nats.subscribe()
    link.receive("lhttp.room", b"1")
    nats.bus.publish("room", b"2", False)
    assert received == [b"1", b"2"]
    assert [type(failure) for failure in failures] == [AssertionError] * 2


def test_what_arrives_together_is_bracketed_for_everybody() -> None:
    nats = FakeNATS()
    events: list[str] = []
    for name in ("1", "2"):
        nats.bus.bracket(
            lambda name=name: events.append(f"begin {name}"), lambda name=name: events.append(f"end {name}")
        )
    link = nats.start()
    nats.bus.subscribe("room", lambda channel, payloads, binary: events.extend(map(bytes.decode, payloads)))
    link.receive("lhttp.room", b"a", b"b")
    assert events == ["begin 1", "begin 2", "a", "b", "end 1", "end 2"]


# Starting and stopping


def test_who_waits_for_a_subscription_is_told_that_the_bus_stops() -> None:
    nats = FakeNATS()
    nats.bus.start()
    found = outcome(nats.bus.subscribe("room", nobody))
    nats.bus.stop()
    assert found == ["the bus has stopped"]
    assert nats.clock.getDelayedCalls() == []


def test_a_bus_that_two_have_started_runs_until_both_have_stopped_it() -> None:
    nats = FakeNATS()
    nats.bus.start()
    link = nats.start()
    assert len(nats.attempts) == 1
    nats.bus.stop()
    nats.bus.publish("room", b"1", False)
    nats.bus.stop()
    assert link.closed is True
    with pytest.raises(BusUnavailable, match="stopped"):
        nats.bus.publish("room", b"2", False)


def test_stopping_a_bus_that_was_not_started_does_nothing() -> None:
    nats = FakeNATS()
    nats.bus.stop()
    link = nats.start()
    nats.bus.publish("room", b"1", False)
    assert link.published


def test_a_bus_may_be_started_again() -> None:
    nats = FakeNATS()
    nats.start()
    nats.subscribe()
    nats.bus.stop()
    link = nats.start()
    received = nats.subscribe()
    link.receive("lhttp.room", b"1")
    assert (received, link.subscribed) == ([b"1"], ["lhttp.room"])


def test_its_description_names_servers_and_prefix_and_no_secret() -> None:
    nats = FakeNATS("nats://me:secret@a", "tls://b:1", prefix="x.y.")
    assert nats.bus.description == "NATS at nats://a:4222, tls://b:1, subjects x.y.*"


def test_settings_are_those_of_the_servers() -> None:
    assert NATSServers(("nats://a",)).timeout == 5.0
