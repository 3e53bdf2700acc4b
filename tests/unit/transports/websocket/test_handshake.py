"""lhttp_tx.transports.websocket.handshake: what is an ordinary handshake, and that it is one for Autobahn too."""

from __future__ import annotations

import pytest
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from hypothesis import example, given, settings, strategies as st
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from lhttp_tx.transports.websocket.handshake import MAX_HEADERS, accept_handshake, choose_subprotocol, read_handshake

FIELDS = [
    b"Host: chat.example:8081",
    b"Upgrade: websocket",
    b"Connection: Upgrade",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
]
BROWSER = [
    *FIELDS[:2],
    b"Connection: keep-alive, Upgrade",
    *FIELDS[3:],
    b"Origin: https://chat.example:8081",
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    b"Accept: */*",
    b"Accept-Language: de,en-US;q=0.7,en;q=0.3",
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
    b"Cookie: session=0123456789abcdef; theme=dark",
]


def head(fields: list[bytes] = FIELDS, start: bytes = b"GET /echo?a=1&b=%20 HTTP/1.1") -> bytes:
    return b"\r\n".join([start, *fields]) + b"\r\n\r\n"


def swapped(name: bytes, field: bytes | None) -> bytes:
    """The plain handshake with another field in the place of *name*, or none."""
    fields = [field if found.startswith(name + b":") else found for found in FIELDS]
    return head([found for found in fields if found is not None])


def test_a_plain_handshake_is_read() -> None:
    handshake = read_handshake(head())
    assert handshake is not None
    assert (handshake.target, handshake.path, handshake.query) == ("/echo?a=1&b=%20", "/echo", "a=1&b=%20")
    assert handshake.headers == {
        "host": "chat.example:8081",
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    }


def test_a_handshake_of_a_browser_is_read() -> None:
    handshake = read_handshake(head(BROWSER))
    assert handshake is not None
    assert handshake.headers["cookie"] == "session=0123456789abcdef; theme=dark"


def test_blanks_around_values_do_not_belong_to_them() -> None:
    handshake = read_handshake(swapped(b"Host", b"hOsT:\t chat.example \t"))
    assert handshake is not None
    assert handshake.headers["host"] == "chat.example"


def test_what_follows_the_head_is_not_part_of_it() -> None:
    handshake = read_handshake(head() + b"\x81\x80\r\n\r\n")
    assert handshake is not None
    assert handshake.size == len(head())


def test_the_response_is_that_of_the_rfc() -> None:
    handshake = read_handshake(head())
    assert handshake is not None
    assert accept_handshake(handshake) == (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("offer", "chosen"),
    [
        (None, None),
        ("lhttp", "lhttp"),
        ("chat, lhttp", "lhttp"),
        ("lhttp,lhttp.json", "lhttp"),
        ("chat", "chat"),
        ("  chat\t", "chat"),
        ("lhttp.json", "lhttp.json"),
        ("chat, lhttp.protobuf, lhttp", "lhttp.protobuf"),
        ("lhttp, lhttp.json", "lhttp"),
        ("lhttp.xml", "lhttp.xml"),
        ("chat,", "chat"),
        ("chat, other", None),
        ("LHTTP", "LHTTP"),
        ("", None),
        (",", None),
        ("a b", None),
        ("\xe9", None),
        ("x" * 255, "x" * 255),
        ("x" * 256, None),
    ],
)
def test_the_first_known_subprotocol_is_chosen_or_the_only_one(offer: str | None, chosen: str | None) -> None:
    assert choose_subprotocol(offer) == chosen


