"""lhttp_tx.transports.tcp.owner: who answers heartbeats stays, and who does not is closed."""

from __future__ import annotations

import pytest

from lhttp_tx.transports.tcp.protocol import TCPProtocol
from unit.transports.tcp._stack import Peer, Stack

pytestmark = pytest.mark.usefixtures("clock")

HEARTBEAT: tuple[str, dict[str, str]] = ("", {})


def opened(stack: Stack) -> Peer:
    peer = stack.connect()
    peer.protocol.dataReceived(b"0\n")
    return peer


def test_an_idle_client_gets_heartbeats_and_answers_them() -> None:
    stack = Stack()
    peer = opened(stack)
    for _ in range(10):
        for _ in range(31):
            stack.clock.advance(1)
            beats = peer.told()
            assert beats in ([], [HEARTBEAT])
            if beats:
                peer.protocol.dataReceived(b"0\n")
    assert not peer.closed
    assert peer.take() == [], "a heartbeat is not answered with another one"


def test_a_client_that_does_not_answer_is_told_why_it_is_closed() -> None:
    stack = Stack()
    silent, other = opened(stack), opened(stack)
    for _ in range(45):
        stack.clock.advance(1)
        if other.told():
            other.protocol.dataReceived(b"0\n")
    first, (command, told) = silent.told()
    assert (first, command, told["code"]) == (HEARTBEAT, "close", "1008")
    assert "heartbeat" in told["reason"]
    assert silent.closed
    assert not other.closed


def test_any_bytes_are_an_answer() -> None:
    stack = Stack()
    peer = opened(stack)
    peer.protocol.dataReceived(b"100\n")
    for _ in range(60):
        stack.clock.advance(2)
        peer.protocol.dataReceived(b"x" if len(peer.protocol._kept or b"") < 90 else b"")
    assert not peer.closed


def test_one_whose_messages_wait_need_not_answer() -> None:
    stack = Stack()
    peer = opened(stack)
    peer.protocol.pause_reading()
    stack.clock.pump([1.0] * 100)
    assert not peer.closed
    peer.protocol.resume_reading()
    stack.clock.pump([1.0] * 45)
    assert peer.closed


@pytest.mark.parametrize("moves", [True, False])
def test_one_that_reads_slowly_stays_while_anything_leaves(moves: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = Stack()
    peer = opened(stack)
    held = 50_000
    monkeypatch.setattr(TCPProtocol, "held", lambda self: held)
    for _ in range(60):
        stack.clock.advance(1)
        peer.protocol.write_frames(b"x" * 100)
        held += 100 - (150 if moves else 0)
    assert peer.closed is not moves


def test_without_an_interval_there_are_no_heartbeats() -> None:
    stack = Stack(ping_interval=0.0)
    peer = opened(stack)
    stack.clock.pump([10.0] * 20)
    assert peer.take() == []
    assert not peer.closed


def test_nothing_waits_once_all_have_left() -> None:
    stack = Stack()
    peers = [opened(stack) for _ in range(3)]
    stack.clock.advance(31)
    for peer in peers:
        peer.end()
    assert stack.clock.getDelayedCalls() == []
    assert stack.factory.countConnections == 0
