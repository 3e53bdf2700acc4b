"""Messages that ask for receipts: with a shortcut, they are answered as they are without it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from twisted.internet.defer import Deferred

from lhttp_tx import Message
from lhttp_tx.bus.memory import MemoryBus
from lhttp_tx.engine.asking import Tokens, key_of, receipt_message
from lhttp_tx.errors import BusUnavailable, HistoryUnavailable
from lhttp_tx.filters import HeaderFilter
from lhttp_tx.filters.pubsub import PublishFilter
from lhttp_tx.history.memory import MemoryHistory
from lhttp_tx.rules.filters import RuledPublishFilter
from lhttp_tx.rules.grants import NOBODY
from lhttp_tx.rules.model import Rule, Rules
from lhttp_tx.testing import Client, Server

TOKENS = ["1", "22", "tok-~!", "a b", "t" * 64, "t" * 65, "é", "", "x:y", "\0", "\x7f"]
CHANNELS = ["room", "kept", "kept.2", "room kept", "closed", "slow", "small", "quiet", "a..b", ""]
BODIES = ["", "hello", "x" * 60, "y" * 300, "\r\n\r\nreceipt:9\r\n\r\n"]
FORMS = [
    "publish:{channel}\r\nreceipt:{token}\r\n",
    "receipt:{token}\r\npublish:{channel}\r\n",
    "publish:{channel}\r\n",
    "publish:{channel}\r\nReceipt:{token}\r\n",
    "publish:{channel}\r\nreceipt: {token}\r\n",
    "publish:{channel}\r\nreceipt:{token}\r\nreceipt:other\r\n",
    "publish:{channel}\r\nreceipt:{token}\r\nx:1\r\n",
    "publish:{channel}\r\nreceipt:{token}\r\nmessage-id:{token}\r\n",
    "message-id:{token}\r\nx:1\r\npublish:{channel}\r\nreceipt:{token}\r\n",
    "publish:{channel}\r\nreceipt:{token}\r\nmessage-id: {token}\r\n",
    "publish:{channel}\r\nreceipt:{token}\r\nstore:no\r\n",
    "subscribe:{channel}\r\nreceipt:{token}\r\n",
    "receipt:{token}\r\n",
    "publish:{channel}\r\nreceipt:{token}",
]
RULES = Rules(
    (
        Rule("closed", publish=NOBODY),
        Rule("slow", max_rate=2.0),
        Rule("small", max_size=100),
        Rule("quiet", echo=False),
    )
)

messages = st.builds(
    lambda form, channel, token, body: (
        f"LHTTP/1.0 chat\r\n{form.format(channel=channel, token=token)}\r\n{body}".encode()
    ),
    *map(st.sampled_from, (FORMS, CHANNELS, TOKENS, BODIES)),
)
alike = st.builds(
    lambda form, channel, tokens, body: [
        f"LHTTP/1.0 chat\r\n{form.format(channel=channel, token=token)}\r\n{body}".encode() for token in tokens
    ],
    st.sampled_from([form for form in FORMS if "publish" in form and "receipt" in form]),
    st.sampled_from(CHANNELS),
    st.lists(st.sampled_from(TOKENS), min_size=1, max_size=8),
    st.sampled_from(BODIES),
)
reads = st.lists(st.one_of(alike, st.lists(messages, min_size=1, max_size=4)), max_size=8)


class Fussy(MemoryBus):
    """Takes its time, or refuses, as the test says; answers all questions when it is told to."""

    def __init__(self, moods: list[str]) -> None:
        super().__init__()
        self.moods = iter(moods)
        self.waiting: list[Deferred[None]] = []

    def publish(self, channel: str, payload: bytes, binary: bool) -> Any:
        return self.publish_run(channel, iter([payload]), binary)

    def publish_run(self, channel: str, payloads: Iterator[bytes], binary: bool) -> Any:
        for payload in payloads:
            mood = next(self.moods, "")
            if mood == "refuse":
                raise BusUnavailable("not now")
            super().publish(channel, payload, binary)
            if mood == "wait":
                return self._later()
        return None

    def confirm(self) -> Any:
        return self._later() if next(self.moods, "") else None

    def _later(self) -> Deferred[None]:
        self.waiting.append(Deferred())
        return self.waiting[-1]

    def settle(self) -> None:
        while self.waiting:
            self.waiting.pop(0).callback(None)


def without_shortcut(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (PublishFilter, RuledPublishFilter):
        monkeypatch.setattr(kind, "tells_nothing", False)


def told(found: list[list[bytes]], rules: Rules | None, moods: list[str], *, alone: bool) -> list[list[bytes]]:
    """
    Return the answers and the publications that the publisher gets for these reads, and what a subscriber gets, without
    the epoch of the positions. Answers come after the publications that they are about, but these may be joined.
    """
    bus = Fussy(moods)
    server = Server(bus=bus, rules=rules, history=["kept", "kept.>"])
    publisher, subscriber = server.connect(), server.connect()
    for client in (publisher, subscriber):
        client.send(Message("chat", {"subscribe": "room kept kept.2 slow small quiet"}))
    for read in found:
        first = 0
        while first < len(read):
            if alone:
                publisher.session.receive(read[first], False)
                first += 1
            else:
                first = publisher.session.receive_run(read, first, False)
        bus.settle()
        server.clock.advance(0)
        bus.settle()
    got = [re.sub(b"[0-9A-Za-z]+-(?=[0-9])", b"E-", message.raw) for message in publisher.take()]
    answers = [message for message in got if not message.startswith(b"LHTTP/1.0 chat")]
    publications = [message for message in got if message.startswith(b"LHTTP/1.0 chat")]
    return [answers, publications, [message.raw for message in subscriber.take()]]


@given(found=reads, rules=st.sampled_from([None, RULES]))
@settings(deadline=None)
def test_a_shortcut_tells_what_the_steps_tell(found: list[list[bytes]], rules: Rules | None) -> None:
    with pytest.MonkeyPatch.context() as patch:
        fast = told(found, rules, [], alone=False)
        without_shortcut(patch)
        assert fast == told(found, rules, [], alone=True)


@pytest.mark.parametrize("field", ["receipt", "message-id"])
@pytest.mark.parametrize("is_queued", [False, True])
def test_a_head_that_only_resembles_a_plan_is_refused_like_any_other(field: str, is_queued: bool) -> None:
    server = Server(history=["kept"])
    client = server.connect()
    form = b"LHTTP/1.0 chat\r\npublish:kept\r\nreceipt:%b\r\nmessage-id:%b\r\n\r\n"
    wrong = form % ((b"\0", b"2") if field == "receipt" else (b"2", b"\0"))
    assert key_of(form % (b"1", b"1")) == key_of(wrong)  # what stands between the pieces of a key
    for data in (form % (b"1", b"1"), wrong, form % (b"3", b"3")):
        if is_queued:
            client.session.receive(data, False)
        else:
            send(client, [data])
    assert [message.headers.get("status") for message in client.take()] == [None, "400", None]
    assert client.close_code is None


def numbers(found: list[Message]) -> list[int]:
    return [int(message.headers.get("receipt-id", "")) for message in found]


def asking(count: int, channel: str = "room") -> list[bytes]:
    return [
        f"LHTTP/1.0 chat\r\npublish:{channel}\r\nreceipt:{number}\r\n\r\n{number}".encode() for number in range(count)
    ]


def send(client: Client, read: list[bytes]) -> None:
    first = 0
    while first < len(read):
        first = client.session.receive_run(read, first, False)


@given(count=st.integers(1, 12), moods=st.lists(st.sampled_from(["", "refuse", "wait"]), max_size=24))
@settings(deadline=None)
def test_each_is_answered_once_in_order_whatever_the_bus_does(count: int, moods: list[str]) -> None:
    bus = Fussy(moods)
    server = Server(bus=bus)
    publisher, subscriber = server.connect(), server.connect()
    subscriber.send(Message("chat", {"subscribe": "room"}))
    send(publisher, asking(count))
    bus.settle()
    found = publisher.take()
    assert numbers(found) == list(range(count))
    assert [message.body for message in subscriber.take()] == [
        str(number).encode() for number in numbers([message for message in found if message.command == "receipt"])
    ]
    assert all(message.headers.get("reason", "") == "not now" for message in found if message.command == "error")


def test_receipts_tell_the_positions_of_their_publications() -> None:
    server = Server(history=["kept"])
    publisher, subscriber = server.connect(), server.connect()
    subscriber.send(Message("chat", {"subscribe": "kept"}))
    send(publisher, [*asking(5, "kept"), b"LHTTP/1.0 chat\r\npublish:kept\r\n\r\n", *asking(2, "kept")])
    offsets = {message.body: message.headers.get("offset", "") for message in subscriber.take()}
    found = publisher.take()
    assert numbers(found) == [0, 1, 2, 3, 4, 0, 1]
    assert {message.headers.get("position", "").partition("-")[0] for message in found} == {
        f"kept={server.assembly.histories.store.epoch}"
    }
    positions = [message.headers.get("position", "").rpartition("-")[2] for message in found]
    assert positions[:5] == ["1", "2", "3", "4", "5"]
    assert positions[5:] == ["7", "8"] == [offsets[b"0"], offsets[b"1"]]


class Full(MemoryHistory):
    """Takes so many messages."""

    room = 1_000_000

    def append(self, channel: str, retention: Any, payloads: list[bytes], *rest: Any) -> list[bytes]:
        if len(payloads) > self.room:
            raise HistoryUnavailable("the disk is full")
        self.room -= len(payloads)
        return super().append(channel, retention, payloads, *rest)


@pytest.mark.parametrize("room", [0, 2])
def test_each_that_a_store_does_not_take_gets_its_own_error(room: int) -> None:
    server = Server(history=["kept"])
    store = server.assembly.histories.store
    store.__class__ = Full
    store.room = room
    publisher, subscriber = server.connect(), server.connect()
    subscriber.send(Message("chat", {"subscribe": "kept"}))
    send(publisher, asking(2, "kept"))
    send(publisher, asking(3, "kept"))
    found = publisher.take()
    assert numbers(found) == [0, 1, 0, 1, 2]
    assert [message.command for message in found] == ["receipt"] * room + ["error"] * (5 - room)
    assert {message.headers.get("reason") for message in found[room:]} == {"the disk is full"}
    assert len(subscriber.take()) == room


def test_messages_with_a_rate_are_answered_one_by_one() -> None:
    server = Server(rules=RULES)
    publisher = server.connect()
    send(publisher, asking(4, "slow"))
    found = publisher.take()
    assert numbers(found) == [0, 1, 2, 3]
    assert [message.headers.get("status") for message in found] == [None, None, "429", "429"]


class Looking(HeaderFilter):
    """Looks at messages with receipts, at their heads alone."""

    headers = ("receipt",)

    def check(self, head: Any) -> None:
        if head.headers.get("receipt", "") == "3":
            raise BusUnavailable("not the third")


def test_a_filter_that_looks_at_receipts_sees_each_of_them() -> None:
    server = Server(filters=[Looking()])
    publisher = server.connect()
    send(publisher, asking(5))
    found = publisher.take()
    assert [message.command for message in found] == ["receipt"] * 3 + ["error", "receipt"]


def test_a_filter_whose_class_says_nothing_is_not_passed_by() -> None:
    class Telling(PublishFilter):
        def after(self, request: Any) -> Any:
            request.receipt_headers = (("told", "yes"),)
            return super().after(request)

        def shortcut(self, head: Any) -> Any:
            return super().shortcut(head)

    server = Server()
    filters = [Telling() if type(found) is PublishFilter else found for found in server.engine.filters]
    server.engine.filters = tuple(filters)
    publisher = server.connect()
    send(publisher, asking(2))
    assert [message.headers.get("told") for message in publisher.take()] == ["yes", "yes"]


def test_a_closed_connection_gets_no_receipts() -> None:
    server = Server()
    publisher, subscriber = server.connect(), server.connect()
    subscriber.send(Message("chat", {"subscribe": "room"}))
    publisher.session.close()
    send(publisher, asking(3))
    assert (publisher.take(), subscriber.take()) == ([], [])


def test_plans_do_not_grow_with_the_tokens() -> None:
    server = Server()
    publisher = server.connect()
    send(publisher, asking(2))
    before = len(server.engine._plans)
    send(publisher, asking(500))
    for data in asking(500):
        publisher.session.receive(data, False)
    assert len(server.engine._plans) == before


FORMS_OF_HEADS = [
    "receipt:{}\r\n",
    "receipt:{}\r\nmessage-id:{}\r\n",
    "x:1\r\nmessage-id:{1}\r\ny:2\r\nreceipt:{0}\r\n",
]


@pytest.mark.parametrize("form", FORMS_OF_HEADS)
@pytest.mark.parametrize("token", ["1", "x" * 64, "~!:=/"])
def test_tokens_and_ids_are_found_whatever_follows(token: str, form: str) -> None:
    def head(token: bytes, message_id: bytes = b"m.1") -> bytes:
        values = token.decode("latin-1"), message_id.decode("latin-1")
        lines = form.format(*values)
        return f"LHTTP/1.0 x\r\npublish:a\r\n{lines}z:z\r\n\r\n".encode("latin-1")

    def split(*messages: bytes) -> list[tuple[bytes, bytes]]:
        return [*zip(*tokens.split_run([b"", *messages], 1, 1000), strict=True)]

    whole = head(token.encode())
    tokens = Tokens(whole)
    plain = b"".join(line + b"\r\n" for line in whole.split(b"\r\n")[:-1] if not line.startswith(b"receipt:"))
    for body in (b"", b"body", b"\r\nreceipt:1\r\n\r\n"):
        found = (token.encode(), plain + body)
        assert split(whole + body) == [found]
        if b"message-id" in whole:
            assert tokens.id_of(plain + body) == "m.1"
            other = (b"2", plain.replace(b"m.1", b"other") + body)
            assert split(head(b"2", b"other") + body, whole + body) == [other, found]
    assert tokens.key == key_of(whole) == key_of(head(b"other"))
    for wrong in (b"", b" 1", b"1 ", b"x" * 65, b"\xc3\xa9", b"1\r", b"1\n", b"\x7f"):
        assert split(head(wrong)) == []
        assert split(whole, head(wrong), whole) == [(token.encode(), plain)]
        if b"message-id" in whole:
            assert split(head(b"1", wrong)) == []
    for cut in range(len(whole)):
        assert split(whole[:cut]) == []
    assert split(whole + b"x" * 1000, whole) == []


def test_receipts_are_well_formed() -> None:
    assert receipt_message(b"1") == Message("receipt", {"receipt-id": "1"}).raw
    pairs = {"receipt-id": "~", "position": "räum=e-1"}
    assert receipt_message(b"~", [("position", "räum=e-1")]) == Message("receipt", pairs).raw


def test_many_tokens_in_one_head_are_not_looked_for() -> None:
    head = b"LHTTP/1.0 x" + 700 * b"\r\nreceipt:1" + b"\r\n\r\n"
    assert key_of(head).count(b"\0") <= 4
    with pytest.raises(ValueError, match="not one token"):
        Tokens(head)
