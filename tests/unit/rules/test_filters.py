"""lhttp_tx.rules.filters: what clients may and may not do where there are channel rules."""

from __future__ import annotations

import sys
import tracemalloc
from typing import Any

import pytest

from lhttp_tx import HeaderFilter, Message, Request, processor
from lhttp_tx.bus.memory import MemoryBus
from lhttp_tx.codec.limits import Limits
from lhttp_tx.errors import TooMany
from lhttp_tx.identity import Identity
from lhttp_tx.interfaces import MaybeAwaitable
from lhttp_tx.rules.filters import RuleBook, RuledPublishFilter
from lhttp_tx.rules.model import Rules
from lhttp_tx.testing import Client, Server
from lhttp_tx.upstream.filter import UpstreamFilter
from unit.test_work import calls

PATIENT = Limits(error_count=0)


def server(*tables: dict[str, Any], **settings: Any) -> Server:
    return Server(rules=Rules.from_toml(list(tables)), **settings)


def publication(channels: str = "a", body: str = "", **headers: str) -> Message:
    return Message("chat", [("publish", channels), *headers.items()], body)


def subscription(channels: str = "a", **headers: str) -> Message:
    return Message("chat", [("subscribe", channels), *headers.items()])


def listener(found: Server, channels: str = "a") -> Client:
    """Return a client that is subscribed, whatever the rules say."""
    client = found.connect()
    client.session.subscribe(channels.split(" "))
    return client


def errors(client: Client) -> list[tuple[str | None, str | None]]:
    """Return status and reason of what a client has got, which is nothing but errors."""
    taken = client.take()
    assert {message.command for message in taken} <= {"error"}
    return [(message.headers.get("status"), message.headers.get("reason")) for message in taken]


def receive_together(client: Client, *messages: Message) -> None:
    """Let the session take messages as one read brings them in."""
    payloads, position = [message.raw for message in messages], 0
    while position < len(payloads):
        position = client.session.receive_run(payloads, position, False)


# Who may subscribe


def test_one_who_may_subscribe_does() -> None:
    client = server({"match": "a", "subscribe": "authenticated"}).connect(user="jack")
    client.send(subscription())
    assert client.take() == []
    assert client.session.channels == {"a"}


def test_one_who_may_not_subscribe_is_told_why() -> None:
    client = server({"match": "user.{user}", "subscribe": "{user}"}).connect(user="mike")
    client.send(subscription("user.jack", receipt="7"))
    assert client.take() == [
        Message(
            "error",
            [
                ("status", "403"),
                ("reason", "not allowed to subscribe to channel 'user.jack'"),
                ("receipt-id", "7"),
            ],
        )
    ]
    assert client.session.channels == frozenset()


def test_one_who_is_not_known_is_told_to_log_in() -> None:
    client = server({"match": "a", "subscribe": "authenticated"}).connect()
    client.send(subscription())
    assert errors(client) == [("403", "not allowed to subscribe to channel 'a': log in first")]


def test_nobody_is_told_to_log_in_where_that_helps_nobody() -> None:
    client = server({"match": "a", "subscribe": "nobody"}).connect()
    client.send(subscription())
    assert errors(client) == [("403", "not allowed to subscribe to channel 'a'")]


def test_of_several_channels_none_is_subscribed_to_if_one_is_refused() -> None:
    client = server({"match": "a", "subscribe": "nobody"}).connect()
    client.send(subscription("b a"))
    assert errors(client) == [("403", "not allowed to subscribe to channel 'a'")]
    assert client.session.channels == frozenset()


