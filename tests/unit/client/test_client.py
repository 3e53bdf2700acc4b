"""lhttp_tx.client: what a program asks of it, against the real server, with the network in memory."""

from __future__ import annotations

import asyncio
import struct
import tracemalloc
from typing import Any

import pytest
from client_world import World, error_of, outcome
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import ISSLTransport, IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from zope.interface import alsoProvides
from zope.interface.verify import verifyClass

from lhttp_tx import Message, Part
from lhttp_tx.client import (
    Client,
    ClientClosed,
    ConnectFailed,
    ConnectionLost,
    FilePositions,
    NoReply,
    Published,
    QueueFull,
    ReplyError,
    RequestTimeout,
    State,
    Subscription,
    multipart_message,
    parts_of,
)
from lhttp_tx.client.websocket.endpoints import WebSocketEndpoint
from lhttp_tx.client.websocket.protocol import WebSocketConnection, WebSocketFactory
from lhttp_tx.client.websocket.urls import parse_url
from lhttp_tx.codec.limits import Limits
from lhttp_tx.errors import RemoteProtocolError
from lhttp_tx.rules.model import Rule, Rules


@pytest.fixture
def world(clock: Clock) -> World:
    return World(clock, Limits())


def publish_elsewhere(world: World, channels: list[str], body: str, command: str = "chat") -> None:
    world.server.engine.publish(channels, command, body=body)
    world.run()


def test_the_parts_provide_their_interfaces() -> None:
    assert verifyClass(IStreamClientEndpoint, WebSocketEndpoint)


# Connecting


def test_tls_of_another_kind_is_tls(clock: Clock) -> None:
    """Autobahn asks TLS for what only Twisted's own can tell, and ends the connection where it cannot."""
    connection = WebSocketFactory("wss://chat.example/", reactor=clock).buildProtocol(None)
    transport = StringTransport()
    alsoProvides(transport, ISSLTransport)
    connection.makeConnection(transport)
    connection._onOpen()
    assert transport.value().startswith(b"GET / HTTP/1.1\r\n")
    assert connection.peer == "tcp4:192.168.1.1:54321"


def test_states_are_told_in_order(world: World) -> None:
    client = world.connected()
    world.result(client.close())
    assert world.states == [State.CONNECTING, State.CONNECTED, State.CLOSING, State.CLOSED]


def test_a_client_closed_in_the_moment_it_connects_ends_in_good_order(world: World) -> None:
    client = world.client()
    closed = client.connect().addCallback(lambda _: client.close())
    world.result(closed)
    assert client.state is State.CLOSED
    assert not world.server.engine.sessions


def test_a_client_whose_user_is_logged_in_elsewhere_does_not_come_back(world: World) -> None:
    client = world.connected()
    waiting = client.request("pending")
    (session,) = world.server.engine.sessions
    session.close(4409, "logged in elsewhere")
    reason = "the server closed the connection (4409): logged in elsewhere"
    assert reason in world.failure(waiting).reason
    world.clock.pump([1.0] * 60)
    world.run()
    assert world.states[2:] == [State.CLOSING, State.CLOSED]
    assert not world.server.engine.sessions


@pytest.mark.parametrize(
    ("reason", "most"),
    [
        ("server is going away; retry-after=0.5", 0.5),
        ("server is going away; retry-after=20", 20.0),
        ("server is going away; retry-after=99999", 60.0),
        ("server is going away", None),
        ("retry-after=1e9", None),
        ("server is going away; retry-after=-1", None),
    ],
)
def test_a_client_comes_back_within_the_time_that_the_server_asks_for(
    world: World, monkeypatch: pytest.MonkeyPatch, reason: str, most: float | None
) -> None:
    asked: list[float] = []

    def draw(low: float, high: float) -> float:
        assert low == 0
        asked.append(high)
        return high

    monkeypatch.setattr("random.uniform", draw)
    client = world.connected(retry_policy=lambda failures: 1.0)
    (session,) = world.server.engine.sessions
    session.close(1001, reason)
    world.run()
    assert client.state is State.WAITING
    assert asked == ([] if most is None else [most])
    wait = 1.0 if most is None else most
    world.clock.advance(wait - 0.01)
    world.run()
    assert client.state is State.WAITING
    world.clock.advance(0.02)
    world.run()
    assert client.state is State.CONNECTED


def test_the_servers_own_channels_of_presence_can_be_subscribed_to(world: World) -> None:
    client = world.connected()
    heard: list[str] = []
    world.server.assembly.members._patterns = Rules([Rule(match="room", presence=True)])
    world.server.assembly.members._keep_presence()
    world.server.engine.forget_plans()
    client.subscribe("$presence.room", lambda message: heard.append(message.headers.get("event") or ""))
    world.run()
    world.server.connect(user="jack").send("LHTTP/1.0 x\r\nsubscribe:room\r\n\r\n")
    world.run()
    assert heard == ["join"]
    with pytest.raises(RemoteProtocolError):
        client.subscribe("$nodes")


