"""What a receipt for a subscription promises where nodes use several NATS servers, and when nodes publish again."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from integration._nats import NATSProcess, needs_nats
from integration._server import RawClient, ServerProcess, message, wait_until

from cluster._cluster import Publisher, Subscriber, join
from cluster._faults import Proxy, two_servers

pytestmark = needs_nats

LAME_DUCK = 'lame_duck_duration: "30s", lame_duck_grace_period: "2s"\n'


@pytest.fixture
def far(serve: Callable[..., ServerProcess]) -> Iterator[tuple[ServerProcess, ServerProcess, Proxy]]:
    """Two nodes that know each other, each at a NATS server of its own, and the way between the servers."""
    first, second, route = two_servers(0.02)
    nodes = [join(serve("--nats", nats.url)) for nats in (first, second)]
    for node in nodes:
        node.wait_for_log("has joined")
    yield nodes[0], nodes[1], route
    first.stop()
    second.stop()
    route.close()


def subscribe(client: RawClient, channel: str) -> bytes:
    client.send(message("chat", {"subscribe": channel, "receipt": channel}))
    return client.receive()[1]


def test_a_receipt_for_a_subscription_means_that_nodes_at_other_servers_pass_on_to_it(
    far: tuple[ServerProcess, ServerProcess, Proxy],
) -> None:
    here, there, _ = far
    with RawClient(here.port) as subscriber, RawClient(there.port) as publisher:
        for number in range(20):
            channel = f"room.{number}"
            assert subscribe(subscriber, channel) == message("receipt", {"receipt-id": channel}).encode()
            publisher.send(message("chat", {"publish": channel, "receipt": channel}, channel))
            assert publisher.receive()[1] == message("receipt", {"receipt-id": channel}).encode()
            assert subscriber.receive()[1] == message("chat", {"publish": channel}, channel).encode()


def test_a_receipt_says_where_that_cannot_be_known(far: tuple[ServerProcess, ServerProcess, Proxy]) -> None:
    here, there, route = far
    with RawClient(here.port) as subscriber, RawClient(there.port) as publisher, RawClient(here.port) as late:
        route.held = [True, True]
        unsure = message("receipt", {"receipt-id": "room", "unsure": "room"}).encode()
        assert subscribe(subscriber, "room") == unsure
        assert subscribe(late, "room") == unsure
        route.heal()
        wait_until(lambda: b"unsure" not in subscribe(late, "room"), "it is known later")
        publisher.send(message("chat", {"publish": "room"}, "hello"))
        assert subscriber.receive()[1].endswith(b"hello")


def test_the_nodes_of_an_outage_wait_for_each_other_even_where_one_was_started_during_it(
    serve: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    """NATS is away for so long that nodes try seldom; a node that was just started tries often."""
    nats = NATSProcess()
    slow = join(serve("--nats", nats.url))
    with Subscriber(slow.port, "room") as subscriber:
        nats.kill()
        time.sleep(17.0)
        fresh = serve("--nats", nats.url)
        fresh.wait_for_log("cannot reach NATS")
        with Publisher(fresh.port, "room", rate=500) as publisher:
            nats.start()
            join(fresh)
            time.sleep(1.0)
            account = publisher.finish(subscriber)
    nats.stop()
    assert account.accepted and not account.lost and not account.twice and account.in_order, str(account)


@pytest.mark.parametrize("delay", [0.0, 0.05])
def test_lame_duck_mode_keeps_order_where_servers_are_far_from_each_other(
    serve: Callable[..., ServerProcess], tmp_path: Path, delay: float
) -> None:
    settings = tmp_path / "nats.conf"
    settings.write_text(LAME_DUCK, "utf-8")
    first, second, route = two_servers(delay, "-c", str(settings))
    nodes = [join(serve("--nats", nats.url)) for nats in (first, first, second)]
    with (
        Subscriber(nodes[0].port, "room") as zero,
        Subscriber(nodes[1].port, "room") as one,
        Subscriber(nodes[2].port, "room") as two,
        Subscriber(nodes[2].port, "other") as far,
        Publisher(nodes[0].port, "room", rate=300) as publisher,
        Publisher(nodes[1].port, "other", rate=300) as other,
    ):
        wait_until(lambda: len(publisher.accepted) > 300, "some are accepted")
        first.send_signal(signal.SIGUSR2)
        for node in nodes[:2]:
            join(node, 2)
        time.sleep(1.5)
        accounts = [publisher.finish(two), other.finish(far)]
        for subscriber in (zero, one):
            received = [number for _, number in subscriber.received]
            assert received == list(range(len(publisher.sent)))
    for account in accounts:
        assert account.in_order and not account.twice and not account.lost and not account.refused, str(account)
    first.stop()
    second.stop()
    route.close()


def test_lame_duck_mode_of_the_only_server_loses_nothing_that_was_accepted(
    serve: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    settings = tmp_path / "nats.conf"
    settings.write_text(LAME_DUCK, "utf-8")
    nats = NATSProcess("-c", str(settings))
    here, there = (join(serve("--nats", nats.url)) for _ in range(2))
    with Subscriber(there.port, "room") as subscriber, Publisher(here.port, "room", rate=300) as publisher:
        wait_until(lambda: len(publisher.accepted) > 300, "some are accepted")
        nats.send_signal(signal.SIGUSR2)
        here.wait_for_log("no publications until it is back")
        wait_until(lambda: "lost NATS" in there.log or len(publisher.refused) > 2_000, "it has gone", 60.0)
        nats.kill()
        nats.start()
        join(here, 2)
        accepted = len(publisher.accepted)
        wait_until(lambda: len(publisher.accepted) > accepted + 100, "some are accepted again")
        account = publisher.finish(subscriber)
    nats.stop()
    assert account.in_order and not account.twice and not account.lost, str(account)
