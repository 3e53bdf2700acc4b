"""lhttp_tx.client.presence: the people in a channel, kept right whatever happens between the client and the server."""

from __future__ import annotations

import json
from typing import Any

import pytest
from client_world import World, error_of, outcome
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, succeed
from twisted.internet.task import Clock

from lhttp_tx import Message
from lhttp_tx.client import (
    ClientClosed,
    ConnectionLost,
    NoReply,
    Person,
    Presence,
    PresenceChange,
    ReplyError,
    RequestTimeout,
    Subscription,
)
from lhttp_tx.client.answers import Answers
from lhttp_tx.client.presence import people
from lhttp_tx.errors import LHTTPError, RemoteProtocolError

Told = tuple[Any, ...]


def answer(*users: str | None, count: int | None = None, channel: str = "room", **more: object) -> Message:
    """A list of people, each with a connection that is named as the user in capitals."""
    listed = [{"user": user, "connections": [str(user).upper()]} for user in users]
    total = len(users) if count is None else count
    body = {"channel": channel, "count": total, "connections": total, **more, "people": listed}
    return Message("presence", {"channel": channel}, json.dumps(body))


class Line:
    """A presence whose answers and messages a test gives."""

    def __init__(self, clock: Clock, **options: Any) -> None:
        self.clock = clock
        self.linked = True
        self.questions: list[Deferred[Message]] = []
        self.cancelled: list[Deferred[Message]] = []
        self.told: list[Told] = []
        self.ended = 0
        answers = Answers(clock, lambda pending: None, 0)
        self.limited = lambda waiting, timeout, what: answers.limited(waiting, timeout or 30.0, what)
        callbacks: dict[str, Any] = {
            "on_join": lambda user, connection: self.told.append(("join", user, connection)),
            "on_leave": lambda user, connection: self.told.append(("leave", user, connection)),
            "on_sync": lambda presence: self.told.append(("sync", *presence.users)),
            "on_change": None,
            "on_end": lambda error: self.told.append(("end", error)),
            "buffer": 1_000,
        }
        self.presence = Presence(
            "room",
            subscribe=self._subscribe,
            request=self._ask,
            limited=self.limited,
            is_linked=lambda: self.linked,
            reactor=clock,
            **{**callbacks, **options},
        )

    def _subscribe(self, channel: str, callback: Any) -> Subscription:
        assert channel == "$presence.room"
        self.subscription = Subscription(self, channel, callback, 1)
        return self.subscription

    def forget(self, subscription: Subscription) -> Deferred[None]:
        self.ended += 1
        subscription.end(ClientClosed("unsubscribed"))
        return succeed(None)

    def _ask(self, message: Message) -> Deferred[Message]:
        assert (message.command, message.headers.get("channel")) == ("presence", "room")
        self.questions.append(Deferred(self.cancelled.append))
        return self.questions[-1]

    def confirm(self) -> None:
        """The server has confirmed the subscription, on the first connection or on another one."""
        self.subscription.confirm()

    def answer(self, *users: str | None, **more: Any) -> None:
        self.questions[-1].callback(answer(*users, **more))

    def event(self, event: str, user: str | None, count: int = 9, connection: str | None = None) -> None:
        body = {
            "event": event,
            "channel": "room",
            "user": user,
            "connection": connection or str(user).upper(),
            "count": count,
            "connections": count + 1,
        }
        self.subscription.deliver(
            Message("presence", {"publish": "$presence.room"}, json.dumps(body)), "$presence.room"
        )

    def take(self) -> list[Told]:
        taken, self.told = self.told, []
        return taken

    def changes(self) -> list[PresenceChange]:
        found: list[PresenceChange] = []
        while True:
            taken = self.presence.next()
            taken.addCallbacks(found.append, lambda _: None)
            if not taken.called:
                taken.cancel()
                return found
            if self.presence.closed and not self.presence._changes:
                return found


@pytest.fixture
def line(clock: Clock) -> Line:
    return Line(clock)


@pytest.fixture
def synced(line: Line) -> Line:
    """A presence of alice and bob."""
    line.confirm()
    line.answer("alice", "bob")
    line.take()
    return line


# The first list