def test_connect_fails_with_the_first_attempt_and_leaves_nothing_behind(world: World) -> None:
    world.endpoint.refuses = True
    client = world.client()
    assert "refused" in world.failure(client.connect()).reason
    assert client.state is State.CLOSED
    assert not world.clock.getDelayedCalls()


def test_connect_goes_on_for_as_many_attempts_as_asked(world: World) -> None:
    world.endpoint.refuses = True
    client = world.client()
    connecting = client.connect(attempts=3)
    world.run(1.0)
    assert not connecting.called
    world.run(1.0)
    assert isinstance(error_of(connecting), ConnectFailed)


def test_connect_without_a_limit_waits_for_the_server(world: World) -> None:
    world.endpoint.refuses = True
    connecting = world.client().connect(attempts=None)
    for _ in range(20):
        world.run(1.0)
    assert not connecting.called
    world.endpoint.refuses = False
    world.run(1.0)
    assert outcome(connecting) is None


def test_an_attempt_that_hangs_ends_with_its_time(world: World) -> None:
    world.endpoint.hangs = True
    connecting = world.client(connect_timeout=5.0).connect()
    world.run(4.9)
    assert not connecting.called
    world.run(0.2)
    assert "no answer in time" in error_of(connecting).reason


def test_a_refused_handshake_says_what_the_server_said(world: World) -> None:
    world.endpoint.factory.draining = True
    reason = world.failure(world.client().connect()).reason
    assert "503" in reason
    assert "server is going away" in reason


def test_waiting_for_a_connection_has_a_time_limit(world: World) -> None:
    world.endpoint.refuses = True
    client = world.client()
    client.startService()
    waiting = client.when_connected(timeout=2.0)
    world.run(2.1)
    assert isinstance(error_of(waiting), ConnectFailed)
    assert client.running


def test_a_closed_client_can_be_started_again(world: World) -> None:
    client = world.connected()
    world.result(client.close())
    world.result(client.connect())
    assert world.result(client.request("echo", body="x")).body == b"x"


def test_a_client_that_is_being_closed_can_be_started_again(world: World) -> None:
    client = world.connected()
    closing, connecting = client.close(), client.connect()
    world.result(closing)
    world.result(connecting)
    assert world.result(client.request("echo", body="x")).body == b"x"
    assert len(world.server.engine.sessions) == 1


def test_a_service_that_is_started_and_stopped_while_it_stops_is_what_was_said_last(world: World) -> None:
    client = world.connected()
    for _ in range(2):
        client.stopService()
        client.startService()
    world.run()
    assert client.state is State.CONNECTED
    assert len(world.server.engine.sessions) == 1
    client.stopService()
    client.startService()
    client.stopService()
    world.run()
    assert client.state is State.CLOSED
    assert not world.server.engine.sessions


@pytest.mark.parametrize(
    "url",
    ["http://a/", "ws://", "ws:///x", "ws://u@a/", "ws://a/#f", "ws://a/ b", "ws://a/é", "ws://a:0/", "ws://a:x/"],
)
def test_a_malformed_url_is_refused(url: str, clock: Clock) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        Client(url, reactor=clock)


def test_a_url_may_hold_an_ipv6_address() -> None:
    assert (parse_url("wss://[::1]:8443/a?b").hostname, parse_url("ws://[::1]:8443/").port) == ("::1", 8443)


def test_an_endpoint_may_be_given_by_its_description(clock: Clock) -> None:
    assert Client("unix:/run/lhttp.sock", reactor=clock).url == "ws://localhost/"


# Sending


def test_publishing_reaches_a_subscription(world: World) -> None:
    client = world.connected()
    got: list[Message] = []
    world.result(client.subscribe("room.a", got.append).confirmed())
    world.result(client.publish("room.a", "chat", {"from": "jack"}, "hello"))
    assert [(message.text, message.headers.get("from")) for message in got] == [("hello", "jack")]
    assert "receipt" not in got[0].headers


def test_publishing_without_a_receipt_is_done_at_once(world: World) -> None:
    client = world.connected()
    assert outcome(client.publish("room.a", "chat", receipt=False)) == Published()


def test_a_binary_body_stays_binary(world: World) -> None:
    client = world.connected()
    subscription = world.result(client.subscribe("room.a").confirmed())
    world.result(client.publish("room.a", "chat", body=b"\x00\xff", binary=True))
    message = outcome(subscription.next())
    assert (message.body, message.binary) == (b"\x00\xff", True)


