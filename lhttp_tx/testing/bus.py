"""
The contract tests for buses, for all implementations of :class:`~lhttp_tx.interfaces.IBus`.

A subclass makes the buses, and can wait until they react::

    from lhttp_tx.testing import BusContract

    class TestMyBus(BusContract):
        def make_buses(self, count):
            network = Network()
            return [MyBus(network) for _ in range(count)]

The tests need pytest and pytest-twisted. Nothing else in :mod:`lhttp_tx.testing` needs these, so this module is
imported only on first use.
"""

from collections.abc import Generator, Iterator
from operator import length_hint
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, succeed
from zope.interface.verify import verifyObject

from lhttp_tx.errors import BusUnavailable
from lhttp_tx.interfaces import BusReceiver, IBus, MaybeDeferred

__all__ = ["BusContract", "Received", "done", "into"]

Received = list[tuple[str, bytes, bool]]
"""The publications that a receiver got: for each the name subscribed to, the payload, and whether it is binary."""


def into(received: Received) -> BusReceiver:
    """Return a receiver that adds each publication to *received*."""
    return lambda channel, payloads, binary: received.extend((channel, payload, binary) for payload in payloads)


class _Buses:
    """The base of the tests of a bus."""

    def make_buses(self, count: int) -> list[Any]:
        """Return *count* buses that share all channels. They have not started."""
        raise NotImplementedError

    async def settle(self, buses: list[Any]) -> None:
        """Wait until all publications that *buses* have accepted have arrived."""

    async def connected(self, bus: Any) -> None:
        """Wait until *bus*, which has started, accepts publications."""

    @pytest_twisted.async_yield_fixture
    async def buses(self) -> Any:
        buses = self.make_buses(2)
        for bus in buses:
            await bus.start()
            await self.connected(bus)
        yield buses
        for bus in buses:
            await bus.stop()

    async def subscribe(self, bus: Any, channel: str) -> Received:
        received: Received = []

        await done(bus.subscribe(channel, into(received)))
        return received


