"""
lhttp_tx.rules.revoking: subscriptions that are taken back when other rules are in force, or with another identity.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher

from lhttp_tx import Authenticator, Hooks, Identity, Message, Request, Session, processor
from lhttp_tx.auth.attempts import LoginAttempt
from lhttp_tx.bus.memory import MemoryBus
from lhttp_tx.codec.limits import Limits
from lhttp_tx.engine.watchers import SessionWatcher
from lhttp_tx.errors import BusUnavailable
from lhttp_tx.rules.grants import Access
from lhttp_tx.rules.model import ANYBODY, AUTHENTICATED, NOBODY, Rule, Rules
from lhttp_tx.testing import Client, Server

CLOSED = Rules([Rule("room", subscribe=NOBODY)])


def joined(server: Server, channels: str = "room", **options: Any) -> Client:
    """Return a client that has subscribed by itself."""
    client = server.connect(**options)
    client.send(Message("chat", {"subscribe": channels}))
    assert client.take() == []
    return client


def publish(server: Server, body: str, channel: str = "room") -> None:
    server.engine.publish(channel, "chat", body=body)


def told(client: Client) -> list[str]:
    """Return the bodies of what a client has got, and what errors say."""
    return [
        f"{message.headers.get('status')} {message.headers.get('unsubscribed')}"
        if message.command == "error"
        else message.text
        for message in client.take()
    ]


class Counting(Access):
    """Lets everybody in, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def allows(self, identity: Identity, channel: str) -> bool:
        self.asked += 1
        return True


class Named(Access):
    """Lets one user in."""

    def __init__(self, user: str) -> None:
        self.user = user

    def allows(self, identity: Identity, channel: str) -> bool:
        return identity.user == self.user


# Other rules


def test_a_client_that_may_no_longer_subscribe_is_told_and_gets_nothing_more() -> None:
    server = Server(rules=Rules())
    client = joined(server, "room other")
    server.set_rules(CLOSED)
    assert client.take() == [
        Message(
            "error",
            [
                ("status", "403"),
                ("reason", "not allowed to subscribe to channel 'room'"),
                ("unsubscribed", "room"),
            ],
        )
    ]
    publish(server, "secret")
    publish(server, "news", "other")
    assert told(client) == ["news"]
    assert client.session.channels == {"other"}


def test_those_who_may_still_go_on() -> None:
    server = Server(rules=Rules())
    member, stranger = joined(server, user="jack"), joined(server)
    server.set_rules(Rules([Rule("room", subscribe=AUTHENTICATED)]))
    publish(server, "hello")
    assert told(member) == ["hello"]
    assert told(stranger) == ["403 room"]


def test_what_was_published_before_is_delivered_before_the_error() -> None:
    server = Server(rules=Rules())
    client = joined(server)
    server.engine.hub.cork()
    publish(server, "before")
    server.set_rules(CLOSED)
    publish(server, "after")
    server.engine.hub.uncork()
    assert told(client) == ["before", "403 room"]


def test_each_subscription_that_is_lost_is_told_by_itself() -> None:
    server = Server(rules=Rules())
    client = joined(server, "c a b")
    server.set_rules(Rules([Rule("*", subscribe=NOBODY)]))
    assert told(client) == ["403 a", "403 b", "403 c"]


def test_a_subscription_that_was_taken_back_can_be_had_again_when_the_rules_allow_it() -> None:
    server = Server(rules=Rules())
    client = joined(server)
    server.set_rules(CLOSED)
    server.set_rules(Rules())
    assert told(client) == ["403 room"]
    client.send(Message("chat", {"subscribe": "room"}))
    publish(server, "hello")
    assert told(client) == ["hello"]


def test_subscriptions_that_are_taken_back_are_no_errors_of_the_client() -> None:
    server = Server(rules=Rules(), limits=Limits(error_count=2))
    client = joined(server, "a b c")
    server.set_rules(Rules([Rule("*", subscribe=NOBODY)]))
    assert len(told(client)) == 3
    assert client.close_code is None


def test_a_wildcard_subscription_that_the_rules_no_longer_allow_is_lost() -> None:
    server = Server(rules=Rules([Rule("room.*", wildcards=True)]))
    client = joined(server, "room.*")
    server.set_rules(Rules([Rule("room.*")]))
    publish(server, "secret", "room.7")
    assert told(client) == ["403 room.*"]
    assert server.bus.channels == frozenset()