def test_an_error_with_a_receipt_fails_its_call(world: World) -> None:
    client = world.connected()
    error = world.failure(client.confirm(Message("refuse")))
    assert (type(error), error.status, error.reason) == (ReplyError, 403, "members only")
    assert not world.errors


def test_an_error_without_a_receipt_is_reported(world: World) -> None:
    client = world.connected()
    client.send(Message("refuse"))
    world.run()
    assert [(error.status, error.reason) for error in world.errors] == [(403, "members only")]


def test_a_malformed_channel_is_refused_before_it_is_sent(world: World) -> None:
    client = world.connected()
    with pytest.raises(RemoteProtocolError, match="empty token"):
        client.publish("a..b", "chat")
    with pytest.raises(RemoteProtocolError, match="empty token"):
        client.subscribe("a..b")


def test_a_message_that_is_too_large_fails_its_call(clock: Clock) -> None:
    world = World(clock, Limits(message_size=1_000))
    client = world.connected()
    assert world.failure(client.confirm(Message("echo", body="x" * 1_500))).status == 413


def test_no_answer_in_time_fails_the_call(world: World) -> None:
    client = world.connected()
    asked = client.request("pending", timeout=5.0)
    world.run(4.9)
    assert not asked.called
    world.run(0.2)
    error = error_of(asked)
    assert isinstance(error, RequestTimeout)
    assert error.reason == "no answer to pending within 5 seconds"


def test_waiting_with_a_client_that_was_not_started_says_what_to_do(world: World) -> None:
    client = world.client(timeout=5.0)
    waiting = [client.subscribe("room.a").confirmed(), client.presence("room.a").synced(None)]
    world.run(5.1)
    for each in waiting:
        error = error_of(each)
        assert isinstance(error, RequestTimeout)
        assert error.reason.endswith(": the client was not started, so call connect()")


def test_a_call_can_be_cancelled(world: World) -> None:
    client = world.connected()
    asked = client.request("pending")
    world.run()
    asked.cancel()
    assert isinstance(error_of(asked), CancelledError)


def test_too_much_that_a_server_does_not_read_is_refused(world: World) -> None:
    client = world.connected(unsent_size=100_000)
    connection: Any = client._uplink.link.transport  # type: ignore[union-attr]
    connection.pauseProducing()
    client.send(Message("echo", body="x" * 90_000))
    with pytest.raises(QueueFull, match="does not read"):
        client.send(Message("echo", body="x" * 20_000))
    connection.resumeProducing()
    client.send(Message("echo", body="x" * 20_000))


# Requests


def test_a_request_gets_its_reply(world: World) -> None:
    client = world.connected()
    reply = world.result(client.request("echo", {"a": "b"}, "hello"))
    assert (reply.text, reply.headers.get("a")) == ("hello", "b")


def test_replies_to_several_requests_are_told_apart(world: World) -> None:
    client = world.connected()
    asked = [client.request("echo", body=str(number)) for number in range(5)]
    world.run()
    assert [outcome(one).text for one in asked] == ["0", "1", "2", "3", "4"]


def test_a_reply_may_have_another_command(world: World) -> None:
    client = world.connected()
    assert world.result(client.request("auth", reply_command="granted")).text == "welcome"


def test_a_request_that_nobody_answers_fails_at_once(world: World) -> None:
    client = world.connected()
    assert isinstance(world.failure(client.request("nobody")), NoReply)


def test_a_reply_that_comes_too_late_is_not_taken_for_another(world: World) -> None:
    client = world.connected()
    late = client.request("pending", body="late", timeout=1.0)
    world.run(1.1)
    assert isinstance(error_of(late), RequestTimeout)
    asked = client.request("pending", body="next")
    world.run()
    world.pending.waiting[0].callback(None)
    world.run()
    world.pending.waiting[1].callback(None)
    assert world.result(asked).text == "next"


def test_a_publication_is_not_taken_for_a_reply(world: World) -> None:
    client = world.connected()
    got: list[Message] = []
    world.result(client.subscribe("room.a", got.append).confirmed())
    asked = client.request("pending", body="mine")
    world.run()
    publish_elsewhere(world, ["room.a"], "not yours", command="pending")
    world.pending.waiting[0].callback(None)
    assert world.result(asked).text == "mine"
    assert [message.text for message in got] == ["not yours"]


def test_a_published_receipt_confirms_nothing(world: World) -> None:
    client = world.connected()
    asked = client.confirm(Message("pending"))
    world.run()
    other = world.connected()
    other.send(Message("fake"))
    client.subscribe("room.a")
    world.run()
    world.server.engine.publish("room.a", "receipt", {"receipt-id": "1"})
    world.run()
    assert not asked.called


