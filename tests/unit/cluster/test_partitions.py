"""What nodes do that are cut off from each other, or stand still, and what their clocks have to do with it."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from lhttp_tx import Message
from lhttp_tx.bus.memory import MemoryBus
from lhttp_tx.cluster.control import Reached
from lhttp_tx.cluster.nodes import DEAD_AFTER, HELLO_INTERVAL
from lhttp_tx.cluster.peers import FORGET_AFTER
from lhttp_tx.interfaces import MaybeDeferred
from lhttp_tx.testing import Client, Server

ELSEWHERE = 4409


class View(MemoryBus):
    """The bus as one node sees it: it reaches the nodes on the same side, and may be held up."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net
        self.side = 0
        self.held: list[Any] | None = None

    def publish(self, channel: str, payload: bytes, binary: bool) -> MaybeDeferred:
        for view in self.net.views:
            if view.side == self.side:
                view.take(channel, payload, binary)
        return None

    def take(self, channel: str, payload: bytes, binary: bool) -> None:
        if self.held is not None:
            self.held.append((channel, payload, binary))
        elif self._running:
            super().publish(channel, payload, binary)

    def go_on(self) -> None:
        while self.held:  # what it causes comes behind it
            super().publish(*self.held.pop(0))
        self.held = None


class Net:
    """Nodes whose clocks may differ, between which the net may be cut."""

    def __init__(self, skews: tuple[float, ...] = (0.0, 0.0), *, apart: bool = False, **options: Any) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000.0)
        self.views = [View(self) for _ in skews]
        if apart:
            self.cut()
        self.servers: list[Server] = []
        for view, skew in zip(self.views, skews, strict=True):
            server = Server(bus=view, clock=self.clock, **options)
            server.assembly.nodes.clocks._offset = skew
            self.servers.append(server)
        self.pass_time(3 * HELLO_INTERVAL)

    def pass_time(self, seconds: float) -> None:
        self.clock.pump([0.25] * int(4 * seconds))

    def cut(self) -> None:
        for side, view in enumerate(self.views):
            view.side = side

    def heal(self) -> None:
        for view in self.views:
            view.side = 0
        self.pass_time(3 * HELLO_INTERVAL)

    def login(self, number: int, user: str = "alice") -> Client:
        client = self.servers[number].connect(user=user)
        self.pass_time(1.0)
        return client

    def names(self, number: int) -> list[str]:
        return sorted(server.assembly.nodes.name for server in self.servers if server is not self.servers[number])

    def outcome(self, waiting: Deferred[Any]) -> Any:
        found: list[Any] = []
        waiting.addBoth(found.append)
        self.pass_time(3.0)
        return found[0]


HOUR = 3_600.0


@pytest.mark.parametrize("apart", [False, True], ids=["had met", "never met"])
@pytest.mark.parametrize("skews", [(0.0, 0.0), (HOUR, 0.0), (0.0, HOUR)])
@pytest.mark.parametrize("first", [0, 1])
def test_of_two_logins_in_a_partition_the_newer_one_survives(
    skews: tuple[float, float], first: int, apart: bool
) -> None:
    net = Net(skews, apart=apart, max_per_user=1)
    net.cut()
    net.pass_time(2 * DEAD_AFTER)
    older, newer = net.login(first), net.login(1 - first)
    assert (older.close_code, newer.close_code) == (None, None)
    net.heal()
    assert (older.close_code, newer.close_code) == (ELSEWHERE, None)


def test_times_that_are_told_anew_close_nobody_who_was_first_on_the_same_node() -> None:
    net = Net((HOUR, 0.0), apart=True, max_per_user=2)
    clients = [net.login(1), net.login(1), net.login(0)]
    net.heal()
    assert [client.close_code for client in clients] == [ELSEWHERE, None, None]


def test_presence_sees_nobody_leave_when_times_are_told_anew() -> None:
    net = Net((HOUR, 0.0), apart=True, presence=["room"], presence_grace=1.0)
    client = net.servers[1].connect(user="alice")
    client.send("LHTTP/1.0 x\r\nsubscribe:room $presence.room\r\n\r\n")
    net.pass_time(5.0)
    client.take()
    net.heal()
    net.pass_time(10.0)
    assert client.take() == []


