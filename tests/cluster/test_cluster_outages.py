"""What clients notice while NATS crashes, hangs, is absent, or hands over to another server of its cluster."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from integration._nats import NATSProcess, needs_nats
from integration._server import RawClient, ServerProcess, message, processor_arguments, wait_until

from cluster._cluster import PATIENCE, UNKNOWN, Account, Publisher, Subscriber, accepted_after, join

pytestmark = needs_nats

LIMIT = 20 * 1024 * 1024
LAME_DUCK = 'lame_duck_duration: "30s", lame_duck_grace_period: "1s"\n'
"""nats-server's own defaults are 2 minutes and 10 seconds; less than 30 seconds it does not take."""


class Witness:
    """
    A client of NATS that does nothing.

    :ivar end: when its connection ended.
    """

    def __init__(self, port: int) -> None:
        self.end = float("inf")
        self._sock = socket.create_connection(("127.0.0.1", port))
        self._sock.sendall(b'CONNECT {"verbose":false}\r\n')
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        with contextlib.suppress(OSError):
            while self._sock.recv(65_536):
                pass
        self.end = time.monotonic()

    def __enter__(self) -> Witness:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._sock.close()


@dataclass(frozen=True, slots=True)
class Crash:
    """
    :ivar unexplained: see :class:`Ending`.
    :ivar pause: seconds between NATS's return and the first publication that was accepted again.
    :ivar arrived: seconds between NATS's return and the first publication that reached the other node again.
    """

    account: Account
    unexplained: list[int]
    pause: float
    arrived: float


@pytest.fixture(scope="module")
def crash(tmp_path_factory: pytest.TempPathFactory) -> Crash:
    """A publisher on one node and a subscriber on another, while NATS is killed and away for a second."""
    directory, nats = tmp_path_factory.mktemp("crash"), NATSProcess()
    nodes = [join(ServerProcess("--nats", nats.url, cwd=directory)) for _ in range(2)]
    with (
        Subscriber(nodes[1].port, "room") as subscriber,
        Publisher(nodes[0].port, "room") as publisher,
        Witness(nats.port) as witness,
    ):
        wait_until(lambda: len(publisher.accepted) > 500, "some are accepted")
        start = time.monotonic()
        nats.kill()
        wait_until(lambda: len(publisher.refused) > 500, "some are refused")
        nats.start()
        back = time.monotonic()
        pause = accepted_after(publisher, back) - back
        time.sleep(0.5)
        account = publisher.finish(subscriber)
        arrived = min(when for when, _ in subscriber.received if when > back) - back
        unexplained = [lost for lost in account.lost if not start <= publisher.sent[lost] <= witness.end]
    for node in nodes:
        node.check()
    nats.stop()
    return Crash(account, unexplained, pause, arrived)


def test_a_crash_of_nats_loses_at_most_five_accepted_publications(crash: Crash) -> None:
    assert len(crash.unexplained) <= 5 and len(crash.account.lost) < 50, str(crash.account)
    assert len(crash.account.accepted) > 500, str(crash.account)


def test_a_crash_of_nats_delivers_nothing_twice_and_keeps_the_order(crash: Crash) -> None:
    assert crash.account.in_order and not crash.account.twice, str(crash.account)


def test_every_publication_of_an_outage_is_refused_and_its_publisher_told(crash: Crash) -> None:
    assert crash.account.unanswered == 0 and len(crash.account.refused) > 500, str(crash.account)
    assert not crash.account.invented, str(crash.account)
    reasons = {reason for _, reason in crash.account.refused.values()}
    assert reasons - {f"503 {UNKNOWN}"} == {"503 the bus is unavailable, try again later"}


def test_publishing_works_again_soon_after_the_return(crash: Crash) -> None:
    assert crash.pause < 5.0 and crash.arrived < 5.0, crash