def test_a_message_for_nobody_goes_to_on_message(world: World) -> None:
    client = world.connected()
    client.send(Message("push", body="extra"))
    world.run()
    assert [(message.command, message.text) for message in world.others] == [("news", "extra")]


def test_multipart_goes_there_and_back(world: World) -> None:
    client = world.connected()
    message = multipart_message("parts", [Part(body=b"one"), Part(body=b"\xff")])
    assert [part.body for part in parts_of(message)] == [b"one", b"\xff"]
    reply = world.result(client.request(message))
    assert reply.body == b"one|\xff"


def test_a_message_without_parts_has_none() -> None:
    assert parts_of(Message("chat")) == ()


def test_an_upload_is_watched_and_answered(world: World) -> None:
    client = world.connected()
    message = multipart_message("parts", [Part(body=b"x" * 40_000), Part(body=b"y")])
    seen: list[tuple[int, int]] = []
    reply = world.result(client.upload(message, lambda done, size: seen.append((done, size))))
    assert reply.body == b"x" * 40_000 + b"|y"
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == seen[-1][1] > 40_000


def test_what_is_sent_during_an_upload_waits_for_its_end(world: World) -> None:
    client = world.connected()
    connection: Any = client._uplink.link.transport  # type: ignore[union-attr]

    def after_first(done: int, size: int) -> None:
        connection.congested = True

    reply = client.upload(multipart_message("parts", [Part(body=b"x" * 40_000)]), after_first)
    other = client.request("echo", body="later")
    for _ in range(4):
        connection.resumeProducing()
    assert world.result(reply).body == b"x" * 40_000
    assert world.result(other).text == "later"


def test_an_upload_without_a_connection_is_refused(world: World) -> None:
    assert isinstance(error_of(world.client().upload(Message("parts"), lambda *_: None)), ConnectionLost)


# Subscriptions


def test_a_message_to_two_channels_reaches_each_subscription_once(world: World) -> None:
    client = world.connected()
    first: list[str] = []
    second: list[str] = []
    client.subscribe("room.a", lambda message: first.append(message.text))
    client.subscribe("room.b", lambda message: second.append(message.text))
    world.run()
    for body in ("1", "1", "2"):
        publish_elsewhere(world, ["room.b", "room.a"], body)
    assert (first, second) == (["1", "1", "2"], ["1", "1", "2"])


def test_two_subscriptions_to_one_channel_both_get_it(world: World) -> None:
    client = world.connected()
    got: list[str] = []
    one = client.subscribe("room.a", lambda message: got.append("one"))
    world.result(one.confirmed())
    world.result(client.subscribe("room.a", lambda message: got.append("two")).confirmed())
    publish_elsewhere(world, ["room.a"], "x")
    world.result(one.unsubscribe())
    publish_elsewhere(world, ["room.a"], "x")
    assert got == ["one", "two", "two"]


def test_the_last_unsubscribe_tells_the_server(world: World) -> None:
    client = world.connected()
    subscription = world.result(client.subscribe("room.a").confirmed())
    world.result(subscription.unsubscribe())
    assert [session.channels for session in world.server.engine.sessions] == [frozenset()]


def test_a_refused_subscription_ends_with_the_error(clock: Clock) -> None:
    world = World(clock, Limits(subscription_count=1))
    client = world.connected()
    world.result(client.subscribe("room.a").confirmed())
    refused = client.subscribe("room.b")
    assert world.failure(refused.confirmed()).status == 429
    assert error_of(refused.next()).status == 429
    assert not refused.active
    assert [error.status for error in world.errors] == [429]


def test_a_subscription_that_the_server_takes_back_ends_with_its_error(world: World) -> None:
    client = world.connected()
    kept, taken = client.subscribe("room.a"), client.subscribe("room.b")
    world.run()
    (session,) = world.server.engine.sessions
    refusal = {"status": "403", "reason": "not allowed", "unsubscribed": "room.b"}
    session.send(Message("error", {**refusal, "publish": "room.a"}))
    world.run()
    assert taken.active, "anybody could have published that"
    session.send(Message("error", refusal))
    world.run()
    assert (kept.active, taken.active, error_of(taken.next()).status) == (True, False, 403)
    assert [error.status for error in world.errors] == [403]
    world.cut()
    world.run(1.0)
    assert [session.channels for session in world.server.engine.sessions] == [frozenset({"room.a"})]


def test_iterating_ends_when_the_client_is_closed(world: World) -> None:
    client = world.connected()

    async def program() -> list[str]:
        return [message.text async for message in await client.subscribe("room.a")]

    done = Deferred.fromCoroutine(program())
    world.run()
    publish_elsewhere(world, ["room.a"], "one")
    publish_elsewhere(world, ["room.a"], "two")
    assert not done.called
    world.result(client.close())
    assert outcome(done) == ["one", "two"]


