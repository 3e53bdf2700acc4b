"""Messages in pieces: they are put together, cost what their bytes cost, and are bounded in number."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from autobahn.websocket.protocol import WebSocketProtocol
from hypothesis import given, strategies as st
from twisted.internet.task import Clock

from lhttp_tx import Request, processor
from lhttp_tx.codec.limits import Limits
from lhttp_tx.testing import Server
from lhttp_tx.transports.websocket.factory import LHTTPServerFactory
from lhttp_tx.transports.websocket.fragments import LEAST_FRAGMENT, Joined, skip_frames, take_fragmented, take_fragments
from unit.transports.websocket.test_protocol import Peer, close_code, frame, messages

HEAD = "LHTTP/1.0 echo\r\n\r\n"


@processor("echo")
def echo(request: Request) -> None:
    request.reply()


@pytest.fixture
def peer(clock: Clock) -> Peer:
    server = Server(processors=[echo], limits=Limits(message_size=4_096))
    made = Peer(LHTTPServerFactory(engine=server.engine, reactor=clock, ping_interval=0))
    made.open()
    return made


def pieces(count: int, piece: bytes = b"x") -> bytes:
    return b"".join(frame(piece, 0, fin=False) for _ in range(count))


@given(st.lists(st.binary(max_size=200), max_size=40), st.binary(max_size=10))
def test_fragments_are_those_up_to_the_first_that_is_something_else(parts: list[bytes], before: bytes) -> None:
    data = b"".join(frame(part, 0, fin=False) for part in parts) + frame(b"end", 0)
    taken: list[bytes] = []
    for part in parts:
        if len(part) > 125:
            break
        taken.append(part)
    payload, short, position = take_fragments(before + data, len(before))
    assert payload == b"".join(taken)
    assert short == sum(max(0, LEAST_FRAGMENT - len(part)) for part in taken)
    assert position == len(before) + sum(6 + len(part) for part in taken)


@pytest.mark.parametrize(
    "data",
    [b"", b"\0", frame(b"x", 0), frame(b"x", 9), frame(b"x", 1, fin=False), b"\0\1x" + bytes(9), b"\x40" + bytes(9)],
    ids=["nothing", "a byte", "last", "ping", "first", "not masked", "extension"],
)
def test_what_is_no_fragment_is_left(data: bytes) -> None:
    assert take_fragments(data, 0) == (b"", 0, 0)


def test_a_fragment_that_is_not_whole_is_left() -> None:
    data = frame(b"hello", 0, fin=False)
    assert take_fragments(data + data[:-1], 0) == (b"hello", LEAST_FRAGMENT - 5, len(data))


@given(st.lists(st.binary(max_size=5), max_size=20))
def test_joined_is_what_was_added(parts: list[bytes]) -> None:
    joined = Joined()
    for part in parts:
        joined.add(part)
    assert len(joined) == sum(map(len, parts))
    assert joined.take() == b"".join(parts)


def test_one_piece_is_not_copied() -> None:
    joined, piece = Joined(), b"x" * 1_000
    joined.add(b"")
    joined.add(piece)
    assert joined.take() is piece


@pytest.mark.parametrize("size", [1, 5, 7, 100, 10_000])
@pytest.mark.parametrize("opcode", [1, 2])
def test_a_message_in_any_pieces_is_the_same(peer: Peer, size: int, opcode: int) -> None:
    data = frame(HEAD, opcode, fin=False) + pieces(30, "é".encode()) + pieces(3, b"y" * 300) + frame("z", 0)
    for start in range(0, len(data), size):
        peer.protocol.dataReceived(data[start : start + size])
    assert messages(peer.take()) == [HEAD.encode() + "é".encode() * 30 + b"y" * 900 + b"z"]


def test_characters_may_be_cut_in_two(peer: Peer) -> None:
    body = "é日本".encode()
    parts = b"".join(frame(body[at : at + 1], 0, fin=False) for at in range(len(body)))
    peer.protocol.dataReceived(frame(HEAD, 1, fin=False) + parts + frame("", 0))
    assert messages(peer.take()) == [HEAD.encode() + body]


def test_what_is_no_text_closes_the_connection_while_it_comes(peer: Peer) -> None:
    peer.protocol.dataReceived(frame(HEAD, 1, fin=False) + pieces(10) + pieces(1, b"\xff") + pieces(10))
    assert close_code(peer.take()) == 1007


def test_pings_between_fragments_are_answered(peer: Peer) -> None:
    data = frame(HEAD, 1, fin=False) + pieces(5) + frame("p", 9) + pieces(5) + frame("", 0)
    peer.protocol.dataReceived(data)
    assert peer.take() == b"\x8a\x01p" + bytes((0x81, len(HEAD) + 10)) + HEAD.encode() + b"x" * 10


@pytest.mark.parametrize("piece", [b"", b"x"], ids=["empty", "one byte"])
@pytest.mark.parametrize("read", [7, 1_000, 100_000])
def test_the_number_of_fragments_is_bounded(peer: Peer, piece: bytes, read: int) -> None:
    most = 2 * 4_096 // LEAST_FRAGMENT
    peer.send(HEAD, fin=False)
    data = pieces(most - 2, piece)
    for start in range(0, len(data), read):
        peer.protocol.dataReceived(data[start : start + read])
    assert peer.take() == b""
    data = pieces(2 * most, piece)
    for start in range(0, len(data), read):
        peer.protocol.dataReceived(data[start : start + read])
    assert close_code(peer.take()) == 1009


def test_a_message_of_all_the_bytes_that_are_handled_may_come_in_frames_of_32(peer: Peer) -> None:
    message = HEAD.ljust(4_096, "y")
    first, *others, last = (message[start : start + 32] for start in range(0, 4_096, 32))
    peer.send(first, fin=False)
    for other in others:
        peer.send(other, 0, fin=False)
    peer.send(last, 0)
    assert [len(message) for message in messages(peer.take())] == [4_096]


def test_fragments_take_the_memory_of_their_bytes(peer: Peer) -> None:
    peer.send(HEAD, fin=False)
    for _ in range(100):
        peer.protocol.dataReceived(pieces(1))
    held = peer.protocol.message_data
    assert len(held) == len(HEAD) + 100
    assert sys.getsizeof(held._data) < 300


def test_a_frame_that_drips_in_takes_the_memory_of_its_bytes(peer: Peer) -> None:
    for byte in frame(HEAD + "x" * 2_000)[:-1]:
        peer.protocol.dataReceived(bytes((byte,)))
    assert sys.getsizeof(peer.protocol.message_data._data) < 3_000


def test_pings_between_fragments_do_not_keep_them_apart(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[object] = []
    original: Any = WebSocketProtocol.processData
    monkeypatch.setattr(WebSocketProtocol, "processData", lambda self: looks.append(0) or original(self))
    turns = (pieces(1, b"ab") + frame("p", 9) + frame("", 10)) * 100
    peer.protocol.dataReceived(frame(HEAD, 1, fin=False) + turns + frame("", 0))
    taken = peer.take()
    assert taken.startswith(b"\x8a\x01p" * 100)
    assert messages(taken[300:]) == [HEAD.encode() + b"ab" * 100]
    assert len(looks) < 10


def test_fragments_that_come_together_are_looked_at_together(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[object] = []
    original: Any = WebSocketProtocol.processData
    monkeypatch.setattr(WebSocketProtocol, "processData", lambda self: looks.append(0) or original(self))
    peer.protocol.dataReceived(frame(HEAD, 1, fin=False) + pieces(100) + frame("", 0))
    assert messages(peer.take()) == [HEAD.encode() + b"x" * 100]
    assert len(looks) < 10


# Messages that come in fragments, all of them at once


def fragmented(parts: list[bytes], opcode: int) -> bytes:
    first, *rest = parts
    last = rest.pop() if rest else None
    return (
        frame(first, opcode, fin=last is None)
        + b"".join(frame(part, 0, fin=False) for part in rest)
        + (b"" if last is None else frame(last, 0))
    )


PARTS = st.lists(st.binary(max_size=130) | st.text(max_size=20).map(str.encode), min_size=2, max_size=5)


@given(st.lists(PARTS, min_size=1, max_size=5), st.sampled_from([1, 2]), st.integers(0, 4), st.binary(max_size=10))
def test_fragmented_messages_are_those_up_to_the_first_that_is_in_doubt(
    found: list[list[bytes]], opcode: int, missing: int, before: bytes
) -> None:
    wire = [fragmented(parts, opcode) for parts in found]
    data = before + b"".join(wire)
    taken, position = [], len(before)
    for parts, raw in zip(found, wire, strict=True):
        is_whole = position + len(raw) <= len(data) - missing
        is_text = opcode == 2 or b"".join(parts).decode("utf-8", "replace").encode() == b"".join(parts)
        if not is_whole or not is_text or max(map(len, parts)) > 125:
            break
        taken.append(b"".join(parts))
        position += len(raw)
    payloads, binary, stop = take_fragmented(data[: len(data) - missing], len(before), 1_000_000)
    assert (payloads, stop) == (taken, position)
    assert not payloads or binary is (opcode == 2)


@pytest.mark.parametrize(
    "inside",
    [frame("p", 9), frame("x", 1), frame("x", 1, fin=False), b"\0\1x" + bytes(9), b"\x40" + bytes(9), pieces(40)],
    ids=["ping", "message", "another", "not masked", "extension", "too many"],
)
def test_a_message_with_something_else_inside_is_left(inside: bytes) -> None:
    data = fragmented([b"a", b"b"], 1)
    assert take_fragmented(data + frame("a", 1, fin=False) + inside + frame("b", 0), 0, 2_048) == (
        [b"ab"],
        False,
        len(data),
    )


def test_a_message_of_too_many_bytes_is_left() -> None:
    data = fragmented([b"x" * 100, b"y" * 100], 2)
    assert take_fragmented(data, 0, 200) == ([b"x" * 100 + b"y" * 100], True, len(data))
    assert take_fragmented(data, 0, 199) == ([], False, 0)


def test_short_messages_in_fragments_are_looked_at_together(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[object] = []
    original: Any = WebSocketProtocol.processData
    monkeypatch.setattr(WebSocketProtocol, "processData", lambda self: looks.append(0) or original(self))
    message = HEAD.encode()
    turns = fragmented([message, b"x"], 1) + frame(HEAD) + fragmented([message[:3], b"", message[3:]], 2) * 2
    peer.protocol.dataReceived(turns * 30 + fragmented([message, b"z"], 1)[:-1])
    assert messages(peer.take()) == [message + b"x", message, message, message] * 30
    assert len(looks) < 5


# While the connection closes


def test_frames_that_nobody_wants_are_passed_over_up_to_a_close_frame() -> None:
    data = frame("x") + frame("p", 9) + pieces(3) + frame("y" * 300, 2) + frame("z" * 70_000, 0) + frame("", 0xB)
    assert skip_frames(data + frame("", 8), 0) == len(data)
    assert skip_frames(b"x" + data + b"\x81\1x", 1) == len(data) + 1
    assert skip_frames(data + b"\x81\xfe\1", 0) == len(data)
    assert skip_frames(data + b"\x81\xff" + (2**62).to_bytes(8, "big"), 0) == len(data) + 14 + 2**62


@pytest.mark.parametrize("read", [1, 7, 1_000, 100_000])
def test_what_comes_behind_a_failure_is_passed_over(peer: Peer, read: int, monkeypatch: pytest.MonkeyPatch) -> None:
    peer.protocol.dataReceived(frame(HEAD, 1, fin=False) + frame(HEAD))  # which may not begin inside the other
    assert close_code(peer.take()) == 1002
    looks: list[object] = []
    original: Any = WebSocketProtocol.processData
    monkeypatch.setattr(WebSocketProtocol, "processData", lambda self: looks.append(0) or original(self))
    data = (pieces(50) + frame(HEAD) + frame("p", 9) + frame("y" * 300) + frame("z" * 66_000)) * 3
    for start in range(0, len(data), read):
        peer.protocol.dataReceived(data[start : start + read])
    assert peer.take() == b""
    assert len(looks) <= len(data) // read + 1
    assert not peer.protocol.data
    peer.protocol.dataReceived(frame((1002).to_bytes(2, "big"), 8))
    assert peer.transport.disconnecting
