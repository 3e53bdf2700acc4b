"""What one client has sent does not keep the server from all others: it is handled in several turns of the reactor."""

from __future__ import annotations

import gzip
from typing import Any

import pytest
from turns import is_due, spend, turn
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock

from lhttp_tx import Request, processor
from lhttp_tx.codec.limits import Limits
from lhttp_tx.guard.reads import LEAST_READ, TURN
from lhttp_tx.testing import Server
from lhttp_tx.transports.websocket.factory import LHTTPServerFactory
from lhttp_tx.transports.websocket.flow import Flow
from unit.transports.websocket.test_protocol import HANDSHAKE, Peer, Pending, frame, messages

COUNT = 60
"""Messages of one read; each takes a third of a turn."""


NUMBERS = [b"%d" % number for number in range(COUNT)]


class Turns:
    """A client whose messages take their time, and how many of them were handled when each turn was over."""

    def __init__(self, clock: Clock, target: bytes = b"/", headers: bytes = b"") -> None:
        self.clock = clock
        self.pending = Pending()
        self.handled: list[bytes] = []

        @processor("dear")
        def dear(request: Request) -> None:
            spend(clock, TURN / 3 + 1e-6)
            self.handled.append(request.message.body)
            request.reply()

        server = Server(processors=[dear, self.pending], limits=Limits(queue_length=2, error_count=0), metrics=True)
        self.counters: Any = server.engine.counters
        self.factory = LHTTPServerFactory(engine=server.engine, reactor=clock, ping_interval=0)
        self.peer = Peer(self.factory)
        self.peer.protocol.dataReceived((HANDSHAKE % headers).replace(b"/echo", target))
        assert self.peer.take().startswith(b"HTTP/1.1 101 ")

    def read(self, data: bytes) -> None:
        assert len(data) >= LEAST_READ
        self.peer.protocol.dataReceived(data)

    def play(self) -> list[int]:
        """Let turns pass while there is something to do. Return how many messages each turn has handled."""
        turns = [len(self.handled)]
        while is_due(self.clock):
            assert self.peer.transport.producerState == "paused"
            before = len(self.handled)
            turn(self.clock)
            turns.append(len(self.handled) - before)
        assert self.peer.transport.producerState == "producing"
        assert self.peer.protocol.flow & ~Flow.INFLATED == Flow(0)
        return turns

    def check(self) -> None:
        """Play, and check that no turn was too long. The last bytes are too few to look at the clock."""
        played = self.play()
        assert played[:-1] == [3] * (len(played) - 1)
        assert len(played) > 10
        assert self.handled == NUMBERS


def dear(number: int, opcode: int = 1) -> bytes:
    """Return a frame; each message has a head of its own, so that no two are handled together."""
    return frame(f"LHTTP/1.0 dear\r\nnumber:{number}\r\n\r\n{number}", opcode)


@pytest.mark.parametrize(
    "data",
    [
        b"".join(dear(number) for number in range(COUNT)),
        b"".join(dear(number, 1 + number % 2) for number in range(COUNT)),
    ],
    ids=["of one kind", "of two kinds in turn"],
)
def test_many_small_messages_are_handled_in_several_turns(data: bytes, clock: Clock) -> None:
    turns = Turns(clock)
    turns.read(data)
    turns.check()
    assert len(messages(turns.peer.take())) == COUNT
    assert turns.counters.pauses == {}  # nobody has to look after this client