def test_a_wildcard_subscription_is_lost_where_one_of_its_channels_is_closed() -> None:
    open_rooms = Rule("room.*", wildcards=True)
    server = Server(rules=Rules([open_rooms]))
    client, other = joined(server, "room.*"), joined(server, "room.7")
    server.set_rules(Rules([Rule("room.secret", subscribe=NOBODY), open_rooms]))
    assert told(client) == ["403 room.*"]
    assert told(other) == []


def test_the_presence_of_a_channel_is_lost_with_the_right_to_it() -> None:
    server = Server(rules=Rules(), presence=["room"])
    client = joined(server, "$presence.room")
    server.set_rules(CLOSED)
    assert told(client) == ["403 $presence.room"]
    assert client.session.channels == frozenset()


def test_the_presence_of_a_channel_is_lost_where_nobody_keeps_it_any_more() -> None:
    server = Server(rules=Rules([Rule("room", presence=True)]))
    client = joined(server, "room $presence.room")
    server.clock.advance(10)
    client.take()
    server.set_rules(Rules([Rule("room")]))
    assert told(client) == ["404 $presence.room"]
    assert client.session.channels == {"room"}


def test_a_rule_of_somebody_elses_making_that_fails_lets_nobody_stay(failures: list[Any]) -> None:
    class Broken(Access):
        def allows(self, identity: Identity, channel: str) -> bool:
            raise RuntimeError("no database")

    server = Server(rules=Rules())
    clients = [joined(server), joined(server)]
    server.set_rules(Rules([Rule("room", subscribe=Broken())]))
    assert [told(client) for client in clients] == [["500 room"]] * 2
    assert [str(failure) for failure in failures] == ["no database"] * 2


def test_a_watcher_that_fails_for_one_keeps_nobody_else_in(failures: list[Any]) -> None:
    class Failing(SessionWatcher):
        def unsubscribed(self, session: Session, channel: str) -> None:
            if not failures:
                raise RuntimeError("no reason")

    server = Server(rules=Rules())
    server.engine.watchers.append(Failing())
    clients = [joined(server), joined(server)]
    server.set_rules(CLOSED)
    assert [client.session.channels for client in clients] == [frozenset(), frozenset()]
    assert sorted(map(told, clients)) == [[], ["403 room"]]
    assert len(failures) == 1


# Who else hears of it


def test_hooks_and_presence_see_it_as_any_other_end_of_a_subscription() -> None:
    class Seen(Hooks):
        def __init__(self) -> None:
            self.left: list[str] = []

        def on_unsubscribe(self, session: Session, channel: str) -> None:
            self.left.append(channel)

    seen = Seen()
    server = Server(rules=Rules(), presence=["room"], presence_grace=0, hooks=[seen])
    member = joined(server, "$presence.room", user="mike")
    joined(server, user="jack")
    server.clock.advance(0)
    assert [message.headers.get("event") for message in member.take()] == ["join"]
    server.set_rules(Rules([Rule("room", subscribe=Named("mike"))]))
    server.clock.advance(0)
    assert seen.left == ["room"]
    assert [message.headers.get("event") for message in member.take()] == ["leave"]
    assert server.presence.count("room") == (0, 0)


def test_how_many_subscriptions_were_taken_back_is_logged() -> None:
    lines: list[str] = []

    def observe(event: dict[str, Any]) -> None:
        if event["log_namespace"] == "lhttp_tx.rules.revoking":
            lines.append(formatEvent(event))

    server = Server(rules=Rules())
    joined(server), joined(server, "room other")
    globalLogPublisher.addObserver(observe)
    try:
        server.set_rules(CLOSED)
        server.set_rules(Rules())
    finally:
        globalLogPublisher.removeObserver(observe)
    assert lines == ["subscriptions revoked by new channel rules: 2"]


# What code has done


def test_what_code_has_subscribed_stays() -> None:
    server = Server(rules=CLOSED)
    client = server.connect(user="jack")
    client.session.subscribe("room")
    server.control.subscribe("other", user="jack")
    server.set_rules(Rules([Rule("*", subscribe=NOBODY)]))
    client.session.identity = Identity("jack", "1")
    assert told(client) == []
    assert client.session.channels == {"room", "other"}