def test_a_list_is_looked_up_once_where_nothing_comes_between(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    find = Rules.find
    monkeypatch.setattr(Rules, "find", lambda rules, channel: (looked.append(channel), find(rules, channel))[1])
    client = server({"match": "a.*"}).connect()
    client.send(subscription("a.1 a.2 b"))
    assert looked == ["a.1", "a.2", "b"]
    client.send(subscription("a.1 a.2 b"))  # another message is judged by itself
    assert looked == ["a.1", "a.2", "b"] * 2


def test_a_list_is_looked_up_again_where_the_client_becomes_somebody_else() -> None:
    @processor("chat")
    def chat(request: Request) -> None:
        request.session.identity = Identity(None, "1")

    client = server({"match": "a", "subscribe": "authenticated"}, processors=[chat]).connect(user="jack")
    client.send(subscription())
    assert errors(client) == [("403", "not allowed to subscribe to channel 'a': log in first")]
    assert client.session.channels == frozenset()


def test_a_channel_without_a_rule_is_open() -> None:
    client = server({"match": "a", "subscribe": "nobody", "publish": "nobody"}).connect()
    client.send(subscription("b"))
    client.send(publication("b"))
    assert client.take() == [publication("b")]


def test_unsubscribing_is_always_allowed() -> None:
    found = server({"match": "a", "subscribe": "nobody"})
    client = listener(found)
    client.send(Message("chat", [("unsubscribe", "a")]))
    assert client.take() == []
    assert client.session.channels == frozenset()


# Who may publish


def test_one_who_may_not_publish_reaches_nobody_and_is_told_why() -> None:
    found = server({"match": "a", "publish": "nobody"})
    other, client = listener(found, "a b"), found.connect(user="jack")
    client.send(publication("b a"))
    assert errors(client) == [("403", "not allowed to publish to channel 'a'")]
    assert other.take() == []


def test_a_message_that_may_not_be_published_is_not_processed() -> None:
    seen: list[str] = []

    @processor("chat")
    def chat(request: Request) -> None:
        seen.append(request.text)

    client = server({"match": "a", "publish": "nobody"}, processors=[chat]).connect()
    client.send(publication("a", "1", receipt="1"))
    client.send(publication("b", "2"))
    assert seen == ["2"]
    assert errors(client) == [("403", "not allowed to publish to channel 'a'")]


def test_a_message_whose_publication_is_refused_does_not_subscribe_either() -> None:
    client = server({"match": "a", "publish": "nobody"}).connect()
    client.send(Message("chat", [("subscribe", "b"), ("publish", "a")]))
    assert errors(client) == [("403", "not allowed to publish to channel 'a'")]
    assert client.session.channels == frozenset()


def test_rules_do_not_bind_processors() -> None:
    @processor("join")
    async def join(request: Request) -> None:
        await request.session.subscribe("a")
        await request.session.publish("a", "news", body="x")

    client = server({"match": "a", "subscribe": "nobody", "publish": "nobody"}, processors=[join]).connect()
    client.send(Message("join"))
    assert client.take() == [Message("news", [("publish", "a")], "x")]


def test_rules_do_not_bind_code_without_a_connection() -> None:
    found = server({"match": "a", "publish": "nobody", "max_size": 1})
    other = listener(found)
    found.engine.publish("a", "news")
    found.engine.publish_message(publication())
    assert len(other.take()) == 2


def test_what_a_processor_makes_of_a_message_is_not_looked_at_again() -> None:
    @processor("chat")
    def chat(request: Request) -> None:
        request.publication = request.message.replace(body="x" * 100)

    found = server({"match": "a", "max_size": 50}, processors=[chat])
    other, client = listener(found), found.connect()
    client.send(publication())
    assert client.take() == []
    assert [len(message.body) for message in other.take()] == [100]


def test_whoever_logs_in_may_at_once() -> None:
    found = server({"match": "a", "publish": "authenticated"})
    other, client = listener(found), found.connect()
    client.send(publication())
    client.session.identity = found.connect(user="jack").session.identity
    client.send(publication())
    assert errors(client) == [("403", "not allowed to publish to channel 'a': log in first")]
    assert other.take() == [publication()]


# Sizes


def test_a_message_that_is_too_large_for_a_channel_is_refused() -> None:
    size = len(publication("b a").raw)
    found = server({"match": "a", "max_size": size}, {"match": "b", "max_size": size + 1})
    other, client = listener(found, "a b"), found.connect()
    client.send(publication("b a"))
    client.send(publication("b a", "x"))
    reason = f"message of {size + 1} bytes is larger than the {size} that channel 'a' takes"
    assert errors(client) == [("413", reason)]
    assert len(other.take()) == 2


# Rates


def test_a_connection_that_publishes_too_fast_is_told_so() -> None:
    found = server({"match": "a", "max_rate": 2})
    other, client = listener(found), found.connect()
    for number in range(4):
        client.send(publication("a", str(number)))
    assert [message.text for message in other.take()] == ["0", "1"]
    assert errors(client) == [("429", "channel 'a' allows 2 messages a second from a connection")] * 2


def test_what_is_refused_does_not_count() -> None:
    found = server({"match": "a", "max_rate": 2})
    other, client = listener(found), found.connect()
    for number in range(20):
        client.send(publication("a", str(number)))
        found.clock.advance(0.25)
    assert [message.text for message in other.take()] == ["0", "1", *map(str, range(2, 20, 2))]


def test_after_a_pause_as_many_as_in_a_second_may_come_at_once() -> None:
    found = server({"match": "a", "max_rate": 3})
    other, client = listener(found), found.connect()
    client.send(publication())
    found.clock.advance(1000)
    for _ in range(5):
        client.send(publication())
    assert len(other.take()) == 4


def test_less_than_one_message_a_second_is_a_rate_too() -> None:
    found = server({"match": "a", "max_rate": 0.5})
    other, client = listener(found), found.connect()
    for _ in range(6):
        client.send(publication())
        found.clock.advance(1)
    assert len(other.take()) == 3


def test_each_connection_and_each_channel_has_a_rate_of_its_own() -> None:
    found = server({"match": "*", "max_rate": 1})
    other = listener(found, "a b")
    for client in (found.connect(), found.connect()):
        for channel in ("a", "b", "a"):
            client.send(publication(channel))
        assert len(errors(client)) == 1
    assert len(other.take()) == 4


def test_a_message_that_is_too_fast_for_one_channel_counts_for_none() -> None:
    found = server({"match": "a", "max_rate": 1}, {"match": "b", "max_rate": 2})
    other, client = listener(found, "b"), found.connect()
    for channels in ("a", "b a", "b a", "b", "b"):
        client.send(publication(channels))
    assert len(errors(client)) == 2
    assert len(other.take()) == 2


def test_a_clock_that_is_put_back_does_not_stop_anybody() -> None:
    found = server({"match": "a", "max_rate": 1})
    other, client = listener(found), found.connect()
    found.clock.advance(100)
    client.send(publication())
    found.clock.rightNow = 0.0
    client.send(publication())
    client.send(publication())
    assert (len(other.take()), len(errors(client))) == (2, 1)


def test_what_is_remembered_of_a_fast_connection_is_bounded_in_bytes() -> None:
    found = server({"match": "*", "max_rate": 1}, limits=PATIENT)
    client = found.connect()
    for number in range(1_000):
        client.send(publication(f"{number}" + 200 * "a"))
    (publishing,) = (each for each in found.engine.filters if isinstance(each, RuledPublishFilter))
    paces = publishing._paces[client.session]
    held = paces._full
    assert len(held) > 100
    assert sys.getsizeof(held) + sum(map(sys.getsizeof, [*held, *held.values()])) <= 65_536


@pytest.mark.parametrize("together", [False, True])
def test_fresh_names_buy_no_room_in_a_channel_with_a_rate(together: bool) -> None:
    found = server({"match": ">", "max_rate": 1}, limits=Limits(error_count=0, list_length=200))
    other, client = listener(found, "room.v"), found.connect()
    for number in range(100):
        fresh = [f"f.{number}.{index}" for index in range(130)]
        for channels in [" ".join(["room.v", *fresh])] if together else [*fresh, "room.v"]:
            client.send(publication(channels))
            found.clock.advance(0)
        client.take()
    assert len(other.take()) == 1


def test_what_finds_no_room_is_refused_until_there_is_some() -> None:
    found = server({"match": ">", "max_rate": 1}, limits=PATIENT)
    other, client = listener(found, "last"), found.connect()
    for number in range(400):
        client.send(publication(f"f{number}"))
    assert errors(client)[-1][0] == "429"
    client.send(publication("last"))
    assert [reason for _, reason in errors(client)] == [
        "the connection publishes to too many channels that have a rate limit"
    ]
    found.clock.advance(1.0)
    client.send(publication("last"))
    client.send(publication("f0"))
    assert (client.take(), len(other.take())) == ([], 1)


def test_looking_for_room_costs_little_where_there_is_none() -> None:
    found = server({"match": ">", "max_rate": 0.001}, limits=PATIENT)
    client = found.connect()
    for number in range(400):
        client.send(publication(f"f{number}"))
    head = publication("other").head
    request = Request(client.session, publication("other"), None)
    ruled = next(each for each in found.engine.filters if isinstance(each, RuledPublishFilter))
    assert ruled._ruling(head.channels("publish")).cost

    def refuse() -> None:
        with pytest.raises(TooMany):
            ruled.judge(request)

    assert calls(refuse) < 120


def test_what_is_remembered_of_lists_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lhttp_tx.rules.filters._RULING_SIZE", 500_000)
    monkeypatch.setattr("lhttp_tx.engine.engine._PLAN_SIZE", 500_000)
    rule = {"match": ">", "max_rate": 1000, "echo": False, "publish": "authenticated"}
    found = server(rule, limits=Limits(list_length=128))
    client = found.connect(user="jack")
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(300):
            for index in (80, 127):
                found.clock.advance(1)
                client.send(publication(" ".join([f"v{number}", *(f"{each}" for each in range(index))])))
        assert len(found.engine._plans) > 3
        assert tracemalloc.get_traced_memory()[0] - before < 1_200_000
    finally:
        tracemalloc.stop()


# Echo


def test_a_publisher_hears_itself_unless_the_rules_say_no() -> None:
    found = server({"match": "a", "echo": False})
    client, other = listener(found, "a b"), listener(found, "a b")
    client.send(publication("a b", "1"))
    client.send(publication("b", "2"))
    other.send(publication("a", "3"))
    assert [message.text for message in client.take()] == ["1", "2", "3"]
    assert [message.text for message in other.take()] == ["1", "1", "2"]


@pytest.mark.parametrize("filters", [False, True], ids=["short way", "long way"])
def test_a_publisher_without_an_echo_does_not_hear_itself_through_a_wildcard(filters: bool) -> None:
    found = server({"match": ">", "echo": False, "wildcards": True}, filters=[OneByOne()] if filters else [])
    one, other = found.connect(), found.connect()
    for client in (one, other):
        client.send(subscription("room.* room.>"))
    one.send(publication("room.1"))
    assert (len(one.take()), len(other.take())) == (0, 2)
    other.send(publication("room.1"))
    assert (len(one.take()), len(other.take())) == (2, 0)
    one.send(Message("chat", {"unsubscribe": "room.*"}))
    other.send(publication("room.1"))
    assert len(one.take()) == 1


class LateBus(MemoryBus):
    """A bus that does not say that it hands publications over at once."""

    is_immediate = False


def test_a_rule_without_an_echo_takes_a_bus_that_is_immediate() -> None:
    with pytest.raises(ValueError, match=r"rule 'a' has echo = false, which needs a bus that .* LateBus does not"):
        server({"match": "b"}, {"match": "a", "echo": False}, bus=LateBus())
    found = server({"match": "a"}, bus=LateBus())
    client = found.connect()
    with pytest.raises(ValueError, match="has echo = false"):
        found.set_rules(Rules.from_toml([{"match": "a", "echo": False, "publish": "nobody"}]))
    client.send(publication("a"))
    assert client.take() == []  # the rules of before are in force


def test_a_publisher_without_an_echo_gets_its_receipt() -> None:
    found = server({"match": "a", "echo": False})
    client, other = listener(found), listener(found)
    client.send(publication("a", receipt="7"))
    assert client.take() == [Message("receipt", [("receipt-id", "7")])]
    assert other.take() == [publication()]


def test_what_others_publish_in_one_read_is_not_lost_to_one_without_an_echo() -> None:
    found = server({"match": "a", "echo": False})
    client, other = listener(found), listener(found)
    found.engine.hub.cork()
    other.send(publication("a", "1"))
    client.send(publication("a", "2"))
    other.send(publication("a", "3"))
    found.engine.hub.uncork()
    assert [message.text for message in client.take()] == ["1", "3"]
    assert [message.text for message in other.take()] == ["2"]


# Many messages at once, without a request for each


class OneByOne(HeaderFilter):
    """Keeps messages from the short way."""

    def before(self, request: Request) -> MaybeAwaitable:
        return None


@pytest.mark.parametrize("filters", [[], [OneByOne()]], ids=["short way", "long way"])
@pytest.mark.parametrize(
    ("table", "bodies", "delivered", "refused"),
    [
        ({"publish": "nobody"}, ["1", "2"], [], ["403", "403"]),
        ({"publish": "authenticated"}, ["1", "2"], ["1", "2"], []),
        ({"max_size": 35}, ["1", "x" * 40, "3"], ["1", "3"], ["413"]),
        ({"max_rate": 2}, ["1", "2", "3", "4"], ["1", "2"], ["429", "429"]),
        ({"max_rate": 2, "max_size": 35}, ["x" * 40, "1", "2", "3"], ["1", "2"], ["413", "429"]),
        ({"echo": False}, ["1", "2"], ["1", "2"], []),
    ],
)
def test_messages_that_come_together_are_judged_one_by_one(
    table: dict[str, Any], bodies: list[str], delivered: list[str], refused: list[str], filters: list[HeaderFilter]
) -> None:
    found = server({"match": "a", **table}, filters=filters)
    other, client = listener(found), found.connect(user="jack")
    receive_together(client, *(publication("a", body) for body in bodies))
    assert [message.text for message in other.take()] == delivered
    assert [status for status, _ in errors(client)] == refused


def test_refusals_come_in_the_order_of_the_messages() -> None:
    found = server({"match": "a", "max_size": 35})
    client = listener(found)
    receive_together(client, *(publication("a", body) for body in ["1", "x" * 40, "3"]))
    assert [message.command for message in client.take()] == ["chat", "error", "chat"]


def test_publications_take_the_short_way() -> None:
    engine = server({"match": "a", "publish": "authenticated", "max_rate": 1, "echo": False}).engine
    assert engine.plan(publication("a").raw).shortcut is not None
    assert engine.plan(publication("b").raw).shortcut is not None


def test_headers_for_the_server_alone_are_taken_off_on_the_short_way() -> None:
    found = server({"match": "a", "max_rate": 5})
    found.engine.filters = tuple(each for each in found.engine.filters if not isinstance(each, UpstreamFilter))
    other, client = listener(found), found.connect()
    receive_together(client, publication("a", "1", upstream="x"), publication("a", "2", upstream="x"))
    assert [list(message.headers) for message in other.take()] == [[("publish", "a")]] * 2


def test_a_subclass_with_a_step_of_its_own_does_not_take_the_short_way() -> None:
    class Mine(RuledPublishFilter):
        def before(self, request: Request) -> MaybeAwaitable:
            return None

    found = Server()
    found.engine.filters = (Mine(RuleBook(Rules()), found.clock),)
    assert found.engine.plan(publication("a").raw).shortcut is None


# Other rules


def test_other_rules_hold_from_the_next_message_on() -> None:
    found = server()
    other, client = listener(found), found.connect()
    client.send(publication())
    client.send(publication("a", receipt="1"))
    found.set_rules(Rules.from_toml([{"match": "a", "publish": "nobody", "subscribe": "nobody"}]))
    client.send(publication())
    client.send(publication("a", receipt="1"))
    client.send(subscription())
    assert [message.command for message in client.take()] == ["receipt", "error", "error", "error"]
    assert len(other.take()) == 2
    assert other.session.channels == {"a"}


# Wildcard subscriptions


WILD = {"match": "room.*", "wildcards": True}


def test_a_wildcard_that_the_rules_allow_is_subscribed() -> None:
    found = server(WILD)
    client, other = found.connect(), found.connect()
    client.send(subscription("room.*"))
    other.send(publication("room.7", "hello"))
    other.send(publication("other", "unheard"))
    assert [message.text for message in client.take()] == ["hello"]


def test_a_wildcard_can_be_taken_back() -> None:
    found = server(WILD)
    client, other = found.connect(), found.connect()
    client.send(subscription("room.*"))
    client.send(Message("chat", [("unsubscribe", "room.*")]))
    other.send(publication("room.7", "unheard"))
    assert client.take() == []
    assert found.bus.channels == frozenset()


@pytest.mark.parametrize("wanted", [">", "*.7", "room.>", "other.*"])
def test_a_wildcard_that_takes_in_more_than_the_rules_allow_is_refused(wanted: str) -> None:
    client = server(WILD, {"match": "other.*"}).connect()
    client.send(subscription(wanted))
    assert errors(client) == [("403", f"not allowed to subscribe to all of {wanted!a}")]


def test_a_wildcard_asks_who_it_is_where_the_rule_does() -> None:
    found = server({**WILD, "subscribe": "authenticated"})
    stranger, member = found.connect(), found.connect(user="jack")
    for client in (stranger, member):
        client.send(subscription("room.*"))
    assert errors(stranger) == [("403", "not allowed to subscribe to all of 'room.*'")]
    assert errors(member) == []


def test_a_message_published_to_a_wildcard_is_refused() -> None:
    client = server(WILD).connect()
    client.send(publication("room.*"))
    assert errors(client) == [("400", "channel 'room.*' has the wildcard * as a token")]


def test_without_rules_a_wildcard_is_no_channel() -> None:
    client = Server().connect()
    client.send(subscription("room.*"))
    client.send(Message("chat", [("unsubscribe", "room.>")]))
    assert errors(client) == [
        ("400", "channel 'room.*' has the wildcard * as a token"),
        ("400", "channel 'room.>' has the wildcard > as a token"),
    ]