def test_the_people_are_known_when_the_server_has_listed_them(line: Line) -> None:
    waiting = line.presence.synced()
    assert not line.questions, "it asked before it could hear who joins"
    line.confirm()
    assert not waiting.called
    line.answer("alice", None, count=7)
    assert outcome(waiting) is line.presence
    found = line.presence
    assert found.people == [Person("alice", ("ALICE",)), Person(None, ("NONE",))]
    assert (found.users, found.count, found.connections, found.complete) == (["alice"], 7, 7, True)
    assert (found.has("alice"), found.has("bob"), found.closed, found.channel) == (True, False, False, "room")
    assert line.take() == [("sync", "alice")]
    assert repr(found) == "<Presence room>"


def test_what_happens_before_the_answer_counts_once(line: Line) -> None:
    line.confirm()
    line.event("join", "new")
    line.event("join", "old")
    line.event("leave", "gone")
    line.event("leave", "back")
    line.event("join", "back")
    line.event("join", "short")
    line.event("leave", "short")
    line.answer("old", "gone", "short")
    assert line.presence.users == ["old", "new", "back"]
    assert line.take() == [("sync", "old", "new", "back")]


def test_people_are_in_the_order_in_which_they_have_come(line: Line) -> None:
    line.confirm()
    for event, user in (("join", "alice"), ("join", "bob"), ("leave", "alice"), ("join", "alice")):
        line.event(event, user)
    line.answer("old")
    assert line.presence.users == ["old", "bob", "alice"]


def test_what_happens_before_the_question_is_in_the_answer(line: Line) -> None:
    line.event("join", "early")
    line.confirm()
    line.answer()
    assert line.presence.users == []


def test_a_presence_of_a_channel_that_is_already_heard_asks_at_once(clock: Clock) -> None:
    class Heard(Line):
        def _subscribe(self, channel: str, callback: Any) -> Subscription:
            found = super()._subscribe(channel, callback)
            found.confirm()
            return found

    assert len(Heard(clock).questions) == 1


# Joins and leaves


def test_joins_and_leaves_change_the_people_and_are_told(synced: Line) -> None:
    synced.event("join", "carol", 3)
    synced.event("leave", "alice", 2)
    assert synced.take() == [("join", "carol", "CAROL"), ("leave", "alice", "ALICE")]
    found = synced.presence
    assert (found.users, found.count, found.connections) == (["bob", "carol"], 2, 3)
    assert found.people[-1] == Person("carol", ("CAROL",))


def test_anonymous_people_are_kept_apart(synced: Line) -> None:
    synced.event("join", None, connection="one")
    synced.event("join", None, connection="two")
    synced.event("leave", None, connection="one")
    assert [person.connections for person in synced.presence.people] == [("ALICE",), ("BOB",), ("two",)]
    assert synced.presence.users == ["alice", "bob"]


def test_what_is_known_already_is_not_told_again(synced: Line) -> None:
    synced.changes()
    synced.event("join", "bob", 2)
    synced.event("leave", "stranger", 2)
    assert (synced.take(), synced.changes()) == ([], [])
    assert (synced.presence.users, synced.presence.count) == (["alice", "bob"], 2)


@pytest.mark.parametrize(
    "body",
    [
        "{",
        "[]",
        "{}",
        '{"event":"sync","user":"a","connection":"c","count":1,"connections":1}',
        '{"event":"join","user":1,"connection":"c","count":1,"connections":1}',
        '{"event":"join","user":"a","connection":null,"count":1,"connections":1}',
        '{"event":"join","user":"a","connection":"c","count":true,"connections":1}',
        '{"event":"join","user":"a","connection":"c","count":1,"connections":-1}',
    ],
)
def test_a_malformed_message_changes_nothing(synced: Line, body: str) -> None:
    synced.subscription.deliver(Message("presence", {"publish": "$presence.room"}, body), "$presence.room")
    assert (synced.take(), synced.presence.users, synced.presence.count) == ([], ["alice", "bob"], 2)


def test_every_change_is_told_with_the_presence(clock: Clock) -> None:
    seen: list[Presence] = []
    line = Line(clock, on_change=seen.append)
    line.confirm()
    line.answer()
    line.event("join", "alice")
    line.event("leave", "alice")
    assert seen == [line.presence] * 3