@pytest.mark.parametrize(
    "data",
    [
        b"",
        head()[:-1],
        head(start=b"GET  HTTP/1.1"),
        head(start=b"POST / HTTP/1.1"),
        head(start=b"get / HTTP/1.1"),
        head(start=b"GET / HTTP/1.0"),
        head(start=b"GET /  HTTP/1.1"),
        head(start=b"GET //host/path HTTP/1.1"),
        head(start=b"GET //[ HTTP/1.1"),
        head(start=b"GET /#fragment HTTP/1.1"),
        head(start=b"GET http://chat.example/ HTTP/1.1"),
        head(start=b"GET * HTTP/1.1"),
        head(start=b"GET /\xc3\xa9 HTTP/1.1"),
        head(start=b"\r\nGET / HTTP/1.1"),
        head().replace(b"\r\n", b"\n"),
        head([*FIELDS, b"X: a\rb"]),
        head([*FIELDS, b"X: a\nb"]),
        head([*FIELDS, b"X: a\x00b"]),
        head([*FIELDS, b"X: a\x0bb"]),
        head([*FIELDS, b"X: \xc3\x85"]),
        head([*FIELDS, b"X: \x85Origin: null"]),
        head([*FIELDS, b" folded"]),
        head([*FIELDS, b"X : y"]),
        head([*FIELDS, b"no colon"]),
        head([*FIELDS, b": no name"]),
        head([*FIELDS, b"Host: chat.example"]),
        head([*FIELDS, b"x: 1", b"X: 2"]),
        head([*FIELDS, b"Content-Length: 0"]),
        head([*FIELDS, b"Transfer-Encoding: chunked"]),
        head([*FIELDS, b"Expect: 100-continue"]),
        head([*FIELDS, b"Sec-WebSocket-Protocol: a b"]),
        head([*FIELDS, b"Sec-WebSocket-Protocol: chat, chat"]),
        head([*FIELDS, b"Sec-WebSocket-Protocol: chat,"]),
        head([*FIELDS, b"Sec-WebSocket-Protocol:"]),
        head([*FIELDS, b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=99"]),
        head([*FIELDS, b"Origin: null"]),
        head([*FIELDS, b"Origin: file:///x"]),
        head([*FIELDS, b"Origin: http://chat.example:65536"]),
        head([*FIELDS, b"Origin: http://[::1"]),
        *(swapped(field.partition(b":")[0], None) for field in FIELDS),
        swapped(b"Host", b"Host:"),
        swapped(b"Host", b"Host: chat.example:port"),
        swapped(b"Host", b"Host: user@chat.example"),
        swapped(b"Upgrade", b"Upgrade: websocket, h2c"),
        swapped(b"Connection", b"Connection: keep-alive"),
        swapped(b"Connection", b"Connection: not-upgrade"),
        swapped(b"Sec-WebSocket-Version", b"Sec-WebSocket-Version: 8"),
        swapped(b"Sec-WebSocket-Version", b"Sec-WebSocket-Version: 14"),
        swapped(b"Sec-WebSocket-Key", b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ="),
        swapped(b"Sec-WebSocket-Key", b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQAA"),
        swapped(b"Sec-WebSocket-Key", b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j!Q=="),
    ],
)
def test_what_is_not_ordinary_is_left_to_others(data: bytes) -> None:
    assert read_handshake(data) is None


def test_a_head_is_bounded_in_bytes() -> None:
    room = 16_384 - len(head([*FIELDS, b"X: "]))
    assert read_handshake(head([*FIELDS, b"X: " + b"x" * room])) is not None
    assert read_handshake(head([*FIELDS, b"X: " + b"x" * (room + 1)])) is None


def test_a_head_is_bounded_in_headers() -> None:
    more = [b"X%d: y" % number for number in range(MAX_HEADERS - len(FIELDS))]
    assert read_handshake(head([*FIELDS, *more])) is not None
    assert read_handshake(head([*FIELDS, *more, b"Z: y"])) is None


def autobahn_opens(data: bytes) -> tuple[bool, bytes]:
    """Whether Autobahn, as it comes, opens a connection that begins with *data*; and its response."""
    factory = WebSocketServerFactory(server="", reactor=Clock())
    factory.protocol = WebSocketServerProtocol
    factory.setProtocolOptions(openHandshakeTimeout=0, allowNullOrigin=True)
    protocol = factory.buildProtocol(None)
    transport = StringTransport()
    protocol.makeConnection(transport)
    protocol.dataReceived(data)
    return protocol.state == protocol.STATE_OPEN, transport.value()


HOSTILE = st.binary(max_size=8) | st.sampled_from(
    [b"\r\n", b"\r", b"\n", b" ", b"\t", b":", b",", b";", b"=", b"?", b"#", b"[", b"\x85", b"\x1c", b"\x00", b"%"]
)


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """A handshake, with fields left out, repeated, moved and damaged."""
    fields = [*draw(st.sampled_from([FIELDS, BROWSER]))]
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(fields) - 1))
        change = draw(st.sampled_from(["drop", "repeat", "move", "damage", "case", "value"]))
        if change == "drop" and len(fields) > 1:
            del fields[at]
        elif change == "repeat":
            fields.append(fields[at])
        elif change == "move":
            fields.append(fields.pop(at))
        elif change == "case":
            fields[at] = fields[at].swapcase()
        elif change == "value":
            name = fields[at].partition(b":")[0]
            fields[at] = name + b": " + draw(st.text("abcdefXYZ0129:./[]-_ ,;=@", max_size=24)).encode("ascii")
    target = draw(st.just(b"/echo") | st.text("/ab?=&%20;:[]#@\\", max_size=12).map(lambda text: b"/" + text.encode()))
    data = head(fields, b"GET " + target + b" HTTP/1.1")
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(HOSTILE) + data[at + draw(st.integers(0, 2)) :]
    return data


@settings(max_examples=400, deadline=None)
@given(heads())
@example(head(BROWSER))
@example(head([*FIELDS, b"Origin: http://chat.example:64999"]))
def test_nothing_is_ordinary_that_autobahn_refuses(data: bytes) -> None:
    handshake = read_handshake(data)
    if handshake is not None:
        assert autobahn_opens(data[: handshake.size]) == (True, accept_handshake(handshake))
