"""The hub: who gets what, in which order, and with how much work."""

import gc
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import formatEvent, globalLogPublisher
from zope.interface import implementer

from lhttp_tx.bus.memory import MemoryBus
from lhttp_tx.engine import hub as hub_module
from lhttp_tx.engine.delivery import Delivery
from lhttp_tx.engine.hub import Hub
from lhttp_tx.errors import BusUnavailable
from lhttp_tx.interfaces import IBus
from lhttp_tx.transports.websocket.frames import PLAIN, build_frame


@implementer(IBus)
class SlowBus(MemoryBus):
    """A bus whose subscriptions and publications are answered when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.pending: list[Deferred[None]] = []
        self.subscribed: list[str] = []
        self.unsubscribed: list[str] = []

    def subscribe(self, channel: str, receiver: Any) -> Deferred[None]:
        super().subscribe(channel, receiver)
        self.subscribed.append(channel)
        self.pending.append(Deferred())
        return self.pending[-1]

    def unsubscribe(self, channel: str, receiver: Any) -> None:
        super().unsubscribe(channel, receiver)
        self.unsubscribed.append(channel)

    def publish(self, channel: str, payload: bytes, binary: bool) -> Deferred[None]:
        super().publish(channel, payload, binary)
        self.pending.append(Deferred())
        return self.pending[-1]

    def publish_run(self, channel: str, payloads: Iterator[bytes], binary: bool) -> Deferred[None]:
        super().publish_run(channel, islice(payloads, 1), binary)
        self.pending.append(Deferred())
        return self.pending[-1]


class Subscriber:
    """Records each write."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []

    def join(self, hub: Hub, channel: str) -> Any:
        return hub.subscribe(self, channel, self.deliver)

    def deliver(self, delivery: Delivery) -> None:
        self.writes.append(delivery.encoded(PLAIN))


@pytest.fixture
def bus() -> MemoryBus:
    return MemoryBus()


@pytest.fixture
def hub(bus: MemoryBus) -> Hub:
    return Hub(bus=bus)


def test_a_publication_reaches_every_subscriber_as_a_frame(hub: Hub) -> None:
    subscribers = [Subscriber(), Subscriber()]
    for subscriber in subscribers:
        assert subscriber.join(hub, "room") is None
    assert hub.publish(["room"], b"hello", False) is None
    assert [subscriber.writes for subscriber in subscribers] == [[build_frame(b"hello", False)]] * 2


def test_subscribing_twice_delivers_once(hub: Hub) -> None:
    subscriber = Subscriber()
    subscriber.join(hub, "room")
    subscriber.join(hub, "room")
    hub.publish(["room"], b"hello", False)
    assert len(subscriber.writes) == 1


def test_two_channels_deliver_to_a_subscriber_of_both_twice(hub: Hub) -> None:
    subscriber = Subscriber()
    subscriber.join(hub, "a")
    subscriber.join(hub, "b")
    hub.publish(["a", "b"], b"hello", False)
    assert subscriber.writes == [build_frame(b"hello", False)] * 2


def test_a_binary_publication_is_framed_as_binary(hub: Hub) -> None:
    subscriber = Subscriber()
    subscriber.join(hub, "room")
    hub.publish(["room"], b"\xff", True)
    assert subscriber.writes == [build_frame(b"\xff", True)]


def test_nothing_is_left_of_a_channel_when_its_last_subscriber_leaves(hub: Hub, bus: MemoryBus) -> None:
    first, second = Subscriber(), Subscriber()
    first.join(hub, "room")
    second.join(hub, "room")
    hub.unsubscribe(first, "room")
    assert hub.channels == {"room": 1}
    assert bus.channels == {"room"}
    hub.unsubscribe(second, "room")
    assert hub.channels == {}
    assert bus.channels == frozenset()


def test_unsubscribing_a_stranger_does_nothing(hub: Hub) -> None:
    subscriber = Subscriber()
    subscriber.join(hub, "room")
    hub.unsubscribe(Subscriber(), "room")
    hub.unsubscribe(subscriber, "other")
    assert hub.channels == {"room": 1}


def test_many_subscribers_make_one_bus_subscription() -> None:
    bus = SlowBus()
    hub = Hub(bus=bus)
    for _ in range(100):
        Subscriber().join(hub, "room")
    assert bus.subscribed == ["room"]


def test_a_corked_run_is_one_write_for_each_subscriber(hub: Hub) -> None:
    subscribers = [Subscriber() for _ in range(10)]
    for subscriber in subscribers:
        subscriber.join(hub, "room")
    hub.cork()
    for number in range(50):
        hub.publish(["room"], b"%d" % number, False)
    assert all(subscriber.writes == [] for subscriber in subscribers)
    hub.uncork()
    expected = b"".join(build_frame(b"%d" % number, False) for number in range(50))
    assert all(subscriber.writes == [expected] for subscriber in subscribers)