def close(net: Net) -> Deferred[Any]:
    return net.servers[0].control.close(user="alice", code=4000, reason="out")


def test_an_order_does_not_reach_who_came_later() -> None:
    net = Net()
    before = net.login(1)
    net.views[1].held = []
    reached = net.outcome(close(net))
    assert (reached, reached.complete) == (Reached(0, tuple(net.names(0))), False)
    after = net.login(1)
    net.views[1].go_on()
    assert (before.close_code, after.close_code) == (4000, None)


def test_an_order_that_comes_while_its_giver_waits_is_for_all_who_are_there() -> None:
    net = Net()
    net.views[1].held = []
    reached: list[Any] = []
    close(net).addCallback(reached.append)
    client = net.login(1)
    net.views[1].go_on()
    assert (client.close_code, reached) == (4000, [Reached(1)])


@pytest.mark.parametrize("action", ["close", "unsubscribe", "unsubscribe_all", "send"])
def test_an_order_that_is_too_old_is_not_carried_out(action: str) -> None:
    net = Net((HOUR, 0.0))
    client = net.login(1)
    client.send("LHTTP/1.0 x\r\nsubscribe:room\r\n\r\n")
    net.views[1].held = []
    control = net.servers[0].control
    if action == "close":
        close(net)
    elif action == "unsubscribe":
        control.unsubscribe("room", user="alice")
    elif action == "unsubscribe_all":
        control.unsubscribe_all("room")
    else:
        control.send_to_user("alice", Message("news"))
    net.pass_time(10.5)
    net.views[1].go_on()
    net.pass_time(3.0)
    assert client.close_code is None
    assert client.session.channels == {"room"}
    assert client.take() == []


def test_an_order_of_a_node_that_was_not_known_waits_for_its_clock() -> None:
    net = Net(apart=True)
    before = net.login(1)
    net.views[1].held = []
    for view in net.views:
        view.side = 0
    net.pass_time(HELLO_INTERVAL)
    close(net)
    net.pass_time(20.0)
    net.views[1].go_on()
    net.pass_time(3.0)
    assert before.close_code is None


def test_another_user_on_the_same_connection_is_a_newcomer_and_a_renewed_login_is_not() -> None:
    net = Net()
    client, other = net.login(1, "alice"), net.login(1, "bob")
    renewed = client.session.identity
    net.pass_time(11.0)
    net.views[1].held = []
    close(net)
    net.pass_time(2.0)
    other.session.identity = net.login(1, "alice").session.identity
    client.session.identity = renewed
    net.views[1].go_on()
    net.pass_time(1.0)
    assert (client.close_code, other.close_code) == (4000, None)


def test_newcomers_are_remembered_for_a_moment() -> None:
    net = Net()
    for _ in range(50):
        net.login(1)
    newcomers = net.servers[1].control._orders._newcomers
    assert len(newcomers) < 14
    net.servers[1].connect().disconnect()
    assert len(newcomers) < 14


def test_nodes_that_fell_silent_are_missing_in_every_answer_until_they_are_heard_or_long_gone() -> None:
    net = Net((0.0, 0.0), presence=["room"])
    net.login(1).send("LHTTP/1.0 x\r\nsubscribe:room\r\n\r\n")
    control, nodes = net.servers[0].control, net.servers[0].assembly.nodes
    found = net.outcome(control.channels())
    assert (dict(found), found.complete, found.unanswered) == ({"room": 1}, True, ())
    assert found.nodes == tuple(sorted(server.assembly.nodes.name for server in net.servers))
    net.cut()
    net.pass_time(DEAD_AFTER + 2 * HELLO_INTERVAL)
    for found in (net.outcome(control.channels()), net.outcome(control.subscribers("room"))):
        assert (len(found), found.complete, found.unanswered) == (0, False, tuple(net.names(0)))
    reached = net.outcome(close(net))
    assert (reached.unanswered, reached.nodes, reached.complete) == (tuple(net.names(0)), (nodes.name,), False)
    net.heal()
    assert nodes.complete
    assert net.outcome(control.channels()).complete
    net.cut()
    net.pass_time(FORGET_AFTER + 2 * DEAD_AFTER)
    assert (nodes.missing, nodes.complete) == (frozenset(), True)