def test_what_code_has_subscribed_too_stays() -> None:
    server = Server(rules=Rules())
    client = joined(server)
    client.session.subscribe("room")
    server.set_rules(CLOSED)
    assert client.session.channels == {"room"}


def test_what_code_has_subscribed_and_the_client_has_given_up_is_no_longer_special() -> None:
    server = Server(rules=Rules())
    client = server.connect()
    client.session.subscribe("room")
    client.send(Message("chat", {"unsubscribe": "room"}))
    client.send(Message("chat", {"subscribe": "room"}))
    server.set_rules(CLOSED)
    assert told(client) == ["403 room"]


def test_what_code_could_not_subscribe_is_not_special() -> None:
    class StartingBus(MemoryBus):
        started = False

        def subscribe(self, channel: str, receiver: Any) -> Any:
            if not self.started:
                raise BusUnavailable("away")
            return super().subscribe(channel, receiver)

    bus = StartingBus()
    server = Server(rules=Rules(), bus=bus)
    client = server.connect()
    failed: list[Any] = []
    client.session.subscribe("room").addErrback(failed.append)
    bus.started = True
    client.send(Message("chat", {"subscribe": "room"}))
    server.set_rules(CLOSED)
    assert len(failed) == 1
    assert told(client) == ["403 room"]


def test_nothing_is_remembered_of_connections_that_have_ended() -> None:
    server = Server(rules=Rules())
    client = server.connect()
    client.session.subscribe("room")
    client.disconnect()
    assert server.assembly._revoker is not None
    assert server.assembly._revoker._granted == {}


# What it costs


def test_without_rules_nobody_watches() -> None:
    assert Server().engine.watchers == []


def test_a_server_without_rules_takes_none() -> None:
    with pytest.raises(ValueError, match="cannot get any later"):
        Server().set_rules(Rules())


@pytest.mark.parametrize("after", [{}, {"publish": NOBODY}, {"max_rate": 5.0}, {"max_size": 10}, {"echo": False}])
def test_rules_that_give_the_same_subscriptions_cost_no_look(after: dict[str, Any]) -> None:
    access = Counting()
    server = Server(rules=Rules([Rule("room", subscribe=access)]))
    client = joined(server)
    asked = access.asked
    server.set_rules(Rules([Rule("room", subscribe=access, **after)]))
    assert access.asked == asked
    assert server.clock.getDelayedCalls() == []
    assert client.session.channels == {"room"}


def test_the_same_rules_leave_plans_as_they_are() -> None:
    server = Server(rules=Rules([Rule("room", publish=NOBODY)]))
    message = Message("chat", {"publish": "room"}).raw
    plan = server.engine.plan(message)
    server.set_rules(Rules([Rule("room", publish=NOBODY, line=7)]))
    assert server.engine.plan(message) is plan


def test_presence_is_not_looked_at_again_where_the_rules_say_the_same_of_it() -> None:
    looks: list[str] = []
    server = Server(rules=Rules(), presence=["room"])
    joined(server)
    server.assembly.members._attendance._is_kept = lambda channel: bool(looks.append(channel))
    server.set_rules(Rules([Rule("other", subscribe=NOBODY)]))
    assert looks == []


class Turns(Clock):
    """A clock on which what is to be done at once is done with the next second, so that turns can be told apart."""

    def callLater(self, delay: float, *args: Any, **kwargs: Any) -> Any:
        return super().callLater(max(1.0, delay), *args, **kwargs)


def turns_of(server: Server) -> Turns:
    """Give the part under test a clock of its own."""
    assert server.assembly._revoker is not None
    clock = server.assembly._revoker._clock = Turns()
    return clock


