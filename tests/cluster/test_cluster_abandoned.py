"""What a link to NATS still sends when its node has given it up: nobody gets it twice, late, or in the wrong order."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator

import pytest
from integration._nats import NATSProcess, needs_nats
from integration._server import RawClient, ServerProcess, message, wait_until

from cluster._cluster import Publisher, Subscriber, join
from cluster._faults import Proxy, two_servers

pytestmark = needs_nats

LAST = "99999999"


@pytest.fixture
def servers() -> Iterator[tuple[NATSProcess, NATSProcess, Proxy]]:
    """Two NATS servers, and the way between them."""
    first, second, route = two_servers(0.0)
    yield first, second, route
    first.stop()
    second.stop()
    route.close()


def publish(client: RawClient, numbers: range, receipt: bool) -> None:
    for number in numbers:
        headers = {"publish": "room"} | ({"receipt": str(number)} if receipt else {})
        client.send(message("count", headers, f"{number:08}"))


def numbers(subscriber: Subscriber) -> list[int]:
    return [number for _, number in tuple(subscriber.received)]


@pytest.mark.parametrize("receipt", [True, False])
def test_a_server_that_goes_on_after_its_node_has_left_it_brings_nothing_twice_or_late(
    serve: Callable[..., ServerProcess], servers: tuple[NATSProcess, NATSProcess, Proxy], receipt: bool
) -> None:
    first, _second, _ = servers
    here, there = (join(serve("--nats", nats.url)) for nats in servers[:2])
    with (
        Subscriber(here.port, "room") as own,
        Subscriber(there.port, "room") as other,
        RawClient(here.port) as client,
    ):
        publish(client, range(1), False)
        wait_until(lambda: numbers(other) == [0], "it goes through")
        first.send_signal(signal.SIGSTOP)
        publish(client, range(1, 6), receipt)
        join(here, 2)
        publish(client, range(6, 9), receipt)
        wait_until(lambda: numbers(other)[-3:] == [6, 7, 8], "the new ones are there")
        first.send_signal(signal.SIGCONT)
        join(serve("--nats", first.url))  # it works again
        time.sleep(1.0)
        publish(client, range(9, 10), False)
        wait_until(lambda: numbers(other)[-1] == 9, "the last one is there")
        assert numbers(own) == list(range(10))
        # What the old server took before it stood still may have come in time.
        assert numbers(other) == sorted(set(numbers(other)))
        assert numbers(other)[-4:] == [6, 7, 8, 9]


def test_a_link_that_was_held_brings_nothing_twice_or_late(
    serve: Callable[..., ServerProcess], servers: tuple[NATSProcess, NATSProcess, Proxy]
) -> None:
    """The node's way to its server is held; it goes to the other one; then the way is free again."""
    first, second, _ = servers
    with Proxy(first.port) as way:
        here = join(serve("--nats", f"nats://127.0.0.1:{way.port}"))
        there = join(serve("--nats", second.url))
        with (
            Subscriber(here.port, "room") as own,
            Subscriber(there.port, "room") as other,
            Publisher(here.port, "room", rate=150) as publisher,
        ):
            wait_until(lambda: len(publisher.accepted) > 50, "some are accepted")
            way.held = [True, True]
            join(here, 2)
            accepted = len(publisher.accepted)
            wait_until(lambda: len(publisher.accepted) > accepted + 50, "some are accepted again")
            way.heal()
            time.sleep(1.0)
            account = publisher.finish(other)
            assert account.in_order and not account.twice and not account.lost, str(account)
            assert numbers(own) == sorted(set(numbers(own)))


def test_nodes_that_have_a_link_to_a_server_that_stops_and_goes_on_keep_the_order(
    serve: Callable[..., ServerProcess], servers: tuple[NATSProcess, NATSProcess, Proxy]
) -> None:
    """Publishers at both servers while one of them is stopped and goes on."""
    first, second, _ = servers
    nodes = [join(serve("--nats", nats.url)) for nats in (first, first, second)]
    with (
        Subscriber(nodes[0].port, "room.0") as zero,
        Subscriber(nodes[1].port, "room.0") as one,
        Subscriber(nodes[2].port, "room.0") as two,
        Publisher(nodes[0].port, "room.0", rate=150) as publisher,
    ):
        wait_until(lambda: len(publisher.accepted) > 50, "some are accepted")
        first.send_signal(signal.SIGSTOP)
        for node in nodes[:2]:
            join(node, 2)
        accepted = len(publisher.accepted)
        wait_until(lambda: len(publisher.accepted) > accepted + 50, "some are accepted again")
        first.send_signal(signal.SIGCONT)
        time.sleep(1.5)
        account = publisher.finish(two)
        assert account.in_order and not account.twice, str(account)
        for subscriber in (zero, one):
            assert numbers(subscriber) == sorted(set(numbers(subscriber)))
