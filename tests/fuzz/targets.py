"""
What is fuzzed: functions of bytes that raise only if the code under test is wrong.

Each says again, in other words than the code, what must come out; an ``AssertionError`` is a finding, and so is every
other exception. The coverage-guided fuzzer and the property tests share them; they need neither.
"""

from __future__ import annotations

import ipaddress
import json
import posixpath
import unicodedata
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import suppress
from hashlib import sha1
from itertools import pairwise
from typing import Any
from urllib.parse import unquote, urlsplit

import hyperlink
import txaio
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from event_source import parse_events
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from lhttp_tx.codec.channels import check_channel, split_channels
from lhttp_tx.codec.json_view import decode_json
from lhttp_tx.codec.limits import DEFAULT_LIMITS, UNLIMITED
from lhttp_tx.codec.message import Message, Unreadable, parse
from lhttp_tx.codec.multipart import check_split, join_parts, parse_offsets, split_message, split_parts
from lhttp_tx.codec.text import is_text
from lhttp_tx.codec.views import JSON, PROTOBUF, View
from lhttp_tx.engine.answers import error_message
from lhttp_tx.engine.processors import processor
from lhttp_tx.engine.request import Request
from lhttp_tx.errors import LocalProtocolError, Refused, RemoteProtocolError, UpstreamForbidden
from lhttp_tx.guard.access import AccessPolicy, host_name
from lhttp_tx.observe.methods import BY_NAME
from lhttp_tx.testing import Server
from lhttp_tx.transports.http.bodies import MAX_MESSAGES, read_body
from lhttp_tx.transports.tcp.factory import TCPFactory
from lhttp_tx.transports.tcp.framing import frame, take_messages as take_framed
from lhttp_tx.transports.websocket.factory import LHTTPServerFactory
from lhttp_tx.transports.websocket.frames import build_frame, build_frames, split_frames
from lhttp_tx.transports.websocket.handshake import accept_handshake, read_handshake
from lhttp_tx.transports.websocket.reader import frames_size, take_messages
from lhttp_tx.upstream.targets import METHODS, TargetPolicy, parse_upstream
from lhttp_tx.web.admin.checking import check_call
from lhttp_tx.web.admin.problems import Problem
from lhttp_tx.web.events.encoding import view_body, view_json
from lhttp_tx.web.events.query import Places, read_id, read_wish

__all__ = ["ALLOWED", "HANDSHAKE", "TARGETS"]

Target = Callable[[bytes], None]

_ENDED = Failure(ConnectionDone())

ALLOWED = "http://backend.example:8000/record"
"""The backend that the policy under test allows."""

