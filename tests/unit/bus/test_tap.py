"""What stands between a connection to NATS and nats-py: answers to pings, and a transport that is full."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from lhttp_tx.bus.nats.incoming import Incoming
from lhttp_tx.bus.nats.tap import Tap


class Transport:
    """A transport whose protocol reads as that of nats-py does."""

    def __init__(self, protocol: asyncio.StreamReaderProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.StreamReaderProtocol:
        return self._protocol


class Owner:
    """Writes down what a tap tells."""

    def __init__(self, outstanding: int) -> None:
        self.outstanding = outstanding
        self.told: list[str] = []

    def tap_took(self, runs: list[Any]) -> None:
        self.told.append("took")

    def tap_answered(self) -> bool:
        self.told.append("answered")
        self.outstanding -= 1
        return self.outstanding >= 0

    def tap_refused(self, lines: bytes) -> None:
        self.told.append("refused")

    def tap_broke(self, reason: str) -> None:
        self.told.append(reason)

    def tap_writable(self) -> None:
        self.told.append("writable")


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


def make(loop: asyncio.AbstractEventLoop, outstanding: int = 1) -> tuple[Tap, Owner, asyncio.StreamReader]:
    reader = asyncio.StreamReader(loop=loop)
    owner = Owner(outstanding)
    return Tap(Transport(asyncio.StreamReaderProtocol(reader, loop=loop)), Incoming({}), owner), owner, reader


async def turn() -> None:
    await asyncio.sleep(0)


def test_an_answer_is_taken_at_once_while_nats_py_waits(loop: asyncio.AbstractEventLoop) -> None:
    tap, owner, reader = make(loop)
    reading = loop.create_task(reader.read(100))
    loop.run_until_complete(turn())
    tap.data_received(b"PONG\r\n")
    assert owner.told == ["answered"]
    loop.run_until_complete(turn())
    assert not reading.done()
    tap.data_received(b"PING\r\n")
    assert loop.run_until_complete(reading) == b"PING\r\n"


def test_an_answer_waits_for_a_refusal_that_nats_py_has_not_handled(loop: asyncio.AbstractEventLoop) -> None:
    tap, owner, reader = make(loop)
    reading = loop.create_task(reader.read(100))
    loop.run_until_complete(turn())
    tap.data_received(b"-ERR 'no'\r\n")
    tap.data_received(b"PONG\r\n")
    assert owner.told == ["refused"]
    assert loop.run_until_complete(reading) == b"-ERR 'no'\r\nPONG\r\n"


def test_an_answer_that_comes_with_something_else_goes_to_nats_py(loop: asyncio.AbstractEventLoop) -> None:
    tap, owner, reader = make(loop)
    reading = loop.create_task(reader.read(100))
    loop.run_until_complete(turn())
    tap.data_received(b"PING\r\nPONG\r\n")
    assert loop.run_until_complete(reading) == b"PING\r\nPONG\r\n"
    assert owner.told == []


def test_an_answer_to_nobody_goes_to_nats_py(loop: asyncio.AbstractEventLoop) -> None:
    """So it is while nats-py connects: it reads this answer by itself."""
    tap, _, reader = make(loop, outstanding=0)
    reading = loop.create_task(reader.read(100))
    loop.run_until_complete(turn())
    tap.data_received(b"PONG\r\n")
    assert loop.run_until_complete(reading) == b"PONG\r\n"


def test_a_transport_that_is_full_is_told_and_comes_back(loop: asyncio.AbstractEventLoop) -> None:
    tap, owner, _ = make(loop)
    tap.pause_writing()
    assert tap.full
    tap.resume_writing()
    assert (tap.full, owner.told) == (False, ["writable"])