@dataclass(frozen=True, slots=True)
class Hang:
    """
    :ivar noticed: seconds until the node that publishes has said that NATS is lost.
    :ivar growth: bytes by which the memory of each node has grown.
    :ivar slowest: the longest time that a client of the node waited for an answer.
    :ivar echoes: how many answers another client of the same node has got.
    :ivar back: seconds until publications were accepted again.
    """

    noticed: float
    growth: list[int]
    slowest: float
    echoes: int
    back: float
    account: Account


@pytest.fixture(scope="module")
def hang(tmp_path_factory: pytest.TempPathFactory) -> Hang:
    """6 MB/s of publications while NATS is stopped for 10 seconds."""
    directory, nats = tmp_path_factory.mktemp("hang"), NATSProcess()
    options = ("--nats", nats.url, *processor_arguments("echo"))
    nodes = [join(ServerProcess(*options, cwd=directory)) for _ in range(2)]
    with (
        Subscriber(nodes[1].port, "room") as subscriber,
        Publisher(nodes[0].port, "room", rate=3_000, padding=2_000) as publisher,
        RawClient(nodes[0].port) as client,
    ):
        time.sleep(0.5)
        before = [node.resident_size() for node in nodes]
        largest = list(before)
        nats.send_signal(signal.SIGSTOP)
        start = time.monotonic()
        noticed = slowest = 0.0
        echoes = 0
        while time.monotonic() - start < 10.0 or not (noticed or time.monotonic() - start > PATIENCE):
            asked = time.monotonic()
            client.send(message("echo", body="hello"))
            client.receive()
            echoes += 1
            slowest = max(slowest, time.monotonic() - asked)
            largest = [max(size, node.resident_size()) for size, node in zip(largest, nodes, strict=True)]
            if not noticed and all("lost NATS" in node.log for node in nodes):
                noticed = time.monotonic() - start
            time.sleep(0.02)
        nats.send_signal(signal.SIGCONT)
        moment = time.monotonic()
        back = accepted_after(publisher, moment) - moment
        account = publisher.finish(subscriber)
    for node in nodes:
        node.check()
    nats.stop()
    growth = [size - first for size, first in zip(largest, before, strict=True)]
    return Hang(noticed, growth, slowest, echoes, back, account)


def test_a_nats_that_hangs_is_noticed(hang: Hang) -> None:
    assert 0 < hang.noticed < 15.0, hang.noticed


def test_memory_does_not_grow_while_nats_hangs(hang: Hang) -> None:
    assert max(hang.growth) < LIMIT, hang.growth


def test_clients_of_the_node_are_served_while_nats_hangs(hang: Hang) -> None:
    assert hang.echoes > 20 and hang.slowest < 5.0, (hang.echoes, hang.slowest)


def test_a_hanging_nats_gets_refusals_to_publishers_and_nothing_twice(hang: Hang) -> None:
    assert hang.account.unanswered == 0 and hang.account.refused, str(hang.account)
    assert hang.account.in_order and not hang.account.twice and not hang.account.invented, str(hang.account)
    assert {reason[:3] for _, reason in hang.account.refused.values()} == {"503"}


def test_publishing_works_again_soon_after_a_hang(hang: Hang) -> None:
    assert hang.back < 10.0, hang.back


def test_a_node_starts_without_nats_and_joins_when_it_appears(serve: Callable[..., ServerProcess]) -> None:
    nats = NATSProcess(start=False)
    first, second = (serve("--nats", nats.url) for _ in range(2))
    with RawClient(first.port) as early, RawClient(second.port) as publisher:
        early.send(message("chat", {"subscribe": "room", "receipt": "s"}))
        publisher.send(message("chat", {"publish": "room", "receipt": "p"}, "lost"))
        assert b"status:503\r\n" in publisher.receive()[1]
        time.sleep(1.0)
        nats.start()
        appeared = time.monotonic()
        try:
            assert b"receipt-id:s" in early.receive()[1]
            while True:
                publisher.send(message("chat", {"publish": "room", "receipt": "p"}, "hello"))
                if b"LHTTP/1.0 receipt" in publisher.receive()[1]:
                    break
                time.sleep(0.05)
            assert early.receive()[1].endswith(b"hello")
            assert time.monotonic() - appeared < 10.0
        finally:
            nats.stop()