def test_iterating_in_asyncio_gives_the_messages(world: World) -> None:
    client = world.connected()
    subscription = world.result(client.subscribe("room.a").confirmed())
    publish_elsewhere(world, ["room.a"], "one")
    world.result(client.close())

    async def program() -> list[str]:
        return [message.text async for message in subscription.iterate(asyncio.get_running_loop())]

    assert asyncio.run(program()) == ["one"]


def test_a_full_buffer_drops_the_oldest_and_counts_them(world: World) -> None:
    client = world.connected()
    subscription = world.result(client.subscribe("room.a", buffer=2).confirmed())
    for number in range(5):
        publish_elsewhere(world, ["room.a"], str(number))
    assert [outcome(subscription.next()).text for _ in range(2)] == ["3", "4"]
    assert subscription.dropped == 3


def test_a_buffer_is_bounded_in_bytes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lhttp_tx.client.subscription._BUFFER_SIZE", 1_000)
    client = world.connected()
    subscription = world.result(client.subscribe("room.a").confirmed())
    for number in range(5):
        publish_elsewhere(world, ["room.a"], f"{number}{400 * 'x'}")
    assert [outcome(subscription.next()).text[0] for _ in range(2)] == ["3", "4"]
    assert (subscription.dropped, subscription._size) == (3, 0)
    publish_elsewhere(world, ["room.a"], 2_000 * "x")
    publish_elsewhere(world, ["room.a"], 3_000 * "x")
    assert (len(outcome(subscription.next()).text), subscription.dropped) == (3_000, 4)


def test_what_a_client_remembers_of_publications_is_bounded_in_bytes(world: World) -> None:
    client = world.connected()
    for channel in ("room.a", "room.b"):
        world.result(client.subscribe(channel, lambda _: None).confirmed())
    link = client._uplink.link
    assert link is not None
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(200):
            many = " ".join(f"{number}.{each}" for each in range(900))
            raw = f"LHTTP/1.0 x\r\npublish:room.a room.b {many}\r\n\r\n{20_000 * 'x'}".encode()
            link.message_received(raw, False)
        del raw, many
        assert tracemalloc.get_traced_memory()[0] - before < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_callback_that_fails_is_logged_and_harms_nobody(world: World, failures: list[Any]) -> None:
    client = world.connected()
    got: list[str] = []

    async def later(message: Message) -> None:
        raise ValueError("later")

    def now(message: Message) -> None:
        raise ValueError("now")

    for callback in (later, now, lambda message: got.append(message.text)):
        client.subscribe("room.a", callback)
    world.run()
    publish_elsewhere(world, ["room.a"], "x")
    assert (got, [str(failure) for failure in failures]) == (["x"], ["later", "now"])


# Losing the connection


def test_subscriptions_are_restored_after_a_loss(world: World) -> None:
    client = world.connected()
    got: list[str] = []
    world.result(client.subscribe("room.a", lambda message: got.append(message.text)).confirmed())
    world.cut()
    assert client.state is State.WAITING
    world.run(1.0)
    assert client.state is State.CONNECTED
    publish_elsewhere(world, ["room.a"], "again")
    assert got == ["again"]


def test_a_subscription_made_when_a_loss_is_told_is_not_confirmed_by_the_lost_connection(world: World) -> None:
    confirmed: list[Deferred[Subscription]] = []

    def subscribe_again(state: State, reason: str) -> None:
        if state is State.WAITING:
            confirmed.append(client.subscribe("room.a").confirmed())

    client = world.connected(on_state=subscribe_again)
    world.result(client.subscribe("room.a").confirmed())
    world.cut()
    assert not confirmed[0].called
    world.run(1.0)
    assert outcome(confirmed[0]).channel == "room.a"


def test_many_subscriptions_are_restored_in_heads_that_fit(world: World) -> None:
    client = world.connected()
    names = [f"{'x' * 200}.{number}" for number in range(100)]
    for name in names:
        client.subscribe(name)
    world.run()
    world.cut()
    world.run(1.0)
    assert [session.channels for session in world.server.engine.sessions] == [frozenset(names)]


def test_one_refused_channel_does_not_cost_the_others_their_restoring(world: World) -> None:
    client = world.connected()
    for name in ("room.a", "room.b", "room.c"):
        client.subscribe(name)
    world.run()
    world.cut()
    world.server.engine.limits = Limits(subscription_count=2)
    world.run(1.0)
    assert client.state is State.CONNECTED
    assert [session.channels for session in world.server.engine.sessions] == [frozenset({"room.a", "room.b"})]
    assert [error.status for error in world.errors] == [429]


