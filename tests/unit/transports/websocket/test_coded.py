"""Clients that speak JSON and Protocol Buffers: what they send is read, what they get is written once for all."""

from __future__ import annotations

import gc
import gzip
import json
from typing import Any

import pytest
from google_protobuf import MESSAGE
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from lhttp_tx import Message, Request, processor
from lhttp_tx.codec.limits import Limits
from lhttp_tx.codec.views import JSON, PROTOBUF, View
from lhttp_tx.engine.delivery import Delivery
from lhttp_tx.testing import Server
from lhttp_tx.transports.websocket.coded import CodedFraming, Decoder
from lhttp_tx.transports.websocket.compression import Deflate, Gzip
from lhttp_tx.transports.websocket.factory import LHTTPServerFactory
from lhttp_tx.transports.websocket.frames import PLAIN, split_frames
from unit.transports.websocket.test_protocol import HANDSHAKE, frame

RAW = b"LHTTP/1.0 chat\r\npublish:room\r\n\r\nhello"
FRAMINGS = [PLAIN, Gzip(), Deflate(12)]


def view(command: str, headers: dict[str, str], body: str = "") -> str:
    return json.dumps({"COMMAND": command, "HEADERS": headers, "BODY": body})


class Client:
    """A connection of a client that has asked for a subprotocol."""

    def __init__(self, factory: LHTTPServerFactory, subprotocol: str | None, query: bytes = b"") -> None:
        self.protocol: Any = factory.buildProtocol(None)
        self.transport: Any = StringTransport()
        self.protocol.makeConnection(self.transport)
        offer = b"" if subprotocol is None else b"Sec-WebSocket-Protocol: %s\r\n" % subprotocol.encode("ascii")
        self.protocol.dataReceived((HANDSHAKE % offer).replace(b"/echo", b"/echo" + query))
        self.agreed = b"Sec-WebSocket-Protocol" in self.transport.value()
        self.transport.clear()

    def send(self, *payloads: str | bytes) -> None:
        self.protocol.dataReceived(b"".join(frame(found, 2 if isinstance(found, bytes) else 1) for found in payloads))

    def take(self) -> list[tuple[bytes, bool]]:
        data = self.transport.value()
        self.transport.clear()
        return split_frames(data)

    def take_json(self) -> list[dict[str, Any]]:
        found = self.take()
        assert not any(binary for _, binary in found)
        return [json.loads(payload) for payload, _ in found]


@pytest.fixture
def waiting() -> list[Deferred[None]]:
    return []


@pytest.fixture
def server(waiting: list[Deferred[None]]) -> Server:
    @processor("wait")
    def wait(request: Request) -> Deferred[None]:
        waiting.append(Deferred())
        return waiting[-1].addCallback(lambda _: request.reply("done"))

    @processor("echo")
    def echo(request: Request) -> None:
        request.reply(request.body)

    return Server(processors=[wait, echo], limits=Limits(error_count=0, queue_length=4))


@pytest.fixture
def factory(clock: Clock, server: Server) -> LHTTPServerFactory:
    return LHTTPServerFactory(engine=server.engine, reactor=clock)


@pytest.mark.parametrize("frames", FRAMINGS)
@pytest.mark.parametrize("found", [JSON, PROTOBUF])
def test_what_is_encoded_can_be_decoded(found: View, frames: Any) -> None:
    framing = CodedFraming(found, frames)
    for payloads in ([RAW], [RAW, RAW * 10], [RAW, Message("c", [("a", "1"), ("b", "é")], "é" * 200).raw]):
        assert framing.decode(framing.encode(payloads, False)) == [(payload, False) for payload in payloads]
        assert framing.decode(b"".join(framing.frame(payload, False) for payload in payloads)) == [
            (payload, False) for payload in payloads
        ]