@dataclass(frozen=True, slots=True)
class Ending:
    """
    :ivar unexplained: publications that were lost though they were sent before the server was told to end, or after it
        had gone. A process that is killed keeps its sockets for some milliseconds.
    """

    account: Account
    unexplained: list[int]


@pytest.fixture
def end_one_of_two(tmp_path: Path) -> Callable[[signal.Signals, str], Ending]:
    """Run a node at each server of a NATS cluster, and end that of the publisher's node or of the subscriber's."""
    settings = tmp_path / "nats.conf"
    settings.write_text(LAME_DUCK, "utf-8")

    def end(number: signal.Signals, whose: str) -> Ending:
        first = NATSProcess("-c", str(settings), cluster=())
        second = NATSProcess("-c", str(settings), cluster=[first.route])
        ending = second if whose == "subscriber" else first
        here, there = (join(ServerProcess("--nats", nats.url, cwd=tmp_path)) for nats in (first, second))
        with (
            Subscriber(there.port, "room") as subscriber,
            Publisher(here.port, "room") as publisher,
            Witness(ending.port) as witness,
        ):
            wait_until(lambda: len(publisher.accepted) > 1_000, "some are accepted")
            start = time.monotonic()
            ending.send_signal(number)
            time.sleep(1.0 if number == signal.SIGKILL else 1.5)
            account = publisher.finish(subscriber)
            unexplained = [lost for lost in account.lost if not start <= publisher.sent[lost] <= witness.end]
        for node in (here, there):
            node.check()
        for nats in (first, second):
            nats.kill()
        assert account.in_order and not account.twice and not account.invented and not account.unanswered, str(account)
        assert len(account.accepted) > 1_000 and len(account.lost) < 50, str(account)
        return Ending(account, unexplained)

    return end


def test_a_nats_server_of_two_that_is_killed_costs_its_subscribers_one_publication_at_most(
    end_one_of_two: Callable[[signal.Signals, str], Ending],
) -> None:
    """Five attempts, because a node that waits for a processor of this machine loses more."""
    attempts: list[Ending] = []
    while len(attempts) < 5:
        attempts.append(end_one_of_two(signal.SIGKILL, "subscriber"))
        if len(attempts[-1].unexplained) <= 1:
            return
    raise AssertionError("; ".join(str(attempt.account) for attempt in attempts))


def test_a_nats_server_of_two_that_is_killed_costs_its_publishers_nothing_that_was_accepted(
    end_one_of_two: Callable[[signal.Signals, str], Ending],
) -> None:
    """Two attempts, because a NATS server answers a moment before it has passed on what it answers for."""
    accounts = [end_one_of_two(signal.SIGKILL, "publisher").account]
    if accounts[0].lost:
        accounts.append(end_one_of_two(signal.SIGKILL, "publisher").account)
    assert not accounts[-1].lost, "; ".join(map(str, accounts))


@pytest.mark.parametrize("whose", ["publisher", "subscriber"])
def test_a_nats_server_of_two_that_announces_its_end_costs_nothing(
    end_one_of_two: Callable[[signal.Signals, str], Ending], whose: str
) -> None:
    account = end_one_of_two(signal.SIGUSR2, whose).account
    assert not account.lost and not account.refused, str(account)


def test_publications_of_an_outage_stay_on_their_node_where_the_operator_wants_it(
    serve: Callable[..., ServerProcess],
) -> None:
    nats = NATSProcess()
    node = join(serve("--nats", nats.url, "--nats-local-delivery"))
    with RawClient(node.port) as client:
        client.subscribe("room")
        nats.kill()
        node.wait_for_log("delivered on this node alone")
        client.send(message("chat", {"publish": "room", "receipt": "p"}, "hello"))
        answers = [client.receive()[1] for _ in range(2)]
        assert answers == [
            message("chat", {"publish": "room"}, "hello").encode(),
            message("receipt", {"receipt-id": "p"}).encode(),
        ]
        client.subscribe("other")