def test_a_refused_channel_does_not_put_the_others_behind_what_waits_for_the_connection(world: World) -> None:
    """The room has no presence. The server must not refuse the subscription to the room along with that."""
    client = world.client()
    got: list[str] = []
    client.subscribe("room.a", lambda message: got.append(message.text))
    client.presence("room.a")
    published = client.publish("room.a", "chat", body="hello")
    world.result(client.connect())
    world.result(published)
    world.run()
    assert got == ["hello"]
    assert [error.status for error in world.errors] == [403]


def test_very_many_new_subscriptions_share_messages(clock: Clock) -> None:
    world = World(clock, Limits(subscription_count=1_000))
    client = world.client()
    names = [f"room.{number}" for number in range(900)]
    for name in names:
        client.subscribe(name)
    world.result(client.connect())
    assert [session.channels for session in world.server.engine.sessions] == [frozenset(names)]
    assert len(world.endpoint.sent) < 80


def test_what_was_sent_and_not_answered_fails_with_the_connection(world: World) -> None:
    client = world.connected()
    asked = client.request("pending")
    world.run()
    world.cut()
    assert type(error_of(asked)) is ConnectionLost
    world.run(1.0)
    assert len(world.pending.waiting) == 1, "it was sent again"


def test_what_is_too_large_for_the_server_fails_and_the_rest_is_sent_again(world: World) -> None:
    client = world.connected()
    sent = [client.publish("room.a", "chat", body="x" * size) for size in (1, 200_000, 2)]
    for _ in range(10):
        world.run(1.0)
    error = error_of(sent[1])
    assert (type(error), error.code) == (ConnectionLost, 1009)
    assert [type(outcome(one)) for one in (sent[0], sent[2])] == [Published, Published]
    assert client.state is State.CONNECTED


def test_what_is_sent_without_a_connection_waits_for_one_in_order(world: World) -> None:
    client = world.connected()
    subscription = world.result(client.subscribe("room.a").confirmed())
    world.cut()
    sent = [client.publish("room.a", "chat", body=str(number)) for number in range(3)]
    world.run()
    assert not any(one.called for one in sent)
    world.run(1.0)
    assert not any(outcome(one).duplicate for one in sent)
    assert [outcome(subscription.next()).text for _ in range(3)] == ["0", "1", "2"]


def test_the_queue_is_bounded(world: World) -> None:
    client = world.client(queue_length=2)
    client.startService()
    client.send(Message("echo"))
    client.send(Message("echo"))
    with pytest.raises(QueueFull, match="2 messages are waiting"):
        client.send(Message("echo"))
    assert isinstance(error_of(client.confirm(Message("echo"))), QueueFull)


def test_what_waits_for_a_connection_has_a_time_limit_and_is_not_sent_after_it(world: World) -> None:
    world.endpoint.refuses = True
    client = world.client()
    client.startService()
    asked = client.request("pending", timeout=0.5)
    world.run(0.6)
    error = error_of(asked)
    assert isinstance(error, RequestTimeout)
    assert error.reason == "there was no connection to send pending within 0.5 seconds"
    world.endpoint.refuses = False
    world.run(1.0)
    assert client.state is State.CONNECTED
    assert not world.pending.waiting


def test_a_server_that_does_not_confirm_subscriptions_is_left(world: World) -> None:
    client = world.connected(timeout=5.0)
    client.send(Message("pending"))
    client.subscribe("room.a")
    world.run(5.1)
    assert client.state is State.WAITING


def test_a_silent_server_is_left_after_a_ping(world: World) -> None:
    client = world.connected(ping_interval=30.0, ping_timeout=10.0)
    world.clock.advance(30.0)
    world.clock.advance(10.1)
    world.run()
    assert client.state is State.WAITING


def test_closing_fails_everything_that_waits(world: World) -> None:
    client = world.connected()
    subscription = world.result(client.subscribe("room.a").confirmed())
    waiting = [client.request("pending"), subscription.next(), client.confirm(Message("pending"))]
    world.run()
    world.result(client.close())
    assert [type(error_of(one)) for one in waiting] == [ClientClosed] * 3
    assert not world.clock.getDelayedCalls()


def test_closing_without_a_connection_fails_everything_that_waits(world: World) -> None:
    world.endpoint.refuses = True
    client = world.client()
    client.startService()
    subscription = client.subscribe("room.a")
    waiting = [client.request("echo"), subscription.confirmed(), subscription.next(), client.when_connected()]
    world.run()
    world.result(client.close())
    assert [type(error_of(one)) for one in waiting] == [ClientClosed] * 4
    assert not world.clock.getDelayedCalls()