# Another connection


def test_after_a_reconnection_the_difference_is_told_before_the_sync(synced: Line) -> None:
    synced.changes()
    synced.confirm()
    assert synced.take() == []
    synced.answer("bob", "carol")
    assert [(change.event, change.user) for change in synced.changes()] == [
        ("leave", "alice"),
        ("join", "carol"),
        ("sync", None),
    ]
    assert synced.take() == [("leave", "alice", "ALICE"), ("join", "carol", "CAROL"), ("sync", "bob", "carol")]
    assert (synced.presence.users, synced.presence.count) == (["bob", "carol"], 2)


def test_what_happens_while_it_asks_again_is_told_at_once_and_only_once(synced: Line) -> None:
    synced.confirm()
    synced.event("leave", "alice", 1)
    synced.event("join", "carol", 2)
    assert synced.take() == [("leave", "alice", "ALICE"), ("join", "carol", "CAROL")]
    synced.answer("alice", "bob", "dave")
    assert synced.take() == [("join", "dave", "DAVE"), ("sync", "bob", "dave", "carol")]


def test_a_join_on_the_new_connection_of_who_was_there_before_is_not_told(synced: Line) -> None:
    synced.confirm()
    synced.event("join", "alice")
    synced.answer("bob")
    assert synced.take() == [("sync", "bob", "alice")]


def test_missed_messages_make_it_ask_again(synced: Line) -> None:
    synced.subscription.missed()
    synced.answer("bob")
    assert synced.take() == [("leave", "alice", "ALICE"), ("sync", "bob")]


def test_the_answer_to_an_earlier_question_does_not_count(synced: Line) -> None:
    synced.confirm()
    earlier = synced.questions[-1]
    synced.confirm()
    assert synced.cancelled == [earlier]
    synced.answer("bob")
    assert synced.presence.users == ["bob"]


def test_a_lost_connection_waits_for_the_next_one(synced: Line, clock: Clock) -> None:
    synced.confirm()
    synced.questions[-1].errback(ConnectionLost("gone"))
    assert not clock.getDelayedCalls()
    assert (synced.take(), synced.presence.users) == ([], ["alice", "bob"])
    synced.confirm()
    synced.answer("alice")
    assert synced.presence.users == ["alice"]


# Lists that are not whole


def test_people_beyond_the_list_are_counted(line: Line) -> None:
    line.confirm()
    line.answer("alice", "bob", count=1_000)
    line.take()
    line.event("leave", "unlisted", 999)
    assert line.take() == [("leave", "unlisted", "UNLISTED")], "a person who was not listed may leave"
    line.event("join", "carol", 1_000)
    assert (line.presence.users, line.presence.count) == (["alice", "bob", "carol"], 1_000)


def test_only_what_is_certain_is_told_of_lists_that_are_not_whole(line: Line) -> None:
    line.confirm()
    line.answer("alice", "bob")
    line.confirm()
    line.answer("bob", "carol", count=1_000)
    assert line.take()[1:] == [("join", "carol", "CAROL"), ("sync", "bob", "carol")], "alice may still be there"
    line.confirm()
    line.answer("carol", "dave")
    assert line.take() == [("leave", "bob", "BOB"), ("sync", "carol", "dave")], "dave may have been there"


def test_a_list_that_is_not_complete_is_asked_for_again_until_it_is(line: Line, clock: Clock) -> None:
    line.confirm()
    line.answer("alice", complete=False)
    assert not line.presence.complete
    clock.advance(2.9)
    assert len(line.questions) == 1
    clock.advance(0.1)
    line.answer("alice", "bob")
    assert line.presence.complete
    assert line.take() == [("sync", "alice"), ("join", "bob", "BOB"), ("sync", "alice", "bob")]
    assert not clock.getDelayedCalls()


def test_without_a_connection_it_does_not_ask_again(line: Line, clock: Clock) -> None:
    line.confirm()
    line.answer("alice", complete=False)
    line.linked = False
    clock.advance(3)
    assert len(line.questions) == 1
    line.linked = True
    line.confirm()
    assert len(line.questions) == 2


# Errors


