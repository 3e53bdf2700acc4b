"""What the link to NATS makes of what it reads, seen from a server that a test speaks for."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_twisted

from cluster._cluster import pause, until
from cluster._link import Server, linked
from lhttp_tx.bus.nats.origins import Origins

pytestmark = pytest.mark.asyncio_reactor


class Owner:
    """
    A LinkOwner that writes down what it is told.

    :ivar runs: subject, payloads, whether they are binary, and the wildcard, of each run.
    :ivar batches: for each batch, how many runs were there when it ended.
    :ivar loses: the subject whose run makes it lose the link.
    """

    def __init__(self) -> None:
        self.origins = Origins()
        self.runs: list[tuple[str, list[bytes], bool, str | None]] = []
        self.stored: list[tuple[str, list[bytes], list[bytes], str | None]] = []
        self.batches: list[int] = []
        self.lost: list[str] = []
        self.loses = ""

    def begin_batch(self) -> None:
        """Not looked at."""

    def receive(
        self, link: Any, subject: str, payloads: list[bytes], binary: bool, wildcard: str | None = None
    ) -> None:
        self.runs.append((subject, payloads, binary, wildcard))
        if subject == self.loses:
            link.lose("by the test")

    def receive_stored(
        self, link: Any, subject: str, heads: list[bytes], payloads: list[bytes], wildcard: str | None
    ) -> None:
        self.stored.append((subject, heads, payloads, wildcard))

    def end_batch(self) -> None:
        self.batches.append(len(self.runs))

    def link_lost(self, link: Any, reason: str) -> None:
        self.lost.append(reason)


@pytest_twisted.async_yield_fixture
async def ends() -> AsyncIterator[tuple[Any, Server, Owner]]:
    """A link that is subscribed to a, b and c.*, the server at its other end, and its owner."""
    owner = Owner()
    async with linked(owner) as (link, server):
        for subject in ("a", "b", "c.*"):
            await link.subscribe(subject)
        yield link, server, owner


def number_of(server: Server, subject: str) -> int:
    """Return the number under which the link has subscribed to *subject*."""
    (line,) = (line for line in server.heard if line.startswith(f"SUB {subject} ".encode()))
    return int(line.split()[-1])


def message(server: Server, subscription: str, payload: bytes, *, subject: str = "", head: bytes = b"") -> bytes:
    """Return what brings *payload* to the link."""
    words = f"{subject or subscription} {number_of(server, subscription)}".encode()
    if not head:
        return b"MSG %b %d\r\n%b\r\n" % (words, len(payload), payload)
    return b"HMSG %b %d %d\r\n%b%b\r\n" % (words, len(head), len(head) + len(payload), head, payload)


BINARY = b"NATS/1.0\r\nLhttp-Frame: binary\r\n\r\n"
OTHER = b"NATS/1.0\r\nother: 1\r\n\r\n"
STORED = b"NATS/1.0\r\nNats-Stream: S\r\nNats-Sequence: 7\r\n\r\n"


@pytest_twisted.ensureDeferred
async def test_what_one_read_brings_is_one_batch_of_runs_in_its_order(ends: tuple[Any, Server, Owner]) -> None:
    _, server, owner = ends
    server._write(
        message(server, "a", b"1")
        + message(server, "a", b"2")
        + b"PING\r\n"
        + message(server, "b", b"3")
        + message(server, "c.*", b"4", subject="c.x")
        + message(server, "a", b"5")
    )
    await until(lambda: b"PONG" in server.heard and owner.batches)
    assert owner.runs == [
        ("a", [b"1", b"2"], False, None),
        ("b", [b"3"], False, None),
        ("c.x", [b"4"], False, "c.*"),
        ("a", [b"5"], False, None),
    ]
    assert owner.batches == [4]


@pytest_twisted.ensureDeferred
async def test_headers_and_bytes_say_whether_publications_are_binary(ends: tuple[Any, Server, Owner]) -> None:
    _, server, owner = ends
    server._write(
        message(server, "a", b"1", head=BINARY)
        + message(server, "a", b"2", head=BINARY)
        + message(server, "a", b"3", head=OTHER)
        + message(server, "a", "\u00e9".encode())
        + message(server, "a", b"\xff")
        + message(server, "a", b"\xfe", head=OTHER)
        + message(server, "a", b"4", head=STORED)
        + message(server, "a", b"5", head=STORED)
        + message(server, "a", b"6", head=BINARY)
    )
    await until(lambda: owner.batches)
    assert owner.runs == [
        ("a", [b"1", b"2"], True, None),
        ("a", [b"3"], False, None),
        ("a", ["\u00e9".encode()], False, None),
        ("a", [b"\xff"], True, None),
        ("a", [b"\xfe"], True, None),
        ("a", [b"6"], True, None),
    ]
    assert owner.stored == [("a", [STORED, STORED], [b"4", b"5"], None)]


@pytest_twisted.ensureDeferred
async def test_a_message_that_reads_cut_anywhere_arrives_once(ends: tuple[Any, Server, Owner]) -> None:
    link, server, owner = ends
    stream = message(server, "a", b"PONG\r\nMSG b 1 1\r\n", head=BINARY) + b"PING\r\n" + message(server, "b", b"x")
    tap = link._client._transport._io_writer.transport.get_protocol()
    for cut in range(1, len(stream)):
        owner.runs.clear()
        tap.data_received(stream[:cut])
        tap.data_received(stream[cut:])
        assert owner.runs == [("a", [b"PONG\r\nMSG b 1 1\r\n"], True, None), ("b", [b"x"], False, None)]
    await until(lambda: server.heard.count(b"PONG") == len(stream) - 1)
    assert link.usable


@pytest_twisted.ensureDeferred
async def test_nothing_more_of_a_read_is_passed_on_once_the_link_is_lost(ends: tuple[Any, Server, Owner]) -> None:
    _, server, owner = ends
    owner.loses = "a"
    server._write(message(server, "a", b"1") + message(server, "b", b"2"))
    await until(lambda: owner.lost)
    await pause(0.01)
    assert owner.runs == [("a", [b"1"], False, None)] and owner.batches == [1]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"MSG x 1 99999999999\r\n", "a message of 99999999999 bytes"),
        (b"HMSG a 1 12 67174401\r\n", "a message of 67174401 bytes"),
        (b"INFO " + b"x" * 1_100_000, "a line of more than 1048576 bytes"),
        (b"NONSENSE\r\n", "protocol error"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_link_is_lost_whose_server_sends_what_cannot_be_read(
    ends: tuple[Any, Server, Owner], line: bytes, reason: str
) -> None:
    link, server, owner = ends
    server._write(line)
    await until(lambda: owner.lost)
    assert re.search(reason, owner.lost[0]) and not link.usable


@pytest_twisted.ensureDeferred
async def test_what_arrives_for_a_channel_that_was_left_is_dropped(ends: tuple[Any, Server, Owner]) -> None:
    link, server, owner = ends
    late = message(server, "a", b"late")
    link.unsubscribe("a")
    await link.subscribe("d")
    assert any(line.startswith(b"UNSUB ") for line in server.heard)
    server._write(late + message(server, "b", b"x"))
    await until(lambda: owner.runs)
    await pause(0.01)
    assert owner.runs == [("b", [b"x"], False, None)] and link.usable
