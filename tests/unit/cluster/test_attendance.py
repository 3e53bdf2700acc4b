"""One login per identity, and at most some connections of a user, on one node and on several."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from lhttp_tx.bus.memory import MemoryBus
from lhttp_tx.cluster.nodes import DEAD_AFTER, HELLO_INTERVAL
from lhttp_tx.testing import Client, Server

ELSEWHERE = (4409, "logged in elsewhere")


class Cluster:
    """Servers on one bus and one clock."""

    def __init__(self, count: int = 3, **options: Any) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000.0)
        self.bus = MemoryBus()
        self.servers = [Server(bus=self.bus, clock=self.clock, **options) for _ in range(count)]
        self.settle()

    def settle(self) -> None:
        self.clock.pump([0.1] * 10)

    def kill(self, number: int) -> None:
        nodes = self.servers[number].assembly.nodes
        assert nodes._timer is not None
        nodes._timer.cancel()
        for channel in ("$nodes", f"$node.{nodes.name}"):
            self.bus.unsubscribe(channel, nodes._receive)


def closed(client: Client) -> tuple[int | None, str]:
    return client.close_code, client.close_reason


def test_a_second_login_closes_the_first_at_once() -> None:
    server = Server(max_per_user=1)
    first = server.connect(user="alice")
    second = server.connect(user="alice")
    assert closed(first) == ELSEWHERE
    assert second.close_code is None


def test_other_users_and_nobodies_stay() -> None:
    server = Server(max_per_user=1)
    clients = [server.connect(user="alice"), server.connect(user="bob"), server.connect(), server.connect()]
    assert [client.close_code for client in clients] == [None] * 4


def test_a_second_login_on_another_node_closes_the_first() -> None:
    cluster = Cluster(max_per_user=1)
    first = cluster.servers[0].connect(user="alice")
    cluster.settle()
    second = cluster.servers[1].connect(user="alice")
    cluster.settle()
    assert closed(first) == ELSEWHERE
    assert second.close_code is None


def test_the_end_of_the_first_leaves_the_entry_of_the_second() -> None:
    cluster = Cluster(max_per_user=1)
    first = cluster.servers[0].connect(user="alice")
    cluster.settle()
    second = cluster.servers[1].connect(user="alice")
    cluster.settle()
    first.disconnect()
    cluster.settle()
    third = cluster.servers[2].connect(user="alice")
    cluster.settle()
    assert (closed(second), third.close_code) == (ELSEWHERE, None)


def test_two_logins_at_the_same_moment_leave_one() -> None:
    cluster = Cluster(max_per_user=1)
    clients = [server.connect(user="alice") for server in cluster.servers]
    cluster.settle()
    assert sorted(client.close_code or 0 for client in clients) == [0, 4409, 4409]


def test_the_newest_stay_where_some_may() -> None:
    cluster = Cluster(max_per_user=2)
    clients = []
    for number in range(5):
        clients.append(cluster.servers[number % 3].connect(user="alice"))
        cluster.settle()
    assert [client.close_code for client in clients] == [4409, 4409, 4409, None, None]
    assert clients[0].close_reason == "logged in elsewhere: a user may have 2 connections"


def test_connections_that_have_ended_do_not_count() -> None:
    server = Server(max_per_user=2)
    first, second = server.connect(user="alice"), server.connect(user="alice")
    first.disconnect()
    server.connect(user="alice")
    assert second.close_code is None
    assert len(server.assembly.members._roster.beyond("alice", 0)) == 2


def test_users_of_a_killed_node_log_in_elsewhere_at_once() -> None:
    cluster = Cluster(max_per_user=1)
    cluster.servers[0].connect(user="alice")
    cluster.settle()
    cluster.kill(0)
    again = cluster.servers[1].connect(user="alice")
    cluster.settle()
    assert again.close_code is None
    cluster.clock.pump([0.5] * int(2 * (DEAD_AFTER + HELLO_INTERVAL) + 2))
    assert again.close_code is None


def test_the_newest_stays_though_another_clock_is_ahead() -> None:
    cluster = Cluster(max_per_user=1)
    for server in cluster.servers[:1]:
        assert server.assembly.members._attendance is not None
        server.assembly.members._attendance._now = lambda: cluster.clock.seconds() + 3_600
    first = cluster.servers[0].connect(user="alice")
    cluster.settle()
    second = cluster.servers[1].connect(user="alice")
    cluster.settle()
    assert (closed(first), second.close_code) == (ELSEWHERE, None)


def test_a_login_message_counts_as_a_login() -> None:
    server = Server(max_per_user=1)
    first, second = server.connect(user="alice"), server.connect()
    second.session.identity = server.connect(user="alice").session.identity
    assert closed(first) == ELSEWHERE


def test_a_renewed_login_closes_nothing_and_is_no_younger() -> None:
    server = Server(max_per_user=1)
    client = server.connect(user="alice")
    client.session.identity = client.session.identity
    assert client.close_code is None


def test_a_query_parameter_names_clients_where_nobody_logs_in() -> None:
    server = Server(max_per_user=1, login_parameter="name")
    first = server.connect(target="/?name=jack")
    other = server.connect(target="/?name=jill")
    nobody = server.connect(target="/")
    server.connect(target="/?name=jack")
    assert closed(first) == ELSEWHERE
    assert (other.close_code, nobody.close_code) == (None, None)


@pytest.mark.parametrize("name", ["", "%20jack", "a%0D%0Ab", "x" * 256, "%00"])
def test_what_is_no_name_is_nobodys(name: str) -> None:
    server = Server(max_per_user=1, login_parameter="name")
    clients = [server.connect(target=f"/?name={name}") for _ in range(2)]
    assert [client.close_code for client in clients] == [None, None]


def test_without_a_limit_nobody_is_watched() -> None:
    server = Server(login_parameter="name")
    assert server.engine.watchers == []