class _Publishing(_Buses):
    """Publications arrive once and in order."""

    @pytest_twisted.ensureDeferred
    async def test_a_publication_reaches_the_own_node_once(self, buses: list[Any]) -> None:
        received = await self.subscribe(buses[0], "room")
        await done(buses[0].publish("room", b"payload", False))
        await self.settle(buses)
        assert received == [("room", b"payload", False)]

    @pytest_twisted.ensureDeferred
    async def test_an_immediate_bus_calls_receivers_of_the_own_node_before_publish_returns(
        self, buses: list[Any]
    ) -> None:
        received = [await self.subscribe(buses[0], name) for name in ("room.1", "room.*")]
        for binary in (False, True):
            result = buses[0].publish("room.1", b"1", binary)
            found = [[payload for _, payload, _ in each] for each in received]
            run = iter([b"2", b"3"])
            running = buses[0].publish_run("room.1", run, binary)
            more = [[payload for _, payload, _ in each] for each in received]
            if buses[0].is_immediate:
                assert found == [[b"1"]] * 2
                assert more == [[b"1", b"2", b"3"][: 3 - length_hint(run)]] * 2
            await done(result)
            await done(running)
            await self.settle(buses)
            for each in received:
                each.clear()

    @pytest_twisted.ensureDeferred
    async def test_a_publication_reaches_other_nodes(self, buses: list[Any]) -> None:
        received = await self.subscribe(buses[1], "room")
        await done(buses[0].publish("room", b"payload", False))
        await self.settle(buses)
        assert received == [("room", b"payload", False)]

    @pytest_twisted.ensureDeferred
    async def test_binary_stays_binary(self, buses: list[Any]) -> None:
        received = await self.subscribe(buses[1], "room")
        await done(buses[0].publish("room", b"\xff\x00", True))
        await self.settle(buses)
        assert received == [("room", b"\xff\x00", True)]

    @pytest_twisted.ensureDeferred
    async def test_publications_of_one_publisher_keep_their_order(self, buses: list[Any]) -> None:
        received = await self.subscribe(buses[1], "room")
        for number in range(500):
            await done(buses[0].publish("room", b"%d" % number, False))
        await self.settle(buses)
        assert [payload for _, payload, _ in received] == [b"%d" % number for number in range(500)]

    @pytest_twisted.ensureDeferred
    async def test_publishing_without_subscribers_reaches_nobody(self, buses: list[Any]) -> None:
        received = await self.subscribe(buses[0], "room")
        await done(buses[0].publish("other", b"payload", False))
        await self.settle(buses)
        assert received == []

    @pytest.mark.parametrize("channel", ["a.b.c", "é.日本", "with:colon", "a" * 255, "*x", "x>", "a,b;c"])
    @pytest_twisted.ensureDeferred
    async def test_every_valid_channel_name_works(self, buses: list[Any], channel: str) -> None:
        received = await self.subscribe(buses[1], channel)
        await done(buses[0].publish(channel, b"payload", False))
        await self.settle(buses)
        assert received == [(channel, b"payload", False)]

    @pytest_twisted.ensureDeferred
    async def test_a_run_arrives_in_order_with_what_was_published_around_it(self, buses: list[Any]) -> None:
        received = [await self.subscribe(bus, name) for bus in buses for name in ("room.1", "room.*")]
        await done(buses[0].publish("room.1", b"0", True))
        run = iter([b"%d" % number for number in range(1, 9)])
        while length_hint(run):
            await done(buses[0].publish_run("room.1", run, True))
        await done(buses[0].publish("room.1", b"9", True))
        await self.settle(buses)
        expected = [(b"%d" % number, True) for number in range(10)]
        assert [[publication[1:] for publication in each] for each in received] == [expected] * 4

    @pytest_twisted.ensureDeferred
    async def test_what_came_before_an_error_in_a_run_is_sent(self, buses: list[Any]) -> None:
        def failing() -> Iterator[bytes]:
            yield b"1"
            yield b"2"
            raise LookupError

        received = await self.subscribe(buses[1], "room")
        with pytest.raises(LookupError):
            await done(buses[0].publish_run("room", failing(), False))
        await self.settle(buses)
        assert [payload for _, payload, _ in received] == [b"1", b"2"]

    @pytest_twisted.ensureDeferred
    async def test_an_empty_run_does_nothing(self, buses: list[Any]) -> None:
        received = await self.subscribe(buses[0], "room")
        await done(buses[0].publish_run("room", iter([]), False))
        await self.settle(buses)
        assert received == []


class _Confirming(_Buses):
    """Confirmed publications are not lost."""

    @pytest_twisted.ensureDeferred
    async def test_what_is_confirmed_arrives(self, buses: list[Any]) -> None:
        received = await self.subscribe(buses[1], "room")
        for number in range(100):
            buses[0].publish("room", b"%d" % number, False)
        await done(buses[0].confirm())
        await self.settle(buses)
        assert len(received) == 100

    @pytest_twisted.ensureDeferred
    async def test_many_may_ask_for_confirmation_at_once(self, buses: list[Any]) -> None:
        told: list[int] = []
        asked: list[Deferred[None]] = []
        for number in range(100):
            buses[0].publish("room", b"payload", False)
            result: Deferred[None] = buses[0].confirm() or succeed(None)
            asked.append(result.addCallback(lambda _, number: told.append(number), number))
        for each in asked:
            await each
        assert told == list(range(100))

    @pytest_twisted.ensureDeferred
    async def test_nothing_has_to_be_published_to_be_confirmed(self, buses: list[Any]) -> None:
        await done(buses[0].confirm())

    @pytest_twisted.ensureDeferred
    async def test_cancelling_one_confirmation_does_not_affect_others(self, buses: list[Any]) -> None:
        first, second = (buses[0].confirm() or succeed(None) for _ in range(2))
        first.addErrback(lambda failure: None)
        first.cancel()
        await second