def test_subscribers_share_one_copy_of_what_is_written(hub: Hub) -> None:
    subscribers = [Subscriber() for _ in range(10)]
    for subscriber in subscribers:
        subscriber.join(hub, "room")
    hub.publish(["room"], b"hello", False)
    assert len({id(subscriber.writes[0]) for subscriber in subscribers}) == 1


class Counting:
    """An encoding that writes down what it is asked for."""

    def __init__(self) -> None:
        self.built: list[list[bytes]] = []

    def encode(self, payloads: list[bytes], binary: bool) -> bytes:
        self.built.append(payloads)
        return b",".join(payloads)


def test_a_publication_is_encoded_once_for_all_who_want_it_so(hub: Hub) -> None:
    encodings = [Counting(), Counting(), Counting()]
    for number in range(99):
        hub.subscribe(number, "room", lambda delivery, number=number: delivery.encoded(encodings[number % 3]))
    for _ in range(7):
        hub.publish(["room"], b"hello", False)
    assert [encoding.built for encoding in encodings] == [[[b"hello"]] * 7] * 3


def test_a_run_is_encoded_once_for_all_its_subscribers(hub: Hub) -> None:
    encoding = Counting()
    for number in range(100):
        hub.subscribe(number, "room", lambda delivery: delivery.encoded(encoding))
    hub.cork()
    hub.publish_run(("room",), iter([b"hello"] * 7), False)
    hub.uncork()
    assert encoding.built == [[b"hello"] * 7]


def test_text_and_binary_are_framed_apart_in_order(hub: Hub) -> None:
    subscriber = Subscriber()
    subscriber.join(hub, "room")
    hub.cork()
    for number, binary in enumerate([False, True, True, False]):
        hub.publish(["room"], b"%d" % number, binary)
    hub.uncork()
    expected = [build_frame(b"%d" % number, binary) for number, binary in enumerate([False, True, True, False])]
    assert b"".join(subscriber.writes) == b"".join(expected)


def test_a_run_to_two_channels_goes_to_both_message_by_message(bus: MemoryBus, hub: Hub) -> None:
    received: list[tuple[str, bytes]] = []
    for channel in "ab":
        bus.subscribe(
            channel, lambda channel, payloads, binary: received.extend((channel, payload) for payload in payloads)
        )
    assert hub.publish_run(("a", "b"), iter([b"1", b"2"]), False) is None
    assert received == [("a", b"1"), ("b", b"1"), ("a", b"2"), ("b", b"2")]


@pytest.mark.parametrize("channels", [("a",), ("a", "b")])
def test_a_run_stops_behind_what_is_not_taken_at_once(channels: tuple[str, ...]) -> None:
    hub = Hub(bus=SlowBus())
    payloads = iter([b"1", b"2", b"3"])
    assert hub.publish_run(channels, payloads, False) is not None
    assert list(payloads) == [b"2", b"3"]


@pytest.mark.parametrize("channels", [("a",), ("a", "b")])
def test_a_run_stops_behind_what_is_refused(bus: MemoryBus, hub: Hub, channels: tuple[str, ...]) -> None:
    bus.stop()
    payloads = iter([b"1", b"2", b"3"])
    with pytest.raises(BusUnavailable):
        hub.publish_run(channels, payloads, False)
    assert list(payloads) == [b"2", b"3"]


def test_empty_publications_count_against_the_bound_of_a_run(hub: Hub) -> None:
    subscriber = Subscriber()
    subscriber.join(hub, "room")
    hub.cork()
    for _ in range(20_000):
        hub.receive("room", [b""], True)
    assert subscriber.writes != []
    hub.uncork()


def test_order_across_channels_is_kept_when_corked(hub: Hub) -> None:
    subscriber = Subscriber()
    subscriber.join(hub, "a")
    subscriber.join(hub, "b")
    hub.cork()
    for channel in "aabba":
        hub.publish([channel], channel.encode(), False)
    hub.uncork()
    assert b"".join(subscriber.writes) == b"".join(build_frame(c.encode(), False) for c in "aabba")
    assert len(subscriber.writes) == 3


def test_who_subscribes_in_the_middle_of_a_run_gets_only_what_follows(hub: Hub) -> None:
    early, late = Subscriber(), Subscriber()
    early.join(hub, "room")
    hub.cork()
    hub.publish(["room"], b"1", False)
    late.join(hub, "room")
    hub.publish(["room"], b"2", False)
    hub.uncork()
    assert b"".join(early.writes) == build_frame(b"1", False) + build_frame(b"2", False)
    assert b"".join(late.writes) == build_frame(b"2", False)


