"""lhttp_tx.cluster.muting: a mute is known on every node, also on those that join or come back later."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher

from lhttp_tx import Message
from lhttp_tx.bus.memory import MemoryBus
from lhttp_tx.cluster.control import Reached
from lhttp_tx.cluster.nodes import HELLO_INTERVAL
from lhttp_tx.cluster.peers import FORGET_AFTER
from lhttp_tx.errors import TooMany
from lhttp_tx.rules import muting
from lhttp_tx.testing import Client, Server
from unit.cluster.test_control import Cluster
from unit.cluster.test_partitions import Net

PUBLICATION = Message("chat", [("publish", "room")])


def is_muted(client: Client) -> bool:
    """Publish, and return whether that was refused."""
    client.send(PUBLICATION)
    return [message.command for message in client.take()] == ["error"]


def left(server: Server, user: str) -> float:
    return server.control._orders.muting.mutes.left_of_user(user)


@pytest.fixture
def lines() -> Iterator[list[dict[str, Any]]]:
    """The lines of the log about mutes."""
    found: list[dict[str, Any]] = []

    def observe(event: dict[str, Any]) -> None:
        if str(event.get("event")).startswith("mute."):
            found.append(event)

    globalLogPublisher.addObserver(observe)
    yield found
    globalLogPublisher.removeObserver(observe)


def test_a_user_is_muted_on_all_nodes_and_on_later_connections() -> None:
    cluster = Cluster()
    early = [cluster.connect(number, "jack") for number in (0, 1, 1)]
    assert cluster.outcome(cluster.control.mute(user="jack")) == Reached(3)
    late = [cluster.connect(number, "jack") for number in range(3)]
    assert [is_muted(client) for client in (*early, *late)] == [True] * 6
    assert not is_muted(cluster.connect(1, "jill"))
    assert cluster.outcome(cluster.control.unmute(user="jack")) == Reached(6)
    assert [is_muted(client) for client in (*early, *late)] == [False] * 6
    assert cluster.outcome(cluster.control.unmute(user="jack")) == Reached(0)


def test_a_user_who_is_away_is_muted_already() -> None:
    cluster = Cluster()
    assert cluster.outcome(cluster.control.mute(user="jack")) == Reached(0)
    assert is_muted(cluster.connect(2, "jack"))


@pytest.mark.parametrize("number", [0, 1])
def test_a_connection_is_muted_wherever_it_is(number: int) -> None:
    cluster = Cluster()
    client, other = cluster.connect(number, "jack"), cluster.connect(number, "jack")
    connection = client.session.identity.connection_id
    assert cluster.outcome(cluster.control.mute(connection=connection)) == Reached(1)
    assert (is_muted(client), is_muted(other)) == (True, False)
    assert cluster.outcome(cluster.control.unmute(connection=connection)) == Reached(1)
    assert not is_muted(client)
    assert cluster.outcome(cluster.control.mute(connection="nobody")) == Reached(0)


@pytest.mark.parametrize("number", [0, 1])
def test_the_details_of_a_connection_tell_of_its_mutes(number: int) -> None:
    cluster = Cluster()
    client = cluster.connect(number, "jack")
    connection = client.session.identity.connection_id

    def told() -> tuple[int, int]:
        answers, _ = cluster.outcome(cluster.control.survey("connection", connection=connection))
        (row,) = [row for rows in answers.values() for row in rows]
        return row["muted"], row["user_muted"]

    assert told() == (0, 0)
    cluster.outcome(cluster.control.mute(connection=connection, seconds=100))
    assert told() == (pytest.approx(97, abs=1), 0)
    cluster.outcome(cluster.control.mute(user="jack", seconds=50))
    assert told() == (pytest.approx(91, abs=1), pytest.approx(47, abs=1))


def test_a_node_that_joins_later_learns_who_is_muted() -> None:
    clock, bus = Clock(), MemoryBus()
    first = Server(bus=bus, clock=clock)
    for number in range(450):
        first.control.mute(user=f"u{number}", seconds=1_000 + number)
    first.control.unmute(user="u3")
    clock.pump([1.0] * 10)
    second = Server(bus=bus, clock=clock)
    clock.pump([0.1] * 50)
    assert is_muted(second.connect(user="u449"))
    assert not is_muted(second.connect(user="u3"))
    assert left(second, "u449") == pytest.approx(left(first, "u449"), abs=0.2)
    clock.advance(2_000)
    assert not is_muted(second.connect(user="u449"))


@pytest.mark.parametrize("skew", [0.0, 100_000.0, -100_000.0])
def test_what_happened_last_counts_when_nodes_find_each_other_again(skew: float) -> None:
    net = Net((0.0, skew))
    one, two = net.servers
    net.outcome(one.control.mute(user="lifted", seconds=10_000))
    net.outcome(one.control.mute(user="again", seconds=10_000))
    net.cut()
    net.pass_time(FORGET_AFTER)
    net.outcome(two.control.unmute(user="lifted"))
    net.outcome(one.control.unmute(user="again"))
    net.outcome(two.control.mute(user="again", seconds=9_000))
    net.outcome(one.control.mute(user="new", seconds=9_000))
    net.heal()
    assert [left(server, "lifted") for server in net.servers] == [0.0, 0.0]
    assert left(one, "again") == pytest.approx(left(two, "again"), abs=0.1)
    assert left(two, "again") > 8_000
    assert left(two, "new") == pytest.approx(left(one, "new"), abs=0.1) != 0


def test_a_node_that_was_cut_off_for_a_moment_learns_what_it_has_missed() -> None:
    """Nobody has noticed that it was away: it counts as alive for some heartbeats."""
    net = Net()
    one, two = net.servers
    net.outcome(one.control.mute(user="lifted", seconds=10_000))
    net.cut()
    assert net.outcome(one.control.mute(user="new", seconds=9_000)).unanswered
    net.outcome(two.control.unmute(user="lifted"))
    net.heal()
    assert [left(server, "lifted") for server in net.servers] == [0.0, 0.0]
    assert left(two, "new") == pytest.approx(left(one, "new"), abs=0.1) != 0


@pytest.mark.parametrize("first", [0, 1])
def test_the_end_of_an_outage_of_the_bus_spreads_what_was_ordered_meanwhile(first: int) -> None:
    """Whichever node is back first: what it sends then reaches nobody."""
    net = Net()
    one, _ = net.servers
    net.cut()
    one.control.mute(user="new", seconds=9_000)
    net.servers[first].assembly.control.muting._exchange()
    for view in net.views:
        view.side = 0
    net.servers[1 - first].assembly.control.muting._exchange()
    net.clock.pump([0.01] * 3)
    assert [left(server, "new") > 8_000 for server in net.servers] == [True, True]


def test_only_recent_news_are_exchanged_after_a_moment() -> None:
    net = Net()
    one, two = net.servers
    for number in range(5):
        net.outcome(one.control.mute(user=f"old{number}", seconds=100_000))
    net.pass_time(FORGET_AFTER + 120)
    two.control.muting.mutes._users.clear()
    net.outcome(one.control.mute(user="new", seconds=100_000))
    one.control.muting.catch_up()
    net.pass_time(2)
    assert list(two.control.muting.mutes._users) == ["new"]


def test_a_mute_that_has_ended_does_not_let_an_earlier_one_come_back() -> None:
    net = Net()
    one, two = net.servers
    for user in ("shorter", "again"):
        net.outcome(one.control.mute(user=user, seconds=10_000))
    net.cut()
    net.pass_time(FORGET_AFTER)
    net.outcome(one.control.unmute(user="again"))
    for user in ("shorter", "again"):
        net.outcome(one.control.mute(user=user, seconds=10))
    net.pass_time(70)
    assert [left(one, user) for user in ("shorter", "again")] == [0.0, 0.0]
    assert left(two, "shorter") > 9_000
    net.heal()
    assert [left(server, user) for server in net.servers for user in ("shorter", "again")] == [0.0] * 4


def test_a_node_whose_table_is_full_still_learns_who_is_free(
    monkeypatch: pytest.MonkeyPatch, lines: list[dict[str, Any]]
) -> None:
    monkeypatch.setattr(muting, "MAX_USERS", 3)
    full = Server()
    for number in range(3):
        full.control.mute(user=f"u{number}")
    later = full.control._orders.muting._shared() + 1
    heard = [["v0", 100, later], ["v1", 100, later], ["v2", 100, later], ["u1", 0, later]]
    full.control._orders.muting._hear("other", heard)
    assert [left(full, user) > 0 for user in ("u0", "u1", "u2", "v0", "v1", "v2")] == [
        True,
        False,
        True,
        True,
        False,
        False,
    ]
    assert [line["event"] for line in lines if line["event"] == "mute.full"] == ["mute.full"]


def test_a_node_that_stood_still_shortens_the_mute_by_its_delay() -> None:
    net = Net()
    net.views[1].held = []
    net.servers[0].control.mute(user="jack", seconds=600)
    net.pass_time(5.0)
    net.views[1].go_on()
    net.pass_time(HELLO_INTERVAL)
    assert left(net.servers[1], "jack") == pytest.approx(left(net.servers[0], "jack"), abs=0.1) != 0


def test_a_clock_that_is_far_behind_does_not_end_a_mute_that_has_just_begun() -> None:
    server = Server()
    order = {"do": "mute", "user": "jack", "seconds": 60, "stamp": -1e9, "by": "code", "at": 0.0}
    assert server.control._orders.muting.mute(order, []) == 0
    assert left(server, "jack") == 50


def test_the_log_of_each_node_that_mutes_names_who_wanted_it(lines: list[dict[str, Any]]) -> None:
    cluster = Cluster()
    client = cluster.connect(1)
    connection = client.session.identity.connection_id
    cluster.outcome(cluster.control.mute(user="jack", seconds=60, by="the key ops"))
    cluster.outcome(cluster.control.unmute(user="jack", by="the key ops"))
    cluster.outcome(cluster.control.unmute(user="jack", by="nobody is told"))
    cluster.outcome(cluster.control.mute(connection=connection, by="the key ops"))
    cluster.outcome(cluster.control.unmute(connection=connection))
    texts = [event["log_format"].format(**event) for event in lines]
    peer = client.session.peer
    assert texts == [
        *["muted the user 'jack' for 60 s, as the key ops said"] * 3,
        *["lifted the mute of the user 'jack', as the key ops said"] * 3,
        f"{peer}: muted for 600 s, as the key ops said",
        f"{peer}: no longer muted, as code said",
    ]
    names = [event["event"] for event in lines]
    assert names == ["mute.given"] * 3 + ["mute.lifted"] * 3 + [
        "mute.given",
        "mute.lifted",
    ]


def test_a_node_whose_table_is_full_does_not_answer_for_the_mute(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster()
    monkeypatch.setattr(muting, "MAX_USERS", 1)
    full = cluster.servers[2].control._orders.muting.mutes
    full.mute_user(muting.News("other", 500, 0.0))
    found = cluster.outcome(cluster.control.mute(user="jack"))
    assert found.unanswered == (cluster.servers[2].assembly.nodes.name,)
    with pytest.raises(TooMany):
        cluster.control.mute(user="jill")