class Counting(View):
    """A view that counts what is written."""

    binary = False

    def __init__(self) -> None:
        self.written = 0

    def write(self, message: bytes, binary: bool) -> bytes:
        self.written += 1
        return JSON.write(message, binary)

    read, read_own, receipt = JSON.read, JSON.read_own, JSON.receipt  # type: ignore[assignment]


def test_a_publication_is_converted_once_for_all_encodings_of_a_codec() -> None:
    found = Counting()
    framings = [CodedFraming(found, frames) for frames in FRAMINGS]
    delivery = Delivery("room", [RAW, RAW], False)
    made = {id(delivery.encoded(framing)) for _ in range(1_000) for framing in (PLAIN, *framings)}
    assert len(made) == 4
    assert found.written == 2
    assert delivery.encoding is PLAIN


def test_where_all_speak_one_codec_its_frames_are_the_first_choice() -> None:
    framing = CodedFraming(JSON, PLAIN)
    delivery = Delivery("room", [RAW], False)
    made = delivery.encoded(framing)
    assert delivery.encoding is framing and delivery.made is made


def test_what_is_no_message_is_left_out() -> None:
    for found in (JSON, PROTOBUF):
        framing = CodedFraming(found, PLAIN)
        assert framing.encode([b"garbage", RAW], False) == framing.encode([RAW], False)
        assert framing.encode([b"garbage"], False) == framing.frame(b"garbage", False) == b""


def test_the_factory_has_one_encoding_for_a_view_and_its_frames(factory: LHTTPServerFactory) -> None:
    made = {id(factory.coded(found, frames)) for _ in range(3) for found in (JSON, PROTOBUF) for frames in FRAMINGS}
    assert len(made) == 6


def test_a_room_of_all_codecs(factory: LHTTPServerFactory) -> None:
    clients = {name: Client(factory, name) for name in ("lhttp", "lhttp.json", "lhttp.protobuf", "chat")}
    assert all(client.agreed for client in clients.values())
    clients["lhttp"].send("LHTTP/1.0 x\r\nsubscribe:room\r\n\r\n")
    clients["chat"].send("LHTTP/1.0 x\r\nsubscribe:room\r\n\r\n")
    clients["lhttp.json"].send(view("x", {"subscribe": "room"}))
    subscribing = MESSAGE(command="x")
    subscribing.headers.add(name="subscribe", value="room")
    clients["lhttp.protobuf"].send(subscribing.SerializeToString())
    publishing = MESSAGE(command="chat", body=b"hello")
    publishing.headers.add(name="publish", value="room")
    for name, payload in (
        ("lhttp", RAW.decode("ascii")),
        ("lhttp.json", view("chat", {"publish": "room"}, "hello")),
        ("lhttp.protobuf", publishing.SerializeToString()),
    ):
        clients[name].send(payload)
        assert clients["lhttp"].take() == clients["chat"].take() == [(RAW, False)]
        (found,) = clients["lhttp.json"].take_json()
        assert found == {"VERSION": "LHTTP/1.0", "COMMAND": "chat", "HEADERS": {"publish": "room"}, "BODY": "hello"}
        ((data, binary),) = clients["lhttp.protobuf"].take()
        assert (MESSAGE.FromString(data), binary) == (publishing, True)


def test_a_burst_is_handled_in_order_and_answered(factory: LHTTPServerFactory) -> None:
    client = Client(factory, "lhttp.json")
    client.send(view("x", {"subscribe": "room"}))
    client.send(*[view("chat", {"publish": "room", "receipt": str(number)}, str(number)) for number in range(300)])
    found = client.take_json()
    assert [one["BODY"] for one in found if one["COMMAND"] == "chat"] == [*map(str, range(300))]
    receipts = [one["HEADERS"]["receipt-id"] for one in found if one["COMMAND"] == "receipt"]
    assert receipts == [*map(str, range(300))]