class Crowd:
    """
    Many connections in ten channels each, and rules that are changed.

    A look at a subscription counts for 101, so 198 of them make a turn, in whole connections: 20 of them.
    """

    turn = 20

    def __init__(self, count: int, **options: Any) -> None:
        self.access = Counting()
        self.server = Server(rules=Rules([Rule("room.*")]), **options)
        self.clock = turns_of(self.server)
        channels = " ".join(f"room.{number}" for number in range(10))
        self.clients = [joined(self.server, channels) for _ in range(count)]

    def close(self, access: Access | None = None) -> None:
        self.server.set_rules(Rules([Rule("room.*", subscribe=access or NOBODY)]))

    def looked_at(self) -> int:
        return sum(not client.session.channels for client in self.clients)

    def pass_turns(self) -> list[int]:
        """Let time pass until there is nothing left to do; return how many connections each turn has looked at."""
        counts = [self.looked_at()]
        while self.clock.getDelayedCalls():
            assert len(self.clock.getDelayedCalls()) == 1
            self.clock.advance(1)
            counts.append(self.looked_at())
        return [after - before for before, after in zip([0, *counts], counts, strict=False)]


def test_many_connections_are_looked_at_a_few_in_each_turn() -> None:
    crowd = Crowd(110)
    crowd.close()
    assert crowd.pass_turns() == [20, 20, 20, 20, 20, 10]


def test_each_subscription_is_judged_once() -> None:
    crowd = Crowd(50)
    crowd.close(crowd.access)
    crowd.pass_turns()
    assert crowd.access.asked == 500


def test_many_rules_make_the_turns_smaller() -> None:
    crowd = Crowd(10)
    crowd.server.set_rules(Rules([*(Rule(f"x.{number}") for number in range(900)), Rule("room.*", subscribe=NOBODY)]))
    assert crowd.pass_turns() == [2, 2, 2, 2, 2]


def test_connections_without_subscriptions_count_too() -> None:
    access = Counting()
    server = Server(rules=Rules())
    clock = turns_of(server)
    clients = [server.connect() for _ in range(500)]
    server.set_rules(Rules([Rule("room", subscribe=access)]))
    turns = 1
    while clock.getDelayedCalls():
        clock.advance(1)
        turns += 1
    assert (turns, len(clients)) == (3, 500)


def test_one_connection_with_more_than_a_turn_allows_is_looked_at_whole() -> None:
    server = Server(rules=Rules(), limits=Limits(subscription_count=1000))
    clock = turns_of(server)
    clients = [server.connect() for _ in range(2)]
    for client in clients:
        for begin in range(0, 1000, 200):
            client.send(Message("chat", {"subscribe": " ".join(f"a.{begin + number}" for number in range(200))}))
    server.set_rules(Rules([Rule("a.*", subscribe=NOBODY)]))
    assert sorted(len(client.session.channels) for client in clients) == [0, 1000]
    clock.advance(1)
    assert [len(client.session.channels) for client in clients] == [0, 0]


# What happens between the turns


def test_who_was_not_looked_at_yet_gets_what_is_published_and_then_the_error() -> None:
    crowd = Crowd(30)
    crowd.close()
    publish(crowd.server, "between", "room.0")
    crowd.pass_turns()
    publish(crowd.server, "after", "room.0")
    assert sorted(told(client)[0] for client in crowd.clients) == ["403 room.0"] * 20 + ["between"] * 10


def test_who_comes_between_is_judged_by_the_new_rules() -> None:
    crowd = Crowd(30)
    crowd.close()
    client = crowd.server.connect()
    client.send(Message("chat", {"subscribe": "room.0"}))
    client.send(Message("chat", {"subscribe": "free"}))
    crowd.pass_turns()
    assert told(client) == ["403 None"]
    assert client.session.channels == {"free"}


def test_who_goes_between_is_told_nothing() -> None:
    crowd = Crowd(30)
    crowd.close()
    for client in crowd.clients:
        client.take()
        client.disconnect()
    crowd.pass_turns()
    assert all(client.take() == [] for client in crowd.clients)


def test_rules_that_come_between_are_those_that_everybody_is_judged_by() -> None:
    crowd = Crowd(30)
    crowd.close(crowd.access)
    assert crowd.access.asked == 200
    crowd.close()
    assert crowd.pass_turns() == [20, 10]
    assert crowd.access.asked == 200


def test_rights_that_come_back_between_are_kept_by_those_who_were_not_looked_at() -> None:
    crowd = Crowd(30)
    crowd.close()
    crowd.server.set_rules(Rules())
    crowd.pass_turns()
    assert crowd.looked_at() == 20