def test_who_leaves_in_the_middle_of_a_run_gets_what_came_before(hub: Hub) -> None:
    subscriber = Subscriber()
    subscriber.join(hub, "room")
    hub.cork()
    hub.publish(["room"], b"1", False)
    hub.unsubscribe(subscriber, "room")
    hub.publish(["room"], b"2", False)
    hub.uncork()
    assert subscriber.writes == [build_frame(b"1", False)]


def test_a_run_is_written_before_it_grows_without_bound(hub: Hub) -> None:
    subscriber = Subscriber()
    subscriber.join(hub, "room")
    hub.cork()
    for _ in range(10):
        hub.publish(["room"], bytes(30_000), True)
    assert max(map(len, subscriber.writes)) < 100_000
    hub.uncork()
    assert sum(map(len, subscriber.writes)) == 10 * len(build_frame(bytes(30_000), True))


def test_a_subscriber_may_leave_while_it_is_written_to(hub: Hub) -> None:
    first, second = Subscriber(), Subscriber()
    hub.subscribe(first, "room", lambda frame: hub.unsubscribe(second, "room"))
    second.join(hub, "room")
    hub.publish(["room"], b"1", False)
    hub.publish(["room"], b"2", False)
    assert second.writes == [build_frame(b"1", False)]


def test_a_subscription_is_answered_when_the_bus_has_it() -> None:
    bus = SlowBus()
    hub = Hub(bus=bus)
    fired: list[Any] = []
    for _ in range(2):
        Subscriber().join(hub, "room").addCallback(fired.append)
    assert fired == []
    bus.pending[0].callback(None)
    assert fired == [None, None]
    assert Subscriber().join(hub, "room") is None


def test_a_subscription_that_the_bus_refuses_leaves_nothing() -> None:
    bus = SlowBus()
    hub = Hub(bus=bus)
    failures: list[Any] = []
    for _ in range(2):
        Subscriber().join(hub, "room").addErrback(failures.append)
    bus.pending[0].errback(BusUnavailable("away"))
    assert [failure.type for failure in failures] == [BusUnavailable] * 2
    assert hub.channels == {}


def test_a_channel_that_is_left_while_the_bus_subscribes_can_be_joined_again() -> None:
    bus = SlowBus()
    hub = Hub(bus=bus)
    subscriber = Subscriber()
    subscriber.join(hub, "room")
    hub.unsubscribe(subscriber, "room")
    again = subscriber.join(hub, "room")
    bus.pending[0].callback(None)
    assert not again.called
    bus.pending[1].callback(None)
    assert again.called
    assert hub.channels == {"room": 1}


def test_waiting_for_the_bus_can_be_given_up() -> None:
    bus = SlowBus()
    hub = Hub(bus=bus)
    waiting = Subscriber().join(hub, "room")
    failures: list[Any] = []
    waiting.addErrback(failures.append)
    waiting.cancel()
    bus.pending[0].callback(None)
    assert [failure.type for failure in failures] == [CancelledError]


def test_publishing_waits_until_the_bus_has_taken_all() -> None:
    bus = SlowBus()
    hub = Hub(bus=bus)
    result = hub.publish(["a", "b"], b"hello", False)
    assert result is not None
    bus.pending[0].callback(None)
    assert not result.called
    bus.pending[1].callback(None)
    assert result.called


def test_publishing_fails_when_the_bus_refuses_one_of_the_channels() -> None:
    bus = SlowBus()
    hub = Hub(bus=bus)
    failures: list[Any] = []
    result = hub.publish(["a", "b"], b"hello", False)
    assert result is not None
    result.addErrback(failures.append)
    bus.pending[0].errback(BusUnavailable("away"))
    bus.pending[1].callback(None)
    assert [failure.type for failure in failures] == [BusUnavailable]


# Publishers that do not hear themselves


def test_a_refusal_at_once_leaves_no_earlier_failure_to_the_log() -> None:
    class RefusingBus(SlowBus):
        def publish(self, channel: str, payload: bytes, binary: bool) -> Deferred[None]:
            if channel == "refused":
                raise BusUnavailable("not now")
            return super().publish(channel, payload, binary)

    bus = RefusingBus()
    with pytest.raises(BusUnavailable, match="not now"):
        Hub(bus=bus).publish(["room", "refused"], b"hello", False)
    bus.pending.pop().errback(BusUnavailable("lost"))
    gc.collect()  # an unhandled failure is logged, and fails the test