@pytest.mark.parametrize("error", [ReplyError("no", status=403), ReplyError("no", status=404), NoReply("no")])
def test_a_refusal_ends_it_with_the_error(line: Line, error: ReplyError) -> None:
    waiting, next_one = line.presence.synced(), line.presence.next()
    line.confirm()
    line.questions[-1].errback(error)
    assert [error_of(each) for each in (waiting, next_one, line.presence.synced(), line.presence.next())] == [error] * 4
    assert (line.take(), line.presence.closed, line.ended) == ([("end", error)], True, 1)


def test_a_refused_subscription_ends_it_with_the_error(line: Line) -> None:
    waiting = line.presence.synced()
    error = ReplyError("channel 'room' has no presence", status=404)
    line.subscription.end(error)
    assert error_of(waiting) is error
    assert (line.take(), line.questions) == ([("end", error)], [])


@pytest.mark.parametrize(
    "body",
    [
        "{",
        "[]",
        "{}",
        '{"channel":"room","count":1,"connections":1,"people":[1]}',
        '{"channel":"room","count":1,"connections":1,"people":[{"user":"a","connections":[]}]}',
        '{"channel":"room","count":1,"connections":1,"people":[{"user":"a","connections":[1]}]}',
        '{"channel":"room","count":1,"connections":1,"people":[{"user":[],"connections":["c"]}]}',
        '{"channel":"room","count":"1","connections":1,"people":[]}',
    ],
)
def test_a_malformed_answer_ends_it(line: Line, body: str) -> None:
    waiting = line.presence.synced()
    line.confirm()
    line.questions[-1].callback(Message("presence", body=body))
    assert isinstance(error_of(waiting), RemoteProtocolError)
    assert line.presence.closed


@pytest.mark.parametrize(
    "error", [ReplyError("later", status=503), ReplyError("slow down", status=429), RequestTimeout("no answer")]
)
def test_a_server_that_cannot_answer_is_asked_again(line: Line, clock: Clock, error: LHTTPError) -> None:
    waiting = line.presence.synced()
    line.confirm()
    line.questions[-1].errback(error)
    clock.advance(3)
    line.answer("alice")
    assert outcome(waiting).users == ["alice"]


def test_a_message_about_another_channel_is_not_taken_for_the_answer(line: Line, clock: Clock) -> None:
    line.confirm()
    body = {"event": "join", "channel": "other", "user": "a", "connection": "c", "count": 1, "connections": 1}
    line.questions[-1].callback(Message("presence", {"publish": "$presence.other"}, json.dumps(body)))
    clock.advance(3)
    line.answer("bob", channel="another")
    clock.advance(3)
    line.answer("alice")
    assert line.take() == [("sync", "alice")]


def test_waiting_for_the_people_has_a_limit_and_the_presence_stays(line: Line, clock: Clock) -> None:
    waiting = line.presence.synced(5)
    line.confirm()
    clock.advance(5)
    assert "no list of the people in channel room within 5 seconds" in error_of(waiting).reason
    line.answer("alice")
    assert outcome(line.presence.synced()).users == ["alice"]


# The end


def test_closing_it_while_it_asks_ends_everything(synced: Line, clock: Clock) -> None:
    synced.changes()
    synced.confirm()
    question, taker = synced.questions[-1], synced.presence.next()
    outcome(synced.presence.close())
    assert synced.cancelled == [question]
    assert isinstance(error_of(taker), ClientClosed)
    assert isinstance(error_of(synced.presence.synced()), ClientClosed)
    assert (synced.take(), synced.presence.closed) == ([("end", None)], True)
    assert not clock.getDelayedCalls()


def test_closing_it_before_the_first_list_is_told_to_who_waits(line: Line) -> None:
    waiting = line.presence.synced()
    line.confirm()
    outcome(line.presence.close())
    assert isinstance(error_of(waiting), ClientClosed)


def test_closing_it_stops_asking_again(line: Line, clock: Clock) -> None:
    line.confirm()
    line.answer(complete=False)
    outcome(line.presence.close())
    assert not clock.getDelayedCalls()
    outcome(line.presence.close())
    assert line.take() == [("sync",), ("end", None)]