def test_the_same_rules_between_do_not_begin_again() -> None:
    crowd = Crowd(60)
    crowd.close(crowd.access)
    crowd.close(crowd.access)
    crowd.pass_turns()
    assert crowd.access.asked == 600


def test_an_identity_that_is_renewed_between_is_judged_at_once() -> None:
    crowd = Crowd(30)
    crowd.close()
    late = next(client for client in crowd.clients if client.session.channels)
    late.session.identity = Identity("jack", "1")
    assert late.session.channels == frozenset()


def test_rules_that_a_hook_changes_meanwhile_are_in_force_for_all() -> None:
    class Closing(Hooks):
        server: Server

        def on_unsubscribe(self, session: Session, channel: str) -> None:
            self.server.set_rules(Rules([Rule("*", subscribe=NOBODY)]))

    hooks = Closing()
    hooks.server = server = Server(rules=Rules(), hooks=[hooks])
    clients = [joined(server, "room other") for _ in range(3)]
    server.set_rules(CLOSED)
    assert server.clock.getDelayedCalls() == []
    assert [sorted(told(client)) for client in clients] == [["403 other", "403 room"]] * 3


def test_rules_that_a_hook_changes_meanwhile_begin_one_pass_and_not_two() -> None:
    class Closing(Hooks):
        crowd: Crowd

        def on_unsubscribe(self, session: Session, channel: str) -> None:
            self.crowd.server.set_rules(Rules([Rule("*.*", subscribe=NOBODY)]))

    hooks = Closing()
    hooks.crowd = crowd = Crowd(60, hooks=[hooks])
    crowd.close()
    crowd.pass_turns()  # which looks that there is one timer
    assert crowd.looked_at() == 60


def test_a_server_that_stops_leaves_no_timer() -> None:
    crowd = Crowd(30)
    crowd.close()
    assert len(crowd.clock.getDelayedCalls()) == 1
    crowd.server.assembly.leave()
    assert crowd.clock.getDelayedCalls() == []


# Messages that are under way


def test_a_message_that_waits_while_its_right_is_taken_away_does_not_subscribe() -> None:
    waiting: Deferred[None] = Deferred()

    @processor("chat")
    def chat(request: Request) -> Deferred[None]:
        return waiting

    server = Server(rules=Rules(), processors=[chat])
    client = server.connect()
    client.send(Message("chat", {"subscribe": "room", "receipt": "7"}))
    server.set_rules(CLOSED)
    waiting.callback(None)
    assert [(message.command, message.headers.get("receipt-id")) for message in client.take()] == [("error", "7")]
    assert client.session.channels == frozenset()


@pytest.mark.parametrize("is_trusted", [False, True])
def test_what_is_added_to_a_message_is_looked_at_unless_the_code_is_trusted(is_trusted: bool) -> None:
    class Adding(Hooks):
        trusted = is_trusted

        def on_message(self, request: Request) -> None:
            request.message = request.message.replace(headers={"subscribe": "room"})

    server = Server(rules=CLOSED, hooks=[Adding()])
    client = server.connect()
    client.send(Message("chat"))
    assert told(client) == ([] if is_trusted else ["403 None"])
    assert client.session.channels == ({"room"} if is_trusted else frozenset())