def test_a_silenced_subscriber_gets_nothing_of_what_is_published_meanwhile(hub: Hub) -> None:
    one, other = Subscriber(), Subscriber()
    for subscriber in (one, other):
        subscriber.join(hub, "a")
        subscriber.join(hub, "b")
    hub.cork()
    hub.publish(["a"], b"1", False)
    with hub.silenced(one, ["a", "nowhere"]):
        hub.publish(["a", "b"], b"2", False)
    hub.publish(["a"], b"3", False)
    hub.uncork()
    frames = {text: build_frame(text, False) for text in (b"1", b"2", b"3")}
    assert one.writes == [frames[b"1"], frames[b"2"], frames[b"3"]]
    assert other.writes == [frames[b"1"], frames[b"2"], frames[b"2"], frames[b"3"]]


def test_a_stranger_can_be_silenced(hub: Hub) -> None:
    one = Subscriber()
    with hub.silenced(one, ["a"]):
        one.join(hub, "a")
        hub.publish(["a"], b"1", False)
    assert one.writes == [build_frame(b"1", False)]


def test_one_who_leaves_while_silenced_stays_away(hub: Hub) -> None:
    one, other = Subscriber(), Subscriber()
    one.join(hub, "a")
    other.join(hub, "a")
    with hub.silenced(one, ["a"]):
        hub.unsubscribe(one, "a")
    hub.publish(["a"], b"1", False)
    assert one.writes == []
    assert hub.channels == {"a": 1}


def test_a_silenced_subscriber_hears_again_when_publishing_fails(bus: MemoryBus, hub: Hub) -> None:
    one = Subscriber()
    one.join(hub, "a")
    with pytest.raises(BusUnavailable), hub.silenced(one, ["a"]):
        raise BusUnavailable("gone")
    hub.publish(["a"], b"1", False)
    assert one.writes == [build_frame(b"1", False)]


def test_a_channel_lives_on_while_its_only_subscriber_is_silenced(hub: Hub) -> None:
    one, slow = Subscriber(), Subscriber()
    one.join(hub, "a")
    hub.subscribe(slow, "a", lambda _: hub.unsubscribe(slow, "a"))
    with hub.silenced(one, ["a"]):
        hub.publish(["a"], b"1", False)
    hub.publish(["a"], b"2", False)
    assert one.writes == [build_frame(b"2", False)]


def test_what_a_delivery_publishes_to_its_channel_comes_behind_it_for_everybody() -> None:
    hub = Hub(bus=MemoryBus())
    first, last = Subscriber(), Subscriber()
    first.join(hub, "room")
    answered: list[Delivery] = []

    def answer(delivery: Delivery) -> None:
        if len(answered) < 2:
            answered.append(delivery)
            hub.publish(["room"], b"answer", False)
            hub.flush()

    hub.subscribe(answer, "room", answer)
    last.join(hub, "room")
    hub.publish(["room"], b"question", False)
    expected = [build_frame(payload, False) for payload in (b"question", b"answer", b"answer")]
    assert first.writes == last.writes == expected
    hub.publish(["room"], b"next", False)
    assert last.writes == [*expected, build_frame(b"next", False)]


def test_a_delivery_that_fails_does_not_stop_the_channel() -> None:
    hub = Hub(bus=MemoryBus())

    def fail(_: Delivery) -> None:
        raise ValueError("broken")

    subscriber = Subscriber()
    hub.subscribe(fail, "room", fail)
    subscriber.join(hub, "room")
    hub.cork()
    hub.publish(["room"], b"1", False)
    with pytest.raises(ValueError, match="broken"):
        hub.uncork()
    hub.unsubscribe(fail, "room")
    hub.publish(["room"], b"2", False)
    assert subscriber.writes == [build_frame(b"2", False)]


def test_a_subscriber_that_publishes_at_each_delivery_comes_to_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "_MAX_NESTED", 50)
    hub, other = Hub(bus=MemoryBus()), Subscriber()
    count = 0

    def publish(delivery: Delivery) -> None:
        nonlocal count
        count += 1
        assert count <= 50
        hub.publish(["room"], b"%d" % count, False)

    eager = object()
    hub.subscribe(eager, "room", publish)
    other.join(hub, "room")
    lines: list[str] = []
    observer = lambda event: lines.append(formatEvent(event))  # noqa: E731
    globalLogPublisher.addObserver(observer)
    try:
        hub.publish(["room"], b"0", False)
    finally:
        globalLogPublisher.removeObserver(observer)
    expected = [build_frame(b"%d" % number, False) for number in range(50)]
    assert b"".join(other.writes) == b"".join(expected)
    assert lines == ["dropped publications to room: its deliveries cause ever more"]
    hub.unsubscribe(eager, "room")
    hub.publish(["room"], b"on", False)
    assert other.writes[-1] == build_frame(b"on", False)