def test_text_and_binary_messages_of_a_burst_stay_what_they_are(factory: LHTTPServerFactory) -> None:
    sender, reader = Client(factory, "lhttp.json"), Client(factory, None)
    reader.send("LHTTP/1.0 x\r\nsubscribe:room\r\n\r\n")
    opening = '{"COMMAND":"c","HEADERS":{"publish":"room"},'
    sender.send(*[opening + ('"BODY":"hi"}', '"BODY_BASE64":"aGk="}')[number // 2 % 2] for number in range(12)])
    assert [binary for _, binary in reader.take()] == [False, False, True, True] * 3


def test_an_error_is_told_in_its_turn(factory: LHTTPServerFactory, waiting: list[Deferred[None]]) -> None:
    client = Client(factory, "lhttp.json")
    client.send(view("wait", {}), '{"COMMAND":"c","HEADERS":{"receipt":"7"},"BODY":1}', view("echo", {}, "last"))
    assert client.take() == []
    waiting[0].callback(None)
    first, error, last = client.take_json()
    assert (first["BODY"], last["BODY"]) == ("done", "last")
    assert error == {
        "VERSION": "LHTTP/1.0",
        "COMMAND": "error",
        "HEADERS": {"status": "400", "reason": "BODY is not a string", "receipt-id": "7"},
        "BODY": "",
    }


def test_an_error_among_publications_harms_no_other(factory: LHTTPServerFactory) -> None:
    client = Client(factory, "lhttp.json")
    client.send(view("x", {"subscribe": "room"}))
    good = view("chat", {"publish": "room"}, "good")
    client.send(*[good] * 5, "no JSON", *[good] * 5)
    assert [one["COMMAND"] for one in client.take_json()] == ["chat"] * 5 + ["error"] + ["chat"] * 5


@pytest.mark.parametrize("headers", [{"a": "x" * 9_000}, {f"a{number}": "x" * 200 for number in range(80)}])
def test_an_error_about_too_much_in_json_has_its_receipt(factory: LHTTPServerFactory, headers: dict[str, str]) -> None:
    client = Client(factory, "lhttp.json")
    client.send(view("chat", {"publish": "room", **headers, "receipt": "7"}, '"receipt":"8"'))
    (error,) = client.take_json()
    assert error["HEADERS"]["receipt-id"] == "7"


def test_an_error_in_protobuf_has_its_receipt(factory: LHTTPServerFactory) -> None:
    client = Client(factory, "lhttp.protobuf")
    wrong = MESSAGE(command="a b")
    wrong.headers.add(name="receipt", value="7")
    client.send(wrong.SerializeToString())
    ((data, _),) = client.take()
    error = MESSAGE.FromString(data)
    assert error.command == "error"
    assert ("receipt-id", "7") in [(pair.name, pair.value) for pair in error.headers]


def test_a_full_queue_pauses_and_nothing_is_lost(factory: LHTTPServerFactory, waiting: list[Deferred[None]]) -> None:
    client = Client(factory, "lhttp.json")
    client.send(view("wait", {}), *[view("echo", {}, str(number)) for number in range(200)])
    assert client.take() == []
    assert len(client.protocol.session._queue) == 4
    waiting[0].callback(None)
    assert [one["BODY"] for one in client.take_json()] == ["done", *map(str, range(200))]


@pytest.mark.parametrize(("subprotocol", "broken"), [("lhttp.json", "{"), ("lhttp.protobuf", b"\x0f")])
def test_views_that_cannot_be_read_leave_nothing_behind(
    factory: LHTTPServerFactory, subprotocol: str, broken: str | bytes
) -> None:
    client = Client(factory, subprotocol)
    client.send(*[broken] * 3)  # what is made once is made
    gc.collect()
    gc.disable()
    try:
        client.send(*[broken] * 100)
        assert gc.collect() < 100  # circles of objects, which make the server stand still when they are looked for
    finally:
        gc.enable()
    assert len(client.take()) == 103


def test_limits_are_of_the_message(factory: LHTTPServerFactory) -> None:
    client = Client(factory, "lhttp.json")
    client.send(view("echo", {}, "x" * 65_536))
    (error,) = client.take_json()
    assert error["HEADERS"]["status"] == "413"
    client.send('{"COMMAND":"echo","BODY":"' + "\\u0078" * 20_000 + '"}')
    assert [one["BODY"] for one in client.take_json()] == ["x" * 20_000]


def test_a_client_of_json_may_compress(factory: LHTTPServerFactory) -> None:
    client = Client(factory, "lhttp.json", b"?support_gzip=1")
    client.send(gzip.compress(view("echo", {}, "one").encode("ascii")), view("echo", {}, "two"))
    found = [(json.loads(gzip.decompress(data))["BODY"], binary) for data, binary in client.take()]
    assert found == [("one", True), ("two", True)]


class Taker:
    """A connection, and its session, which takes some messages at a time and then stops."""

    def __init__(self, at_once: int) -> None:
        self.session = self
        self.takes_more = False
        self.got: list[bytes] = []
        self._at_once = at_once

    def receive_run(self, messages: list[bytes], first: int, binary: bool) -> int:
        some = messages[first : first + self._at_once]
        self.got += some
        return first + len(some)


class Reading:
    """A view that counts what it reads."""

    def __init__(self) -> None:
        self.count = 0

    def take(self, data: bytes, limits: Limits) -> tuple[bytes, bool]:
        self.count += 1
        return data.upper(), data.startswith(b"binary")


@pytest.mark.parametrize("at_once", [1, 2, 7, 1_000])
def test_a_view_is_converted_once_however_often_the_session_stops(at_once: int) -> None:
    session, counting = Taker(at_once), Reading()
    decoder = Decoder(session, counting, Limits(), None)  # type: ignore[arg-type]
    views = [b"text %d" % number for number in range(300)]
    taken = 0
    while taken < len(views):
        taken = decoder.receive_run(views, taken, False)
    assert session.got == [view.upper() for view in views]
    assert counting.count == len(views)
    assert decoder._ahead is None


def test_what_was_converted_ahead_is_not_taken_for_other_views() -> None:
    session = Taker(1)
    decoder = Decoder(session, Reading(), Limits(), None)  # type: ignore[arg-type]
    first, second = [b"a", b"b", b"binary"], [b"x", b"y", b"z"]
    assert decoder.receive_run(first, 0, False) == 1
    assert decoder.receive_run(second, 1, False) == 2
    assert decoder.receive_run(first, 2, False) == 3
    assert session.got == [b"A", b"Y", b"BINARY"]


@pytest.mark.parametrize(("size", "most"), [(10, 64), (100, 40), (1_000, 4), (5_000, 1)])
def test_the_bytes_of_views_that_are_handled_at_once_have_a_bound(size: int, most: int) -> None:
    session, counting = Taker(1_000), Reading()
    decoder = Decoder(session, counting, Limits(), None)  # type: ignore[arg-type]
    assert decoder.receive_run([b"x" * size] * 100, 0, False) == most
    assert counting.count == most


@pytest.mark.parametrize(
    ("frames", "converts", "compresses"),
    [
        (PLAIN, False, False),
        (Gzip(), False, True),
        (Deflate(15), False, True),
        (CodedFraming(JSON, PLAIN), True, False),
        (CodedFraming(PROTOBUF, Deflate(9)), True, True),
    ],
)
def test_a_session_knows_what_its_messages_cost(
    factory: LHTTPServerFactory, frames: Any, converts: bool, compresses: bool
) -> None:
    connection = Client(factory, "lhttp").protocol
    connection._framing = frames
    assert (connection.converts, connection.compresses) == (converts, compresses)
    session = connection.session
    assert (session.converts, session.is_costly) == (converts, converts or compresses)


def test_a_client_of_text_has_nothing_of_it(factory: LHTTPServerFactory) -> None:
    client = Client(factory, None)
    assert not client.agreed
    assert client.protocol._front is None and client.protocol._framing is PLAIN