def test_a_node_that_says_goodbye_is_not_missing() -> None:
    net = Net()
    net.servers[1].assembly.nodes.stop()
    assert net.servers[0].assembly.nodes.complete


def test_presence_says_that_it_is_not_complete() -> None:
    net = Net(presence=["room"])
    client = net.login(0)
    net.cut()
    net.pass_time(DEAD_AFTER + 2 * HELLO_INTERVAL)
    client.send("LHTTP/1.0 presence\r\nchannel:room\r\n\r\n")
    (answer,) = client.take()
    assert b'"complete":false' in answer.body
    net.heal()
    client.send("LHTTP/1.0 presence\r\nchannel:room\r\n\r\n")
    (answer,) = client.take()
    assert b"complete" not in answer.body


def test_a_node_that_stood_still_takes_nobody_for_dead() -> None:
    net = Net()
    left: list[str] = []
    net.servers[0].assembly.nodes.on_leave.append(left.append)
    timer = net.servers[0].assembly.nodes._timer
    assert timer is not None
    timer.delay(20.0)
    net.views[0].held = []
    net.pass_time(24.0)
    net.views[0].go_on()
    net.pass_time(10.0)
    assert left == []


def test_receipts_and_the_shortfall_say_that_too_few_are_heard() -> None:
    nodes = Net().servers[0].assembly.nodes
    assert (nodes.shortfall(0), nodes.shortfall(2), nodes.shortfall(3)) == ("", "", "2/3")