class WaitingBus(MemoryBus):
    """A bus that has a subscription when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: Deferred[None] = Deferred()

    def subscribe(self, channel: str, receiver: Any) -> Any:
        super().subscribe(channel, receiver)
        return self.waiting


@pytest.mark.parametrize("later", [[CLOSED], [CLOSED, Rules()]], ids=["refused", "refused for a moment"])
def test_a_subscription_that_the_bus_confirms_too_late_is_refused(later: list[Rules]) -> None:
    bus = WaitingBus()
    server = Server(rules=Rules(), bus=bus)
    client = server.connect()
    client.send(Message("chat", {"subscribe": "room", "receipt": "7"}))
    for rules in later:
        server.set_rules(rules)
    assert told(client) == ["403 room"]
    bus.waiting.callback(None)
    assert [(message.command, message.headers.get("receipt-id")) for message in client.take()] == [("error", "7")]
    assert client.session.channels == frozenset()


def test_a_subscription_that_the_bus_confirms_is_answered_for_what_a_hook_has_left_of_it() -> None:
    class Removing(Hooks):
        def on_message(self, request: Request) -> None:
            request.message = request.message.replace(headers={"subscribe": "room", "receipt": "7"})

    bus = WaitingBus()
    client = Server(rules=Rules(), bus=bus, hooks=[Removing()]).connect()
    client.send(Message("chat", {"subscribe": "room other", "receipt": "7"}))
    bus.waiting.callback(None)
    assert [message.command for message in client.take()] == ["receipt"]
    assert client.session.channels == {"room"}


# Another identity


def claims(*roles: str) -> dict[str, Any]:
    return {"roles": list(roles)}


def members() -> Rules:
    wanted = {"match": "room", "subscribe": {"roles": "reader"}, "publish": {"roles": "writer"}}
    return Rules.from_toml([wanted])


class Roles(Authenticator):
    """A token is the roles of jack, between dots."""

    def authenticate(self, attempt: LoginAttempt) -> Identity | None:
        return None if attempt.token is None else attempt.identify("jack", claims(*attempt.token.split(".")))


def login(client: Client, token: str) -> None:
    client.send(Message("login", {"token": token}))


@pytest.fixture
def jack() -> tuple[Server, Client]:
    server = Server(rules=members(), authenticators=[Roles()], login_timeout=10)
    client = server.connect()
    login(client, "reader.writer")
    client.send(Message("chat", {"subscribe": "room"}))
    assert [message.command for message in client.take()] == ["login"]
    return server, client


def test_a_login_with_fewer_claims_loses_what_they_had_given(jack: tuple[Server, Client]) -> None:
    server, client = jack
    login(client, "writer")
    publish(server, "secret")
    assert [(message.command, message.headers.get("unsubscribed")) for message in client.take()] == [
        ("error", "room"),
        ("login", None),
    ]


def test_a_login_with_the_same_claims_loses_nothing(jack: tuple[Server, Client]) -> None:
    server, client = jack
    login(client, "reader")
    publish(server, "hello")
    assert [message.command for message in client.take()] == ["login", "chat"]


def test_a_login_with_fewer_claims_may_not_subscribe_again(jack: tuple[Server, Client]) -> None:
    _, client = jack
    login(client, "writer")
    client.take()
    client.send(Message("chat", {"subscribe": "room"}))
    assert told(client) == ["403 None"]


def test_a_wildcard_subscription_is_lost_with_the_claim() -> None:
    rule = {"match": "room.*", "subscribe": {"roles": "reader"}, "wildcards": True}
    server = Server(rules=Rules.from_toml([rule]))
    client = joined(server, "room.* free", user="jack", claims=claims("reader"))
    client.session.identity = Identity("jack", "1", claims())
    assert told(client) == ["403 room.*"]


def short(client: Client, number: int) -> None:
    """Publish by the way that has no request."""
    client.send(Message("chat", {"publish": "room"}, str(number)))


def long(client: Client, number: int) -> None:
    """Publish by the way of a message that wants a receipt, which is not looked at here."""
    client.send(Message("chat", {"publish": "room", "receipt": "7"}, str(number)))
    client.transport.received = [message for message in client.received if message.command != "receipt"]


@pytest.mark.parametrize("way", [short, long])
def test_a_login_with_fewer_claims_may_not_publish_any_more(
    jack: tuple[Server, Client], way: Callable[[Client, int], None]
) -> None:
    _, client = jack
    way(client, 1)
    login(client, "reader")
    way(client, 2)
    login(client, "reader.writer")
    way(client, 3)
    found = [message.text for message in client.take() if message.command != "login"]
    assert found == ["1", "", "3"]


@pytest.mark.parametrize("way", [short, long])
def test_other_rules_are_for_the_next_publication(way: Callable[[Client, int], None]) -> None:
    server = Server(rules=Rules())
    listener, client = joined(server), server.connect()
    for number, access in enumerate([ANYBODY, NOBODY, ANYBODY]):
        server.set_rules(Rules([Rule("room", publish=access)]))
        way(client, number)
    assert told(listener) == ["0", "2"]
    assert told(client) == ["403 None"]