def test_a_callback_may_close_it(clock: Clock) -> None:
    line = Line(clock, on_leave=lambda user, connection: line.presence.close())
    line.confirm()
    line.answer("alice", "bob")
    line.take()
    line.confirm()
    line.answer("carol")
    assert line.take() == [("end", None)]
    assert [change.event for change in line.changes()] == ["sync"]


# Changes one after another


def test_changes_can_be_taken_one_after_another(synced: Line) -> None:
    synced.event("join", "carol")
    waiting = synced.presence.next()
    assert outcome(waiting) == PresenceChange("sync")
    assert outcome(synced.presence.next()) == PresenceChange("join", "carol", "CAROL")
    later = synced.presence.next()
    cancelled = synced.presence.next()
    cancelled.cancel()
    synced.event("leave", "carol")
    assert outcome(later) == PresenceChange("leave", "carol", "CAROL")
    assert isinstance(error_of(cancelled), CancelledError)


def test_iterating_ends_with_the_presence(synced: Line) -> None:
    async def main() -> list[str]:
        return [change.event async for change in await synced.presence]

    found = ensureDeferred(main())
    synced.event("join", "carol")
    outcome(synced.presence.close())
    assert outcome(found) == ["sync", "join"]


def test_whoever_iterates_may_close_it_and_callbacks_have_been_called(synced: Line) -> None:
    synced.changes()
    synced.presence.next().addCallback(lambda _: synced.presence.close())
    synced.event("join", "carol")
    assert synced.take() == [("join", "carol", "CAROL"), ("end", None)]


def test_too_many_changes_become_one_sync(clock: Clock) -> None:
    line = Line(clock, buffer=3)
    line.confirm()
    line.answer()
    for number in range(100):
        line.event("join", f"user{number}")
        assert len(line.presence._changes) <= 3
    found = line.changes()
    assert found[0] == PresenceChange("sync")
    assert len(found) < 4
    assert len(line.presence.people) == 100