def by_autobahn(turns: Turns, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return a list that grows by each message that Autobahn hands over, one at a time."""
    slow: list[bytes] = []
    kind = type(turns.peer.protocol)
    on_message = kind.onMessage
    monkeypatch.setattr(kind, "onMessage", lambda self, *message: (slow.append(message[0]), on_message(self, *message)))
    return slow


def test_a_pause_before_half_a_message_leaves_it_in_the_fast_lane(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = Turns(clock)
    slow = by_autobahn(turns, monkeypatch)
    data = b"".join(dear(number) for number in range(COUNT))
    cut = len(data) - len(dear(COUNT - 1)) // 2
    turns.read(data[:cut])  # it ends with half a message, and the last turn has nothing else
    while is_due(clock):
        turn(clock)
    assert turns.handled == NUMBERS[:-1]
    turns.peer.protocol.dataReceived(data[cut:])
    turns.play()
    assert (turns.handled, slow) == (NUMBERS, [])


def test_what_follows_a_message_in_three_reads_comes_back_to_the_fast_lane(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = Turns(clock)
    slow = by_autobahn(turns, monkeypatch)
    data = b"".join(dear(number) for number in range(COUNT))
    for piece in (data[:5], data[5:9], data[9:]):
        turns.peer.protocol.dataReceived(piece)
    assert turns.play()[0] == 3
    assert turns.handled == NUMBERS
    assert len(slow) == 3, "as many as one turn handles"


def test_messages_in_fragments_too(clock: Clock) -> None:
    turns = Turns(clock)
    pieces = (b"LHTTP/1.0 dear\r\nnumber:%d\r\n\r\n%d" % (number, number) for number in range(COUNT))
    turns.read(b"".join(frame(piece[:9], fin=False) + frame(piece[9:], 0) for piece in pieces))
    turns.check()


def test_messages_that_autobahn_reads_one_by_one_too(clock: Clock) -> None:
    turns = Turns(clock, b"/?support_gzip=1")
    pieces = (b"LHTTP/1.0 dear\r\nnumber:%d\r\n\r\n%d" % (number, number) for number in range(COUNT))
    turns.read(b"".join(frame(gzip.compress(piece), 2) for piece in pieces))
    turns.check()


def test_views_are_handled_in_several_turns_too(clock: Clock) -> None:
    turns = Turns(clock, headers=b"Sec-WebSocket-Protocol: lhttp.json\r\n")
    turns.read(b"".join(frame(f'{{"command":"dear","body":"{number}"}}') for number in range(300)))
    played = turns.play()
    assert sum(played) == 300
    assert max(played) <= 64  # as many views are read at once
    assert turns.handled == [b"%d" % number for number in range(300)]


def test_what_comes_meanwhile_waits_behind(clock: Clock) -> None:
    turns = Turns(clock)
    turns.read(b"".join(dear(number) for number in range(COUNT - 1)))
    turns.peer.protocol.dataReceived(dear(COUNT - 1))  # TLS may still hand out what it has read
    assert sum(turns.play()) == COUNT
    assert turns.handled == NUMBERS


def test_a_small_read_is_handled_at_once(clock: Clock) -> None:
    turns = Turns(clock)
    data = b"".join(dear(number) for number in range(9))
    assert len(data) < LEAST_READ
    turns.peer.protocol.dataReceived(data)
    assert len(turns.handled) == 9
    assert turns.play() == [9]


def test_a_full_queue_holds_back_beyond_the_turn(clock: Clock) -> None:
    turns = Turns(clock)
    holds = b"".join(frame("LHTTP/1.0 pending\r\n\r\n") for _ in range(3))
    turns.read(b"".join(dear(number) for number in range(3)) + holds + b"".join(dear(n) for n in range(3, COUNT)))
    turn(clock)
    assert turns.peer.protocol.flow == Flow.FULL | Flow.UNTAKEN
    turn(clock)
    assert turns.handled == NUMBERS[:3]
    for _ in range(3):
        turns.pending.waiting.pop(0).callback(None)
    turns.play()
    assert turns.handled == NUMBERS


def test_the_server_closes_a_connection_between_its_turns(clock: Clock) -> None:
    turns = Turns(clock)
    turns.read(b"".join(dear(number) for number in range(COUNT)))
    turns.peer.protocol.close(4000, "enough")
    turn(clock)
    assert turns.handled == NUMBERS[:3]
    assert turns.peer.take().endswith(b"enough")
    turns.peer.send(b"\x0f\xa0enough", opcode=8)
    assert turns.peer.transport.disconnecting


def test_a_client_that_is_gone_has_no_more_turns(clock: Clock) -> None:
    for turns in (Turns(clock), Turns(clock, b"/?support_gzip=1")):
        turns.read(b"".join(dear(number) for number in range(COUNT)))
        turns.peer.lose(ConnectionDone)
        turns.peer.protocol.dataReceived = lambda data: pytest.fail("it is gone")
        turn(clock)
        assert turns.handled == NUMBERS[:3]