def test_closing_twice_waits_twice(world: World) -> None:
    client = world.connected()
    both = [client.close(), client.close()]
    assert not any(one.called for one in both)
    assert [world.result(one) for one in both] == [None, None]


@pytest.mark.parametrize("state", [State.CONNECTING, State.WAITING, State.CONNECTED])
def test_a_client_may_be_closed_in_any_change_of_its_state(world: World, state: State) -> None:
    closed: list[Deferred[None]] = []

    def close_once(found: State, reason: str) -> None:
        if found is state and not closed:
            closed.append(client.close())

    client = world.client(on_state=close_once)
    world.endpoint.refuses = state is State.WAITING
    client.startService()
    world.run()
    assert outcome(closed[0]) is None
    assert client.state is State.CLOSED
    assert not world.clock.getDelayedCalls()


def test_closing_while_connecting_ends_the_attempt(world: World) -> None:
    world.endpoint.hangs = True
    client = world.client()
    connecting = client.connect()
    world.result(client.close())
    assert isinstance(error_of(connecting), ClientClosed)
    assert not world.clock.getDelayedCalls()


def test_a_closed_client_refuses_everything(world: World) -> None:
    client = world.connected()
    world.result(client.close())
    with pytest.raises(ClientClosed):
        client.send(Message("echo"))
    with pytest.raises(ClientClosed):
        client.subscribe("room.a")
    assert isinstance(error_of(client.request("echo")), ClientClosed)
    assert isinstance(error_of(client.when_connected()), ClientClosed)


# The edge


class Raw:
    """A server written by hand: the client's frames are ignored, and any bytes can be sent to it."""

    def __init__(self, world: World, **options: Any) -> None:
        self.client = world.connected(**options)
        self.connection: WebSocketConnection = self.client._uplink.link.transport  # type: ignore[union-attr]

    def send(self, data: bytes) -> None:
        self.connection.dataReceived(data)


def frame(payload: bytes, first: int = 0x81) -> bytes:
    size = len(payload)
    if size < 126:
        return bytes([first, size]) + payload
    return (
        bytes([first, 126]) + struct.pack("!H", size) + payload
        if size < 65_536
        else (bytes([first, 127]) + struct.pack("!Q", size) + payload)
    )


NEWS = b"LHTTP/1.0 news\r\n\r\n"


@pytest.mark.parametrize(
    ("size", "piece"),
    [(0, 1), (100, 1), (200, 1), (0, 7), (100, 7), (200, 7), (70_000, 999), (100, 100_000), (70_000, 1_000_000)],
)
def test_messages_are_put_together_from_any_pieces(world: World, size: int, piece: int) -> None:
    raw = Raw(world)
    data = frame(NEWS + b"x" * size) * 3
    for start in range(0, len(data), piece):
        raw.send(data[start : start + piece])
    assert [len(message.body) for message in world.others] == [size] * 3


def test_fragments_and_pings_between_whole_messages_keep_the_order(world: World) -> None:
    raw = Raw(world)
    raw.send(
        frame(NEWS + b"1")
        + frame(NEWS + b"2", 0x01)
        + frame(b"ping", 0x89)
        + frame(b"3", 0x80)
        + frame(NEWS + b"\xff", 0x82)
    )
    assert [message.body for message in world.others] == [b"1", b"23", b"\xff"]


@pytest.mark.parametrize(
    "data",
    [
        frame(NEWS + b"\xff"),
        frame(NEWS, 0xC1),
        bytes([0x81, 0x80 | 4]) + b"\0\0\0\0abcd",
        bytes([0x81, 126, 0, 5]) + b"abcde",
        frame(b"", 0x83),
    ],
    ids=["not UTF-8", "reserved bit", "masked", "long length", "reserved opcode"],
)
def test_illegal_frames_close_the_connection(world: World, data: bytes) -> None:
    raw = Raw(world)
    raw.send(data)
    world.run(3.0)
    assert not world.others
    assert State.WAITING in world.states


def test_a_message_that_declares_too_much_closes_the_connection_before_it_comes(world: World) -> None:
    raw = Raw(world, max_message_size=1_000)
    raw.send(bytes([0x82, 127]) + struct.pack("!Q", 2**40))
    world.run(3.0)
    assert State.WAITING in world.states


def test_a_malformed_message_is_reported_and_the_connection_lives_on(world: World) -> None:
    raw = Raw(world)
    raw.send(frame(b"HTTP/1.1 200 OK\r\n\r\n"))
    assert [error.status for error in world.errors] == [400]
    assert world.result(raw.client.request("echo", body="x")).body == b"x"