def test_memory_has_bounds(line: Line, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    monkeypatch.setattr("lhttp_tx.client.presence.people.MAX_PEOPLE", 10)
    monkeypatch.setattr("lhttp_tx.client.presence.following.MAX_PEOPLE", 10)
    assert people.MAX_PEOPLE == 10
    line.confirm()
    for number in range(100):
        line.event("join", f"early{number}")
    assert len(line.presence._since) == 11
    line.answer(*(f"user{number}" for number in range(50)))
    assert len(line.presence.people) == 10
    clock.advance(3)
    line.answer("a", "b")
    assert line.presence.users == ["a", "b"], "it asks again when it could not remember all"
    line.take()
    for number in range(20):
        line.event("join", f"late{number}")
    assert len(line.presence.people) == 10
    assert len(line.take()) == 20
    line.event("leave", "late19")
    assert line.take() == [("leave", "late19", "LATE19")]


# With the client and the server


@pytest.fixture
def world(clock: Clock) -> World:
    return World(clock, presence=["room"], presence_grace=0.0)


def come(world: World, user: str) -> Any:
    client = world.server.connect(user=user)
    client.send("LHTTP/1.0 x\r\nsubscribe:room\r\n\r\n")
    world.run(0.1)
    return client


def test_the_client_follows_the_people_of_a_real_channel(world: World) -> None:
    alice = come(world, "alice")
    client = world.connected()
    told: list[Told] = []
    found = client.presence(
        "room",
        on_join=lambda user, connection: told.append(("join", user)),
        on_leave=lambda user, connection: told.append(("leave", user)),
    )
    assert world.result(found.synced()) is found
    assert (found.users, found.count, found.connections) == (["alice"], 1, 1)
    come(world, "bob")
    alice.disconnect()
    world.run(0.1)
    assert (told, found.users, found.count) == ([("join", "bob"), ("leave", "alice")], ["bob"], 1)
    world.result(found.close())
    come(world, "carol")
    assert (found.users, found.closed, len(told)) == (["bob"], True, 2)


def test_it_is_right_again_after_a_reconnection(world: World) -> None:
    alice = come(world, "alice")
    client = world.connected()
    told: list[Told] = []
    client.presence(
        "room",
        on_join=lambda user, connection: told.append(("join", user)),
        on_leave=lambda user, connection: told.append(("leave", user)),
        on_sync=lambda presence: told.append(("sync", *presence.users)),
    )
    world.run()
    world.endpoint.refuses = True
    world.cut()
    alice.disconnect()
    come(world, "bob")
    world.endpoint.refuses = False
    world.run(5.0)
    world.run()
    assert told == [("sync", "alice"), ("leave", "alice"), ("join", "bob"), ("sync", "bob")]


def test_the_server_may_tell_that_messages_are_missing(world: World) -> None:
    client = world.connected()
    syncs: list[Presence] = []
    client.presence("room", on_sync=syncs.append)
    world.run()
    (session,) = world.server.engine.sessions
    session.send(Message("missed", {"channel": "$presence.room"}))
    world.run()
    assert len(syncs) == 2


def test_who_comes_back_within_the_grace_is_there_although_the_list_was_without(clock: Clock) -> None:
    world = World(clock, presence=["room"])
    alice = come(world, "alice")
    client = world.connected()
    earlier = client.presence("room")
    world.run()
    alice.disconnect()
    world.run(0.1)
    later = client.presence("room")
    world.run()
    come(world, "alice")
    assert earlier.users == later.users == ["alice"]
    world.run(10.0)
    assert earlier.users == later.users == ["alice"]


def test_before_the_client_is_connected_it_waits(world: World) -> None:
    client = world.client()
    found = client.presence("room")
    come(world, "alice")
    world.result(client.connect())
    assert world.result(found.synced()).users == ["alice"]


def test_several_of_one_channel_are_independent(world: World) -> None:
    client = world.connected()
    one, two = client.presence("room"), client.presence("room")
    world.run()
    three = client.presence("room")
    world.run()
    come(world, "alice")
    assert one.users == two.users == three.users == ["alice"]
    world.result(one.close())
    world.result(three.close())
    come(world, "bob")
    assert (one.users, two.users) == (["alice"], ["alice", "bob"])
    world.result(client.close())
    assert two.closed


def test_a_channel_without_presence_is_an_error(world: World) -> None:
    client = world.connected()
    ended: list[object] = []
    found = client.presence("other", on_end=ended.append)
    error = world.failure(found.synced())
    assert (type(error), error.status) == (ReplyError, 404)
    assert (ended, found.closed) == ([error], True)


def test_a_server_without_presence_is_an_error(clock: Clock) -> None:
    world = World(clock)
    error = world.failure(world.connected().presence("room").synced())
    assert (type(error), error.status) == (ReplyError, 403)


def test_a_closed_client_ends_it(world: World) -> None:
    client = world.connected()
    ended: list[object] = []
    found = client.presence("room", on_end=ended.append)
    waiting = found.next()
    world.run()
    assert outcome(waiting) == PresenceChange("sync")
    waiting = found.next()
    world.result(client.close())
    assert isinstance(error_of(waiting), ClientClosed)
    assert (ended, found.closed) == ([None], True)
    with pytest.raises(ClientClosed):
        client.presence("room")


def test_wrong_arguments_are_refused_at_once(world: World) -> None:
    client = world.connected()
    with pytest.raises(RemoteProtocolError):
        client.presence("$presence.room")
    with pytest.raises(RemoteProtocolError, match="room"):
        client.presence("room.*")
    with pytest.raises(TypeError, match="on_leave"):
        client.presence("room", on_leave=1)  # type: ignore[arg-type]
    for name in ("on_join", "on_leave"):
        with pytest.raises(TypeError, match=rf"{name} is called with \(user, connection\)"):
            client.presence("room", **{name: lambda user: None})  # type: ignore[arg-type]
    for name in ("on_sync", "on_change", "on_end"):
        with pytest.raises(TypeError, match=f"{name} is called with"):
            client.presence("room", **{name: lambda: None})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="0 changes"):
        client.presence("room", buffer=0)


def test_a_change_that_is_put_back_comes_again(world: World) -> None:
    presence = world.connected().presence("room")
    world.run()
    change = outcome(presence.next())
    presence.put_back(change)
    assert outcome(presence.next()) is change
    waiting = presence.next()
    presence.put_back(change)
    assert outcome(waiting) is change