class _Subscribing(_Buses):
    """Each receiver gets the publications that it has subscribed to, and no others."""

    @pytest_twisted.ensureDeferred
    async def test_channels_that_differ_in_case_are_different(self, buses: list[Any]) -> None:
        received = await self.subscribe(buses[0], "Room")
        await done(buses[0].publish("room", b"payload", False))
        await self.settle(buses)
        assert received == []

    @pytest_twisted.ensureDeferred
    async def test_a_wildcard_subscription_gets_the_channels_that_belong_to_it(self, buses: list[Any]) -> None:
        star, tail = await self.subscribe(buses[1], "room.*.a%"), await self.subscribe(buses[0], "room.>")
        for channel in ("room.1.a%", "room.é.a%", "room.1", "room.1.b", "room.1.a%.x", "other.1.a%", "room"):
            await done(buses[0].publish(channel, channel.encode(), False))
        await self.settle(buses)
        assert [payload.decode() for _, payload, _ in star] == ["room.1.a%", "room.é.a%"]
        assert {name for name, _, _ in star} == {"room.*.a%"}
        assert [payload.decode() for _, payload, _ in tail] == [
            *("room.1.a%", "room.é.a%", "room.1", "room.1.b", "room.1.a%.x"),
        ]

    @pytest_twisted.ensureDeferred
    async def test_a_wildcard_subscription_gets_nothing_of_the_servers_own(self, buses: list[Any]) -> None:
        received = [await self.subscribe(bus, ">") for bus in buses]
        for channel in ("$nodes", "_x", "room"):
            await done(buses[0].publish(channel, b"payload", False))
        await self.settle(buses)
        assert received == [[(">", b"payload", False)]] * 2

    @pytest_twisted.ensureDeferred
    async def test_a_channel_and_its_wildcard_are_two_subscriptions(self, buses: list[Any]) -> None:
        exact, star = await self.subscribe(buses[1], "room.1"), await self.subscribe(buses[1], "room.*")
        await done(buses[0].publish("room.1", b"payload", False))
        await self.settle(buses)
        assert (exact, star) == ([("room.1", b"payload", False)], [("room.*", b"payload", False)])

    @pytest_twisted.ensureDeferred
    async def test_nothing_arrives_after_a_wildcard_is_unsubscribed(self, buses: list[Any]) -> None:
        received: Received = []
        receiver = into(received)
        await done(buses[0].subscribe("room.*", receiver))
        buses[0].unsubscribe("room.*", receiver)
        await done(buses[1].publish("room.1", b"payload", False))
        await self.settle(buses)
        assert received == []

    @pytest_twisted.ensureDeferred
    async def test_subscribing_the_same_receiver_twice_delivers_once(self, buses: list[Any]) -> None:
        received: Received = []
        receiver = into(received)
        await done(buses[0].subscribe("room", receiver))
        await done(buses[0].subscribe("room", receiver))
        await done(buses[0].publish("room", b"payload", False))
        await self.settle(buses)
        assert len(received) == 1

    @pytest_twisted.ensureDeferred
    async def test_nothing_arrives_after_unsubscribing(self, buses: list[Any]) -> None:
        received: Received = []
        receiver = into(received)
        await done(buses[0].subscribe("room", receiver))
        buses[0].unsubscribe("room", receiver)
        await done(buses[1].publish("room", b"payload", False))
        await self.settle(buses)
        assert received == []

    @pytest_twisted.ensureDeferred
    async def test_unsubscribing_one_receiver_leaves_the_other(self, buses: list[Any]) -> None:
        kept = await self.subscribe(buses[0], "room")

        def leaver(*publication: Any) -> None:
            raise AssertionError("it had left")

        await done(buses[0].subscribe("room", leaver))
        buses[0].unsubscribe("room", leaver)
        await done(buses[0].publish("room", b"payload", False))
        await self.settle(buses)
        assert len(kept) == 1

    def test_unsubscribing_what_was_never_subscribed_does_nothing(self) -> None:
        (bus,) = self.make_buses(1)
        bus.unsubscribe("room", print)

    @pytest_twisted.ensureDeferred
    async def test_a_receiver_may_unsubscribe_while_it_is_called(self, buses: list[Any]) -> None:
        received: Received = []

        def once(*run: Any) -> None:
            into(received)(*run)
            buses[0].unsubscribe("room", once)

        await done(buses[0].subscribe("room", once))
        await done(buses[0].publish("room", b"1", False))
        await done(buses[0].publish("room", b"2", False))
        await self.settle(buses)
        assert [payload for _, payload, _ in received] == [b"1"]