def test_a_subscription_says_what_it_is(world: World) -> None:
    subscription = world.connected().subscribe("room.a", print)
    assert repr(subscription) == "<Subscription room.a>"
    with pytest.raises(TypeError, match="has a callback"):
        subscription.next()
    assert isinstance(subscription, Subscription)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"target": None}, TypeError),
        ({"on_missed": "load"}, TypeError),
        ({"on_message": lambda message, channel: None}, TypeError),
        ({"on_error": lambda: None}, TypeError),
        ({"on_state": lambda state: None}, TypeError),
        ({"on_recovered": lambda channel, count: None}, TypeError),
        ({"on_missed": lambda channel: None}, TypeError),
        ({"login": lambda client: {}}, TypeError),
        ({"now": lambda client: 0.0}, TypeError),
        ({"retry_policy": lambda: 0.1}, TypeError),
        ({"positions": "a file"}, TypeError),
        ({"positions": FilePositions}, TypeError),
        ({"timeout": -1.0}, ValueError),
        ({"timeout": "30"}, TypeError),
        ({"ping_interval": float("nan")}, ValueError),
        ({"queue_length": -1}, ValueError),
        ({"resend_size": "1"}, TypeError),
    ],
)
def test_a_wrong_argument_is_told_at_once(arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(arguments))):
        Client(arguments.pop("target", "ws://127.0.0.1/"), reactor=Clock(), **arguments)


@pytest.mark.parametrize("content", [None, ["room.a"], {"room.a": 5}])
def test_what_loads_positions_returns_texts(content: Any) -> None:
    class Store:
        def load(self) -> Any:
            return content

        def save(self, positions: Any) -> None: ...

    with pytest.raises(ValueError, match="load of the positions did not return a mapping"):
        Client("unix:/run/lhttp.sock", reactor=Clock(), positions=Store())


def test_a_wrong_argument_of_a_call_is_told_at_once() -> None:
    client = Client("unix:/run/lhttp.sock", reactor=Clock())
    with pytest.raises(TypeError, match="callback"):
        client.subscribe("room", "not a function")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"callback is called with \(message\), and .* cannot take that"):
        client.subscribe("room", lambda message, channel: None)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"callback is called with \(message, channel\)"):
        client.subscribe("room", lambda message: None, named=True)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"progress is called with \(sent, size\)"):
        client.upload(Message("upload"), lambda sent: None)  # type: ignore[misc, arg-type]
    with pytest.raises(ValueError, match="timeout"):
        client.request("echo", timeout=-1.0)
    with pytest.raises(TypeError, match=r"headers are a dict, or pairs of name and value, not 'hello'; .* body="):
        client.publish("room", "chat", "hello")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"command is a str, not \{'from': 'jack'}"):
        client.publish("room", {"from": "jack"})  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [5, None, b"room", ["room"]])
def test_a_channel_that_is_no_text_is_told_at_once(wrong: Any) -> None:
    client = Client("unix:/run/lhttp.sock", reactor=Clock())
    for call in (client.subscribe, client.presence, client.history):
        with pytest.raises(TypeError, match="channel is a str, not "):
            call(wrong)
    for channels in (wrong if wrong != ["room"] else 5, ["room", wrong]):
        with pytest.raises(TypeError, match=r"channels? is a str"):
            client.publish(channels, "chat")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("since", {"since": 5}),
        ("last", {"last": "5"}),
        ("last", {"last": True}),
        ("buffer", {"buffer": 1.5}),
        ("limit", {"limit": "5"}),
        ("before", {"before": 5}),
        ("message_id", {"message_id": 7}),
    ],
)
def test_an_argument_of_another_type_is_told_by_its_name(name: str, arguments: dict[str, Any]) -> None:
    client = Client("unix:/run/lhttp.sock", reactor=Clock())
    with pytest.raises(TypeError, match=rf"{name} is a \w+, not "):
        if name in ("limit", "before"):
            client.history("room", **arguments)
        elif name == "message_id":
            client.publish("room", "chat", **arguments)
        else:
            client.subscribe("room", **arguments)


@pytest.mark.parametrize("callback", [print, dict, [].append, lambda message, more=1: None, lambda *all_of_it: None])
def test_a_callback_may_take_more_than_it_gets(callback: Any) -> None:
    client = Client("unix:/run/lhttp.sock", reactor=Clock(), on_message=callback)
    client.subscribe("room", callback)


def test_a_subscription_tells_that_a_node_of_the_cluster_did_not_answer(world: World) -> None:
    client = world.connected()
    unsure: Any = {"a"}
    world.server.engine.hub._bus.unsure = unsure  # type: ignore[attr-defined]
    first, second = client.subscribe("a"), client.subscribe("b")
    world.result(second.confirmed())
    assert (first.unsure, second.unsure) == (True, False)
    unsure.clear()
    world.cut()
    world.run(2.0)
    assert not first.unsure
