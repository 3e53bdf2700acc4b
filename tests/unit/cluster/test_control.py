"""Control over connections from code, on one node and on several."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from lhttp_tx import Message
from lhttp_tx.bus.memory import MemoryBus
from lhttp_tx.cluster.control import Found, Reached
from lhttp_tx.codec.limits import Limits
from lhttp_tx.errors import LocalProtocolError
from lhttp_tx.testing import Client, Server

JOIN = "LHTTP/1.0 x\r\nsubscribe:{}\r\n\r\n"
NEWS = Message("news", [("a", "b")], b"\xff\x00", binary=True)


class Cluster:
    """Three servers on one bus and one clock."""

    def __init__(self, **options: Any) -> None:
        self.clock = Clock()
        self.bus = MemoryBus()
        self.servers = [Server(bus=self.bus, clock=self.clock, **options) for _ in range(3)]
        self.control = self.servers[0].control

    def connect(self, number: int, user: str | None = None, channels: str = "") -> Client:
        client = self.servers[number].connect(user=user)
        if channels:
            client.send(JOIN.format(channels))
        return client

    def outcome(self, waiting: Deferred[Any]) -> Any:
        found: list[Any] = []
        waiting.addBoth(found.append)
        self.clock.pump([0.1] * 30)
        assert found
        return found[0]


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def test_a_user_is_reached_on_all_devices(cluster: Cluster) -> None:
    clients = [cluster.connect(number, "alice") for number in (0, 1, 1, 2)]
    other = cluster.connect(1, "bob")
    assert cluster.outcome(cluster.control.send_to_user("alice", NEWS)) == Reached(4)
    assert [client.take() for client in clients] == [[NEWS]] * 4
    assert other.take() == []


@pytest.mark.parametrize("number", [0, 1])
def test_one_connection_is_reached(cluster: Cluster, number: int) -> None:
    client, other = cluster.connect(number, "alice"), cluster.connect(number, "alice")
    connection = client.session.identity.connection_id
    assert cluster.outcome(cluster.control.send_to_connection(connection, NEWS)) == Reached(1)
    assert (client.take(), other.take()) == ([NEWS], [])


def test_who_is_not_there_is_not_reached(cluster: Cluster) -> None:
    assert cluster.outcome(cluster.control.send_to_user("alice", NEWS)) == Reached(0)
    assert cluster.outcome(cluster.control.send_to_connection("alice", NEWS)) == Reached(0)


def test_everybody_is_reached(cluster: Cluster) -> None:
    clients = [cluster.connect(0), cluster.connect(1, "alice"), cluster.connect(2)]
    assert cluster.outcome(cluster.control.broadcast(NEWS)) == Reached(3)
    assert [client.take() for client in clients] == [[NEWS]] * 3


def test_a_user_is_subscribed_and_unsubscribed(cluster: Cluster) -> None:
    clients = [cluster.connect(0, "alice"), cluster.connect(1, "alice")]
    assert cluster.outcome(cluster.control.subscribe(["a", "b"], user="alice")) == Reached(2)
    assert [client.session.channels for client in clients] == [{"a", "b"}] * 2
    assert cluster.outcome(cluster.control.unsubscribe("a", user="alice")) == Reached(2)
    assert cluster.outcome(cluster.control.unsubscribe("a", user="alice")) == Reached(0)
    assert [client.session.channels for client in clients] == [{"b"}] * 2


def test_one_connection_is_subscribed(cluster: Cluster) -> None:
    client, other = cluster.connect(1, "alice"), cluster.connect(1, "alice")
    connection = client.session.identity.connection_id
    assert cluster.outcome(cluster.control.subscribe("a", connection=connection)) == Reached(1)
    assert (client.session.channels, other.session.channels) == ({"a"}, frozenset())


def test_a_connection_with_too_many_subscriptions_does_not_count() -> None:
    cluster = Cluster(limits=Limits(subscription_count=1))
    cluster.connect(0, "alice", "x")
    cluster.connect(1, "alice")
    assert cluster.outcome(cluster.control.subscribe("a", user="alice")) == Reached(1)


def test_a_user_is_closed_with_code_and_reason(cluster: Cluster) -> None:
    clients = [cluster.connect(0, "alice"), cluster.connect(2, "alice")]
    assert cluster.outcome(cluster.control.close(user="alice", code=4000, reason="out")) == Reached(2)
    assert [(client.close_code, client.close_reason) for client in clients] == [(4000, "out")] * 2
    assert cluster.outcome(cluster.control.close(user="alice")) == Reached(0)


def test_a_channel_is_emptied(cluster: Cluster) -> None:
    clients = [cluster.connect(number, None, "room other") for number in range(3)]
    assert cluster.outcome(cluster.control.unsubscribe_all("room")) == Reached(3)
    assert [client.session.channels for client in clients] == [{"other"}] * 3


def test_channels_are_listed_with_counts(cluster: Cluster) -> None:
    cluster.connect(0, None, "a b")
    cluster.connect(1, None, "a")
    assert cluster.outcome(cluster.control.channels()) == {"a": 2, "b": 1}


def test_the_servers_own_channels_are_not_listed() -> None:
    server = Server(presence=["a"])
    server.connect().send(JOIN.format("a $presence.a"))
    found: list[Any] = []
    server.control.channels().addCallback(found.append)
    assert found == [{"a": 1}]


def test_subscribers_of_a_channel_are_listed(cluster: Cluster) -> None:
    here, there = cluster.connect(0, "alice", "a"), cluster.connect(1, None, "a")
    names = [server.assembly.nodes.name for server in cluster.servers]
    assert cluster.outcome(cluster.control.subscribers("a")) == [
        Found(here.session.identity.connection_id, "alice", names[0]),
        Found(there.session.identity.connection_id, None, names[1]),
    ]


def test_channels_of_a_user_are_listed(cluster: Cluster) -> None:
    cluster.connect(0, "alice", "a b")
    cluster.connect(1, "alice", "a")
    cluster.connect(1, "bob", "a c")
    assert cluster.outcome(cluster.control.channels_of("alice")) == {"a": 2, "b": 1}


def test_a_node_that_does_not_answer_is_named(cluster: Cluster) -> None:
    cluster.connect(0, "alice")
    dead = cluster.servers[2].assembly.nodes
    for channel in ("$nodes", f"$node.{dead.name}"):
        cluster.bus.unsubscribe(channel, dead._receive)
    assert cluster.outcome(cluster.control.send_to_user("alice", NEWS)) == Reached(1, (dead.name,))


def test_users_are_found_who_came_before_and_after_the_first_question() -> None:
    server = Server()
    control = server.control
    before = server.connect(user="alice")
    control.send_to_user("alice", NEWS)
    after = server.connect(user="alice")
    control.send_to_user("alice", NEWS)
    before.disconnect()
    control.send_to_user("alice", NEWS)
    assert (len(before.take()), len(after.take())) == (2, 2)


def test_a_user_who_logs_in_later_is_found() -> None:
    server = Server()
    control, client = server.control, server.connect()
    control.send_to_user("alice", NEWS)
    client.session.identity = server.connect(user="alice").session.identity
    control.send_to_user("alice", NEWS)
    assert client.take() == [NEWS]


def test_a_query_parameter_names_a_user() -> None:
    server = Server(login_parameter="name")
    client = server.connect(target="/?name=jack")
    server.control.send_to_user("jack", NEWS)
    assert client.take() == [NEWS]


def test_a_large_answer_comes_in_pieces_that_fit_into_messages(cluster: Cluster) -> None:
    answered: list[int] = []
    original = cluster.bus.publish
    cluster.bus.publish = lambda channel, payload, binary: (  # type: ignore[method-assign]
        answered.append(len(payload)),
        original(channel, payload, binary),
    )[1]
    hub = cluster.servers[1].engine.hub
    for number in range(5_000):
        hub.subscribe("somebody", f"{number:05}" + "é" * 125, lambda frames: None)
    found = cluster.outcome(cluster.control.channels())
    assert (len(found), found.complete) == (5_000, True)
    assert 130_000 < max(answered) < 270_000
    client = cluster.connect(1, "alice", "room")
    (reached,) = cluster.outcome(cluster.control.subscribers("room"))
    assert reached.connection == client.session.identity.connection_id


def test_an_answer_that_is_too_large_is_cut_and_says_so(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lhttp_tx.cluster.control.MAX_ANSWER", 10_000)
    hub = cluster.servers[1].engine.hub
    for number in range(5_000):
        hub.subscribe("somebody", f"{number:05}", lambda frames: None)
    found = cluster.outcome(cluster.control.channels())
    assert 100 < len(found) < 5_000
    assert (found.complete, found.unanswered) == (False, ())


def test_a_node_of_an_earlier_version_gets_what_fits_into_one_message(cluster: Cluster) -> None:
    hub = cluster.servers[1].engine.hub
    for number in range(5_000):
        hub.subscribe("somebody", f"{number:05}" + "é" * 125, lambda frames: None)
    answer = cluster.servers[1].control._ordered("old", {"do": "channels"})
    assert 500 < len(answer) < 5_000
    client = cluster.connect(1, "alice")
    assert cluster.servers[1].control._ordered("old", {"do": "close", "user": "alice", "code": 1000, "reason": ""}) == 1
    assert client.close_code == 1000


def test_nothing_is_watched_before_somebody_is_looked_for() -> None:
    server = Server()
    server.control.broadcast(NEWS)
    server.control.channels()
    assert server.engine.watchers == []


@pytest.mark.parametrize("code", [999, 1002, 1005, 1006, 1012, 2999, 5000])
def test_codes_that_a_server_may_not_send_are_refused(code: int) -> None:
    with pytest.raises(ValueError, match=f"{code} is not a close code that a server may send"):
        Server().control.close(user="alice", code=code)


@pytest.mark.parametrize("whom", [{}, {"user": "a", "connection": "b"}])
def test_an_order_is_for_a_user_or_for_a_connection(whom: dict[str, str]) -> None:
    control = Server().control
    calls: list[Callable[[], object]] = [
        lambda: control.close(**whom),  # type: ignore[arg-type]
        lambda: control.subscribe("a", **whom),
        lambda: control.unsubscribe("a", **whom),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="name a user or a connection"):
            call()


@pytest.mark.parametrize("name", ["a..b", "$presence.a"])
def test_names_of_channels_are_checked(name: str) -> None:
    control = Server(presence=[">"]).control
    for call in (lambda: control.subscribe(name, user="a"), lambda: control.unsubscribe_all(name)):
        with pytest.raises(LocalProtocolError):
            call()


@pytest.mark.parametrize("name", ["a..b", "$nodes", "a.>.b"])
def test_questions_are_about_channels_that_there_may_be(name: str) -> None:
    with pytest.raises(LocalProtocolError):
        Server().control.subscribers(name)


@pytest.mark.parametrize(
    "call",
    [
        lambda control: control.broadcast("news"),
        lambda control: control.send_to_user("alice", {"command": "news"}),
        lambda control: control.send_to_user(None, NEWS),
        lambda control: control.send_to_connection(5, NEWS),
        lambda control: control.subscribe("a", user=5),
        lambda control: control.close(connection=b"1"),
        lambda control: control.subscribers(5),
        lambda control: control.channels_of(None),
    ],
)
def test_a_wrong_type_is_told_at_once(call: Callable[[Any], object]) -> None:
    with pytest.raises(TypeError, match=r"is a str, not|is a lhttp_tx.Message, not"):
        call(Server().control)


def test_an_order_that_this_node_does_not_know_is_not_answered(cluster: Cluster) -> None:
    nodes = cluster.servers[1].assembly.nodes
    assert list(cluster.outcome(nodes.ask_all("control", {"do": "dance"})).values()) == [None, None]