class _Living(_Buses):
    """A bus has a description, starts, and stops."""

    def test_provides_the_interface(self) -> None:
        (bus,) = self.make_buses(1)
        assert verifyObject(IBus, bus)

    def test_describes_itself_for_the_log(self) -> None:
        (bus,) = self.make_buses(1)
        assert bus.description and "\n" not in bus.description

    @pytest_twisted.ensureDeferred
    async def test_a_stopped_bus_refuses_the_first_of_a_run(self) -> None:
        (bus,) = self.make_buses(1)
        await bus.start()
        await bus.stop()
        run = iter([b"1", b"2", b"3"])
        with pytest.raises(BusUnavailable):
            await done(bus.publish_run("room", run, False))
        assert list(run) == [b"2", b"3"]

    @pytest_twisted.ensureDeferred
    async def test_a_bus_that_runs_is_available_until_it_is_stopped(self, buses: list[Any]) -> None:
        (bus,) = self.make_buses(1)
        await bus.start()
        await self.connected(bus)
        assert bus.available
        await bus.stop()
        assert bus.available is (bus in buses)

    @pytest_twisted.ensureDeferred
    async def test_each_batch_has_a_beginning_and_an_end(self, buses: list[Any]) -> None:
        events: list[str] = []
        buses[1].bracket(lambda: events.append("begin"), lambda: events.append("end"))
        await self.subscribe(buses[1], "room")
        for number in range(10):
            await done(buses[0].publish("room", b"%d" % number, False))
        await self.settle(buses)
        assert events == (["begin", "end"] * len(events))[: len(events)]

    @pytest_twisted.ensureDeferred
    async def test_a_stopped_bus_refuses_publications(self) -> None:
        (bus,) = self.make_buses(1)
        await bus.start()
        await bus.stop()
        with pytest.raises(BusUnavailable):
            await done(bus.publish("room", b"payload", False))

    @pytest_twisted.ensureDeferred
    async def test_a_stopped_bus_refuses_subscriptions(self) -> None:
        (bus,) = self.make_buses(1)
        await bus.start()
        await bus.stop()
        with pytest.raises(BusUnavailable):
            await done(bus.subscribe("room", print))

    @pytest_twisted.ensureDeferred
    async def test_a_bus_that_is_started_anew_goes_on(self) -> None:
        (bus,) = self.make_buses(1)
        for payload in (b"one", b"two"):
            await bus.start()
            await self.connected(bus)
            received = await self.subscribe(bus, "room")
            await done(bus.publish("room", payload, False))
            await self.settle([bus])
            assert received == [("room", payload, False)]
            await bus.stop()


class BusContract(_Publishing, _Confirming, _Subscribing, _Living):
    """
    The contract of every bus, as tests. The buses that :meth:`make_buses` returns are nodes of one cluster.

    Override :meth:`make_buses`. If publications take some time to arrive, override :meth:`settle`. If a bus may not be
    available immediately after its start, override :meth:`connected`.
    """


class _Done:
    """An awaitable for a Deferred, or for ``None``, which is a result without waiting."""

    def __init__(self, result: MaybeDeferred) -> None:
        self._result = result

    def __await__(self) -> Generator[Deferred[None], None, None]:
        if self._result is not None:
            yield from self._result.__await__()


def done(result: MaybeDeferred) -> _Done:
    """Return an awaitable for the result of a bus. ``None`` means that the bus has finished."""
    return _Done(result)
