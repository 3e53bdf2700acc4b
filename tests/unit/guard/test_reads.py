"""lhttp_tx.guard.reads: who is dear is read in small bites."""

from __future__ import annotations

from twisted.internet.abstract import FileDescriptor
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory

from lhttp_tx.guard.reads import LEAST_READ, begin_reading, pace

LARGEST = 65_536


def bottom() -> FileDescriptor:
    found = begin_reading(FileDescriptor(reactor=MemoryReactorClock()))
    assert found is not None
    return found


def test_little_is_taken_at_first() -> None:
    assert bottom().bufferSize == 8_192


def test_what_is_below_wrappers_is_found() -> None:
    inner = FileDescriptor(reactor=MemoryReactorClock())
    wrapper = ProtocolWrapper(WrappingFactory(Factory()), None)
    wrapper.transport = inner
    outer = ProtocolWrapper(WrappingFactory(Factory()), None)
    outer.transport = wrapper
    assert begin_reading(outer) is inner


def test_a_transport_that_is_unknown_is_left_alone() -> None:
    assert begin_reading(StringTransport()) is None
    pace(None, 8_192, 1.0)


def test_who_is_cheap_is_soon_read_in_large_pieces() -> None:
    found = bottom()
    sizes = []
    for _ in range(3):
        pace(found, found.bufferSize, 0.0001)
        sizes.append(found.bufferSize)
    assert sizes == [32_768, LARGEST, LARGEST]


def test_who_sends_little_is_not_read_in_larger_pieces() -> None:
    found = bottom()
    pace(found, 8_191, 0.0001)
    assert found.bufferSize == 8_192


def test_who_is_dear_is_read_in_pieces_as_dear_as_may_be_and_no_smaller_than_the_least() -> None:
    found = bottom()
    pace(found, 8_192, 0.04)
    assert found.bufferSize == 1_024
    pace(found, 1_024, 1.0)
    assert found.bufferSize == LEAST_READ