HANDSHAKE = (
    b"GET /echo HTTP/1.1\r\nHost: server.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)

_KEY = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_VISIBLE = bytes(range(0x21, 0x7F))
_CONTROLS = frozenset({*range(9), *range(10, 32), 127})
_LIMIT = 2_000
"""Bytes of a payload that the lane under test may take: between its own marks for small and for large ones."""


# The codec


def _read(data: bytes) -> tuple[str, list[tuple[str, str]], bytes] | None:
    """Return command, headers and body as the protocol document has them, ``None`` for what it does not allow."""
    head, blank, body = data.partition(b"\r\n\r\n")
    if not blank:
        if not data.endswith(b"\r\n"):
            return None
        head = data[:-2]
    if len(data) > 65_536 or len(head) + 2 > 8_192:
        return None
    start, *lines = head.split(b"\r\n")
    if len(lines) > 64 or any(b"\r" in line or b"\n" in line for line in (start, *lines)):
        return None
    protocol, _, command = start.partition(b" ")
    if protocol != b"LHTTP/1.0" or not 1 <= len(command) <= 64 or command.strip(_VISIBLE):
        return None
    pairs = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not name or set(name) - set(_VISIBLE) or _CONTROLS & set(value):
            return None
        try:
            pairs.append((name.decode("ascii"), value.decode("utf-8").strip(" \t")))
        except UnicodeDecodeError:
            return None
    if set(command) - set(_VISIBLE):
        return None
    return command.decode("ascii"), pairs, body


def _fields(message: Message) -> tuple[str, list[tuple[str, str]], bytes]:
    return message.command, list(message.headers), message.body


def _check_refusal(error: RemoteProtocolError, *statuses: int) -> None:
    assert error.status in statuses, error
    assert error.reason.isprintable() and error.reason.isascii(), error.reason


def message(data: bytes) -> None:
    """A message is parsed as the document says, and what parses serialises back the same."""
    expected = _read(data)
    try:
        parsed = parse(data, binary=True)
    except RemoteProtocolError as error:
        _check_refusal(error, 400, 413)
        assert expected is None, expected
        return
    assert parsed.raw == data
    assert _fields(parsed) == expected
    built = Message(*_fields(parsed), binary=True)
    assert _fields(parse(built.raw, binary=True)) == expected
    assert parsed.replace(body=parsed.body).raw.startswith(parsed.head.raw + b"\r\n")
    for name, value in parsed.headers:
        assert parsed.headers.get(name) == parsed.headers.get_all(name.upper())[-1]
        assert value in parsed.headers.get_all(name)
        assert name in parsed.headers
    stripped = parsed.stripped()
    kept = [pair for pair in parsed.headers if pair[0].lower() not in ("upstream", "receipt")]
    assert _fields(stripped) == (parsed.command, kept, parsed.body)
    again = parse(stripped.raw, binary=True)
    assert _fields(again) == _fields(stripped)
    for name in ("subscribe", "publish", "unsubscribe"):
        _check_channels_of(parsed, name)
    assert repr(parsed)
    try:
        assert parsed.text == parsed.body.decode("utf-8")
    except RemoteProtocolError as error:
        _check_refusal(error, 400)


def _check_channels_of(parsed: Message, name: str) -> None:
    try:
        found = parsed.head.channels(name)
    except RemoteProtocolError as error:
        _check_refusal(error, 400, 403)
        assert name in parsed.headers
    else:
        assert bool(found) == (name in parsed.headers)
        is_forbidden = _is_forbidden if name == "publish" else _is_forbidden_subscription
        assert not any(is_forbidden(channel) for channel in found)
        assert parsed.head.channels(name) == found


def multipart(data: bytes) -> None:
    """The value of a ``multipart`` header, a line end, and a body come apart at the offsets and nowhere else."""
    raw, _, body = data.partition(b"\n")
    value = raw.decode("utf-8", "replace")
    try:
        offsets = parse_offsets(value)
    except RemoteProtocolError as error:
        _check_refusal(error, 400)
        return
    assert [int(word) for word in value.split()] == list(offsets)
    assert offsets[0] == 0
    assert all(one < other for one, other in pairwise(offsets))
    try:
        parts = split_parts(offsets, body)
    except RemoteProtocolError as error:
        _check_refusal(error, 400)
        try:
            check_split(offsets, body)
        except RemoteProtocolError as other:
            assert other.reason == error.reason
        else:
            raise AssertionError("check_split has let it pass") from error
        return
    check_split(offsets, body)
    assert len(parts) == len(offsets)
    for part, start, end in zip(parts, offsets, (*offsets[1:], len(body)), strict=True):
        slice_ = body[start:end]
        expected = _read(b"LHTTP/1.0 part\r\n" + slice_)
        # A part is not bound by the limits of a head.
        if expected is not None:
            assert ("part", list(part.headers), part.body) == expected
        assert slice_.endswith(part.body)
    joined_value, joined = join_parts(parts)
    assert split_parts(parse_offsets(joined_value), joined) == parts


def _grouped(pairs: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        found.setdefault(name.lower(), []).append(value)
    return found


def _check_view(view: View, raw: bytes, binary: bool) -> None:
    """What a view was read as is a message, and its own view says the same."""
    parsed = parse(raw, binary=binary)
    if not binary:
        raw.decode("utf-8")
    again, _ = view.read_own(view.write(raw, binary))
    other = parse(again)
    assert other.command == parsed.command
    parts, others = split_message(parsed), split_message(other)
    if parts is None:
        assert other.body == parsed.body
        assert _grouped(other.headers) == _grouped(parsed.headers)
    else:
        assert others is not None
        assert [(_grouped(part.headers), part.body) for part in others] == [
            (_grouped(part.headers), part.body) for part in parts
        ]


def _view(view: View, data: bytes) -> None:
    try:
        raw, binary = view.read(data, DEFAULT_LIMITS)
    except RemoteProtocolError as error:
        _check_refusal(error, 400, 413)
        place, _ = view.take(data, DEFAULT_LIMITS)
        assert place == b"" and isinstance(place, Unreadable)
        receipt = place.receipt
        assert receipt is None or error_message(400, "", receipt).headers.get("receipt-id") is not None
    else:
        _check_view(view, raw, binary)


def json_view(data: bytes) -> None:
    """A JSON text is read as a message whose view says the same, and as Python's own parser reads it, or refused."""
    _view(JSON, data)
    try:
        raw, _ = decode_json(data)
    except RemoteProtocolError:
        return
    expected = {key.upper(): value for key, value in json.loads(data).items()}
    assert parse(raw).command == expected["COMMAND"]
    if isinstance(expected.get("BODY"), str):
        assert parse(raw).body == expected["BODY"].encode("utf-8")


def protobuf_view(data: bytes) -> None:
    """A Protocol Buffers message is read as a message whose view says the same, or refused."""
    _view(PROTOBUF, data)


def _is_forbidden(name: str) -> bool:
    if any(unicodedata.category(char) in ("Cs", "Cc", "Zs", "Zl", "Zp") for char in name):
        return True
    tokens = name.split(".")
    return (
        not 1 <= len(name.encode("utf-8")) <= 255
        or name.startswith(("$", "_"))
        or not {"", "*", ">"}.isdisjoint(tokens)
    )


def _is_forbidden_subscription(name: str) -> bool:
    """Of what may be subscribed to, the presence of a channel and wildcards are no channels."""
    if name.startswith("$presence."):
        return _is_forbidden(name.removeprefix("$presence."))
    *others, last = name.split(".")
    return _is_forbidden(
        ".".join(["x" if token == "*" else token for token in others] + [last if last not in ("*", ">") else "x"])
    )


def channels(data: bytes) -> None:
    """Header values, one a line, list the channels that they name, or are refused if one of those is forbidden."""
    values = _decode(data).split("\n")
    names = [name for value in values for name in value.replace("\t", " ").split(" ") if name]
    try:
        found = split_channels(values)
    except RemoteProtocolError as error:
        _check_refusal(error, 400, 403)
        assert not names or any(_is_forbidden(name) for name in names)
        return
    assert list(found) == list(dict.fromkeys(names))
    assert not any(_is_forbidden(name) for name in names)
    assert [check_channel(name) for name in found] == list(found)


def _decode(data: bytes) -> str:
    """Return *data* as text, halves of surrogate pairs included, which no client but a caller in Python can write."""
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode("latin-1")


_POLICIES = (TargetPolicy([ALLOWED]), TargetPolicy([ALLOWED], public_only=True))


def upstream(data: bytes) -> None:
    """What the policy allows is below the listed URL for other readers of URLs too, whatever a client wrote."""
    value = data.decode("utf-8", "replace")
    for policy in _POLICIES:
        _check_address(policy, value)
    try:
        method, target = parse_upstream(value)
    except RemoteProtocolError as error:
        _check_refusal(error, 400)
        return
    assert method in METHODS
    assert value.startswith(method + " ")
    assert parse_upstream(f"{method} {target.url}") == (method, target)
    read = urlsplit(target.url)
    assert (read.scheme, read.username, read.password, read.fragment) == (target.scheme, None, None, "")
    assert read.hostname == target.host.strip("[]").lower()
    assert (read.port or {"http": 80, "https": 443}[read.scheme]) == target.port
    try:
        _POLICIES[0].check(target)
    except UpstreamForbidden as error:
        assert error.status == 403
        return
    other = hyperlink.EncodedURL.from_text(target.url)
    assert (other.scheme, other.host, other.port, other.userinfo) == ("http", "backend.example", 8000, "")
    assert read.path.count("/") == unquote(unquote(read.path)).count("/")
    for path in (unquote(read.path), unquote(unquote(read.path)), unquote("/" + "/".join(other.path))):
        assert "\\" not in path and "\0" not in path
        normal = posixpath.normpath(path)
        assert normal == "/record" or normal.startswith("/record/"), path


def _check_address(policy: TargetPolicy, text: str) -> None:
    if not policy.allows_address(text):
        return
    address: Any = ipaddress.ip_address(text.partition("%")[0])
    inner = getattr(address, "ipv4_mapped", None) or address
    assert not (inner.is_multicast or inner.is_link_local or inner.is_unspecified)
    if policy.public_only:
        assert inner.is_global and not inner.is_loopback


# The WebSocket


def _frames(data: bytes) -> Iterator[tuple[bytes, bool, int]]:
    """Yield payload, kind and end of the plain frames that *data* begins with, one byte after the other."""
    position = 0
    while True:
        rest = data[position:]
        if len(rest) < 6 or rest[0] not in (0x81, 0x82) or not rest[1] & 0x80:
            return
        size, head = rest[1] & 0x7F, 6
        if size == 126:
            size, head = int.from_bytes(rest[2:4], "big"), 8
            if size < 126:
                return
        elif size == 127:
            return
        if size > _LIMIT or len(rest) < head + size:
            return
        mask = rest[head - 4 : head]
        payload = bytes(byte ^ mask[index % 4] for index, byte in enumerate(rest[head : head + size]))
        if rest[0] == 0x81:
            try:
                payload.decode("utf-8")
            except UnicodeDecodeError:
                return
        position += head + size
        yield payload, rest[0] == 0x82, position


def _may_become_plain(rest: bytes) -> bool:
    """Return whether *rest*, which begins with no whole plain frame, may do so once more has come."""
    if rest[0] not in (0x81, 0x82):
        return False
    if len(rest) < 6:
        return len(rest) < 2 or (rest[1] & 0x80 != 0 and rest[1] != 0xFF and (rest[1] != 0xFE or len(rest) < 4))
    if not rest[1] & 0x80 or rest[1] == 0xFF:
        return False
    size, head = rest[1] & 0x7F, 6
    if size == 126:
        size, head = int.from_bytes(rest[2:4], "big"), 8
        if size < 126:
            return False
    return size <= _LIMIT and len(rest) < head + size


def _take(data: bytes) -> tuple[list[tuple[bytes, bool]], int, bool]:
    """Return what the lane takes of *data* in as many calls as it wants, where it stops, and whether it wants more."""
    taken: list[tuple[bytes, bool]] = []
    position, more = 0, True
    while more:
        start = position
        payloads, binary, position, more = take_messages(data, start, _LIMIT)
        assert position == start + frames_size(payloads)
        if not payloads:
            break
        taken += [(payload, binary) for payload in payloads]
        assert split_frames(build_frames(payloads, binary)) == [(payload, binary) for payload in payloads]
        assert build_frames(payloads, binary) == b"".join(build_frame(payload, binary) for payload in payloads)
    return taken, position, more


def lane(data: bytes) -> None:
    """
    The lane takes the plain frames and nothing else, wherever the stream is cut.

    The first byte says how often the rest is repeated, so that short inputs make long runs; the second where to cut.
    """
    if len(data) < 2:
        return
    wire = data[2:] * (1 + data[0] % 16)
    expected = list(_frames(wire))
    taken, position, more = _take(wire)
    assert taken == [(payload, binary) for payload, binary, _ in expected]
    assert position == (expected[-1][2] if expected else 0)
    rest = wire[position:]
    if more:
        assert not rest or rest[0] in (0x81, 0x82)
    else:
        assert not rest or not _may_become_plain(rest), "given away too early"
    cut = data[1] * len(wire) // 255
    begun, position, _ = _take(wire[:cut])
    assert taken[: len(begun)] == begun
    assert begun + _take(wire[position:])[0] == taken


class _Judge(WebSocketServerProtocol):
    """Autobahn itself."""

    opened = False

    def onOpen(self) -> None:
        self.opened = True


class _Transport(StringTransport):
    """A transport that a connection of Autobahn can use."""

    def setTcpNoDelay(self, enabled: bool) -> None:
        """There is no TCP."""

    def abortConnection(self) -> None:
        self.disconnecting = True

    def unregisterProducer(self) -> None:
        self.producer = None


def handshake(data: bytes) -> None:
    """What the fast reader of handshakes takes is let in by Autobahn too, with the same answer and the same reading."""
    found = read_handshake(data)
    if found is None:
        return
    assert data[: found.size].endswith(b"\r\n\r\n")
    assert data.index(b"\r\n\r\n") + 4 == found.size
    clock = Clock()
    before, txaio.config.loop = txaio.config.loop, clock
    try:
        factory = WebSocketServerFactory(reactor=clock)
        factory.protocol = _Judge
        factory.setProtocolOptions(allowedOrigins=["*"])
        judge: Any = factory.buildProtocol(None)
        transport = _Transport()
        judge.makeConnection(transport)
        judge.dataReceived(data[: found.size])
    finally:
        txaio.config.loop = before
    assert judge.opened, transport.value()
    assert {name: value for name, value in judge.http_headers.items() if name in found.headers} == found.headers
    assert judge.http_request_uri == found.target
    assert found.target == found.path + ("?" + found.query if "?" in found.target else "")
    accept = b64encode(sha1(found.headers["sec-websocket-key"].encode("ascii") + _KEY).digest())
    for answer in (transport.value(), accept_handshake(found)):
        assert answer.startswith(b"HTTP/1.1 101 ")
        assert answer.endswith(b"\r\n\r\n")
        assert b"\r\nSec-WebSocket-Accept: " + accept + b"\r\n" in answer


@processor("echo")
def _echo(request: Request) -> None:
    request.reply()


def _converse(pieces: list[bytes]) -> tuple[list[tuple[int, bytes]], list[bytes], bytes | None]:
    """Return what a server answers *pieces* with: its messages, its pongs, and the code that it closes with."""
    clock = Clock()
    before, txaio.config.loop = txaio.config.loop, clock
    try:
        server = Server(processors=[_echo])
        factory = LHTTPServerFactory(engine=server.engine, reactor=clock, ping_interval=0)
        protocol: Any = factory.buildProtocol(None)
        transport = _Transport()
        protocol.makeConnection(transport)
        protocol.dataReceived(HANDSHAKE)
        head, blank, _ = transport.value().partition(b"\r\n\r\n")
        assert blank and head.startswith(b"HTTP/1.1 101 ")
        for piece in pieces:
            if not transport.disconnecting:
                protocol.dataReceived(piece)
        answer = transport.value()[len(head) + 4 :]
        protocol.connectionLost(_ENDED)
        assert not server.engine.sessions
        assert not server.engine.hub.channels
        clock.advance(60)
        assert not clock.getDelayedCalls()
    finally:
        txaio.config.loop = before
    frames = _server_frames(answer)
    closes = [payload for opcode, payload in frames if opcode == 8]
    assert len(closes) <= 1, closes
    assert not closes or frames[-1] == (8, closes[0]), "something follows the close frame"
    return (
        [frame for frame in frames if frame[0] < 8],
        [payload for opcode, payload in frames if opcode == 10],
        closes[0][:2] if closes else None,
    )


def _server_frames(data: bytes) -> list[tuple[int, bytes]]:
    frames = []
    while data:
        assert data[0] & 0xF0 == 0x80 and not data[1] & 0x80, "a server's frame is whole and unmasked"
        size, head = data[1], 2
        if size == 126:
            size, head = int.from_bytes(data[2:4], "big"), 4
        elif size == 127:
            size, head = int.from_bytes(data[2:10], "big"), 10
        assert len(data) >= head + size
        frames.append((data[0] & 0x0F, data[head : head + size]))
        data = data[head + size :]
    return frames


def connection(data: bytes) -> None:
    """
    A server answers a stream of bytes the same, however it is cut; the first byte says where else it is.

    Pongs may overtake messages, and how a failure is worded may depend on where the stream was cut. The beginning of a
    frame is kept for one more read before anybody looks at it: so two more bytes follow.
    """
    if len(data) < 2:
        return
    wire = data[1:1_500]
    ends = [b"\0", b"\0"]
    whole = _converse([wire, *ends])
    for width in (2 + data[0], 1):
        assert _converse([wire[start : start + width] for start in range(0, len(wire), width)] + ends) == whole, width


# Plain streams, and bodies of requests


def _take_apart(data: bytes, largest: int) -> tuple[list[bytes], bytes, bool]:
    """Return the messages of a plain stream, as the protocol document has them, the rest, and whether that is wrong."""
    found: list[bytes] = []
    while data:
        line, feed, behind = data.partition(b"\n")
        number = line.decode("latin-1")
        if feed and number.isascii() and number.isdigit() and str(int(number)) == number and len(number) <= 10:
            size = int(number)
            if size > largest:
                return found, data, True
            if size > len(behind):
                return found, data, False
            found += [behind[:size]] if size else []
            data = behind[size:]
            continue
        begun = not feed and (number == "" or (number.isascii() and number.isdigit() and str(int(number)) == number))
        return found, data, not (begun and len(number) <= 10)
    return found, b"", False


def _converse_plainly(pieces: list[bytes]) -> bytes:
    """Return what a server answers on a plain stream of which *pieces* come, and then the end."""
    clock = Clock()
    before, txaio.config.loop = txaio.config.loop, clock
    try:
        server = Server(processors=[_echo])
        factory = TCPFactory(LHTTPServerFactory(engine=server.engine, reactor=clock, ping_interval=0))
        protocol = factory.buildProtocol(None)
        transport = _Transport()
        protocol.makeConnection(transport)
        for piece in pieces:
            if not transport.disconnecting:
                protocol.dataReceived(piece)
            clock.advance(0)
        if not transport.disconnecting:
            protocol.readConnectionLost()
        clock.advance(0)
        assert transport.disconnecting
        protocol.connectionLost(_ENDED)
        assert not server.engine.sessions
        assert not server.engine.hub.channels
        clock.advance(60)
        assert not clock.getDelayedCalls()
    finally:
        txaio.config.loop = before
    return bytes(transport.value())


def stream(data: bytes) -> None:
    """
    Messages on a plain stream are taken where they are, however it is cut, and answered the same; the first byte says
    where else it is cut.
    """
    if len(data) < 2:
        return
    wire = data[1:1_500]
    for largest in (_LIMIT, 20):
        messages, rest, is_wrong = _take_apart(wire, largest)
        taken = take_framed(wire, largest)
        assert taken.messages == messages
        assert (taken.error is not None) == is_wrong
        assert wire[taken.position :] == rest
        assert (taken.wanted > len(rest)) if rest and not is_wrong else not taken.wanted
        again = b"".join(map(frame, messages))
        assert take_framed(again, largest) == (messages, len(again), 0, None)
    whole = _converse_plainly([wire])
    answers, rest, is_wrong = _take_apart(whole, 2**20)
    assert not rest and not is_wrong
    assert answers and parse(answers[-1], binary=True, limits=UNLIMITED).command == "close"
    for width in (2 + data[0], 1):
        assert _converse_plainly([wire[start : start + width] for start in range(0, len(wire), width)]) == whole, width


_TYPES = ("", "application/json", "application/octet-stream", "text/plain; charset=utf-8")


def bodies(data: bytes) -> None:
    """A body of ``/send`` brings the messages that are in it, or is refused; the first byte says of what type it is."""
    kind, body = _TYPES[data[0] % len(_TYPES)] if data else "", data[1:]
    try:
        runs = read_body(body, kind, DEFAULT_LIMITS)
    except RemoteProtocolError as error:
        _check_refusal(error, 400, 413)
        return
    found = [message for messages, _ in runs for message in messages]
    assert len(found) <= MAX_MESSAGES
    assert all(one[1] is not other[1] for one, other in pairwise(runs))
    for messages, binary in runs:
        assert messages
        for message in messages if not binary else ():
            message.decode("utf-8")
    if kind == "application/json" and body and not body.startswith(b"LHTTP/"):
        views = json.loads(body)
        views = views if isinstance(views, list) else [views]
        commands = [{key.upper(): value for key, value in view.items()}["COMMAND"] for view in views]
        assert [parse(message, binary=True).command for message in found] == commands
    elif body[:1].isdigit():
        rest = body
        for message in found:
            line, _, rest = rest.partition(b"\n")
            assert int(line) == len(message)
            assert rest.startswith(message)
            rest = rest[len(message) :]
        assert not rest
    else:
        assert found == ([body] if body else [])


# Access


def access(data: bytes) -> None:
    """Whoever is let in by the rules has a right to it, whatever the headers hold; one header a line."""
    fields = [field.decode("utf-8", "surrogateescape") for field in data.split(b"\n")]
    peer, host, origin, site, authorization, *names = (*fields, *[""] * (5 - len(fields)))
    for local, own, token in ((False, (), None), (True, ("chat.example",), None), (False, (), b"0123456789abcdef")):
        policy = AccessPolicy(server_names=frozenset(own), loopback_only=local, publish_token=token)
        if _allows(policy.check_host, host or None):
            name = host_name(host)
            assert name
            assert not local or name in (*own, "localhost") or ipaddress.ip_address(name).is_loopback or "::" in name
        if _allows(policy.check_origin, origin or None, host or None) and origin:
            assert origin.lower().startswith(("http://", "https://"))
            assert host_name(origin.partition("://")[2]) == host_name(host) is not None
        allowed = _allows(
            lambda policy=policy: policy.check_publish(
                peer=peer or None,
                host=host or None,
                origin=origin or None,
                fetch_site=site or None,
                authorization=authorization or None,
                header_names=names,
            )
        )
        if not allowed:
            continue
        if token is not None:
            assert authorization.split(" ", 1)[1].strip() == token.decode("ascii")
            continue
        assert peer == "localhost" or ipaddress.ip_address(peer.partition("%")[0]).packed[-4:][:1] in (b"\x7f", b"\0")
        assert site in ("", "same-origin", "none")
        assert not any(name.startswith(("x-forwarded", "forwarded", "via", "x-real-ip")) for name in names)


def _allows(check: Callable[..., None], *arguments: object) -> bool:
    try:
        check(*arguments)
    except Refused as refused:
        assert refused.status in (400, 401, 403)
        return False
    return True


# Event streams and the admin side


def events(data: bytes) -> None:
    """A message is one event, whatever it holds, and what a query and an id ask for is a message or is refused."""
    query, _, rest = data.partition(b"\n")
    identifier, _, raw = rest.partition(b"\n")
    try:
        wish = read_wish(query.decode("latin-1"), identifier.decode("latin-1") or None)
        asked = wish.messages()
    except (Refused, RemoteProtocolError) as error:
        assert error.status in (400, 429)
        assert error.reason.isprintable() and error.reason.isascii(), error.reason
    else:
        named = " ".join(text for found in asked for text in found.headers.get_all("subscribe")).split(" ")
        assert sorted(named) == sorted(wish.channels)
        assert len(wish.channels) <= DEFAULT_LIMITS.listed
        places = Places(wish.positions)
        if places:
            told = places.id()
            assert told.decode("ascii").isprintable()
            assert read_id(told.decode("ascii"), wish.channels) == wish.positions
    try:
        parsed = parse(raw, binary=True, limits=UNLIMITED)
    except RemoteProtocolError:
        return
    for binary in (True, False) if is_text(raw) else (True,):
        (event,) = parse_events(view_json(raw, binary))
        assert event.name == parsed.command
        assert json.loads(event.data)["COMMAND"] == parsed.command
        (event,) = parse_events(view_body(raw, binary))
        assert event.name == parsed.command
        if parsed.command in ("close", "error", "missed", "receipt"):
            assert json.loads(event.data)["COMMAND"] == parsed.command
        elif binary:
            assert b64decode(event.data.partition(",")[2]) == parsed.body
        else:
            assert event.data == parsed.body.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")


def admin(data: bytes) -> None:
    """A call is refused with a status and a text, or has parameters that can be carried out, and answered in JSON."""
    name, _, body = data.partition(b"\n")
    method = BY_NAME.get(name.decode("latin-1"))
    try:
        params = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError):
        return
    if method is None:
        return
    try:
        found = check_call(method, params)
    except Problem as problem:
        assert problem.status in (400, 404)
        json.dumps(problem.told).encode("ascii")
        return
    json.dumps(found, sort_keys=True).encode("ascii")
    for parameter in method.channels:
        value = found.get(parameter, [])
        for channel in [value] if isinstance(value, str) else value:
            assert not _is_forbidden(channel), channel
    if "command" in found:
        with suppress(LocalProtocolError):  # what the schema cannot say, such as two names that differ in case
            built = Message(found["command"], list(found.get("headers", {}).items()), found.get("body", ""))
            assert parse(built.raw).command == found["command"]


TARGETS: dict[str, Target] = {
    "message": message,
    "multipart": multipart,
    "channels": channels,
    "upstream": upstream,
    "lane": lane,
    "handshake": handshake,
    "connection": connection,
    "stream": stream,
    "bodies": bodies,
    "access": access,
    "json": json_view,
    "protobuf": protobuf_view,
    "events": events,
    "admin": admin,
}
"""The targets by name."""
