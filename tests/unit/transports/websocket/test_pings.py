"""Pings and pongs in numbers: they are answered as one by one, and cost little."""

from __future__ import annotations

from typing import Any

import pytest
from autobahn.websocket.protocol import WebSocketProtocol
from hypothesis import given, strategies as st
from twisted.internet.task import Clock

from lhttp_tx import Request, processor
from lhttp_tx.testing import Server
from lhttp_tx.transports.websocket.factory import LHTTPServerFactory
from lhttp_tx.transports.websocket.pings import take_pings
from lhttp_tx.transports.websocket.protocol import LHTTPServerProtocol
from unit.transports.websocket.test_protocol import Peer, close_code, frame, messages


@processor("echo")
def echo(request: Request) -> None:
    request.reply()


ECHO = b"LHTTP/1.0 echo\r\n\r\n"


@pytest.fixture
def factory(clock: Clock) -> LHTTPServerFactory:
    return LHTTPServerFactory(engine=Server(processors=[echo]).engine, reactor=clock, ping_interval=30)


@pytest.fixture
def peer(factory: LHTTPServerFactory) -> Peer:
    made = Peer(factory)
    made.open()
    return made


def pong(payload: bytes) -> bytes:
    return bytes((0x8A, len(payload))) + payload


@given(st.lists(st.tuples(st.sampled_from([9, 10]), st.binary(max_size=125)), max_size=20), st.binary(max_size=20))
def test_pings_are_answered_and_pongs_passed_over(controls: list[tuple[int, bytes]], rest: bytes) -> None:
    data = b"".join(frame(payload, opcode) for opcode, payload in controls)
    answers = b"".join(pong(payload) for opcode, payload in controls if opcode == 9)
    assert take_pings(b"before" + data + b"\x81" + rest, 6, None) == (answers, 6 + len(data))


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"\x89", frame("x", 1), frame("x", 9, fin=False), frame("x", 9)[:-1], b"\x89\x01x" + bytes(9)),
        *(frame("", 8), frame(b"x" * 126, 9), b"\xc9" + bytes(9)),
    ],
)
def test_what_is_no_whole_ping_is_left(data: bytes) -> None:
    assert take_pings(data, 0, None) == (b"", 0)


def test_the_pong_that_is_waited_for_is_left() -> None:
    data = frame("a", 10) + frame("b", 9)
    assert take_pings(data + frame("awaited", 10) + data, 0, b"awaited") == (pong(b"b"), len(data))


def test_many_pings_are_looked_at_together_and_answered_in_one_write(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[object] = []
    original: Any = WebSocketProtocol.processData
    monkeypatch.setattr(WebSocketProtocol, "processData", lambda self: looks.append(0) or original(self))
    peer.protocol.dataReceived(frame("", 9) * 1_000 + frame("x", 10) * 1_000 + frame(ECHO))
    assert len(peer.transport.writes) == 2
    assert peer.take() == pong(b"") * 1_000 + bytes((0x81, len(ECHO))) + ECHO
    assert len(looks) < 10


@pytest.mark.parametrize("size", [1, 3, 50])
def test_pings_in_any_pieces_are_answered(peer: Peer, size: int) -> None:
    data = b"".join(frame(f"{number}", 9) for number in range(30)) + frame(ECHO)
    for start in range(0, len(data), size):
        peer.protocol.dataReceived(data[start : start + size])
    taken = peer.take()
    assert taken.startswith(b"".join(pong(str(number).encode()) for number in range(30)))
    assert messages(taken[-len(ECHO) - 2 :]) == [ECHO]


def test_what_is_illegal_behind_pings_closes_the_connection(peer: Peer) -> None:
    peer.protocol.dataReceived(frame("", 9) * 10 + frame(b"x" * 126, 9))
    taken = peer.take()
    assert taken.startswith(pong(b"") * 10)
    assert close_code(taken) == 1002


def test_the_answer_to_the_servers_own_ping_is_found_among_others(peer: Peer, clock: Clock) -> None:
    clock.advance(31)
    ping = peer.take()
    assert ping[0] == 0x89
    peer.protocol.dataReceived(frame("x", 10) * 10 + frame(ping[2:], 10) + frame("y", 10) * 10)
    clock.advance(20)
    assert not peer.transport.disconnecting
    assert peer.protocol.autoPingPending is None


def test_a_protocol_that_looks_at_pings_itself_gets_each(factory: LHTTPServerFactory) -> None:
    seen: list[bytes] = []

    class Looking(LHTTPServerProtocol):
        def onPing(self, payload: bytes) -> None:
            seen.append(payload)

    factory.protocol = Looking
    peer = Peer(factory)
    peer.open()
    peer.protocol.dataReceived(frame("a", 9) + frame("b", 9))
    assert seen == [b"a", b"b"]