class Slow(MemoryBus):
    """A bus that takes a moment for a subscription, as NATS does."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def subscribe(self, channel: str, receiver: Any) -> MaybeDeferred:
        done: Deferred[None] = Deferred()

        def subscribed() -> None:
            super(Slow, self).subscribe(channel, receiver)
            done.callback(None)

        self.clock.callLater(0.1, subscribed)
        return done


def test_an_order_in_the_first_second_of_a_node_waits_until_the_others_have_greeted_it() -> None:
    clock = Clock()
    bus = Slow(clock)
    first = Server(bus=bus, clock=clock)
    clock.pump([0.1] * 30)
    client = first.connect(user="alice")
    second = Server(bus=bus, clock=clock)
    found: list[Any] = []
    second.control.close(user="alice").addCallback(found.append)
    clock.pump([0.1] * 12)
    assert found == [Reached(1)]
    assert found[0].complete
    assert client.close_code == 1000


MISSED = [b"LHTTP/1.0 missed\r\nchannel:room\r\n\r\n"]


def missed(client: Client) -> list[bytes]:
    return [message.raw for message in client.take() if message.command == "missed"]


def asking(net: Net, number: int) -> Client:
    client = net.servers[number].connect()
    client.send("LHTTP/1.0 x\r\nsubscribe:room\r\ngaps:tell\r\n\r\n")
    return client


@pytest.mark.parametrize("seconds", [3.0, 7.0, 15.0, 60.0])
def test_subscribers_are_told_when_their_node_did_not_hear_another_one_for_a_while(seconds: float) -> None:
    net = Net()
    clients = [asking(net, 0), asking(net, 1)]
    net.pass_time(10.0)
    assert [missed(client) for client in clients] == [[], []]
    net.cut()
    net.pass_time(seconds)
    net.heal()
    net.pass_time(10.0)
    assert [missed(client) for client in clients] == [MISSED, MISSED]


def test_nothing_is_missed_by_a_node_that_gets_everything_late_or_that_comes_later() -> None:
    net = Net()
    client = asking(net, 1)
    net.views[1].held = []
    net.pass_time(20.0)
    net.views[1].go_on()
    net.servers[0].assembly.nodes.stop()
    net.servers[0].assembly.nodes.start()
    net.pass_time(10.0)
    assert missed(client) == []


def test_a_gap_that_is_known_is_told_once() -> None:
    net = Net()
    client = asking(net, 1)
    net.cut()
    net.pass_time(5.0)
    net.servers[1].assembly.nodes.reset_numbers()
    net.heal()
    assert missed(client) == []


@pytest.mark.parametrize("seconds", [4.0, 15.0])
def test_a_gap_right_after_a_node_has_begun_to_listen_is_told(seconds: float) -> None:
    net = Net()
    client = asking(net, 1)
    net.servers[1].assembly.nodes.reset_numbers()
    net.cut()
    net.pass_time(seconds)
    net.heal()
    assert missed(client) == MISSED


def test_a_gap_right_after_an_answer_to_a_new_link_is_told() -> None:
    """Answers say how many messages to all came before them: a cut behind them that takes one message is enough."""
    net = Net()
    client = asking(net, 1)
    nodes = net.servers[1].assembly.nodes
    nodes.reset_numbers()
    nodes._greet_all(fresh=True)
    net.cut()
    net.pass_time(HELLO_INTERVAL)
    net.heal()
    assert missed(client) == MISSED


def test_what_a_node_missed_of_one_that_started_meanwhile_is_told() -> None:
    net = Net(apart=True)
    client = asking(net, 1)
    net.heal()
    assert missed(client) == MISSED


def test_a_node_that_starts_later_is_not_taken_for_one_that_was_not_heard() -> None:
    net = Net()
    client = asking(net, 1)
    nodes = net.servers[0].assembly.nodes
    nodes.stop()
    net.pass_time(30.0)
    nodes.start()
    net.pass_time(10.0)
    assert missed(client) == []


def test_subscribers_are_told_that_another_node_has_lost_a_link_once() -> None:
    net = Net()
    clients = [asking(net, 0), asking(net, 1)]
    losses = [0]
    net.servers[0].assembly.nodes.greet("losses", lambda: losses[0], lambda name, count: None)
    hearing = net.servers[1].assembly.nodes
    hearing.greet("losses", lambda: 0, hearing.hear_losses)
    net.pass_time(2 * HELLO_INTERVAL)
    losses[0] += 1
    net.pass_time(4 * HELLO_INTERVAL)
    assert [missed(client) for client in clients] == [[], MISSED]


def closing(**options: Any) -> Net:
    return Net(close_after_gap=2.0, **options)


def test_clients_that_may_have_missed_something_and_did_not_ask_are_closed_after_a_gap() -> None:
    net = closing(history=["kept"])
    clients = [net.servers[0].connect() for _ in range(4)]
    told = ("subscribe:room", "subscribe:room\r\ngaps:tell", "subscribe:kept", "x:y")
    for client, headers in zip(clients, told, strict=True):
        client.send(f"LHTTP/1.0 x\r\n{headers}\r\n\r\n")
    net.pass_time(5.0)
    net.cut()
    net.pass_time(8.0)
    assert [client.close_code for client in clients] == [None] * 4
    net.heal()
    assert [client.close_code for client in clients] == [4410, None, None, None]
    assert clients[0].close_reason == "messages may have been missed; retry-after=0"


def test_clients_are_closed_one_after_another_and_nobody_who_came_later() -> None:
    net = closing()
    clients = [net.servers[0].connect() for _ in range(100)]
    for client in clients:
        client.send("LHTTP/1.0 x\r\nsubscribe:room\r\n\r\n")
    unaware = net.servers[0].assembly._unaware
    unaware.close()
    later = net.servers[0].connect()
    later.send("LHTTP/1.0 x\r\nsubscribe:room\r\n\r\n")
    counts = []
    for _ in range(9):
        counts.append(sum(client.close_code == 4410 for client in clients))
        net.pass_time(0.25)
    assert counts[0] == 1
    assert all(5 <= after - before <= 20 for before, after in itertools.pairwise(counts[:8]))
    assert counts[-1] == 100
    assert later.close_code is None


def test_a_gap_closes_nobody_by_default() -> None:
    net = Net()
    client = net.servers[0].connect()
    client.send("LHTTP/1.0 x\r\nsubscribe:room\r\n\r\n")
    net.cut()
    net.pass_time(8.0)
    net.heal()
    assert client.close_code is None
